/*
 * Network interfaces by name: netdevice(7), ipv6(7). By ioctl and not by netlink: a handful of requests needs no message parser.
 * They act on the network namespace of the calling thread.
 */
#include <arpa/inet.h>
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

#include "native.h"

/* One request on a socket of its own: 0 or -errno. */
static int request_of(int domain, unsigned long request, void *argument) {
  int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int status = ioctl(fd, request, argument) < 0 ? -errno : 0;
  close(fd);
  return status;
}

static struct ifreq next_interface(struct call *call) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  next_string(call, request.ifr_name, sizeof request.ifr_name, NULL);
  return request;
}

/* netifIndex(name) */
static napi_value native_netif_index(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFINDEX, &request);
  return reply(&call, status < 0 ? status : request.ifr_ifindex);
}

/* netifGetMtu(name) */
static napi_value native_netif_get_mtu(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFMTU, &request);
  return reply(&call, status < 0 ? status : request.ifr_mtu);
}

/* netifSetMtu(name, bytes) */
static napi_value native_netif_set_mtu(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  request.ifr_mtu = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, request_of(AF_INET, SIOCSIFMTU, &request));
}

/* netifGetFlags(name): IFF_UP ... */
static napi_value native_netif_get_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFFLAGS, &request);
  return reply(&call, status < 0 ? status : (uint16_t)request.ifr_flags);
}

/* netifSetFlags(name, set, clear) */
static napi_value native_netif_set_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  uint32_t set = next_uint(&call);
  uint32_t clear = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFFLAGS, &request);
  if (status < 0) return reply(&call, status);
  request.ifr_flags = (short)(((uint32_t)(uint16_t)request.ifr_flags | set) & ~clear);
  return reply(&call, request_of(AF_INET, SIOCSIFFLAGS, &request));
}

/* The next argument, a Uint8Array of exactly `length` bytes. */
static uint8_t *next_exact_bytes(struct call *call, uint32_t length) {
  uint32_t available = 0;
  uint8_t *data = next_bytes(call, &available);
  if (call->error == 0 && available != length) fail_call(call, EINVAL);
  return data;
}

/* netifGetHardwareAddress(name, out) */
static napi_value native_netif_get_hardware_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  uint8_t *out = next_exact_bytes(&call, 6);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFHWADDR, &request);
  if (status == 0) memcpy(out, request.ifr_hwaddr.sa_data, 6);
  return reply(&call, status);
}

/* netifSetHardwareAddress(name, address) */
static napi_value native_netif_set_hardware_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  const uint8_t *address = next_exact_bytes(&call, 6);
  if (call.error != 0) return reply_refusal(&call);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, address, 6);
  return reply(&call, request_of(AF_INET, SIOCSIFHWADDR, &request));
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

/* netifGetAddress(name, mask): the first IPv4 address, or its mask, as an unsigned number */
static napi_value native_netif_get_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  int32_t mask = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, mask != 0 ? SIOCGIFNETMASK : SIOCGIFADDR, &request);
  if (status < 0) return reply(&call, status);
  struct sockaddr_in v4;
  memcpy(&v4, &request.ifr_addr, sizeof v4);
  return reply(&call, ntohl(v4.sin_addr.s_addr));
}

/* netifSetAddress(name, address, prefix) */
static napi_value native_netif_set_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  uint32_t address = next_uint(&call);
  uint32_t prefix = next_uint(&call);
  if (prefix > 32) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  fill_v4(&request.ifr_addr, address);
  int status = request_of(AF_INET, SIOCSIFADDR, &request);
  if (status < 0) return reply(&call, status);
  fill_v4(&request.ifr_netmask, mask_of(prefix));
  return reply(&call, request_of(AF_INET, SIOCSIFNETMASK, &request));
}

/* netifAddAddressV6(name, address, prefix) */
static napi_value native_netif_add_address_v6(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  const uint8_t *address = next_exact_bytes(&call, 16);
  uint32_t prefix = next_uint(&call);
  if (prefix > 128) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFINDEX, &interface);
  if (status < 0) return reply(&call, status);
  struct in6_ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(&request.ifr6_addr, address, 16);
  request.ifr6_prefixlen = prefix;
  request.ifr6_ifindex = interface.ifr_ifindex;
  return reply(&call, request_of(AF_INET6, SIOCSIFADDR, &request));
}

/* netifAddRoute(name, destination, prefix, gateway): gateway 0 means on link */
static napi_value native_netif_add_route(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  uint32_t destination = next_uint(&call);
  uint32_t prefix = next_uint(&call);
  uint32_t gateway = next_uint(&call);
  if (prefix > 32) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  struct rtentry route;
  memset(&route, 0, sizeof route);
  fill_v4(&route.rt_dst, destination);
  fill_v4(&route.rt_genmask, mask_of(prefix));
  fill_v4(&route.rt_gateway, gateway);
  route.rt_flags = RTF_UP;
  if (gateway != 0) route.rt_flags |= RTF_GATEWAY;
  route.rt_dev = interface.ifr_name;
  return reply(&call, request_of(AF_INET, SIOCADDRT, &route));
}

/* netifAddRouteV6(name, destination, prefix, gateway): all zeros as gateway means on link */
static napi_value native_netif_add_route_v6(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  const uint8_t *destination = next_exact_bytes(&call, 16);
  uint32_t prefix = next_uint(&call);
  const uint8_t *gateway = next_exact_bytes(&call, 16);
  if (prefix > 128) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  int status = request_of(AF_INET, SIOCGIFINDEX, &interface);
  if (status < 0) return reply(&call, status);
  static const uint8_t UNSPECIFIED[16] = {0};
  struct in6_rtmsg route;
  memset(&route, 0, sizeof route);
  memcpy(&route.rtmsg_dst, destination, 16);
  memcpy(&route.rtmsg_gateway, gateway, 16);
  route.rtmsg_dst_len = (uint16_t)prefix;
  route.rtmsg_metric = 1;
  route.rtmsg_flags = RTF_UP;
  if (memcmp(gateway, UNSPECIFIED, 16) != 0) route.rtmsg_flags |= RTF_GATEWAY;
  route.rtmsg_ifindex = interface.ifr_ifindex;
  return reply(&call, request_of(AF_INET6, SIOCADDRT, &route));
}

/* netifBridgeAdd(bridge, index): the interface becomes a port; index 0 only asks (-EINVAL from a bridge, -EOPNOTSUPP from others) */
static napi_value native_netif_bridge_add(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  request.ifr_ifindex = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, request_of(AF_INET, SIOCBRADDIF, &request));
}

const struct export_row NETIF_EXPORTS[] = {
    {"netifIndex", native_netif_index},
    {"netifGetMtu", native_netif_get_mtu},
    {"netifSetMtu", native_netif_set_mtu},
    {"netifGetFlags", native_netif_get_flags},
    {"netifSetFlags", native_netif_set_flags},
    {"netifGetHardwareAddress", native_netif_get_hardware_address},
    {"netifSetHardwareAddress", native_netif_set_hardware_address},
    {"netifGetAddress", native_netif_get_address},
    {"netifSetAddress", native_netif_set_address},
    {"netifAddAddressV6", native_netif_add_address_v6},
    {"netifAddRoute", native_netif_add_route},
    {"netifAddRouteV6", native_netif_add_route_v6},
    {"netifBridgeAdd", native_netif_bridge_add},
    {NULL, NULL},
};
