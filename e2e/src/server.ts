/**
 * A real server of one's own: the binary as built, a free port, an empty data folder that survives restarts.
 * In: flags, variables and a configuration. Out: addresses, `kill9`, `restart`, `stop`, and the whole log.
 * Called by every test file; `stop` also fails when the log tells of a panic.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { forget, remember } from './processes.ts';
import { until, within } from './until.ts';

const READY_MS = 20_000;
/** Longer than `http.drain_ms`, `agents.drain_ms` and handing back together. */
const STOP_MS = 25_000;
const ROOT = resolve(import.meta.dirname, '../..');

/** Where a server listens, when others have to know that before it starts. */
export interface Address { host: string; port: number; admin: number }

export interface ServerOptions {
  /** Without one, on 127.0.0.1 at free ports. */
  at?: Address;
  insecure?: boolean;
  /** The text of a configuration file. */
  config?: string;
  variables?: Record<string, string>;
}

interface Life {
  child: ChildProcess;
  pid: number;
  ended: Promise<string>;
  /** How it ended; undefined while it lives. */
  end: string | undefined;
  /** Of the admin listener, from the log. */
  admin: string | undefined;
}

/** `TALEWIRE_BIN`, or what `cargo build -p talewire` leaves. */
export function binary(): string {
  const named = process.env['TALEWIRE_BIN'];
  const target = process.env['CARGO_TARGET_DIR'] ?? 'target';
  const path = named ?? join(isAbsolute(target) ? target : join(ROOT, target), 'debug/talewire');
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`cargo build -p talewire\`, or set TALEWIRE_BIN`);
  return path;
}

export class Server {
  readonly port: number;
  readonly folder: string;
  /** Every line that any of its lives wrote. */
  readonly log: string[] = [];
  readonly #options: ServerOptions;
  #life: Life | undefined;

  private constructor(port: number, folder: string, options: ServerOptions) {
    this.port = port;
    this.folder = folder;
    this.#options = options;
  }

  /** Starts one and waits until it says that it is ready. */
  static async start(options: ServerOptions = {}): Promise<Server> {
    const folder = mkdtempSync(join(tmpdir(), 'talewire-e2e-'));
    const server = new Server(options.at?.port ?? await freePort(), folder, options);
    if (options.config !== undefined) writeFileSync(server.configFile, options.config);
    await server.restart();
    return server;
  }

  get host(): string {
    return this.#options.at?.host ?? '127.0.0.1';
  }

  get url(): string {
    return `http://${this.host}:${this.port}`;
  }

  get socketUrl(): string {
    return `ws://${this.host}:${this.port}/connection/websocket`;
  }

  get adminUrl(): string {
    return `http://${this.#living().admin ?? '127.0.0.1:0'}`;
  }

  get configFile(): string {
    return join(this.folder, 'talewire.toml');
  }

  /** Ends the process without a chance to do anything; what it had handed to the system is kept, as a power cut would not. */
  async kill9(): Promise<void> {
    const life = this.#living();
    life.child.kill('SIGKILL');
    await within('the killed server has ended', life.ended);
    this.#life = undefined;
  }

  /** Starts it again after `kill9`, on the same port and data. */
  async restart(): Promise<void> {
    if (this.#life !== undefined) throw new Error('the server still runs');
    const { at, insecure, config, variables } = this.#options;
    const flags = ['serve', '--listen', `${this.host}:${this.port}`, '--data', join(this.folder, 'data')];
    if (insecure === true) flags.push('--insecure');
    if (config !== undefined) flags.push('--config', this.configFile);
    const environment = withoutSettings({ TALEWIRE_HTTP_ADMIN_LISTEN: `${this.host}:${at?.admin ?? 0}`, RUST_BACKTRACE: '1', ...variables });
    const child = spawn(binary(), flags, { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
    if (child.pid === undefined) throw new Error('the server could not be started');
    const life: Life = { child, pid: child.pid, ended: Promise.resolve(''), end: undefined, admin: undefined };
    remember(life.pid, this.folder);
    life.ended = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        life.end = signal ?? `exit code ${code}`;
        forget(life.pid);
        resolve(life.end);
      });
    });
    this.log.push(`--- started as process ${life.pid}`);
    this.#read(life);
    this.#life = life;
    await until('the server is ready', () => this.#isReady(life), READY_MS, () => this.log.slice(-5));
  }

  /** Stops it as an operator would; fails if it does not end by itself. */
  async halt(): Promise<void> {
    const life = this.#living();
    this.#life = undefined;
    life.child.kill('SIGTERM');
    const end = await within('the server stops after SIGTERM', life.ended, STOP_MS).catch(async (error: unknown) => {
      life.child.kill('SIGKILL');
      await life.ended;
      throw error;
    });
    if (end !== 'exit code 0') throw new Error(`the server ended with ${end} instead of stopping\n${this.tail()}`);
  }

  /** The end of a test: stops what runs, removes its data, and fails if any of its lives panicked. */
  async stop(): Promise<void> {
    try {
      if (this.#life !== undefined) await this.halt();
    } finally {
      rmSync(this.folder, { recursive: true, force: true });
      this.#refusePanics();
    }
  }

  /** The end of the log, for a failure's report. */
  tail(lines = 60): string {
    return this.log.slice(-lines).join('\n');
  }

  /** One number of /metrics; the sum over its labels. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.adminUrl}/metrics`)).text();
    const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  #refusePanics(): void {
    const panics = this.log.filter((line) => line.includes('panicked'));
    if (panics.length > 0) throw new Error(`the server panicked:\n${panics.join('\n')}\n${this.tail()}`);
  }

  #living(): Life {
    if (this.#life === undefined) throw new Error('the server does not run');
    return this.#life;
  }

  async #isReady(life: Life): Promise<boolean> {
    if (life.end !== undefined) throw new Error(`the server ended before it was ready: ${life.end}\n${this.tail()}`);
    if (life.admin === undefined) return false;
    const answer = await fetch(`http://${life.admin}/ready`).catch(() => undefined);
    return answer?.ok === true;
  }

  #read(life: Life): void {
    for (const stream of [life.child.stdout, life.child.stderr]) {
      let rest = '';
      stream?.setEncoding('utf8');
      stream?.on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) this.#line(life, line);
      });
      stream?.on('end', () => {
        if (rest !== '') this.#line(life, rest);
      });
    }
  }

  #line(life: Life, line: string): void {
    this.log.push(line);
    if (life.admin === undefined && line.includes('talewire is ready')) life.admin = /"admin":"([^"]+)"/.exec(line)?.[1];
  }
}

/** This process's variables without any setting of ours, which must not change what is tested, and `more`. */
export function withoutSettings(more: Record<string, string>): NodeJS.ProcessEnv {
  return { ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TALEWIRE_'))), ...more };
}

/**
 * A port below the range that the system hands out: while the server is down, a client's own socket must not get it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const free = await new Promise<boolean>((resolve) => {
      const probe = createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
}
