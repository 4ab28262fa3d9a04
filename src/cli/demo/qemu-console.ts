/**
 * Commands in the virtual machine, over its serial console. The host writes `ID LENGTH BASE64` for a shell script, the guest
 * answers `@@ ID got` at once and `@@ ID STATUS BASE64` with the output later. Lines that begin otherwise are the kernel's.
 *
 * An emulated serial port loses characters now and then, so the host repeats a command that was not acknowledged; the guest
 * runs a command once, and only one of the right length.
 */

import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** The guest's /init. `CONSOLE` and `MODULES` are replaced. */
export const INIT_SCRIPT = `#!/bin/busybox sh
export PATH=/bin HOME=/ TERM=dumb
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec < /dev/CONSOLE > /dev/CONSOLE 2>&1
stty raw -echo
for module in MODULES; do insmod /modules/$module || echo "$module did not load"; done
ip link set lo up
echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set eth0 up
echo '@@ 0 0'
last=0
while read -r id length text; do
  [ "$length" = "\${#text}" ] || continue
  echo "@@ $id got"
  [ "$id" != "$last" ] || continue
  last=$id
  echo "$text" | base64 -d > /command
  sh /command > /output 2>&1 < /dev/null
  echo "@@ $id $? $(base64 -w 0 /output)"
done
poweroff -f
`;

/** What udhcpc calls with a lease. */
export const LEASE_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip link set $interface mtu \${mtu:-1500}
ip addr add $ip/$mask dev $interface
ip route add $router dev $interface
ip route add default via $router
echo "lease $ip $mask $router \${mtu:-0} $dns"
`;

export interface GuestConsole {
  /** Fulfilled when the guest takes commands. */
  readonly ready: Promise<void>;
  /** Runs a shell script. @returns its output; rejects if its status is not 0 */
  run(script: string): Promise<string>;
  /** What the kernel and init said so far. */
  text(): string;
}

/** How long the guest may take to acknowledge a command before it is sent again. */
const REPEAT_MS = 1500;

interface Waiting {
  resolve(output: string): void;
  reject(error: Error): void;
}

export function openGuestConsole(output: Readable, input: Writable): GuestConsole {
  const waiting = new Map<string, Waiting>();
  const repeats = new Map<string, NodeJS.Timeout>();
  const stopRepeating = (id: string): void => {
    clearInterval(repeats.get(id));
    repeats.delete(id);
  };
  const other: string[] = [];
  let lastId = 0;
  const wait = (id: string): Promise<string> =>
    new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
    });
  const ready = wait('0').then(() => {});
  ready.catch(() => {});
  const lines = createInterface({ input: output });
  lines.on('line', (line) => {
    const match = /@@ (\d+) (\d+|got) ?([A-Za-z0-9+/=]*)\r?$/.exec(line);
    if (match === null) {
      other.push(line);
      return;
    }
    const [, id = '', status, base64 = ''] = match;
    stopRepeating(id);
    if (status === 'got') return;
    const text = Buffer.from(base64, 'base64').toString();
    if (status === '0') waiting.get(id)?.resolve(text);
    else waiting.get(id)?.reject(new Error(text.trim() || `status ${status}`));
    waiting.delete(id);
  });
  lines.on('close', () => {
    for (const id of [...repeats.keys()]) stopRepeating(id);
    for (const entry of waiting.values())
      entry.reject(new Error(`the virtual machine ended: ${other.slice(-3).join(' / ')}`));
    waiting.clear();
  });
  input.on('error', () => {});
  return {
    ready,
    run(script) {
      const id = String(++lastId);
      const answer = wait(id);
      const base64 = Buffer.from(script).toString('base64');
      // The line break in front ends what may have arrived of an earlier attempt.
      const send = (): boolean => input.write(`\n${id} ${base64.length} ${base64}\n`);
      send();
      repeats.set(id, setInterval(send, REPEAT_MS));
      return answer;
    },
    text: () => other.join('\n'),
  };
}
