/**
 * The examples for Kubernetes and compose: their parts find each other, ask at addresses that answer, and give a node the
 * time and the room that it needs.
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { binary, withoutSettings, type Server } from './src/server.ts';
import { documents, drain_s, number, POLL_S, ROOT, says, shippedFiles, silence_s, text } from './src/shipped.ts';
import { withServer } from './src/with-server.ts';

let server: Server;
withServer(() => ({}), (started) => (server = started));

const files = shippedFiles();

/** What the binary says of a configuration that stands in its environment alone. */
const checked = (variables: Record<string, string>): string => execFileSync(binary(), ['check'], { encoding: 'utf8', stdio: 'pipe', env: withoutSettings(variables) });

it('limits and times fit those of the nodes', () => {
  const ingress = 'deploy/kubernetes/ingress.yaml';
  expect(says(ingress, /proxy-body-size: (\d+)k/) * 1024).toBe(number('http.body_bytes_max'));
  expect(says(ingress, /limit-connections: "(\d+)"/)).toBe(number('http.strangers_per_ip_max'));
  for (const which of ['read', 'send']) expect(says(ingress, new RegExp(`proxy-${which}-timeout: "(\\d+)"`))).toBeGreaterThan(Math.max(2 * silence_s, POLL_S));
  expect(says('deploy/kubernetes/deployment.yaml', /terminationGracePeriodSeconds: (\d+)/)).toBeGreaterThan(drain_s);
  expect(says('deploy/compose/compose.yaml', /stop_grace_period: (\d+)s/)).toBeGreaterThan(drain_s);
  expect(says('deploy/compose/compose.yaml', /nofile: (\d+)/)).toBeGreaterThanOrEqual(number('http.sockets_max') + 64);
});

it('the autoscaler asks for what the adapter gives', () => {
  const [{ rules } = { rules: [] }] = documents('deploy/prometheus/adapter.yaml') as { rules: { name: { as: string } }[] }[];
  expect(rules.map(({ name }) => name.as)).toContain(/name: (talewire_\w+)/.exec(text('deploy/kubernetes/horizontalpodautoscaler.yaml'))?.[1]);
});

describe('Kubernetes', () => {
  interface Probe { httpGet: { path: string; port: string } }
  interface Container { args: string[]; envFrom: unknown; ports: { name: string; containerPort: number }[]; startupProbe: Probe; readinessProbe: Probe; livenessProbe: Probe; volumeMounts: { mountPath: string; name: string }[] }
  interface Labels { matchLabels: Record<string, string> }
  interface Deployment { metadata: { name: string }; spec: { replicas: number; selector: Labels; template: { metadata: { labels: Record<string, string>; annotations: Record<string, string> }; spec: { containers: Container[]; volumes: { name: string }[] } } } }
  const read = (name: string): unknown => documents(`deploy/kubernetes/${name}.yaml`)[0];
  const deployment = (read('deployment') as Deployment);
  const [container] = deployment.spec.template.spec.containers;
  const { data } = (read('configmap') as { data: Record<string, string> });
  const port = (name: string | number | undefined): number | undefined => container?.ports.find((one) => one.name === name)?.containerPort;

  it('lists every file but the example of a secret', () => {
    const listed = (read('kustomization') as { resources: string[] }).resources;
    const there = files.filter((path) => path.startsWith('deploy/kubernetes/')).map((path) => path.slice('deploy/kubernetes/'.length));
    expect(there.filter((name) => !listed.includes(name))).toEqual(['kustomization.yaml', 'secret.example.yaml']);
    expect(listed.filter((name) => !there.includes(name))).toEqual([]);
  });

  it('has settings that the binary takes', () => {
    const { stringData } = read('secret.example') as { stringData: Record<string, string> };
    for (const command of ['serve', 'worker']) expect([command, checked({ ...data, ...stringData })]).toEqual([command, expect.stringContaining(': good')]);
    expect(data['TALEWIRE_BROKER_KIND']).toBe('redis');
  });

  it('has workers that are like nodes but for readers', () => {
    const worker = read('worker') as Deployment;
    const [agent] = worker.spec.template.spec.containers;
    expect(agent).toMatchObject({ args: ['worker'], ports: [{ name: 'admin' }], envFrom: container?.envFrom, startupProbe: container?.startupProbe, livenessProbe: container?.livenessProbe });
    expect(agent?.ports[0]?.containerPort).toBe(port('admin'));
    expect(container).toMatchObject({ args: ['serve'] });
    expect(data['TALEWIRE_AGENTS_RUN_HERE']).toBe('false');
    // Neither is found where the other is meant.
    expect(worker.spec.template.metadata.labels).not.toMatchObject(deployment.spec.selector.matchLabels);
    expect(worker.spec.template.metadata.labels).toMatchObject(worker.spec.selector.matchLabels);
    const policies = documents('deploy/kubernetes/networkpolicy.yaml') as { spec: { podSelector: Labels } }[];
    expect(policies.map(({ spec }) => spec.podSelector.matchLabels)).toEqual([deployment.spec.selector.matchLabels, worker.spec.selector.matchLabels]);
    expect(says('deploy/kubernetes/worker.yaml', /terminationGracePeriodSeconds: (\d+)/)).toBeGreaterThan(number('agents.drain_ms') / 1000);
    execFileSync(binary(), ['worker', '--help']);
  });

  it('asks the admin listener at addresses that answer', async () => {
    const probes = [container?.startupProbe, container?.readinessProbe, container?.livenessProbe];
    for (const probe of probes) {
      expect(port(probe?.httpGet.port)).toBe(Number(data['TALEWIRE_HTTP_ADMIN_LISTEN']?.split(':').at(-1)));
      expect((await fetch(`${server.adminUrl}${probe?.httpGet.path ?? '/'}`)).status).toBe(200);
    }
    const { annotations } = deployment.spec.template.metadata;
    expect(Number(annotations['prometheus.io/port'])).toBe(port('admin'));
    expect((await fetch(`${server.adminUrl}${annotations['prometheus.io/path'] ?? ''}`)).status).toBe(200);
    expect(port('http')).toBe(Number(data['TALEWIRE_HTTP_LISTEN']?.split(':').at(-1)));
    expect(container?.volumeMounts.every(({ name }) => deployment.spec.template.spec.volumes.some((volume) => volume.name === name))).toBe(true);
    expect(text('Dockerfile')).toContain(`TALEWIRE_STORE_PATH=${container?.volumeMounts[0]?.mountPath ?? ''}`);
  });

  it('has parts that find each other', () => {
    const labels = deployment.spec.template.metadata.labels;
    const service = (read('service') as { metadata: { name: string }; spec: { selector: Record<string, string>; ports: { name: string; targetPort: string }[] } });
    const policy = (read('networkpolicy') as { spec: { podSelector: Labels; ingress: { ports: { port: string }[] }[] } }).spec;
    const selectors = [service.spec.selector, deployment.spec.selector.matchLabels, policy.podSelector.matchLabels, (read('poddisruptionbudget') as { spec: { selector: Labels } }).spec.selector.matchLabels];
    for (const selector of selectors) expect(labels).toMatchObject(selector);
    for (const name of [...service.spec.ports.map(({ targetPort }) => targetPort), ...policy.ingress.flatMap(({ ports }) => ports.map((one) => one.port))]) expect(port(name)).toBeDefined();
    const ingress = (read('ingress') as { spec: { rules: { http: { paths: { backend: { service: { name: string; port: { name: string } } } }[] } }[] } });
    for (const { backend } of ingress.spec.rules.flatMap(({ http }) => http.paths)) {
      expect(backend.service.name).toBe(service.metadata.name);
      expect(service.spec.ports.map(({ name }) => name)).toContain(backend.service.port.name);
    }
    const scaled = (read('horizontalpodautoscaler') as { spec: { minReplicas: number; scaleTargetRef: { name: string; kind: string } } }).spec;
    expect(scaled).toMatchObject({ scaleTargetRef: { kind: 'Deployment', name: deployment.metadata.name } });
    expect(Math.min(scaled.minReplicas, deployment.spec.replicas)).toBeGreaterThanOrEqual(2);
  });
});

describe('compose', () => {
  interface Service { networks: Record<string, { ipv4_address: string }> | string[]; volumes?: string[]; environment?: Record<string, string>; depends_on?: Record<string, unknown> | string[] }
  const [{ services, volumes } = { services: {}, volumes: {} }] = documents('deploy/compose/compose.yaml') as { services: Record<string, Service>; volumes: Record<string, unknown> }[];
  const address = (name: string): string => (services[name]?.networks as Record<string, { ipv4_address: string }>)['talewire']?.ipv4_address ?? '';

  it('puts nodes and nginx where the shipped configuration looks for them', () => {
    for (const node of ['node-a', 'node-b']) {
      expect(text('deploy/nginx/talewire.conf')).toContain(`server ${address(node)}:8000`);
      expect(services[node]?.environment?.['TALEWIRE_HTTP_TRUSTED_PROXIES']).toBe(address('nginx'));
    }
  });

  it('has settings that the binary takes', () => {
    const written = { TALEWIRE_AUTH_HS256_SECRET: 'a secret of thirty-two bytes or more', POSTGRES_PASSWORD: 'secret' };
    for (const node of ['node-a', 'node-b']) {
      const filled = Object.entries(services[node]?.environment ?? {}).map(([name, value]) => [name, value.replaceAll(/\$\{(\w+)[^}]*\}/g, (_, of: keyof typeof written) => written[of])]);
      expect(checked(Object.fromEntries(filled) as Record<string, string>)).toContain(': good');
    }
  });

  it('mounts and waits for what there is', () => {
    for (const [name, service] of Object.entries(services)) {
      for (const volume of service.volumes ?? []) {
        const [source = ''] = volume.split(':');
        // The certificate is the operator's.
        const there = source.startsWith('.') ? source === './tls' || existsSync(join(ROOT, 'deploy/compose', source)) : source in volumes;
        expect(there, `${name}: ${source}`).toBe(true);
      }
      for (const other of Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {})) expect(Object.keys(services)).toContain(other);
    }
  });
});
