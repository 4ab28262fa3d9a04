import { describe, expect, it } from 'vitest';
import type { FlowView, GuestView, StatusView } from '../../../src/cli/control/view.ts';
import { runCtlCommand } from '../../../src/cli/ctl/ctl-command.ts';
import {
  formatBytes,
  formatFlows,
  formatForwards,
  formatLeases,
  formatSeconds,
  formatStatus,
  formatTable,
} from '../../../src/cli/ctl/tables.ts';
import { createEventStatistics } from '../../../src/cli/event-statistics.ts';
import { KIND_LINK, KIND_TCP } from '../../../src/stack/ports.ts';

const FLOW: FlowView = {
  id: '3.1',
  guestName: 'web',
  proto: 'tcp',
  state: 'established',
  startedBy: 'guest',
  ageSeconds: 75.4,
  bytesToGuest: 10_240,
  bytesToHost: 99,
  guest: { address: '192.0.2.15', port: 40_000 },
  peer: { address: '192.0.2.1', port: 53 },
  local: { address: '127.0.0.1', port: 41_000 },
  remote: { address: '127.0.0.1', port: 53 },
  forward: null,
};

describe('tables', () => {
  it('are aligned, to the right where asked', () => {
    expect(
      formatTable(
        ['A', '>B'],
        [
          ['x', '1'],
          ['yyy', '100'],
        ],
      ),
    ).toBe('A      B\nx      1\nyyy  100\n');
  });
  it('show sizes and times short', () => {
    expect([0, 1023, 1024, 15_000, 5 << 20, 3e12].map(formatBytes)).toEqual([
      '0',
      '1023',
      '1.0K',
      '15K',
      '5.0M',
      '2.7T',
    ]);
    expect([0, 9.94, 59, 61, 3700, 90_000].map(formatSeconds)).toEqual(['0.0s', '9.9s', '59s', '1m1s', '1h1m', '1d1h']);
  });
  it('of flows show the host side, and the remote where the guest knows it by another address', () => {
    const table = formatFlows([FLOW, { ...FLOW, startedBy: 'host', remote: FLOW.peer, forward: 2 }], 2).split('\n');
    expect(table[1]).toContain('192.0.2.15:40000  ->  192.0.2.1:53  127.0.0.1:41000 - 127.0.0.1:53');
    expect(table[1]).toMatch(/99 +10K +1m15s$/);
    expect(table[2]).toContain('<-  192.0.2.1:53  127.0.0.1:41000 (forward 2)');
    expect(formatFlows([FLOW], 7)).toContain('1 of 7 flows');
    expect(formatFlows([], 0)).toBe('no flows\n');
  });
  it('of flows say whose they are when there are several guests', () => {
    const table = formatFlows([FLOW, { ...FLOW, guestName: 'db' }], 2).split('\n');
    expect(table.map((line) => line.split(/ +/)[0])).toEqual(['NAME', 'web', 'db', '']);
  });
  it('of forwards show where they lead', () => {
    const forward = {
      id: 1,
      proto: 'udp' as const,
      spec: '::1/53-54:[fd00::2]/153-154',
      bindPath: null,
      bindAddress: '::1',
      bindInterface: 'eth0',
      first: 53,
      last: 54,
      targetAddress: 'fd00::2',
      targetGuest: null,
      targetFirst: 153,
      weak: false,
      sockets: 2,
    };
    expect(formatForwards([forward])).toContain('[::1]%eth0:53-54  [fd00::2]:153-154        2');
    expect(formatForwards([{ ...forward, targetAddress: null, targetGuest: 'db' }])).toContain('  db:153-154 ');
  });
  it('of the status name what there is', () => {
    const family = { address: '192.0.2.15', prefixLength: 24, gateway: '192.0.2.1', resolvers: ['192.0.2.53'] };
    const guest: GuestView = {
      name: 'guest',
      socket: null,
      guest: {
        connected: true,
        mac: '52:54:00:12:34:56',
        ipv4: '192.0.2.99',
        ipv6: null,
        linkLocal: null,
        dhcpLease: { address: '192.0.2.15', mac: '52:54:00:12:34:56', ageSeconds: 61 },
        dhcpv6Lease: null,
      },
      network: { mtu: 1500, ipv4: family, ipv6: null, searchDomains: [], hostname: null },
      flows: { tcp: 1, udp: 2, ping: 3, capacity: 4 },
      counters: { guestFrames: 6, badTcp: 0 },
      exchange: null,
      impairment: null,
    };
    const status: StatusView = {
      ...{ version: '1', pid: 7, uptimeSeconds: 3, listeners: 5, names: null },
      ...{ ...guest, guests: [guest] },
    };
    expect(formatStatus(status).split('\n')).toEqual([
      'version    1, PID 7, running for 3.0s',
      'listeners  5',
      'socket     a descriptor',
      'guest      connected, MAC 52:54:00:12:34:56',
      'MTU        1500',
      'IPv4       192.0.2.15/24, router 192.0.2.1, leased 1m1s ago',
      '           the guest uses 192.0.2.99',
      '           resolvers 192.0.2.53',
      'IPv6       none',
      'flows      1 TCP, 2 UDP, 3 ping, room for 4',
      'counters   guestFrames 6',
      '',
    ]);
    expect(formatLeases([guest])).toBe(
      'MAC                ADDRESS     GUEST  LINK       SINCE\n52:54:00:12:34:56  192.0.2.15  guest  connected   1m1s\n',
    );
    expect(formatLeases([{ ...guest, guest: { ...guest.guest, dhcpLease: null } }])).toBe('no leases\n');
    const names = { queries: 9, answered: 5, forwarded: 3, refused: 1 };
    expect(formatStatus({ ...status, names })).toContain(
      '\nnames      9 questions: 5 answered here, 3 passed on to resolvers, 1 refused\n',
    );
    const exchange = { forwarded: 3, forwardedBytes: 400, dropped: 2, spoofed: 1 };
    const several = formatStatus({
      ...status,
      guests: [
        { ...guest, name: 'web', exchange },
        { ...guest, name: 'db', exchange },
      ],
    });
    expect(several).toContain('\n\nname       web\nsocket     a descriptor\n');
    expect(several).toContain('\n\nname       db\n');
    expect(several).toContain('switch     3 frames to other guests, 2 from them dropped, 1 in our name\n');
  });
});

describe('passel ctl', () => {
  it.each([
    [['-s', '/x'], 'PASSEL_E_COMMAND_UNKNOWN'],
    [['-s', '/x', 'forward'], 'PASSEL_E_COMMAND_UNKNOWN'],
    [['-s', '/x', 'forward', 'add', 'tcp'], 'PASSEL_E_COMMAND_UNKNOWN'],
    [['-s', '/x', 'forward', 'delete', 'one'], 'PASSEL_E_COMMAND_UNKNOWN'],
    [['-s', '/x', 'status', 'flows'], 'PASSEL_E_COMMAND_UNKNOWN'],
    [['-s', '/x', '-n', '0', 'flows'], 'PASSEL_E_OPTION_VALUE'],
    [['-s', '/x', '-p', 'tcp', 'status'], 'PASSEL_E_OPTION_REQUIRES'],
    [['-s', '/nonexistent/x', 'status'], 'PASSEL_E_CTL_CONNECT'],
  ])('%j is refused', async (argv, code) => {
    await expect(runCtlCommand(argv)).rejects.toMatchObject({ code });
  });
});

describe('event statistics', () => {
  it('count what handlers are called for, and say nothing of a time without events', () => {
    const seen: number[] = [];
    const handlers: ((index: number, events: number) => void)[] = [];
    handlers[KIND_LINK] = (index) => seen.push(index);
    handlers[KIND_TCP] = (index) => seen.push(index);
    const table = createEventStatistics();
    table.count(handlers);
    expect(table.takeLine()).toBeUndefined();
    handlers[KIND_LINK]!(1, 1);
    handlers[KIND_TCP]!(2, 1);
    handlers[KIND_TCP]!(3, 1);
    expect(seen).toEqual([1, 2, 3]);
    const [heading, line] = table.takeLine()!.trimEnd().split('\n');
    expect(heading!.trim().split(/ +/).slice(0, 3)).toEqual(['link', 'guest', 'tcp']);
    expect(line!.trim().split(/ +/)).toEqual(['1', '0', '2', '0', '0', '0', '0']);
    handlers[KIND_TCP]!(3, 1);
    expect(table.takeLine()!.split('\n').length).toBe(2);
    expect(table.takeLine()).toBeUndefined();
  });
});
