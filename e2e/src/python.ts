/**
 * Python with the packages that python/requirements.txt names by their content, in a place of its own: made once, made
 * again when the list changes. In: `python3` with `venv`, the registry that pip is set up with. Out: scripts that tell by
 * lines of JSON. Called by python-client.test.ts.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { forget, remember } from './processes.ts';
import { until, within } from './until.ts';

const FOLDER = resolve(import.meta.dirname, '../python');
const PLACE = resolve(FOLDER, '.venv');
const MADE_OF = resolve(PLACE, 'made-of');
const run = promisify(execFile);

/** Makes the place if it is not there, and gives its interpreter. */
export async function python(): Promise<string> {
  const list = resolve(FOLDER, 'requirements.txt');
  const digest = createHash('sha256').update(readFileSync(list)).digest('hex');
  const interpreter = resolve(PLACE, 'bin/python');
  if (existsSync(MADE_OF) && readFileSync(MADE_OF, 'utf8') === digest) return interpreter;
  rmSync(PLACE, { recursive: true, force: true });
  await run(process.env['E2E_PYTHON'] ?? 'python3', ['-m', 'venv', PLACE]);
  await run(interpreter, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--only-binary', ':all:', '--require-hashes', '-r', list]);
  writeFileSync(MADE_OF, digest);
  return interpreter;
}

type Told = Record<string, unknown> & { step: string };

export class Script {
  readonly told: Told[] = [];
  /** What it wrote beside its lines: a traceback, if anything. */
  errors = '';
  readonly #child;
  readonly #ended: Promise<number | null>;
  #end: number | null | undefined;

  constructor(interpreter: string, name: string, parameters: object) {
    this.#child = spawn(interpreter, [resolve(FOLDER, name), JSON.stringify(parameters)], { stdio: 'pipe' });
    const { pid } = this.#child;
    if (pid !== undefined) remember(pid, name);
    let rest = '';
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.told.push(...lines.map((line) => JSON.parse(line) as Told));
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => (this.errors += text));
    this.#ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code) => {
        if (pid !== undefined) forget(pid);
        this.#end = code;
        resolve(code);
      });
    });
    this.#ended.catch(() => undefined);
  }

  /** Waits for a step; fails at once if the script ends before it. */
  async step(name: string): Promise<Told> {
    return until(`the script's step "${name}"`, () => {
      const found = this.told.find(({ step }) => step === name);
      if (found === undefined && this.#end !== undefined) throw new Error(`the script ended with ${this.#end} before its step "${name}"\n${this.errors}`);
      return found;
    }, undefined, () => [this.told.at(-1), this.errors]);
  }

  goOn(): void {
    this.#child.stdin.write('\n');
  }

  async ended(): Promise<number | null> {
    return within('the script ends', this.#ended);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
