/**
 * Which arguments give way to the network that qrap adds: every -netdev and -net, and -device with a network card.
 *
 * As in C, a card is known by how the text begins: driver first, in JSON without blanks, and something behind it. A card that does
 * not begin so is left alone, as are options with two dashes; old command lines rely on both.
 */

const CARD_MODELS = ['virtio-net-pci', 'virtio-net-ccw', 'e1000', 'e1000e', 'rtl8139'];
const BACKEND_OPTIONS: ReadonlySet<string> = new Set(['-netdev', '-net']);

/** Options whose value is free text or a file's name, which may look like an option (`-append -netdev`). */
const FREE_TEXT_OPTIONS: ReadonlySet<string> = new Set(
  'append name kernel initrd dtb bios shim D pidfile'.split(' ').flatMap((name) => [`-${name}`, `--${name}`]),
);

/** A word or two of a command line that go together. */
export interface Removal {
  readonly words: readonly string[];
  readonly reason: string;
}

export interface Kept {
  /** What stays, in order. */
  readonly args: readonly string[];
  readonly removed: readonly Removal[];
  /** Values of -device that stay; a -device at the end that has none does not count. */
  readonly devices: readonly string[];
  /** Value of the last -machine. */
  readonly machine: string | undefined;
}

function isCard(value: string): boolean {
  return CARD_MODELS.some((model) => value.startsWith(`${model},`) || value.startsWith(`{"driver":"${model}",`));
}

/** Goes through the arguments once. */
export function removeConflicts(words: readonly string[]): Kept {
  const args: string[] = [];
  const removed: Removal[] = [];
  const devices: string[] = [];
  let machine: string | undefined;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    const value = words[i + 1];
    if (BACKEND_OPTIONS.has(word)) {
      removed.push({ words: words.slice(i, i + 2), reason: 'a network beside the one that is added' });
      i++;
    } else if (word === '-device' && value !== undefined && isCard(value)) {
      removed.push({ words: [word, value], reason: 'a network card beside the one that is added' });
      i++;
    } else if (FREE_TEXT_OPTIONS.has(word) && value !== undefined) {
      args.push(word, value);
      i++;
    } else {
      args.push(word);
      if (word === '-device' && value !== undefined) devices.push(value);
      if (word === '-machine') machine = value;
    }
  }
  return { args, removed, devices, machine };
}
