/**
 * The scripts inside a test guest: its init with the control loop, and what the DHCP clients call.
 *
 * Control protocol, on a virtio-serial port: the guest says `ready` once; then per command the host sends a line
 * `ID TIMEOUT_SECONDS BASE64` and the guest answers a line `ID STATUS LENGTH` followed by LENGTH bytes of output
 * (standard output and error together). Commands run one after another; one that must go on runs in the background.
 */

/** Name of the virtio-serial port of the control channel. */
export const CONTROL_PORT_NAME = 'passel.control';

/** /init */
export const INIT_SCRIPT = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=dumb
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in $(cat /modules/order); do insmod /modules/$module || echo "module $module did not load"; done
hostname guest
ip link set lo up
[ -e /sys/class/net/eth0 ] && ip link set eth0 up
control=
while [ -z "$control" ]; do
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name 2>/dev/null)" = ${CONTROL_PORT_NAME} ] && control=/dev/$(basename $port)
  done
  [ -n "$control" ] || sleep 0.05
done
exec 3<>$control
echo ready >&3
while read -r id seconds text <&3; do
  echo "$text" | base64 -d > /tmp/.command
  timeout -s KILL $seconds sh /tmp/.command > /tmp/.output 2>&1 < /dev/null 3>&-
  echo "$id $? $(stat -c %s /tmp/.output)" >&3
  cat /tmp/.output >&3
done
poweroff -f
`;

/** What udhcpc calls: the lease goes to the interface and, for tests to look at, to /tmp/dhcp4.env. */
export const UDHCPC_SCRIPT = `#!/bin/sh
case "$1" in
  deconfig) ip -4 addr flush dev $interface; ip link set $interface up ;;
  bound | renew)
    env > /tmp/dhcp4.env
    ip -4 addr flush dev $interface
    ip -4 addr add $ip/\${mask:-24} dev $interface
    [ -n "$mtu" ] && ip link set $interface mtu $mtu
    if [ -n "$staticroutes" ]; then
      set -- $staticroutes
      while [ $# -ge 2 ]; do
        if [ "$2" = 0.0.0.0 ]; then ip -4 route replace $1 dev $interface
        else ip -4 route replace $1 via $2 dev $interface || ip -4 route replace $1 via $2 dev $interface onlink; fi
        shift 2
      done
    else
      for router in $router; do
        ip -4 route replace $router dev $interface
        ip -4 route replace default via $router dev $interface
      done
    fi
    : > /etc/resolv.conf
    [ -n "$search$domain" ] && echo "search \${search:-$domain}" >> /etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >> /etc/resolv.conf; done
    ;;
  nak) echo nak >> /tmp/dhcp4.nak ;;
esac
exit 0
`;

/** What dhclient -6 calls: the lease goes to the interface and to /tmp/dhcp6.env. */
export const DHCLIENT_SCRIPT = `#!/bin/sh
case "$reason" in
  PREINIT6) ip link set $interface up ;;
  BOUND6 | RENEW6 | REBIND6 | REBOOT6)
    env > /tmp/dhcp6.env
    [ -n "$new_ip6_address" ] && ip -6 addr add $new_ip6_address/\${new_ip6_prefixlen:-128} dev $interface
    ;;
esac
exit 0
`;
