import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';

afterEach(() => {
  vi.unstubAllEnvs();
  vi.resetModules();
});

/** The loader as a new process would have it. */
async function importLoader(): Promise<typeof import('../../../src/sys/native.ts')> {
  vi.resetModules();
  return import('../../../src/sys/native.ts');
}

describe('loadNative', () => {
  it('finds the build of the source tree and loads it once', async () => {
    vi.stubEnv('PASSEL_NATIVE', '');
    const { loadNative, nativePath } = await importLoader();
    expect(existsSync(nativePath())).toBe(true);
    expect(loadNative()).toBe(loadNative());
  });

  it('says which file it could not load and why', async () => {
    vi.stubEnv('PASSEL_NATIVE', '/no/such/passel.node');
    const missing = await importLoader();
    expect(() => missing.loadNative()).toThrow(
      expect.objectContaining({
        code: 'PASSEL_E_ADDON',
        message: "cannot load the native addon '/no/such/passel.node': there is no such file",
      }),
    );
    const folder = mkdtempSync(join(tmpdir(), 'passel-native-'));
    try {
      copyFileSync('/dev/null', join(folder, 'empty.node'));
      vi.stubEnv('PASSEL_NATIVE', join(folder, 'empty.node'));
      const broken = await importLoader();
      expect(() => broken.loadNative()).toThrow(/empty\.node': .*(file too short|invalid ELF)/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
