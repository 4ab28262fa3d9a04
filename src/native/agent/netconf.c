/*
 * The tap device, and the network configuration of a namespace, in the namespace that the process is in.
 *
 * Items, in the order in which they are done:
 *
 *     address=ADDRESS/LENGTH        of either family; the first IPv4 address is the device's, others get names DEVICE:1 and so on
 *     route=ADDRESS/LENGTH,GATEWAY,METRIC    GATEWAY - means on link
 *     may-route=…                   as route, for what may not be possible here
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../netif-calls.h"
#include "agent.h"

/* virtio_net_hdr with num_buffers. */
enum { VNET_BYTES = 12 };

static int set_interface(int tun, const char *name, short flags) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, strnlen(name, sizeof request.ifr_name - 1));
  request.ifr_flags = flags;
  return ioctl(tun, TUNSETIFF, &request);
}

int32_t make_tap(int tun, const struct settings *settings) {
  const short plain = IFF_TAP | IFF_NO_PI;
  if (settings->vnet && set_interface(tun, settings->tap, (short)(plain | IFF_VNET_HDR)) == 0) {
    int size = VNET_BYTES;
    if (ioctl(tun, TUNSETVNETHDRSZ, &size) < 0) fail_step(STEP_MAKE_TAP, settings->tap);
    return READY_TAP | READY_VNET;
  }
  if (set_interface(tun, settings->tap, plain) < 0) fail_step(STEP_MAKE_TAP, settings->tap);
  return READY_TAP;
}

static void check(int status, const char *item) {
  if (status < 0) fail_step_with(STEP_CONFIGURE, -status, item);
}

struct prefix {
  int family;
  uint8_t address[16];
  uint32_t length;
};

static uint32_t to_number(const uint8_t *address) {
  return (uint32_t)address[0] << 24 | (uint32_t)address[1] << 16 | (uint32_t)address[2] << 8 | address[3];
}

static int parse_address(const char *text, uint8_t *address) {
  if (inet_pton(AF_INET, text, address) == 1) return AF_INET;
  return inet_pton(AF_INET6, text, address) == 1 ? AF_INET6 : 0;
}

static struct prefix parse_prefix(char *text, const char *item) {
  struct prefix prefix = {.family = 0};
  char *slash = strchr(text, '/');
  if (slash != NULL) {
    *slash = '\0';
    prefix.family = parse_address(text, prefix.address);
    prefix.length = (uint32_t)strtoul(slash + 1, NULL, 10);
  }
  if (prefix.family == 0 || prefix.length > (prefix.family == AF_INET ? 32U : 128U)) check(-EINVAL, item);
  return prefix;
}

static void add_address(const char *device, char *text, const char *item, unsigned *count) {
  struct prefix prefix = parse_prefix(text, item);
  if (prefix.family == AF_INET6) {
    int status = netif_add_address_v6(device, prefix.address, prefix.length);
    check(status == -EEXIST ? 0 : status, item);
    return;
  }
  char name[IFNAMSIZ];
  int length = *count == 0 ? snprintf(name, sizeof name, "%s", device) : snprintf(name, sizeof name, "%s:%u", device, *count);
  /* A name with no room for a number: the address is left out, the first one is there. */
  if (length >= (int)sizeof name) return;
  check(netif_set_address(name, to_number(prefix.address), prefix.length), item);
  (*count)++;
}

static int add_route(const char *device, char *text, const char *item) {
  char *gateway_text = strchr(text, ',');
  char *metric_text = gateway_text == NULL ? NULL : strchr(gateway_text + 1, ',');
  if (metric_text == NULL) return -EINVAL;
  *gateway_text++ = '\0';
  *metric_text++ = '\0';
  struct prefix prefix = parse_prefix(text, item);
  uint32_t metric = (uint32_t)strtoul(metric_text, NULL, 10);
  uint8_t gateway[16] = {0};
  if (strcmp(gateway_text, "-") != 0 && parse_address(gateway_text, gateway) != prefix.family) return -EINVAL;
  int status = prefix.family == AF_INET
                   ? netif_add_route(device, to_number(prefix.address), prefix.length, to_number(gateway), metric)
                   : netif_add_route_v6(device, prefix.address, prefix.length, gateway, metric);
  /* The kernel made it itself, for an address. */
  return status == -EEXIST ? 0 : status;
}

/* Addresses are ours alone on this link: they may be used at once. */
static void skip_duplicate_detection(const char *device) {
  char path[64 + IFNAMSIZ];
  snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_dad", device);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, "0", 1) < 0) errno = 0;
  close(fd);
}

static void set_mac(const char *device, const char *text) {
  unsigned bytes[6];
  uint8_t mac[6];
  if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x", bytes, bytes + 1, bytes + 2, bytes + 3, bytes + 4, bytes + 5) != 6) {
    check(-EINVAL, text);
  }
  for (size_t i = 0; i < 6; i++) mac[i] = (uint8_t)bytes[i];
  check(netif_set_hardware_address(device, mac), text);
}

void configure_network(const struct settings *settings) {
  check(netif_set_flags("lo", IFF_UP, 0), "lo");
  if (settings->tap == NULL) return;
  const char *device = settings->tap;
  if (settings->mac != NULL) set_mac(device, settings->mac);
  if (!settings->up) return;
  if (settings->mtu > 0) check(netif_set_mtu(device, settings->mtu), "MTU");
  skip_duplicate_detection(device);
  check(netif_set_flags(device, IFF_UP, 0), device);
  unsigned count = 0;
  for (size_t i = 0; i < settings->item_count; i++) {
    const char *item = settings->items[i];
    char text[128];
    const char *equals = strchr(item, '=');
    if (equals == NULL || strlen(equals + 1) >= sizeof text) check(-EINVAL, item);
    memcpy(text, equals + 1, strlen(equals + 1) + 1);
    if (strncmp(item, "address=", 8) == 0) add_address(device, text, item, &count);
    else if (strncmp(item, "route=", 6) == 0) check(add_route(device, text, item), item);
    else if (strncmp(item, "may-route=", 10) == 0) add_route(device, text, item);
    else check(-EINVAL, item);
  }
}
