/**
 * Sees to it that no server outlives a test run, however the run ends. In: the ids of started processes, each
 * a file in one folder. Out: none of them alive. `remember` and `forget` are called by server; `setup` by vitest
 * in its own process, which goes on when a worker dies.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const VARIABLE = 'E2E_PROCESSES';
const alive = new Set<number>();

/** Before all tests; what it returns runs after them. */
export default function setup(): () => void {
  const folder = mkdtempSync(join(tmpdir(), 'talewire-e2e-processes-'));
  process.env[VARIABLE] = folder;
  return () => {
    for (const name of readdirSync(folder)) killIfStill(Number(name), readFileSync(join(folder, name), 'utf8'));
    rmSync(folder, { recursive: true, force: true });
  };
}

/** Notes a process that must not outlive this run; `marker` is a part of its command line. */
export function remember(pid: number, marker: string): void {
  alive.add(pid);
  const folder = process.env[VARIABLE];
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, String(pid)), marker);
}

export function forget(pid: number): void {
  alive.delete(pid);
  const folder = process.env[VARIABLE];
  if (folder !== undefined) rmSync(join(folder, String(pid)), { force: true });
}

// A worker that ends in the middle of a test takes its servers along.
process.on('exit', () => {
  for (const pid of alive) kill(pid);
});

/** The id may belong to somebody else by now: then it is left alone. */
function killIfStill(pid: number, marker: string): void {
  try {
    if (!readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(marker)) return;
  } catch {
    return;
  }
  kill(pid);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}
