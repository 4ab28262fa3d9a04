/** Finds and loads the C addon. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PasselError, reasonOf } from '../base/errors.ts';
import type { NativeAddon } from './native-addon.ts';

export type { NativeAddon } from './native-addon.ts';

/** This file, or the bundle that it became part of (where `import.meta` does not exist). */
const here = typeof __filename === 'undefined' ? fileURLToPath(import.meta.url) : __filename;

let loaded: NativeAddon | undefined;

/** Path of the addon that {@link loadNative} takes: beside the bundles in `dist`, or in the build directory of a source tree. */
export function nativePath(): string {
  const chosen = process.env['PASSEL_NATIVE'];
  if (chosen !== undefined && chosen !== '') return chosen;
  const bundled = join(dirname(here), '../native/passel.node');
  return existsSync(bundled) ? bundled : join(dirname(here), '../../build/Release/passel.node');
}

/**
 * The addon, loaded on the first call. Each worker thread has an instance of its own with its own arena.
 * `PASSEL_NATIVE` in the environment names another build of it, such as one with sanitizers.
 * @throws PasselError PASSEL_E_ADDON
 */
export function loadNative(): NativeAddon {
  if (loaded !== undefined) return loaded;
  const path = nativePath();
  try {
    // What a CommonJS bundle is given need not be loaded. One of ES modules (the library) is given a `require` that only throws.
    const isCommon = typeof __filename !== 'undefined' && typeof require !== 'undefined';
    const load = isCommon ? require : process.getBuiltinModule('node:module').createRequire(here);
    loaded = load(path) as NativeAddon;
  } catch (error) {
    const reason = existsSync(path) ? reasonOf(error) : 'there is no such file';
    throw new PasselError('PASSEL_E_ADDON', { value: path, reason }, { cause: error });
  }
  return loaded;
}
