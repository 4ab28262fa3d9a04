/** Open files that a QEMU command line refers to by number, and that must therefore be inherited. */
import { propertiesOf, walkOptions } from './command-line.ts';
import { getProperty, type Property } from './option-string.ts';

/** Keys whose value is a number, or several with colons between. */
const NUMBER_KEYS: ReadonlySet<string> = new Set(['fd', 'fds', 'vhostfd', 'vhostfds']);
/** Socket addresses of the kind `fd` (`addr.type=fd,addr.str=5`). */
const ADDRESS_KEYS = ['addr.', 'local.', 'remote.', ''];

/** The numbers, ascending, each once. */
export function listNamedDescriptors(args: readonly string[]): number[] {
  const found = new Set<number>();
  const add = (text: string | undefined): void => {
    for (const part of text?.split(':') ?? []) if (/^\d{1,9}$/.test(part)) found.add(Number(part));
  };
  for (const option of walkOptions(args)) {
    const properties = propertiesOf(option);
    // `-qmp unix:fd=5`: a chardev in short form, whose kind stands before the key.
    for (const { key, value } of properties) if (NUMBER_KEYS.has(key.replace(/^.*:/, ''))) add(value);
    for (const prefix of ADDRESS_KEYS) addAddress(properties, prefix, add);
    if (option.name === 'incoming' && option.value?.startsWith('fd:')) add(option.value.slice(3));
    for (const path of option.value?.matchAll(/\/dev\/fd\/(\d+)/g) ?? []) add(path[1]);
  }
  return [...found].sort((a, b) => a - b);
}

function addAddress(properties: readonly Property[], prefix: string, add: (text: string | undefined) => void): void {
  if (getProperty(properties, `${prefix}type`) === 'fd') add(getProperty(properties, `${prefix}str`));
}
