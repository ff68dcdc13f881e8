/**
 * nginx, HAProxy and Caddy in front of two nodes, each with the configuration that is shipped in deploy/. Nothing of it is
 * changed but addresses, ports, paths and who they run as; a text that is to be changed and is not there is an error.
 * In: the nodes' addresses. Out: a proxy with TLS at a free port, its certificate, all that it logged. Called by proxies.test.ts.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { connect } from 'node:tls';
import { forget, remember } from './processes.ts';
import { freePort, type Address } from './server.ts';
import { until, within } from './until.ts';

const DEPLOY = resolve(import.meta.dirname, '../../deploy');
/** Debian puts these where only root's path leads. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** Two nodes at the same ports of two hosts, as in the shipped files. */
export interface Nodes { a: Address; b: Address }

export async function twoAddresses(): Promise<Nodes> {
  const [port, admin] = [await freePort(), await freePort()];
  return { a: { host: '127.0.0.11', port, admin }, b: { host: '127.0.0.12', port, admin } };
}

interface Place { folder: string; nodes: Nodes; tls: number; plain: number }
/** What is written in place of what. */
type Changes = [string, string][];

interface Kind {
  program: string;
  /** Debian's name for it. */
  package: string;
  files: Record<string, (place: Place) => Changes>;
  /** More that it needs there. */
  prepare?: (place: Place) => void;
  arguments: (folder: string) => string[];
}

const nodesOf = ({ nodes }: Place): Changes => [
  ['10.210.0.11', nodes.a.host],
  ['10.210.0.12', nodes.b.host],
];

export const KINDS: Record<'nginx' | 'HAProxy' | 'Caddy', Kind> = {
  nginx: {
    program: 'nginx',
    package: 'nginx',
    files: {
      'nginx/talewire.conf': (place) => [
        ...nodesOf(place),
        [':8000 ', `:${place.nodes.a.port} `],
        ['listen 80;', `listen 127.0.0.1:${place.plain};`],
        ['listen [::]:80;', ''],
        ['listen 443 ', `listen 127.0.0.1:${place.tls} `],
        ['listen [::]:443 ssl http2;', ''],
        ['/etc/talewire/tls/', `${place.folder}/`],
        ['/var/log/nginx/', `${place.folder}/`],
      ],
    },
    // What Debian has in nginx.conf, and compression of everything: the shipped file has to hold its own.
    prepare: ({ folder }) => writeFileSync(join(folder, 'nginx.conf'), `
      daemon off;
      master_process off;
      pid ${folder}/nginx.pid;
      error_log ${folder}/main.log notice;
      events { worker_connections 1024; }
      http {
        ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join(' ')}
        gzip on;
        gzip_types *;
        gzip_proxied any;
        gzip_min_length 0;
        include ${folder}/talewire.conf;
      }`),
    arguments: (folder) => ['-c', join(folder, 'nginx.conf'), '-p', folder, '-e', join(folder, 'main.log')],
  },
  HAProxy: {
    program: 'haproxy',
    package: 'haproxy',
    files: {
      'haproxy/haproxy.cfg': (place) => [
        ...nodesOf(place),
        [':8000', `:${place.nodes.a.port}`],
        ['check port 8001', `check port ${place.nodes.a.admin}`],
        ['bind :80\n', `bind 127.0.0.1:${place.plain}\n`],
        ['bind :443 ', `bind 127.0.0.1:${place.tls} `],
        ['/etc/talewire/tls/', `${place.folder}/`],
        ['log /dev/log local0', 'log stdout format raw local0'],
        ['maxconn 100000', 'maxconn 1000'],
        ['user haproxy', ''],
        ['group haproxy', ''],
        ['chroot /var/lib/haproxy', ''],
      ],
    },
    arguments: (folder) => ['-db', '-f', join(folder, 'haproxy.cfg')],
  },
  Caddy: {
    program: 'caddy',
    package: 'caddy',
    files: {
      'caddy/Caddyfile': (place) => [
        ...nodesOf(place),
        [':8000', `:${place.nodes.a.port}`],
        ['health_port 8001', `health_port ${place.nodes.a.admin}`],
        ['admin localhost:2019', `admin off\n\thttp_port ${place.plain}\n\thttps_port ${place.tls}\n\tdefault_bind 127.0.0.1`],
        ['tales.example {', 'localhost {'],
        ['/etc/talewire/tls/', `${place.folder}/`],
        ['/var/log/caddy/', `${place.folder}/`],
      ],
    },
    arguments: (folder) => ['run', '--config', join(folder, 'Caddyfile'), '--adapter', 'caddyfile'],
  },
};

export class Proxy {
  readonly url: string;
  readonly socketUrl: string;
  /** Where it listens without TLS. */
  readonly plainUrl: string;
  /** The authority that signed its certificate, and its file. */
  readonly ca: string;
  readonly certificate: string;
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<string>;

  private constructor(place: Place, kind: Kind) {
    this.url = `https://localhost:${place.tls}`;
    this.socketUrl = `wss://localhost:${place.tls}/connection/websocket`;
    this.plainUrl = `http://localhost:${place.plain}`;
    this.certificate = join(place.folder, 'ca.pem');
    this.ca = readFileSync(this.certificate, 'utf8');
    this.#folder = place.folder;
    const environment = { ...process.env, PATH, HOME: place.folder, XDG_DATA_HOME: place.folder, XDG_CONFIG_HOME: place.folder };
    const child = spawn(kind.program, kind.arguments(place.folder), { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
    child.once('error', () => undefined);
    if (child.pid === undefined) throw new Error(`${kind.program} could not be started: install Debian's ${kind.package}`);
    const { pid } = child;
    remember(pid, place.folder);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      writeFileSync(join(place.folder, 'output.log'), output);
    });
    this.#ended = new Promise((resolve) => child.once('close', (code, signal) => {
      forget(pid);
      resolve(`${signal ?? `exit code ${code}`}\n${output}`);
    }));
    this.#child = child;
  }

  /** Starts one and waits until it shows its certificate. */
  static async start(kind: Kind, nodes: Nodes): Promise<Proxy> {
    const folder = mkdtempSync(join(tmpdir(), 'talewire-e2e-proxy-'));
    const place: Place = { folder, nodes, tls: await freePort(), plain: await freePort() };
    makeCertificate(folder);
    for (const [name, changes] of Object.entries(kind.files)) {
      const text = readFileSync(join(DEPLOY, name), 'utf8');
      const base = name.slice(name.indexOf('/') + 1);
      writeFileSync(join(folder, base), changes(place).reduce((all, [from, to]) => changed(name, all, from, to), text));
    }
    kind.prepare?.(place);
    const proxy = new Proxy(place, kind);
    let end: string | undefined;
    void proxy.#ended.then((how) => (end = how));
    await until(`${kind.program} shows its certificate`, () => {
      if (end !== undefined) throw new Error(`${kind.program} ended before it listened: ${end}`);
      return proxy.#answers(place.tls);
    });
    return proxy;
  }

  /** Everything that it wrote anywhere. */
  logs(): string {
    const names = readdirSync(this.#folder).filter((name) => name.endsWith('.log'));
    return names.map((name) => readFileSync(join(this.#folder, name), 'utf8')).join('\n');
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    try {
      await within('the proxy stops', this.#ended);
    } finally {
      this.#child.kill('SIGKILL');
      rmSync(this.#folder, { recursive: true, force: true });
    }
  }

  #answers(port: number): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect({ port, host: 'localhost', ca: this.ca, servername: 'localhost' });
      const done = (works: boolean) => (): void => {
        socket.destroy();
        resolve(works);
      };
      socket.once('secureConnect', done(true)).once('error', done(false));
    });
  }
}

function changed(file: string, text: string, from: string, to: string): string {
  if (!text.includes(from)) throw new Error(`deploy/${file} does not say ${JSON.stringify(from)} any more`);
  return text.replaceAll(from, to);
}

/** For `localhost`, in the forms that proxies want, and the authority that signed it. */
function makeCertificate(folder: string): void {
  const at = (name: string): string => join(folder, name);
  const openssl = (...parameters: string[]): void => {
    const made = spawnSync('openssl', parameters);
    if (made.status !== 0) throw new Error(`openssl made no certificate: ${made.error?.message ?? made.stderr.toString()}`);
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '2', '-subj', '/CN=tests');
  openssl('req', ...key, '-keyout', at('privkey.pem'), '-out', at('request.pem'), '-subj', '/CN=localhost');
  writeFileSync(at('extensions'), 'subjectAltName=DNS:localhost\n');
  const signed = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-extfile', at('extensions'), '-days', '2'];
  openssl('x509', '-req', '-in', at('request.pem'), ...signed, '-out', at('fullchain.pem'));
  writeFileSync(at('haproxy.pem'), readFileSync(at('fullchain.pem'), 'utf8') + readFileSync(at('privkey.pem'), 'utf8'));
}
