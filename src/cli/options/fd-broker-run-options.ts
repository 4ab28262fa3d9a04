/** The options of `passel-fd-broker run`. */
import { parseNamedFd, SPEC_FORMS } from '../fd-broker/fd-spec.ts';
import { brokerSocketOption } from './broker-socket-option.ts';
import { value, values } from './definition.ts';
import { PROCESS_OPTIONS } from './process-options.ts';
import { parsePath } from './values.ts';

const OPENING = 'What to open:';

export const FD_BROKER_RUN_OPTIONS = {
  fd: values({
    group: OPENING,
    valueName: 'NAME=SPEC',
    help: `Open this, and put its number for @NAME@ and {fd:NAME} in the arguments: ${SPEC_FORMS} (an open descriptor)`,
    parse: parseNamedFd,
  }),
  monitor: value({
    group: OPENING,
    valueName: 'PATH',
    help: 'Listen here for QMP before the command, QEMU, starts, and append the options that give it the socket',
    parse: parsePath,
  }),
  'broker-socket': brokerSocketOption(OPENING),
  help: PROCESS_OPTIONS.help,
  version: PROCESS_OPTIONS.version,
} as const;

export type FdBrokerRunOptionTable = typeof FD_BROKER_RUN_OPTIONS;
