import { openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { Arena } from '../../src/base/arena.ts';
import { systemClock } from '../../src/base/clock.ts';
import { type Logger, silentLogger } from '../../src/base/logger.ts';
import { createFaultLink } from '../../src/link/fault.ts';
import { createImpairLink } from '../../src/link/impair.ts';
import { NO_IMPAIRMENT, type WayImpairment } from '../../src/link/impairment.ts';
import { createPcapLink } from '../../src/link/pcap.ts';
import { CaptureFile } from '../../src/link/pcap-file.ts';
import { createPcapngFormat, PCAP_FORMAT } from '../../src/link/pcap-format.ts';
import { createTraceLink } from '../../src/link/trace.ts';
import type { GuestLink } from '../../src/stack/ports.ts';
import { createDatagramTransport } from './datagram-transport.ts';
import { describeGuestLink } from './guest-link.ts';
import { createStreamTransport } from './stream-transport.ts';
import { createTapTransport } from './tap-transport.ts';

const file = join(tmpdir(), `passel-compliance-${process.pid}.pcap`);
afterAll(() => rmSync(file, { force: true }));

/** In both formats at once. */
function recordIn(link: GuestLink, arena: Arena): GuestLink {
  const formats = [PCAP_FORMAT, createPcapngFormat({ hardware: '', os: '', application: 'test' })];
  const sinks = formats.map((format) => {
    const options = { fd: openSync(file, 'w'), format, interfaces: ['guest'], arena };
    return { file: new CaptureFile(options), link: 0 };
  });
  return createPcapLink({ link, sinks });
}

const traceLogger: Logger = { ...silentLogger, isEnabled: () => true };

describeGuestLink('stream', () => createStreamTransport());

describeGuestLink('stream, recorded', () => createStreamTransport((link, arena) => recordIn(link, arena)));

describeGuestLink('stream, traced', () =>
  createStreamTransport((link, arena) => createTraceLink(link, arena, traceLogger)),
);

describeGuestLink('stream, through a fault injector without faults', () =>
  createStreamTransport((link, arena) => createFaultLink({ link, arena, seed: 1 })),
);

/** Nothing that shows, but every frame goes all the way. */
const HARMLESS: WayImpairment = {
  ...{ delayMs: 0, jitterMs: 0, loss: 0, duplicate: 0, reorder: 0 },
  ...{ bitsPerSecond: 0, limitBytes: 0, seed: 1 },
};

describeGuestLink('stream, through an impairment that is switched off', () =>
  createStreamTransport((link, arena) => {
    const impair = createImpairLink({ link, arena, clock: systemClock });
    impair.configure(NO_IMPAIRMENT);
    return impair;
  }),
);

describeGuestLink('stream, through an impairment without effect', () =>
  createStreamTransport((link, arena) => {
    const impair = createImpairLink({ link, arena, clock: systemClock });
    impair.configure({ toGuest: HARMLESS, fromGuest: HARMLESS });
    return impair;
  }),
);

describeGuestLink('tap, with virtio-net headers and through an impairment without effect', () =>
  createTapTransport({ vnetHeader: true }, (link, arena) => {
    const impair = createImpairLink({ link, arena, clock: systemClock });
    impair.configure({ toGuest: HARMLESS, fromGuest: HARMLESS });
    return impair;
  }),
);

describeGuestLink('stream, through all wrappers', () =>
  createStreamTransport((link, arena) => {
    const fault = createFaultLink({ link, arena, seed: 1 });
    return createTraceLink(recordIn(fault, arena), arena, traceLogger);
  }),
);

describeGuestLink('tap, plain', () => createTapTransport());

describeGuestLink('tap, with virtio-net headers', () => createTapTransport({ vnetHeader: true }));

describeGuestLink('tap, with virtio-net headers and through all wrappers', () =>
  createTapTransport({ vnetHeader: true }, (link, arena) => {
    const fault = createFaultLink({ link, arena, seed: 1 });
    return createTraceLink(recordIn(fault, arena), arena, traceLogger);
  }),
);

describeGuestLink('datagrams on a unix socket pair', () => createDatagramTransport('pair'), { end: 'with frames' });

describeGuestLink(
  'datagrams on a unix socket pair, through an impairment without effect',
  () =>
    createDatagramTransport('pair', (link, arena) => {
      const impair = createImpairLink({ link, arena, clock: systemClock });
      impair.configure({ toGuest: HARMLESS, fromGuest: HARMLESS });
      return impair;
    }),
  { end: 'with frames' },
);

describeGuestLink('datagrams between unix paths', () => createDatagramTransport('unix'), { end: 'with frames' });

describeGuestLink('datagrams over UDP and IPv4', () => createDatagramTransport('inet4'), {
  end: 'with frames',
  isLossy: true,
});

describeGuestLink('datagrams over UDP and IPv6', () => createDatagramTransport('inet6'), {
  end: 'with frames',
  isLossy: true,
});

describeGuestLink('datagrams in a multicast group', () => createDatagramTransport('multicast'), {
  end: 'never',
  isLossy: true,
});
