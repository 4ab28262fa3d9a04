/* Tap and tun devices: Documentation/networking/tuntap.rst of Linux. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "native.h"

/*
 * tunOpen(name, flags): a new queue of the device `name`, or of a new one; '' or a name with %d lets the kernel choose. The device is
 * made in the network namespace of the calling thread.
 */
static napi_value native_tun_open(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  next_string(&call, request.ifr_name, sizeof request.ifr_name, NULL);
  uint32_t flags = next_uint(&call);
  if (flags > UINT16_MAX) fail_call(&call, EINVAL);
  if (call.error != 0) return reply_refusal(&call);
  request.ifr_flags = (short)flags;
  int fd = (int)RETRY(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) return reply(&call, -errno);
  if (ioctl(fd, TUNSETIFF, &request) < 0) {
    int error = errno;
    close(fd);
    return reply(&call, -error);
  }
  return reply(&call, fd);
}

/* tunGetFeatures(): the IFF_* bits that the kernel's tun driver knows */
static napi_value native_tun_get_features(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  if (call.error != 0) return reply_refusal(&call);
  int fd = (int)RETRY(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) return reply(&call, -errno);
  unsigned int features = 0;
  int status = ioctl(fd, TUNGETFEATURES, &features) < 0 ? -errno : 0;
  close(fd);
  return reply(&call, status < 0 ? (int64_t)status : (int64_t)features);
}

/* tunGetName(fd): the device's name, or -errno (-EBADFD: not a tun descriptor with a device) */
static napi_value native_tun_get_name(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (ioctl(fd, TUNGETIFF, &request) < 0) return reply(&call, -errno);
  napi_value name = NULL;
  napi_create_string_utf8(env, request.ifr_name, strnlen(request.ifr_name, sizeof request.ifr_name), &name);
  return name;
}

/* tunGetFlags(fd): IFF_TAP, IFF_NO_PI ... */
static napi_value native_tun_get_flags(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (ioctl(fd, TUNGETIFF, &request) < 0) return reply(&call, -errno);
  return reply(&call, (uint16_t)request.ifr_flags);
}

/* tunSetOffload(fd, flags): TUN_F_* */
static napi_value native_tun_set_offload(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  uint32_t flags = next_uint(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags));
}

/* tunSetVnetHeader(fd, bytes): size of the virtio-net header, 10 or 12 */
static napi_value native_tun_set_vnet_header(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int size = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, ioctl(fd, TUNSETVNETHDRSZ, &size));
}

/* tunSetPersist(fd, on): the device stays when its last descriptor is closed */
static napi_value native_tun_set_persist(napi_env env, napi_callback_info info) {
  struct call call = begin_call(env, info);
  int32_t fd = next_int(&call);
  int32_t on = next_int(&call);
  if (call.error != 0) return reply_refusal(&call);
  return reply_result(&call, ioctl(fd, TUNSETPERSIST, on != 0 ? 1UL : 0UL));
}

const struct export_row TAP_EXPORTS[] = {
    {"tunOpen", native_tun_open},
    {"tunGetFeatures", native_tun_get_features},
    {"tunGetName", native_tun_get_name},
    {"tunGetFlags", native_tun_get_flags},
    {"tunSetOffload", native_tun_set_offload},
    {"tunSetVnetHeader", native_tun_set_vnet_header},
    {"tunSetPersist", native_tun_set_persist},
    {NULL, NULL},
};
