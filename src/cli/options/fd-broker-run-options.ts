/** The options of `passel-fd-broker run`. */
import { parseNamedFd } from '../fd-broker/fd-spec.ts';
import { value, values } from './definition.ts';
import { PROCESS_OPTIONS } from './process-options.ts';
import { parsePath } from './values.ts';

const OPENING = 'What to open:';

export const FD_BROKER_RUN_OPTIONS = {
  fd: values({
    group: OPENING,
    valueName: 'NAME=SPEC',
    help:
      'Open this, and put its number for @NAME@ and {fd:NAME} in the arguments: file:PATH[,ro|rw|append|create], unix-listen:PATH, ' +
      'unix-connect:PATH, passt:PATH, tcp-listen:ADDRESS:PORT, tcp-connect:ADDRESS:PORT, udp:ADDRESS:PORT[,to=ADDRESS:PORT], ' +
      'tap:BRIDGE[,vnet], broker:NAME[,copy]',
    parse: parseNamedFd,
  }),
  monitor: value({
    group: OPENING,
    valueName: 'PATH',
    help: 'Listen here for QMP before the command, QEMU, starts, and append the options that give it the socket',
    parse: parsePath,
  }),
  help: PROCESS_OPTIONS.help,
  version: PROCESS_OPTIONS.version,
} as const;

export type FdBrokerRunOptionTable = typeof FD_BROKER_RUN_OPTIONS;
