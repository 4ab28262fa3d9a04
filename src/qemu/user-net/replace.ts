/**
 * A QEMU command line whose `-netdev user` is taken over by a stack of ours: the same options, in a place where they are understood, and a
 * socket in the place of the network.
 *
 * `-netdev` becomes a stream netdev. `-nic` and the old `-net` know no such thing, but legacy sockets, which speak the same; what they say
 * about the card stays. A command that says nothing about networks has a card on a network of this kind by default.
 *
 * Not done: several such networks in one machine.
 */
import { PasselError } from '../../base/errors.ts';
import { propertiesOf, walkOptions } from '../command-line.ts';
import { formatOptionList, getProperty, type Property } from '../option-string.ts';
import { isUserNetKey } from './user-net.ts';

const OPTION = '--replace-user-net';

export interface ReplacedUserNet {
  /** Program and arguments. */
  readonly command: readonly string[];
  /** What `readUserNet` reads. */
  readonly options: string;
}

/**
 * @param command - program and arguments
 * @param fd - number of the connected socket in QEMU
 * @throws PasselError when there is nothing to replace, or more than can be
 */
export function replaceUserNet(command: readonly string[], fd: number): ReplacedUserNet {
  const [program = '', ...args] = command;
  const options = walkOptions(args);
  const networks = options.filter(({ name }) => name === 'netdev' || name === 'nic' || name === 'net');
  const ours = networks.filter((option) => getProperty(propertiesOf(option), 'type') === 'user');
  const [found, another] = ours;
  if (another !== undefined) {
    const expected = 'one network of this kind in a machine';
    throw new PasselError('PASSEL_E_OPTION_VALUE', { option: OPTION, value: another.value ?? '', expected });
  }
  if (found === undefined) {
    const hasDefault = networks.length === 0 && !options.some(({ name }) => name === 'nodefaults');
    if (!hasDefault) {
      throw new PasselError('PASSEL_E_OPTION_REQUIRES', {
        option: OPTION,
        other: '-netdev user or -nic user in the command',
      });
    }
    return { command: [...command, '-nic', `socket,fd=${fd}`], options: 'user' };
  }
  const properties = propertiesOf(found).filter(({ key }) => key !== 'type');
  const isOption = ({ key }: Property): boolean => isUserNetKey(key);
  const rest = properties.filter((property) => !isOption(property));
  const link = found.name === 'netdev' ? streamLink(rest, fd) : [...socketLink(fd), ...rest];
  const replaced = [...args];
  replaced[found.index + 1] = formatOptionList(link, 'type');
  return {
    command: [program, ...replaced],
    options: formatOptionList([{ key: 'type', value: 'user' }, ...properties.filter(isOption)], 'type'),
  };
}

function streamLink(rest: readonly Property[], fd: number): Property[] {
  return [
    { key: 'type', value: 'stream' },
    ...rest,
    { key: 'server', value: 'off' },
    { key: 'addr.type', value: 'fd' },
    { key: 'addr.str', value: String(fd) },
  ];
}

function socketLink(fd: number): Property[] {
  return [
    { key: 'type', value: 'socket' },
    { key: 'fd', value: String(fd) },
  ];
}
