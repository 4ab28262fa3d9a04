/** Whether what a SPEC gives is what QEMU's option needs: from the SPEC before anything is opened, as far as it says so, then from the descriptor. */
import { PasselError } from '../../base/errors.ts';
import type { FdExpectation } from '../../broker/protocol.ts';
import type { DescriptorNeed, DescriptorUse } from '../../qemu/descriptor-uses.ts';
import type { FdFacts } from '../../sys/fd-facts.ts';
import type { AskedFd, FdSpec } from './fd-spec.ts';

type Facts = Pick<FdFacts, 'kind' | 'type' | 'listening'>;

const CONNECTION: Facts = { kind: 'socket', type: 'stream', listening: false };
const LISTENER: Facts = { kind: 'socket', type: 'stream', listening: true };

/** What a SPEC will give; undefined: that depends. */
function factsOf({ kind }: FdSpec): Facts | undefined {
  switch (kind) {
    case 'unix-connect':
    case 'tcp-connect':
    case 'netdev':
      return CONNECTION;
    case 'unix-listen':
    case 'tcp-listen':
      return LISTENER;
    case 'udp':
      return { kind: 'socket', type: 'dgram', listening: false };
    case 'tap':
      return { kind: 'tap' };
    case 'file':
    case 'broker':
    case 'inherited':
      return undefined;
  }
}

interface Fit {
  readonly text: string;
  readonly expect: FdExpectation;
  fits(facts: Facts): boolean;
}

const isStream = ({ kind, type }: Facts): boolean => kind === 'socket' && type === 'stream';
const isDatagram = ({ kind, type }: Facts): boolean => kind === 'socket' && type === 'dgram';

const FITS: Readonly<Record<DescriptorNeed, Fit>> = {
  listening: {
    text: 'a listening stream socket',
    expect: LISTENER,
    fits: (facts) => isStream(facts) && facts.listening === true,
  },
  connected: {
    text: 'a connected stream socket',
    expect: CONNECTION,
    fits: (facts) => isStream(facts) && facts.listening !== true,
  },
  datagram: { text: 'a datagram socket', expect: { kind: 'socket', type: 'dgram' }, fits: isDatagram },
  'connected-or-datagram': {
    text: 'a connected stream socket or a datagram socket',
    expect: { kind: 'socket', listening: false },
    fits: (facts) => isDatagram(facts) || (isStream(facts) && facts.listening !== true),
  },
  tap: { text: 'a tap', expect: { kind: 'tap' }, fits: ({ kind }) => kind === 'tap' },
};

export function expectationOf(uses: readonly DescriptorUse[]): FdExpectation | undefined {
  return uses.length === 0 ? undefined : Object.assign({}, ...uses.map(({ need }) => FITS[need].expect));
}

/**
 * @param opened - one for each descriptor; undefined: nothing has been opened yet
 * @throws PasselError PASSEL_E_RUN_UNFIT
 */
export function checkFitness(asked: AskedFd, uses: readonly DescriptorUse[], opened?: readonly Facts[]): void {
  const known = factsOf(asked.spec);
  const all = opened ?? (known === undefined ? [] : [known]);
  const count = opened?.length ?? (asked.spec.kind === 'tap' ? asked.spec.queues : 1);
  for (const { option, value, need, several } of uses) {
    const { text, fits } = FITS[need];
    const wrong = all.find((facts) => !fits(facts));
    const reason =
      wrong !== undefined
        ? `it takes ${text}, and this is ${describeFacts(wrong)}`
        : count > 1 && !several
          ? `it takes one descriptor, and these are ${count}${need === 'tap' ? ': fds= takes several' : ''}`
          : undefined;
    if (reason === undefined) continue;
    throw new PasselError('PASSEL_E_RUN_UNFIT', {
      option: asked.option,
      value: asked.text,
      use: `-${option} ${value}`,
      reason,
    });
  }
}

function describeFacts({ kind, type, listening }: Facts): string {
  if (kind !== 'socket') return `a ${kind}`;
  if (type === 'dgram') return 'a datagram socket';
  return `a ${listening === true ? 'listening' : 'connected'} ${type} socket`;
}
