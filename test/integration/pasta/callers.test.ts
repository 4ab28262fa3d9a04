/**
 * The command lines of those who start pasta, word for word, and what each of them relies on afterwards. `pasta` is found by PATH, in a
 * directory that `passel install-links` has made.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { PROJECT_ROOT } from '../../support/native-tools.ts';
import { type Agent, startAgent } from '../../support/netns/agent.ts';
import { needNamespaces, needTun, needVeth, requireOrSkip } from '../../support/netns/capabilities.ts';
import { createHost, HOST_NET, type Host } from '../../support/netns/host.ts';
import { type Namespace, type RunResult, stopChild, waitUntil } from '../../support/netns/namespace.ts';
import { isAlive } from './lifecycle-rig.ts';

const suite = await requireOrSkip(needNamespaces, needVeth, needTun);

let host: Host;
let wan: Agent;
let onHost: Agent;
let links: string;
const children: ChildProcess[] = [];

beforeAll(async () => {
  host = await createHost();
  [wan, onHost] = await Promise.all([startAgent(host.wan), startAgent(host)]);
  await wan.serveUdpEcho({ host: HOST_NET.remoteV4, port: 53 });
  links = `${host.directory}/links`;
  await host.run(process.execPath, [join(PROJECT_ROOT, 'dist/helpers/passel.cjs'), 'install-links', links]);
});
afterEach(async () => {
  for (const child of children.splice(0)) await stopChild(child);
});
afterAll(() => host?.close());

/** Starts a shell script that says a word when it is ready; `prefix` is what it runs behind. */
async function startHolder(prefix: readonly string[], script: string): Promise<ChildProcess> {
  const [command = '', ...args] = [...prefix, 'sh', '-e', '-c', script];
  const child = host.spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  children.push(child);
  await new Promise((resolve, reject) => {
    child.stdout?.once('data', resolve);
    child.once('exit', () => reject(new Error(`the holder of a namespace ended: ${script}`)));
  });
  return child;
}

/** The inside of a namespace, as tests see it. */
function insideOf(prefix: readonly string[]): Pick<Namespace, 'name' | 'run' | 'spawn'> {
  const [command = '', ...rest] = prefix;
  return {
    name: 'inside',
    run: (program, args, options) => host.run(command, [...rest, program, ...args], options),
    spawn(program, args, options?: SpawnOptions) {
      const child = host.spawn(command, [...rest, program, ...args], options);
      children.push(child);
      return child;
    },
  };
}

const startAgentIn = (namespace: Pick<Namespace, 'name' | 'run' | 'spawn'>): Promise<Agent> =>
  startAgent(namespace as Namespace);

/** Runs a command line as a caller would, with ours in front of its PATH. */
function call(prefix: readonly string[], line: string): Promise<RunResult> {
  const [command = '', ...args] = [...prefix, ...line.split(' ')];
  return host.run(command, args, { check: false, env: { PATH: `${links}:${process.env['PATH']}` } });
}

/** What a client beyond the host's uplink gets. */
async function fetchFromWan(url: string): Promise<string> {
  const code = `fetch(${JSON.stringify(url)}).then((r) => r.text()).then((t) => process.stdout.write(t))`;
  const result = await host.wan.run(process.execPath, ['-e', code], { check: false });
  return result.status === 0 ? result.stdout : '';
}

suite('podman', () => {
  it('finds its namespace configured, reaches what it maps, is reached, and is rid of pasta by unlinking the path', async () => {
    const folder = `${host.directory}/podman`;
    const path = `${folder}/netns-0b5c`;
    const pidFile = `${folder}/pasta.pid`;
    // Rootless podman's user namespace, with a network namespace that only a path keeps.
    const holder = await startHolder(
      ['unshare', '-U', '-r', '-m'],
      `mkdir ${folder}; mount -t tmpfs none ${folder}; touch ${path}
       unshare -n sh -c 'ip link set lo up; mount --bind /proc/self/ns/net ${path}'
       echo in; read line; umount ${path}; rm ${path}; exec sleep 100`,
    );
    const asPodman = ['nsenter', '-t', String(holder.pid), '-U', '-m', '--preserve-credentials'];
    const inside = insideOf([...asPodman, 'nsenter', `--net=${path}`]);
    const result = await call(
      asPodman,
      `pasta --config-net -t 8080-8080:80-80 -u 8053-8053:53-53 --dns-forward 169.254.1.1 -T none -U none --no-map-gw --quiet --map-guest-addr 169.254.1.2 --pid ${pidFile} --netns ${path}`,
    );
    // It shows to its user whatever is said.
    expect(result).toEqual({ status: 0, stdout: '', stderr: '' });

    // Read at once: podman tells them to the container.
    const shown = await inside.run('ip', ['-br', 'addr', 'show', HOST_NET.interfaceName]);
    expect(shown.stdout).toContain(`${HOST_NET.hostV4}/${HOST_NET.prefixV4}`);
    expect(shown.stdout).toContain(HOST_NET.hostV6);
    const routes = await inside.run('ip', ['route', 'show', 'default']);
    expect(routes.stdout).toContain(`via ${HOST_NET.gatewayV4}`);

    const agent = await startAgentIn(inside);
    expect(await agent.exchangeUdp({ host: '169.254.1.1', port: 53, lengthBytes: 60 })).toMatchObject({ same: true });
    const { port } = await onHost.serveUdpEcho({ host: HOST_NET.hostV4 });
    expect(await agent.exchangeUdp({ host: '169.254.1.2', port, lengthBytes: 60 })).toMatchObject({ same: true });
    await agent.serveHttp({ host: '0.0.0.0', port: 80 });
    await agent.serveUdpEcho({ host: '0.0.0.0', port: 53 });
    // With the address that the client has.
    expect(await fetchFromWan(`http://${HOST_NET.hostV4}:8080/from`)).toContain(HOST_NET.gatewayV4);
    expect(await wan.exchangeUdp({ host: HOST_NET.hostV4, port: 8053, lengthBytes: 60 })).toMatchObject({ same: true });

    const inRoot = `/proc/${holder.pid}/root`;
    const pid = Number(readFileSync(`${inRoot}${pidFile}`, 'utf8'));
    expect(statSync(`${inRoot}${pidFile}`).mode & 0o777).toBe(0o600);
    expect(isAlive(pid)).toBe(true);
    holder.stdin?.write('unlink\n');
    await waitUntil('pasta to end', () => !isAlive(pid), 10_000);
    expect(existsSync(`${inRoot}${pidFile}`)).toBe(false);
  });
});

suite('rootlesskit', () => {
  it('gives its child a tap with its own addresses, follows its ports, and ends with it', async () => {
    const child = await startHolder(['unshare', '-U', '-r', '-n', '-m'], 'ip link set lo up; echo in; exec sleep 100');
    const line = `pasta --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only --tcp-ports=auto --udp-ports=auto ${child.pid}`;
    const before = host.processes();
    const result = await call([], line);
    expect(result.status).toBe(0);

    const inside = insideOf(['nsenter', '-t', String(child.pid), '-U', '-n', '--preserve-credentials']);
    const shown = await inside.run('ip', ['addr', 'show', 'tap0']);
    expect(shown.stdout).toMatch(/mtu 65520 .*inet 10\.0\.2\.100\/24/s);
    expect(shown.stdout).not.toContain('scope global dynamic');
    const routes = await inside.run('ip', ['route']);
    expect(routes.stdout).toContain('default via 10.0.2.2 dev tap0');

    const agent = await startAgentIn(inside);
    expect(await agent.exchangeUdp({ host: '10.0.2.3', port: 53, lengthBytes: 60 })).toMatchObject({ same: true });
    await agent.serveHttp({ host: '0.0.0.0', port: 8088 });
    await waitUntil(
      'the port to be followed',
      async () => (await fetchFromWan(`http://${HOST_NET.hostV4}:8088/from`)).includes(HOST_NET.gatewayV4),
      15_000,
      200,
    );
    // The builtin port driver of the parent connects from the host's own loopback.
    const local = await host.run(process.execPath, [
      '-e',
      "fetch('http://127.0.0.1:8088/from').then((r) => r.text()).then((t) => process.stdout.write(t))",
    ]);
    expect(local.stdout).not.toBe('');

    const [pid = -1] = host.processes().filter((each) => !before.includes(each));
    expect(isAlive(pid)).toBe(true);
    for (const each of children.splice(0).reverse()) await stopChild(each);
    await waitUntil('pasta to end', () => !isAlive(pid), 10_000);
  });
});
