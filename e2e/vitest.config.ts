/**
 * How `npm run test --workspace e2e` runs: one file after the other, since each starts servers and browsers
 * on a machine that may have two cores. Called by vitest alone.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['*.test.ts'],
    environment: 'node',
    pool: 'forks',
    fileParallelism: false,
    maxWorkers: 1,
    sequence: { concurrent: false },
    // Kills whatever a crashed worker left behind.
    globalSetup: ['src/processes.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 20_000,
    retry: 0,
  },
});
