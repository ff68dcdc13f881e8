/**
 * How `npm run test` finds and runs the unit tests of all packages: pure code in Node, anything
 * ending in .test.tsx in a simulated page. Called by vitest alone.
 */
import { defineConfig } from 'vitest/config';

const resolve = { conditions: ['talewire-source', 'module', 'browser', 'development', 'import', 'default'] };

export default defineConfig({
  test: {
    // Two workers at most: the machine is shared with Rust builds.
    maxWorkers: 2,
    projects: [
      { resolve, ssr: { resolve }, test: { name: 'pure', environment: 'node', include: ['{packages/*,apps/web}/src/**/*.test.ts'] } },
      { resolve, ssr: { resolve }, test: { name: 'page', environment: 'happy-dom', include: ['{packages/*,apps/web}/src/**/*.test.tsx'] } },
    ],
  },
});
