/**
 * `passel demo`: the network stack at work, on the most real guest that this computer allows, in less than a minute.
 * Everything happens between processes of this computer: no packet is sent anywhere else, except that the resolver of this
 * computer is asked for `localhost` where we may not run one of our own.
 */
import { closeSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { PasselError, reasonOf } from '../../base/errors.ts';
import { readHostFacts } from '../../sys/host-facts.ts';
import { loadNative } from '../../sys/native.ts';
import { createSocketPair } from '../../sys/unix-socket.ts';
import { flag, value } from '../options/definition.ts';
import { scanOptions } from '../options/scan.ts';
import { parseWord } from '../options/values.ts';
import { type Choices, type GuestChoice, listGuestChoices } from './choose-guest.ts';
import { type DemoGuest, TRANSFER_BYTES } from './demo-guest.ts';
import { DEMO_NAME, type DemoHost, startDemoHost } from './demo-host.ts';
import { type DemoStack, startDemoStack } from './demo-stack.ts';
import { type DemoContext, GUEST_PORT, LOOPBACK_ALIAS_V6, SCENES, SceneSkipped } from './scenes.ts';

export const DEMO_OPTIONS = {
  guest: value({
    group: 'Demo:',
    valueName: 'KIND',
    defaultText: 'the most real one that this computer allows',
    help: "'qemu', 'namespace' or 'built-in'",
    parse: parseWord(['qemu', 'namespace', 'built-in']),
  }),
  help: flag({ short: 'h', group: 'Demo:', help: 'Show this text and exit' }),
} as const;

/** Where DNS queries go that the demo's own resolver answers (RFC 5737: nobody's address). */
const RESOLVER_ALIAS = '192.0.2.53';
/** For computers without IPv6: an address that the guest can have all the same. */
const GUEST_ADDRESS_V6 = 'fd70:6173:7365:6d::2';

/** @returns 0 if every scene that could be shown worked */
export async function runDemoCommand(argv: readonly string[]): Promise<number> {
  const given = scanOptions(DEMO_OPTIONS, argv);
  if (given.has('help')) {
    const { formatHelp } = await import('../options/help.ts');
    print(await formatHelp('passel demo [OPTION]...', DEMO_OPTIONS));
    return 0;
  }
  const [operand] = given.operands;
  if (operand !== undefined) throw new PasselError('PASSEL_E_OPERAND', { value: operand, expected: 'options only' });
  const choices = await listGuestChoices();
  const wanted = given.last('guest');
  if (wanted !== undefined) return showDemo(pickChoice(choices, wanted), choices);
  for (const choice of choices.possible) {
    try {
      return await showDemo(choice, choices);
    } catch (error) {
      if (!(error instanceof GuestStartError)) throw error;
      print(`A guest of kind '${choice.kind}' could not be started (${error.message}): trying the next kind.\n\n`);
    }
  }
  throw new PasselError('PASSEL_E_DEMO', { step: 'every kind of guest', reason: 'see above' });
}

/** A guest looked possible and was not: another kind may be. */
class GuestStartError extends Error {}

function pickChoice(choices: Choices, wanted: string): GuestChoice {
  const choice = choices.possible.find((each) => each.kind === wanted);
  if (choice !== undefined) return choice;
  const reason = choices.lacking.find((each) => each.kind === wanted)?.reason ?? 'not possible here';
  throw new PasselError('PASSEL_E_DEMO', { step: `guest '${wanted}'`, reason });
}

async function showDemo(choice: GuestChoice, choices: Choices): Promise<number> {
  const transferBytes = TRANSFER_BYTES[choice.kind];
  const [stackEnd, guestEnd] = createSocketPair(loadNative());
  const host = await startDemoHost(transferBytes);
  let guest: DemoGuest | undefined;
  let stack: DemoStack | undefined;
  try {
    const forwardPort = await findFreePort();
    const hasResolver = host.resolver !== undefined;
    stack = startDemoStack(stackEnd, stackOptions(host, forwardPort));
    closeSync(stackEnd);
    print(
      'passel demo: a guest, the passel-passt network stack in a process of its own, and servers on this host.\n\n',
    );
    print(choice.kind === 'qemu' ? 'Starting a virtual machine ...\n' : '');
    guest = await choice.create(guestEnd).catch((error: unknown) => {
      throw new GuestStartError(reasonOf(error));
    });
    print(`The guest is ${guest.title}.\n\n`);
    const failures = await showScenes({
      guest,
      host,
      stack,
      forwardPort,
      resolver: hasResolver ? RESOLVER_ALIAS : undefined,
      name: hasResolver ? DEMO_NAME : 'localhost',
      transferBytes,
      lease: undefined,
    });
    describeEnd(guest, stack, choices, failures);
    return failures === 0 ? 0 : 1;
  } finally {
    await guest?.stop();
    await stack?.stop();
    host.close();
  }
}

function stackOptions(host: DemoHost, forwardPort: number): string[] {
  const options = ['-t', `127.0.0.1/${forwardPort}:${GUEST_PORT}`];
  if (host.hasIpv6) {
    options.push('--map-host-loopback', LOOPBACK_ALIAS_V6);
    if (readHostFacts().ipv6 === undefined) options.push('-a', GUEST_ADDRESS_V6);
  }
  if (host.resolver !== undefined) {
    options.push('--dns-forward', RESOLVER_ALIAS, '--dns-host', host.resolver, '-D', RESOLVER_ALIAS);
  }
  return options;
}

/** @returns the number of scenes that failed */
async function showScenes(context: DemoContext): Promise<number> {
  const { host, stack } = context;
  const width = Math.max(...SCENES.map((scene) => scene.title.length));
  const stackFailed = stack.failed.then((text) => {
    throw new Error(`the stack ended: ${text}`);
  });
  stackFailed.catch(() => {});
  let failures = 0;
  for (const scene of SCENES) {
    const label = scene.title.padEnd(width);
    if (scene.needsIpv6 && !host.hasIpv6) {
      print(`  -     ${label}  not shown: this computer has no IPv6 loopback\n`);
      continue;
    }
    try {
      print(`  ok    ${label}  ${await Promise.race([scene.run(context), stackFailed])}\n`);
    } catch (error) {
      if (error instanceof SceneSkipped) {
        print(`  -     ${label}  not shown: ${error.message}\n`);
        continue;
      }
      failures++;
      print(`  FAIL  ${label}  ${reasonOf(error).split('\n').at(-1)}\n`);
    }
  }
  return failures;
}

function describeEnd(guest: DemoGuest, stack: DemoStack, choices: Choices, failures: number): void {
  const cpu = stack.cpuSeconds();
  const memory = stack.memoryBytes();
  print('\n');
  if (cpu !== undefined && memory !== undefined) {
    print(`The stack used ${cpu.toFixed(2)} s of processor time and ${Math.round(memory / 2 ** 20)} MiB of memory.\n`);
  }
  if (failures > 0) print(`${failures} of ${SCENES.length} scenes failed.\n`);
  if (guest.improvement !== undefined) print(`More real: ${guest.improvement}.\n`);
  // Kinds come most real first, so those that are lacking and above this one are what is missing.
  for (const { kind, reason } of choices.lacking) print(`More real would be a guest of kind '${kind}': ${reason}.\n`);
}

/** A TCP port of the host that is free now. */
async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function print(text: string): void {
  process.stdout.write(text);
}
