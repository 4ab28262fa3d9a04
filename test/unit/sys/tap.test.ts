import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadNative, nativePath } from '../../../src/sys/native.ts';
import { CLONE_NEWNET, CLONE_NEWUSER, listEnvironment, startProgram } from '../../../src/sys/process.ts';
import { IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, isTap } from '../../../src/sys/tap.ts';
import { needTun, requireOrSkip } from '../../support/netns/capabilities.ts';
import { EINVAL } from './support.ts';

const native = loadNative();

/** Runs JavaScript with the addon in a network namespace of its own; what the script puts in `out` comes back. */
async function runInNamespace(script: string): Promise<Record<string, unknown>> {
  const sink = native.memfdCreate('passel-output', 0);
  const source = `
    const native = require(${JSON.stringify(nativePath())});
    const out = {};
    ${script}
    require('node:fs').writeSync(1, JSON.stringify(out));`;
  try {
    const child = startProgram(native, {
      file: process.execPath,
      args: ['node', '-e', source],
      env: listEnvironment(process.env),
      fds: Int32Array.of(1, sink),
      namespaces: CLONE_NEWUSER | CLONE_NEWNET,
      uidMap: `0 ${process.getuid?.()} 1`,
      gidMap: `0 ${process.getgid?.()} 1`,
    });
    expect((await child.ended).exitStatus).toBe(0);
    return JSON.parse(readFileSync(`/proc/self/fd/${sink}`, 'utf8'));
  } finally {
    native.close(sink);
  }
}

describe('interfaces', () => {
  it('configures the loopback of a namespace and reads back what it set', async () => {
    const out = await runInNamespace(`
      out.index = native.netifIndex('lo');
      out.before = native.netifGetFlags('lo') & 1;
      out.noAddress = native.netifGetAddress('lo', 0);
      out.up = native.netifSetFlags('lo', 1, 0);
      out.after = native.netifGetFlags('lo') & 9;
      out.address = [native.netifSetAddress('lo', 0x7f010203, 16), native.netifGetAddress('lo', 0), native.netifGetAddress('lo', 1)];
      out.mtu = [native.netifSetMtu('lo', 40000), native.netifGetMtu('lo')];
      const v6 = new Uint8Array(16); v6[0] = 0xfd; v6[15] = 9;
      out.v6 = native.netifAddAddressV6('lo', v6, 64);
      out.routes = [native.netifAddRoute('lo', 0x0a000000, 8, 0), native.netifAddRouteV6('lo', Uint8Array.of(0x20, 1, ...new Array(14).fill(0)), 16, new Uint8Array(16))];
      const fs = require('node:fs');
      out.route4 = fs.readFileSync('/proc/net/route', 'utf8').includes('lo\\t0000000A\\t00000000');
      out.route6 = fs.readFileSync('/proc/net/ipv6_route', 'utf8').includes('2001' + '0'.repeat(28) + ' 10');
      out.address6 = fs.readFileSync('/proc/net/if_inet6', 'utf8').includes('fd' + '0'.repeat(29) + '9');
      out.down = [native.netifSetFlags('lo', 0, 1), native.netifGetFlags('lo') & 1];`);
    expect(out).toEqual({
      index: 1,
      before: 0,
      noAddress: -99,
      up: 0,
      after: 9,
      address: [0, 0x7f010203, 0xffff0000],
      mtu: [0, 40000],
      v6: 0,
      routes: [0, 0],
      route4: true,
      route6: true,
      address6: true,
      down: [0, 0],
    });
  });

  it('says when there is no such interface, and refuses names and sizes that cannot be', () => {
    expect(native.netifIndex('no-such-if')).toBe(-19);
    expect(native.netifIndex('a-name-that-is-too-long')).toBe(-36);
    expect(native.netifGetMtu('no-such-if')).toBe(-19);
    expect(native.netifSetAddress('no-such-if', 1, 33)).toBe(EINVAL);
    expect(native.netifAddAddressV6('no-such-if', new Uint8Array(15), 64)).toBe(EINVAL);
    expect(native.netifAddRouteV6('no-such-if', new Uint8Array(16), 129, new Uint8Array(16))).toBe(EINVAL);
    expect(native.netifGetHardwareAddress('lo', new Uint8Array(5))).toBe(EINVAL);
    expect(native.netifGetHardwareAddress('lo', new Uint8Array(6))).toBe(0);
  });
});

describe('taps', () => {
  it('are recognised by their descriptor', () => {
    const fd = native.eventfdCreate(0);
    expect(isTap(native, fd)).toBe(false);
    expect(native.tunGetName(fd)).toBe(-25);
    native.close(fd);
    expect(isTap(native, fd)).toBe(false);
  });
});

const describeTaps = await requireOrSkip(needTun);

describeTaps('taps that are opened', () => {
  it('are made, named, configured and carry frames', async () => {
    const out = await runInNamespace(`
      const fd = native.tunOpen('t%d', ${IFF_TAP | IFF_NO_PI});
      out.opened = fd > 0;
      out.name = native.tunGetName(fd);
      out.flags = native.tunGetFlags(fd) & ${IFF_TAP | IFF_NO_PI};
      const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3), read = new Uint8Array(6);
      out.configured = [native.netifSetHardwareAddress('t0', mac), native.netifSetMtu('t0', 9000), native.netifSetFlags('t0', 1, 0),
        native.netifGetHardwareAddress('t0', read), native.netifAddRoute('t0', 0, 0, 0)];
      out.mac = Array.from(read);
      // The kernel announces the new interface by itself: duplicate address detection, router solicitation.
      const pause = new Int32Array(new SharedArrayBuffer(4));
      for (let tries = 0; tries < 500 && out.framed !== true; tries++) {
        try {
          out.framed = require('node:fs').readSync(fd, new Uint8Array(2000)) > 14;
        } catch (error) {
          if (error.code !== 'EAGAIN') throw error;
          Atomics.wait(pause, 0, 0, 10);
        }
      }
      out.duplicate = native.tunOpen('t0', ${IFF_TAP | IFF_NO_PI});
      const vnet = native.tunOpen('v0', ${IFF_TAP | IFF_NO_PI | IFF_VNET_HDR});
      out.vnet = [native.tunSetVnetHeader(vnet, 12), native.tunSetOffload(vnet, 7), native.tunSetPersist(vnet, 1), native.tunSetPersist(vnet, 0)];
      out.badName = native.tunOpen('a-name-that-is-too-long', ${IFF_TAP});`);
    expect(out).toEqual({
      opened: true,
      name: 't0',
      flags: IFF_TAP | IFF_NO_PI,
      configured: [0, 0, 0, 0, 0],
      mac: [0x52, 0x54, 0, 1, 2, 3],
      framed: true,
      duplicate: -16,
      vnet: [0, 0, 0, 0],
      badName: -36,
    });
  });
});
