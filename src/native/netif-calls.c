#include "netif-calls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/ipv6.h>
#include <linux/ipv6_route.h>
#include <linux/route.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int netif_request(int domain, unsigned long request, void *argument) {
  int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int status = ioctl(fd, request, argument) < 0 ? -errno : 0;
  close(fd);
  return status;
}

static struct ifreq request_for(const char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, strnlen(name, sizeof request.ifr_name - 1));
  return request;
}

static void fill_v4(struct sockaddr *out, uint32_t address) {
  struct sockaddr_in v4;
  memset(&v4, 0, sizeof v4);
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(address);
  memset(out, 0, sizeof *out);
  memcpy(out, &v4, sizeof v4);
}

static uint32_t mask_of(uint32_t prefix) { return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix); }

int netif_index(const char *name) {
  struct ifreq request = request_for(name);
  int status = netif_request(AF_INET, SIOCGIFINDEX, &request);
  return status < 0 ? status : request.ifr_ifindex;
}

int netif_set_mtu(const char *name, int bytes) {
  struct ifreq request = request_for(name);
  request.ifr_mtu = bytes;
  return netif_request(AF_INET, SIOCSIFMTU, &request);
}

int netif_set_flags(const char *name, uint32_t set, uint32_t clear) {
  struct ifreq request = request_for(name);
  int status = netif_request(AF_INET, SIOCGIFFLAGS, &request);
  if (status < 0) return status;
  request.ifr_flags = (short)(((uint32_t)(uint16_t)request.ifr_flags | set) & ~clear);
  return netif_request(AF_INET, SIOCSIFFLAGS, &request);
}

int netif_set_hardware_address(const char *name, const uint8_t address[6]) {
  struct ifreq request = request_for(name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, address, 6);
  return netif_request(AF_INET, SIOCSIFHWADDR, &request);
}

int netif_set_address(const char *name, uint32_t address, uint32_t prefix) {
  struct ifreq request = request_for(name);
  fill_v4(&request.ifr_addr, address);
  int status = netif_request(AF_INET, SIOCSIFADDR, &request);
  if (status < 0) return status;
  fill_v4(&request.ifr_netmask, mask_of(prefix));
  return netif_request(AF_INET, SIOCSIFNETMASK, &request);
}

int netif_add_address_v6(const char *name, const uint8_t address[16], uint32_t prefix) {
  int index = netif_index(name);
  if (index < 0) return index;
  struct in6_ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(&request.ifr6_addr, address, 16);
  request.ifr6_prefixlen = prefix;
  request.ifr6_ifindex = index;
  return netif_request(AF_INET6, SIOCSIFADDR, &request);
}

int netif_add_route(const char *name, uint32_t destination, uint32_t prefix, uint32_t gateway, uint32_t metric) {
  struct ifreq interface = request_for(name);
  struct rtentry route;
  memset(&route, 0, sizeof route);
  fill_v4(&route.rt_dst, destination);
  fill_v4(&route.rt_genmask, mask_of(prefix));
  fill_v4(&route.rt_gateway, gateway);
  route.rt_flags = RTF_UP;
  if (gateway != 0) route.rt_flags |= RTF_GATEWAY;
  /* The kernel takes one off. */
  route.rt_metric = (short)(metric > 0 && metric < INT16_MAX ? metric + 1 : 0);
  route.rt_dev = interface.ifr_name;
  return netif_request(AF_INET, SIOCADDRT, &route);
}

int netif_add_route_v6(const char *name, const uint8_t destination[16], uint32_t prefix, const uint8_t gateway[16],
                       uint32_t metric) {
  static const uint8_t UNSPECIFIED[16] = {0};
  int index = netif_index(name);
  if (index < 0) return index;
  struct in6_rtmsg route;
  memset(&route, 0, sizeof route);
  memcpy(&route.rtmsg_dst, destination, 16);
  memcpy(&route.rtmsg_gateway, gateway, 16);
  route.rtmsg_dst_len = (uint16_t)prefix;
  route.rtmsg_metric = metric;
  route.rtmsg_flags = RTF_UP;
  if (memcmp(gateway, UNSPECIFIED, 16) != 0) route.rtmsg_flags |= RTF_GATEWAY;
  route.rtmsg_ifindex = index;
  return netif_request(AF_INET6, SIOCADDRT, &route);
}
