/** Random numbers for the start of a program that needs a few: node:crypto would take a tenth of that start to load. */
import { checkStatus } from './errors.ts';
import type { NativeAddon } from './native-addon.ts';

/**
 * Random words, by getrandom(2).
 * @param count - 64 at most
 * @throws Error with `errno` and `code` where the kernel has no such call
 */
export function randomWords(native: NativeAddon, count: number): Uint32Array {
  const words = new Uint32Array(count);
  checkStatus(native.fillRandom(new Uint8Array(words.buffer)), 'getrandom');
  return words;
}
