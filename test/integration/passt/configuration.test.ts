/** How a guest is configured, by the clients that guests really run: the kernel's SLAAC, udhcpc, and ISC dhclient for both families. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { needCommand, requireOrSkip } from '../../support/netns/capabilities.ts';
import { HOST_NET } from '../../support/netns/host.ts';
import { waitUntil } from '../../support/netns/namespace.ts';
import { createRig, type Rig } from '../../support/rig.ts';
import { itExceptOnDebian, rigSuite } from '../../support/rig-suite.ts';

const suite = await requireOrSkip(needCommand('udhcpc', 'udhcpc'), needCommand('dhclient', 'isc-dhcp-client'));
const CLIENT_TIMEOUT_MS = 30_000;

rigSuite('configuration', () => {
  suite('of a guest', () => {
    let rig: Rig;
    let script: string;
    beforeAll(async () => {
      rig = await createRig({
        guest: 'unconfigured',
        mtu: 9000,
        args: ['--mtu', '9000', '--search', 'passel.test'],
      });
      script = join(rig.host.directory, 'client-script');
      // Every call of a client leaves its variables; the interface stays as it is.
      writeFileSync(script, '#!/bin/sh\nenv > "$PASSEL_OUT.$1$reason"\n', { mode: 0o755 });
    });
    afterAll(() => rig?.close());

    /** The variables that a client gave its script for `event`. */
    function readLease(out: string, event: string): Record<string, string> {
      const lines = readFileSync(`${out}.${event}`, 'utf8').split('\n');
      return Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
    }

    async function runDhclient(family: '-4' | '-6', name: string, config: string, leases = ''): Promise<string> {
      const out = join(rig.host.directory, name);
      writeFileSync(`${out}.conf`, config);
      writeFileSync(`${out}.leases`, leases);
      const files = ['-cf', `${out}.conf`, '-lf', `${out}.leases`, '-pf', `${out}.pid`, '-sf', script];
      const env = ['-e', `PASSEL_OUT=${out}`];
      await rig.guest.run('dhclient', [family, '-1', '-v', ...env, ...files, rig.pump.tapName], {
        timeoutMs: CLIENT_TIMEOUT_MS,
      });
      // It has gone to the background to keep the lease; the namespace ends it.
      return out;
    }

    it('leases the address of the host by DHCP to udhcpc, with all that goes with it', async () => {
      const out = join(rig.host.directory, 'udhcpc');
      const wanted = ['-O', 'search', '-O', 'mtu', '-O', 'hostname'];
      await rig.guest.run('udhcpc', ['-i', rig.pump.tapName, '-f', '-n', '-q', '-s', script, ...wanted], {
        env: { PASSEL_OUT: out },
        timeoutMs: CLIENT_TIMEOUT_MS,
      });
      expect(readLease(out, 'bound')).toMatchObject({
        ip: HOST_NET.hostV4,
        mask: '24',
        router: HOST_NET.gatewayV4,
        dns: HOST_NET.remoteV4,
        search: 'passel.test',
        mtu: '9000',
      });
    });

    it('leases it to dhclient', async () => {
      const out = await runDhclient(
        '-4',
        'dhclient4',
        'request subnet-mask, routers, domain-name-servers, domain-search;\n',
      );
      expect(readLease(out, 'BOUND')).toMatchObject({
        new_ip_address: HOST_NET.hostV4,
        new_subnet_mask: '255.255.255.0',
        new_routers: HOST_NET.gatewayV4,
        new_domain_name_servers: HOST_NET.remoteV4,
        new_domain_search: 'passel.test.',
        new_dhcp_server_identifier: HOST_NET.gatewayV4,
      });
    });

    itExceptOnDebian('never refuses', 'refuses an address of an earlier network, and gives the right one', async () => {
      const old = [
        'lease {',
        `  interface "${rig.pump.tapName}";`,
        '  fixed-address 10.11.12.13;',
        '  option subnet-mask 255.255.255.0;',
        '  option dhcp-server-identifier 10.11.12.1;',
        '  renew never;',
        '  rebind never;',
        '  expire never;',
        '}',
      ];
      const out = await runDhclient('-4', 'moved4', 'reboot 5;\n', `${old.join('\n')}\n`);
      expect(readFileSync(`${out}.leases`, 'utf8')).toContain(HOST_NET.hostV4);
      expect(readLease(out, 'BOUND')).toMatchObject({ new_ip_address: HOST_NET.hostV4 });
      expect(rig.stack.output()).toContain('10.11.12.13');
    });

    it('leases the address of the host by DHCPv6 to dhclient', async () => {
      // The client wants a link-local address that has passed duplicate address detection.
      const config = 'request dhcp6.name-servers, dhcp6.domain-search;\n';
      const out = await runDhclient('-6', 'dhclient6', config);
      expect(readLease(out, 'BOUND6')).toMatchObject({
        new_ip6_address: HOST_NET.hostV6,
        new_max_life: '4294967295',
        new_dhcp6_name_servers: HOST_NET.remoteV6,
        new_dhcp6_domain_search: 'passel.test.',
      });
    });

    it('advertises prefix, router and MTU, and the guest configures itself', async () => {
      const { guest, pump } = rig;
      const show = async (command: string): Promise<string> => (await guest.sh(command)).stdout;
      await waitUntil('an address of the prefix', async () => {
        return /2001:db8:1::?[0-9a-f:]+\/64 scope global .*mngtmpaddr/.test(
          await show(`ip -6 addr show dev ${pump.tapName}`),
        );
      });
      expect(await show('ip -6 route show default')).toContain(
        `via ${HOST_NET.gatewayLinkLocal} dev ${pump.tapName} proto ra`,
      );
      expect(await show(`cat /proc/sys/net/ipv6/conf/${pump.tapName}/mtu`)).toBe('9000\n');
      expect(await show(`cat /proc/sys/net/ipv6/conf/${pump.tapName}/hop_limit`)).toBe('255\n');
    });

    itExceptOnDebian(
      'claims every address',
      'lets the guest take an address that nobody has, and no other',
      async () => {
        const probe = (address: string) =>
          rig.guest.run('busybox', ['arping', '-D', '-c', '2', '-w', '2', '-I', rig.pump.tapName, address], {
            check: false,
          });
        expect((await probe('192.0.2.77')).status).toBe(0);
        expect((await probe(HOST_NET.hostV4)).status).toBe(0);
        expect((await probe(HOST_NET.gatewayV4)).status).toBe(1);
      },
    );
  });
});
