/*
 * Network interfaces by name: netdevice(7), ipv6(7). By ioctl and not by netlink: a handful of requests needs no message parser.
 * They act on the network namespace of the calling thread.
 */
#include <arpa/inet.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "native.h"
#include "netif-calls.h"

static struct ifreq next_interface(struct call *call) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  next_string(call, request.ifr_name, sizeof request.ifr_name, NULL);
  return request;
}

/* netifIndex(name) */
static napi_value native_netif_index(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_index(interface.ifr_name));
}

/* netifGetMtu(name) */
static napi_value native_netif_get_mtu(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = netif_request(AF_INET, SIOCGIFMTU, &request);
  return reply(&call, status < 0 ? status : request.ifr_mtu);
}

/* netifSetMtu(name, bytes) */
static napi_value native_netif_set_mtu(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  int32_t bytes = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_set_mtu(interface.ifr_name, bytes));
}

/* netifGetFlags(name): IFF_UP ... */
static napi_value native_netif_get_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = netif_request(AF_INET, SIOCGIFFLAGS, &request);
  return reply(&call, status < 0 ? status : (uint16_t)request.ifr_flags);
}

/* netifSetFlags(name, set, clear) */
static napi_value native_netif_set_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  uint32_t set = next_uint(&call);
  uint32_t clear = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_set_flags(interface.ifr_name, set, clear));
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
  int status = netif_request(AF_INET, SIOCGIFHWADDR, &request);
  if (status == 0) memcpy(out, request.ifr_hwaddr.sa_data, 6);
  return reply(&call, status);
}

/* netifSetHardwareAddress(name, address) */
static napi_value native_netif_set_hardware_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  const uint8_t *address = next_exact_bytes(&call, 6);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_set_hardware_address(interface.ifr_name, address));
}

/* netifGetAddress(name, mask): the first IPv4 address, or its mask, as an unsigned number */
static napi_value native_netif_get_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  int32_t mask = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  int status = netif_request(AF_INET, mask != 0 ? SIOCGIFNETMASK : SIOCGIFADDR, &request);
  if (status < 0) return reply(&call, status);
  struct sockaddr_in v4;
  memcpy(&v4, &request.ifr_addr, sizeof v4);
  return reply(&call, ntohl(v4.sin_addr.s_addr));
}

/* netifSetAddress(name, address, prefix) */
static napi_value native_netif_set_address(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  uint32_t address = next_uint(&call);
  uint32_t prefix = next_uint(&call);
  if (prefix > 32) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_set_address(interface.ifr_name, address, prefix));
}

/* netifAddAddressV6(name, address, prefix) */
static napi_value native_netif_add_address_v6(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq interface = next_interface(&call);
  const uint8_t *address = next_exact_bytes(&call, 16);
  uint32_t prefix = next_uint(&call);
  if (prefix > 128) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_add_address_v6(interface.ifr_name, address, prefix));
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
  return reply(&call, netif_add_route(interface.ifr_name, destination, prefix, gateway, 0));
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
  return reply(&call, netif_add_route_v6(interface.ifr_name, destination, prefix, gateway, 1));
}

/* netifBridgeAdd(bridge, index): the interface becomes a port; index 0 only asks (-EINVAL from a bridge, -EOPNOTSUPP from others) */
static napi_value native_netif_bridge_add(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request = next_interface(&call);
  request.ifr_ifindex = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply(&call, netif_request(AF_INET, SIOCBRADDIF, &request));
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
