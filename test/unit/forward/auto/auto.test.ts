import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { silentLogger } from '../../../../src/base/logger.ts';
import { type AutoForward, createAutoForward, type PortTables } from '../../../../src/forward/auto/auto.ts';
import type { ForwardListeners } from '../../../../src/forward/listeners.ts';
import type { PortForwardRule } from '../../../../src/forward/port-spec.ts';
import { createHarness, findFreePort, type Harness, listen, rule } from '../splice/harness.ts';

type Table = keyof PortTables;

/** Tables of sockets as files, so that a test says who listens. */
class FakeTables {
  readonly fds: PortTables;
  private readonly folder = mkdtempSync(join(tmpdir(), 'passel-auto-'));

  constructor() {
    const open = (table: Table): number => {
      this.set(table, []);
      return openSync(join(this.folder, table), 'r');
    };
    this.fds = { tcp: open('tcp'), tcp6: open('tcp6'), udp: open('udp'), udp6: open('udp6') };
  }

  set(table: Table, ports: readonly number[]): void {
    const zero = '0'.repeat(table.endsWith('6') ? 32 : 8);
    const state = table.startsWith('tcp') ? '0A' : '07';
    const lines = ports.map((port, i) => {
      const hex = port.toString(16).toUpperCase().padStart(4, '0');
      return `${i}: ${zero}:${hex} ${zero}:0000 ${state} 0\n`;
    });
    writeFileSync(join(this.folder, table), `  sl  local_address\n${lines.join('')}`);
  }

  close(): void {
    for (const fd of Object.values(this.fds)) closeSync(fd);
    rmSync(this.folder, { recursive: true });
  }
}

let harness: Harness | undefined;
let auto: AutoForward | undefined;
const tables: FakeTables[] = [];
const closed: string[] = [];
let turns = 0;

interface Rules {
  readonly host?: readonly PortForwardRule[];
  readonly namespace?: readonly PortForwardRule[];
}

function start({ host = [], namespace = [] }: Rules): {
  host: FakeTables;
  namespace: FakeTables;
  scan: () => void;
  harness: Harness;
} {
  harness = createHarness({ hostRules: host, namespaceRules: namespace });
  const [hostTables, namespaceTables] = [new FakeTables(), new FakeTables()];
  tables.push(hostTables, namespaceTables);
  turns = 0;
  auto = createAutoForward({
    host: harness.forwards,
    namespace: harness.splice.listeners,
    hostTables: hostTables.fds,
    namespaceTables: namespaceTables.fds,
    log: silentLogger,
    onHostClose: (index) => closed.push(`host ${harness!.forwards.portOf(index)}`),
    onNamespaceClose: (index) => closed.push(`namespace ${harness!.splice.listeners.portOf(index)}`),
    endTurn: () => turns++,
  });
  return { host: hostTables, namespace: namespaceTables, scan: () => auto!.scan(), harness };
}

/** A range of 16 ports none of which is taken, so that a test may open any. */
async function findRange(): Promise<number> {
  for (;;) {
    const first = await findFreePort();
    if (first + 16 > 65_535) continue;
    const free = await Promise.all(
      Array.from({ length: 16 }, async (_, i) => {
        const server = createServer();
        return new Promise<boolean>((resolve) => {
          server.once('error', () => resolve(false));
          server.listen(first + i, '127.0.0.1', () => server.close(() => resolve(true)));
        });
      }),
    );
    if (free.every(Boolean)) return first;
  }
}

const following = (proto: 'tcp' | 'udp', first: number, more: Partial<PortForwardRule> = {}): PortForwardRule =>
  rule(proto, first, first, { last: first + 15, weak: true, scan: true, ...more });

function portsOf(listeners: ForwardListeners, proto: 'tcp' | 'udp', first: number): number[] {
  const ports: number[] = [];
  for (let i = 0; i < 16; i++) if (listeners.holdsPort(proto, first + i)) ports.push(i);
  return ports;
}

afterEach(() => {
  auto?.stop();
  harness?.close();
  for (const table of tables.splice(0)) table.close();
  closed.length = 0;
});

describe('auto', () => {
  it('opens nothing until somebody listens on the other side, and closes when nobody does any more', async () => {
    const first = await findRange();
    const { namespace, scan, harness } = start({ host: [following('tcp', first)] });
    scan();
    expect(harness.forwards.count).toBe(0);
    namespace.set('tcp', [first + 1]);
    namespace.set('tcp6', [first + 3]);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([1, 3]);
    expect(harness.forwards.list()[0]).toMatchObject({ sockets: 2 });
    namespace.set('tcp', []);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([3]);
    expect(closed).toEqual([`host ${first + 1}`]);
    expect(turns).toBe(2);
  });

  it('forwards to the port that it follows, remapped where the rule says so', async () => {
    const first = await findRange();
    const { port: target, server } = await listen((socket) => socket.end('here'));
    const { namespace, scan } = start({ host: [following('tcp', first, { targetFirst: target - 4 })] });
    namespace.set('tcp', [target]);
    scan();
    const client = connect(first + 4, '127.0.0.1');
    expect(String((await once(client, 'data'))[0])).toBe('here');
    client.destroy();
    server.close();
  });

  it('leaves connections of a closed port alone', async () => {
    const first = await findRange();
    const { port: target, server } = await listen((socket) => socket.pipe(socket));
    const { namespace, scan, harness } = start({ host: [following('tcp', first, { targetFirst: target })] });
    namespace.set('tcp', [target]);
    scan();
    const client = connect(first, '127.0.0.1');
    client.write('one');
    expect(String((await once(client, 'data'))[0])).toBe('one');
    namespace.set('tcp', []);
    scan();
    expect(harness.forwards.count).toBe(0);
    client.write('two');
    expect(String((await once(client, 'data'))[0])).toBe('two');
    client.destroy();
    server.close();
  });

  it('follows the host for the listeners of the namespace, on both loopback addresses', async () => {
    const first = await findRange();
    const { bindAddress: _, ...unnamed } = following('tcp', first);
    const { host, scan, harness } = start({ namespace: [unnamed] });
    host.set('tcp', [first + 2]);
    scan();
    expect(portsOf(harness.splice.listeners, 'tcp', first)).toEqual([2]);
    expect(harness.splice.listeners.count).toBe(2);
  });

  it('does not take its own listeners for servers', async () => {
    const first = await findRange();
    const { host, namespace, scan, harness } = start({
      host: [following('tcp', first)],
      // Another address, since here both sides are one: what is taken already would hide the circle.
      namespace: [following('tcp', first, { bindAddress: '127.0.0.2' })],
    });
    namespace.set('tcp', [first + 1]);
    scan();
    // Our own listener of the host shows in its table, and a server beside it.
    host.set('tcp', [first + 1, first + 5]);
    scan();
    namespace.set('tcp', [first + 1, first + 5]);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([1]);
    expect(portsOf(harness.splice.listeners, 'tcp', first)).toEqual([5]);
    namespace.set('tcp', [first + 5]);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([]);
  });

  it('forwards the UDP ports that somebody has bound, and those of forwarded TCP ports', async () => {
    const first = await findRange();
    const { namespace, scan, harness } = start({
      host: [following('tcp', first), following('udp', first), rule('tcp', first + 15, first + 15)],
    });
    scan();
    // A fixed TCP forward takes the UDP port of its number along.
    expect(portsOf(harness.forwards, 'udp', first)).toEqual([15]);
    namespace.set('udp', [first + 7]);
    namespace.set('tcp', [first + 9]);
    scan();
    expect(portsOf(harness.forwards, 'udp', first)).toEqual([7, 9, 15]);
    namespace.set('tcp', []);
    scan();
    expect(portsOf(harness.forwards, 'udp', first)).toEqual([7, 15]);
  });

  it('tries a port again that somebody else holds', async () => {
    const first = await findRange();
    const server = createServer().listen(first, '127.0.0.1');
    await once(server, 'listening');
    const { namespace, scan, harness } = start({ host: [following('tcp', first)] });
    namespace.set('tcp', [first, first + 1]);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([1]);
    server.close();
    await once(server, 'close');
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([0, 1]);
  });

  it('touches only ports of its rule', async () => {
    const first = await findRange();
    const { namespace, scan, harness } = start({ host: [following('tcp', first, { last: first + 3 })] });
    namespace.set('tcp', [first + 3, first + 4]);
    scan();
    expect(portsOf(harness.forwards, 'tcp', first)).toEqual([3]);
  });

  it('reads no table that no rule follows', async () => {
    const port = await findFreePort();
    const { namespace, host, scan, harness } = start({ host: [rule('tcp', port, port)] });
    // Reading a closed descriptor would be told.
    for (const table of [namespace, host]) table.set('tcp', [port + 1]);
    scan();
    expect(harness.forwards.count).toBe(1);
    expect(turns).toBe(0);
  });
});
