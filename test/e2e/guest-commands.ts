/** Shell scripts that tests run in guests, and readers of what they print. */

/** DHCPv4 by busybox's client; the lease is in /tmp/dhcp4.env afterwards. Asks again each second, five times. */
export const GET_DHCPV4_LEASE = 'udhcpc -i eth0 -n -q -f -t 5 -T 1 -O mtu -O search -O staticroutes';

/** Waits for an address made from a router advertisement and prints it. */
export const GET_SLAAC_ADDRESS = `
  for i in $(seq 300); do
    ip -6 addr show dev eth0 | grep 'scope global dynamic' | grep -v tentative && exit 0
    sleep 0.1
  done
  ip -6 addr; exit 1`;

/** Ends a dhclient that goes on in the background, whose number is in its file a moment after the one in front has ended. */
function endClient(pidFile: string): string {
  return `until [ -s ${pidFile} ]; do sleep 0.1; done; kill $(cat ${pidFile})`;
}

const DHCLIENT6 =
  'rm -f /tmp/dhcp6.pid; timeout 50 dhclient -6 -1 -v -cf /etc/dhclient6.conf -lf /tmp/dhcp6.leases -pf /tmp/dhcp6.pid eth0';

/**
 * DHCPv6 by ISC's client; the lease is in /tmp/dhcp6.env, its address on the interface once it is known to be free. The
 * client is ended without a release.
 */
export const GET_DHCPV6_LEASE = `
  until ip -6 addr show dev eth0 | grep 'scope link' | grep -qv tentative; do sleep 0.1; done
  ${DHCLIENT6} || exit 1
  ${endClient('/tmp/dhcp6.pid')}
  for i in $(seq 100); do ip -6 addr show dev eth0 | grep -q tentative || exit 0; sleep 0.1; done
  ip -6 addr; exit 1`;

/** Starts the client once more, with the lease it has: it asks for confirmation. Prints what is sent and received. */
export const CONFIRM_DHCPV6_LEASE = `
  ${DHCLIENT6} 2>&1 | grep -E '^(XMT: Forming|RCV: [A-Z][a-z]* message|PRC: Bound)'
  ${endClient('/tmp/dhcp6.pid')}`;

/** ISC's DHCPv6 client asking for options only, no address. */
export const GET_DHCPV6_INFORMATION = `
  timeout 50 dhclient -6 -S -1 -v -lf /tmp/information.leases -pf /tmp/information.pid eth0 2>&1 |
    grep -E '^(XMT: Forming|RCV: [A-Z][a-z]* message|PRC: Done)'`;

/** ISC's DHCPv4 client with a lease from another network (INIT-REBOOT). Prints the exchange; nothing is configured. */
export const REBOOT_WITH_FOREIGN_LEASE = `
  cat > /tmp/foreign.leases << END
lease {
  interface "eth0";
  fixed-address 10.9.9.9;
  option subnet-mask 255.255.255.0;
  option routers 10.9.9.1;
  option dhcp-lease-time 86400;
  option dhcp-server-identifier 10.9.9.1;
  renew 0 2097/01/01 00:00:00;
  rebind 0 2097/01/02 00:00:00;
  expire 0 2097/01/03 00:00:00;
}
END
  timeout 50 dhclient -4 -1 -v -sf /bin/true -lf /tmp/foreign.leases -pf /tmp/foreign.pid eth0 2>&1
  ${endClient('/tmp/foreign.pid')}`;

/** Fetches a URL into a file and prints the file's SHA-256. */
export function fetchAndHash(url: string, file = '/tmp/fetched'): string {
  return `timeout 60 wget -q -O ${file} '${url}' && sha256sum ${file} | cut -d ' ' -f 1`;
}

/**
 * Posts a file and prints the server's answer: its SHA-256 and length. By socat, since busybox's wget posts text only.
 * @param target socat address of the server, without options
 */
export function postFile(target: string, file: string, lengthBytes: number): string {
  return `(printf 'POST / HTTP/1.0\\r\\nContent-Length: ${lengthBytes}\\r\\n\\r\\n'; cat ${file}) |
    socat -t 60 -T 60 - ${target},shut-none | tail -n 1`;
}

/**
 * Sends `lengthBytes` random bytes as one datagram and prints `same` when they come back unchanged.
 * @param target socat address without options, such as UDP4:198.51.100.1:7
 */
export function echoDatagram(target: string, lengthBytes: number): string {
  return `
    rm -f /tmp/received
    head -c ${lengthBytes} /dev/urandom > /tmp/sent
    socat -b 65536 -t 10 -T 10 OPEN:/tmp/sent,rdonly,ignoreeof!!CREATE:/tmp/received ${target} &
    for i in $(seq 100); do
      sleep 0.1
      [ "$(stat -c %s /tmp/received 2>/dev/null)" = ${lengthBytes} ] && break
    done
    kill $! 2>/dev/null
    cmp /tmp/sent /tmp/received && echo same`;
}

/** Variables of a script's dumped environment. */
export function parseEnvironment(text: string): Record<string, string> {
  return Object.fromEntries(
    text.split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}
