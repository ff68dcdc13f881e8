/**
 * What is shipped in deploy/ names things of the server: settings, variables, metrics, addresses, times. Here every one of
 * them is compared with what the binary says, so that neither side changes alone.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { binary, withoutSettings, type Server } from './src/server.ts';
import { documents, drain_s, number, POLL_S, ROOT, samples, says, seconds, setting, settings, shippedFiles, silence_s, text, unknown } from './src/shipped.ts';
import { withServer } from './src/with-server.ts';

let server: Server;
/** With what has metrics only when there is one; nobody answers at either address. */
const CONFIG = `
[sources.orders]
kind = "redis"
url = "redis://127.0.0.1:1"
from = "orders"
channel = "orders:all"

[namespaces.orders]
kind = "durable"

[webhooks.billing]
url = "https://127.0.0.1:1/"
private_allowed = true
secret = "a secret of thirty-two bytes or more"
events = ["client_connected"]
`;
withServer(() => ({ config: CONFIG }), (started) => (server = started));

const files = shippedFiles();
const yaml = files.filter((path) => path.endsWith('.yaml') || path.endsWith('.yml'));

describe('every shipped file', () => {
  it('has been found', () => {
    expect(files).toEqual(expect.arrayContaining(['deploy/nginx/talewire.conf', 'deploy/systemd/talewire.service', 'deploy/prometheus/alerts.yml', 'Dockerfile']));
  });

  it.each(files)('%s names settings and variables that there are', (path) => {
    const variables = settings.map(({ variable }) => variable);
    const others = ['TALEWIRE_CONFIG'];
    for (const [name] of text(path).matchAll(/TALEWIRE_[A-Z0-9_]+/g)) expect([...variables, ...others]).toContain(name);
    const paths = settings.map((one) => one.path);
    const sections = [...new Set(paths.map((one) => one.slice(0, one.indexOf('.'))))].filter((section) => section !== 'namespaces');
    const named = text(path).matchAll(new RegExp(`(?<![\\w./{$-])(?:${sections.join('|')})\\.[a-z][a-z0-9_.]*[a-z0-9]`, 'g'));
    for (const [name] of named) if (!/\.(yml|yaml|md|conf)$/.test(name)) expect(paths).toContain(name);
  });

  it('the example of a configuration is one', () => {
    const said = execFileSync(binary(), ['check', join(ROOT, 'deploy/systemd/talewire.toml')], { encoding: 'utf8', env: withoutSettings({}) });
    expect(said).toContain(': good');
    // Both sides of a proxy name the same addresses.
    const [, listen = '', trusted = ''] = /listen = "(\S+)"[^]*trusted_proxies = \["(\S+)"\]/.exec(text('deploy/systemd/talewire.toml')) ?? [];
    for (const proxy of ['nginx/talewire.conf', 'haproxy/haproxy.cfg', 'caddy/Caddyfile']) {
      expect(text(`deploy/${proxy}`)).toContain(` ${listen}`);
      expect(text(`deploy/${proxy}`)).toContain(`http.trusted_proxies = ["${trusted}"]`);
    }
  });

  it.each(yaml)('%s is YAML', (path) => {
    expect(documents(path).length).toBeGreaterThan(0);
  });
});

describe('limits and times fit those of the nodes', () => {
  const nginx = 'deploy/nginx/talewire.conf';
  const haproxy = 'deploy/haproxy/haproxy.cfg';
  const caddy = 'deploy/caddy/Caddyfile';

  it('sizes', () => {
    expect(says(nginx, /client_max_body_size +(\d+)k;/) * 1024).toBe(number('http.body_bytes_max'));
    expect(says(haproxy, /content-length\) gt (\d+)/)).toBe(number('http.body_bytes_max'));
    expect(says(caddy, /max_size (\d+)KiB/) * 1024).toBe(number('http.body_bytes_max'));
    expect(says(nginx, /large_client_header_buffers \d (\d+)k;/) * 1024).toBe(number('http.head_bytes_max'));
    expect(says(caddy, /max_header_size (\d+)KiB/) * 1024).toBe(number('http.head_bytes_max'));
    expect(says(haproxy, /tune.bufsize (\d+)/) - says(haproxy, /tune.maxrewrite (\d+)/)).toBe(number('http.head_bytes_max'));
    expect(says(nginx, /http2_max_concurrent_streams (\d+);/)).toBe(number('http.streams_max'));
    expect(says(haproxy, /tune.h2.max-concurrent-streams (\d+)/)).toBe(number('http.streams_max'));
    // A page opens a few; nobody honest needs as many as a node allows those who have not said who they are.
    expect(says(nginx, /limit_conn +talewire_addresses (\d+);/)).toBe(number('http.strangers_per_ip_max'));
    expect(says(haproxy, /sc0_conn_cur gt (\d+)/)).toBe(number('http.strangers_per_ip_max'));
    expect(says('deploy/systemd/talewire.service', /LimitNOFILE=(\d+)/)).toBeGreaterThanOrEqual(number('http.sockets_max') + 64);
  });

  it('silence', () => {
    expect(POLL_S).toBeGreaterThan(0);
    const longest = Math.max(2 * silence_s, POLL_S);
    for (const [found] of text(nginx).matchAll(/proxy_buffering +off;[^}]*?proxy_read_timeout \d+s;/g)) expect(Number(/(\d+)s;$/.exec(found)?.[1])).toBeGreaterThan(longest);
    expect(says(nginx, /location = \/poll \{[^}]*proxy_read_timeout (\d+)s;/)).toBeGreaterThan(POLL_S);
    for (const which of ['client', 'server', 'tunnel']) expect(says(haproxy, new RegExp(`timeout ${which} (\\d+)s`))).toBeGreaterThan(longest);
    // A proxy lets go of a socket before the node does.
    const kept_s = Math.min(seconds('http.head_ms'), Number(/drain_wait_ms = (\S+)/.exec(text('deploy/systemd/talewire.toml'))?.[1]?.replace('_', '')) / 1000);
    expect(says(nginx, /keepalive 32;[^}]*keepalive_timeout (\d+)s;/)).toBeLessThan(kept_s);
    expect(says(caddy, /keepalive (\d+)s/)).toBeLessThan(kept_s);
    expect(says(haproxy, /pool-purge-delay (\d+)ms/)).toBeLessThan(1000 * kept_s);
    expect(says(nginx, /proxy_read_timeout (\d+)s; +# http.request_ms/)).toBeGreaterThan(Math.max(seconds('http.request_ms'), seconds('http.export_ms_max')));
  });

  it('stopping', () => {
    expect(drain_s).toBeGreaterThan(0);
    expect(says('deploy/systemd/talewire.service', /TimeoutStopSec=(\d+)s/)).toBeGreaterThan(drain_s);
    expect(says('Dockerfile', /docker stop --time (\d+)/)).toBeGreaterThan(drain_s);
  });
});

describe('metrics', () => {
  const told = async (): Promise<ReturnType<typeof samples>> => samples(await (await fetch(`${server.adminUrl}/metrics`)).text());
  interface Rules { groups: { rules: { alert: string; expr: string; labels: { severity: string }; annotations: { summary: string; do: string } }[] }[] }

  it('what is unknown is found', async () => {
    const known = await told();
    expect(unknown('rate(talewire_closes_total{code="3008"}[5m]) > 1', known)).toEqual([]);
    expect(unknown('rate(talewire_closes_total{code="1"}[5m])', known)).toEqual(['talewire_closes_total{code="1"}']);
    expect(unknown('sum by (kind) (talewire_nothing)', known)).toEqual(['talewire_nothing', 'label kind']);
  });

  it('alert rules ask for what there is', async () => {
    const known = await told();
    const rules = (documents('deploy/prometheus/alerts.yml') as Rules[]).flatMap(({ groups }) => groups.flatMap((group) => group.rules));
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
    for (const { alert, expr, labels, annotations } of rules) {
      expect(unknown(expr, known), alert).toEqual([]);
      expect(['page', 'ticket'], alert).toContain(labels.severity);
      expect([annotations.summary, annotations.do].every((words) => words.length > 0), alert).toBe(true);
    }
    // Limits that are written out in them.
    const limits = text('deploy/prometheus/alerts.yml');
    expect(limits).toContain(`talewire_broker_history_bytes > 0.9 * ${setting('broker.history_bytes_max')}`);
    expect(limits).toContain(`talewire_sockets > 0.9 * ${setting('http.sockets_max')}`);
    expect(limits).toContain(`talewire_fanout_waiting > ${number('hub.shard_queue_max') / 4}`);
    expect(limits).toContain(`talewire_inbox_waiting > ${number('http.inbox_max') / 2}`);
  });

  it('the dashboard asks for what there is, and shows nearly everything', async () => {
    const known = await told();
    interface Panel { id: number; title: string; gridPos: { x: number; y: number; w: number; h: number }; targets?: { expr: string }[] }
    const { panels } = JSON.parse(text('deploy/grafana/talewire.json')) as { panels: Panel[] };
    for (const { title, targets } of panels) for (const { expr } of targets ?? []) expect(unknown(expr, known), title).toEqual([]);
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    const places = panels.flatMap(({ gridPos: { x, y, w, h } }) => Array.from({ length: w * h }, (_, at) => `${x + (at % w)} ${y + Math.floor(at / w)}`));
    expect(new Set(places).size).toBe(places.length);
    const shown = text('deploy/grafana/talewire.json');
    const families = new Set(known.map(({ name }) => name.replace(/_(bucket|sum|count)$/, '')));
    const missing = [...families].filter((name) => !shown.includes(name));
    expect(missing.sort()).toEqual(NOT_SHOWN.sort());
  });

  it('the adapter asks for what there is', async () => {
    const known = await told();
    interface Rule { seriesQuery: string; metricsQuery: string }
    const [{ rules } = { rules: [] }] = documents('deploy/prometheus/adapter.yaml') as { rules: Rule[] }[];
    for (const { seriesQuery, metricsQuery } of rules) expect([seriesQuery, metricsQuery].flatMap((query) => unknown(query, known))).toEqual([]);
  });
});

/** Counted, but better looked up than watched. */
const NOT_SHOWN = [
  'talewire_unsubscribes_total',
  'talewire_logins_asked_total',
  'talewire_logouts_kept',
  'talewire_websocket_compressed_total',
  'talewire_stream_compressed_total',
  'talewire_agents_claimed_total',
  'talewire_agents_deltas_total',
  'process_start_time_seconds',
  'process_threads',
  'process_virtual_memory_bytes',
];

describe('the image', () => {
  const lines = text('Dockerfile').split('\n');

  it('copies what there is and what is not held back', () => {
    const ignored = text('.dockerignore').split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    const sources = lines.filter((line) => line.startsWith('COPY ') && !line.includes('--from')).flatMap((line) => line.split(' ').slice(1, -1));
    expect(sources.length).toBeGreaterThan(5);
    for (const source of sources) {
      expect(existsSync(join(ROOT, source)), source).toBe(true);
      const held = ignored.includes(source) || (ignored.includes(`${dirname(source)}/*`) && !ignored.includes(`!${source}`));
      expect(held, source).toBe(false);
    }
    // All members of the workspace, or cargo refuses it.
    expect(text('Cargo.toml')).toContain('members = ["crates/*", "xtask"]');
  });

  it('builds with what README.md asks for', () => {
    const [, rust = '', node = ''] = /It needs Rust (\S+), Node (\d+)/.exec(text('README.md')) ?? [];
    expect(rust).not.toBe('');
    expect(says('Dockerfile', /FROM node:(\d+)-/)).toBeGreaterThanOrEqual(Number(node));
    expect(text('Dockerfile')).toContain(`FROM rust:${rust}-`);
  });

  it('starts what the binary knows, as nobody special', () => {
    for (const command of ['serve', 'ready', 'check']) execFileSync(binary(), [command, '--help']);
    expect(text('Dockerfile')).toContain('USER nonroot');
    expect(text('Dockerfile')).toMatch(/HEALTHCHECK .* CMD \["\/usr\/bin\/talewire", "ready"\]/);
  });
});
