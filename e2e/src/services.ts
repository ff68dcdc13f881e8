/**
 * What nodes share: a Redis and a PostgreSQL of one's own, as Debian has them, at free ports and on empty folders. In: nothing. Out:
 * their addresses; they end with `stop`. Called by proxies.test.ts.
 */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { forget, remember } from './processes.ts';
import { freePort } from './server.ts';
import { until, within } from './until.ts';

interface Account { uid?: number; gid?: number }

class Service {
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #folder: string;
  #output = '';

  constructor(program: string, parameters: string[], folder: string, account: Account) {
    this.#folder = folder;
    this.#child = spawn(program, parameters, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], ...account });
    const { pid } = this.#child;
    this.#child.once('error', () => undefined);
    if (pid === undefined) throw new Error(`${program} could not be started: is it installed?`);
    remember(pid, folder);
    for (const stream of [this.#child.stdout, this.#child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => (this.#output += text));
    this.#ended = new Promise((resolve) => this.#child.once('close', () => {
      forget(pid);
      resolve(undefined);
    }));
  }

  async ready(name: string, check: () => boolean | Promise<boolean>): Promise<void> {
    await until(`${name} is ready`, check, undefined, () => this.#output.slice(-500));
  }

  async stop(): Promise<void> {
    // PostgreSQL takes this as: at once, whoever is still connected.
    this.#child.kill('SIGINT');
    try {
      await within('the service has ended', this.#ended);
    } finally {
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }
}

export interface Services {
  /** What the configuration of nodes says that are to share a broker and a store under this name. */
  config: (name: string) => string;
  stop: () => Promise<void>;
}

export async function startServices(): Promise<Services> {
  const [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
  return {
    config: (name) => `
[broker]
kind = "redis"
[broker.redis]
urls = ["redis://127.0.0.1:${redis.port}"]
prefix = "${name}"
[store]
url = "${postgres.database(name)}"
`,
    stop: async () => void (await Promise.all([redis.service.stop(), postgres.service.stop()])),
  };
}

/** As docs/operations.md wants it: nothing is evicted, and everything is in a file within a second. */
async function startRedis(): Promise<{ port: number; service: Service }> {
  const folder = mkdtempSync(join(tmpdir(), 'talewire-e2e-redis-'));
  const port = await freePort();
  const parameters = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'yes', '--maxmemory-policy', 'noeviction'];
  const service = new Service('redis-server', parameters, folder, {});
  await service.ready('Redis', () => answers(port, 'PING\r\n', '+PONG'));
  return { port, service };
}

async function startPostgres(): Promise<{ database: (name: string) => string; service: Service }> {
  const folder = mkdtempSync(join(tmpdir(), 'talewire-e2e-postgres-'));
  const account = accountOf();
  if (account.uid !== undefined) chownSync(folder, account.uid, account.gid ?? account.uid);
  const [port, data] = [await freePort(), join(folder, 'data')];
  execFileSync(program('initdb'), ['-D', data, '--username=talewire', '--auth=trust', '--no-sync', '--encoding=UTF8', '--locale=C'], { cwd: '/', stdio: 'pipe', ...account });
  const options = ['unix_socket_directories=', 'listen_addresses=127.0.0.1'].flatMap((option) => ['-c', option]);
  const service = new Service(program('postgres'), ['-D', data, '-p', String(port), ...options], folder, account);
  const at = ['-h', '127.0.0.1', '-p', String(port), '-U', 'talewire'];
  const asked = (name: string, ...parameters: string[]): void => void execFileSync(program(name), [...at, ...parameters], { stdio: 'pipe' });
  await service.ready('PostgreSQL', () => {
    try {
      asked('pg_isready', '-d', 'postgres');
      return true;
    } catch {
      return false;
    }
  });
  const database = (name: string): string => {
    asked('createdb', name);
    return `postgres://talewire@127.0.0.1:${port}/${name}`;
  };
  return { database, service };
}

/** Who runs PostgreSQL, which refuses to run as root: one without rights. */
function accountOf(): Account {
  if (process.getuid?.() !== 0) return {};
  const users = readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':'));
  const user = ['postgres', 'nobody'].map((name) => users.find(([first]) => first === name)).find((found) => found !== undefined);
  return user === undefined ? {} : { uid: Number(user[2]), gid: Number(user[3]) };
}

/** Of the newest PostgreSQL that Debian has put here. */
function program(name: string): string {
  const versions = '/usr/lib/postgresql';
  const newest = readdirSync(versions).sort((one, other) => Number(other) - Number(one))[0];
  if (newest === undefined) throw new Error('install Debian\'s postgresql');
  return join(versions, newest, 'bin', name);
}

function answers(port: number, question: string, expected: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(question));
    const done = (found: boolean): void => {
      socket.destroy();
      resolve(found);
    };
    socket.once('data', (data) => done(data.toString().startsWith(expected))).once('error', () => done(false));
  });
}
