import { defineConfig } from 'vitest/config';

// Apart from `npm test`: a guest in a guest, both emulated, takes minutes.
export default defineConfig({
  test: {
    reporters: ['verbose'],
    include: ['test/nested/**/*.test.ts'],
    testTimeout: 2_400_000,
    hookTimeout: 300_000,
  },
});
