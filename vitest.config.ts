import { defineConfig } from 'vitest/config';

// Suites that boot guests or build namespaces share two cores: they run one file at a time, after the unit tests.
export default defineConfig({
  test: {
    reporters: ['default', './test/support/second-try-reporter.ts'],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,meta,compliance,fuzz}/**/*.test.ts'],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/{integration,e2e}/**/*.test.ts', 'test/bench/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 180_000,
          // Guests and namespaces on a busy machine: in CI one failure may be tried again, and is then listed at the end.
          retry: process.env['CI'] ? 1 : 0,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
