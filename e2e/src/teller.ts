/**
 * A server program that never stops telling: 1, 2, 3 and so on by `POST /api/publish`, each one again and again under its
 * key until it is acknowledged, whatever happens to the server. In: a server, a channel. Out: how far it has come.
 * Called by the tests of readers that must miss nothing.
 */
import type { Server } from './server.ts';
import { until, within } from './until.ts';

export const API_KEY = 'the key of the end-to-end tests';
/** Nobody asks a server program to be polite, least of all one on the readers' own address. */
export const API_CONFIG = `
[http]
api_key = "${API_KEY}"
requests_per_second = 100000
request_burst = 100000
`;
/** While the server is down. */
const AGAIN_MS = 20;

export async function tell(server: Server, publication: { channel: string; data: unknown; event?: string; idempotency_key?: string }): Promise<{ offset: number; epoch: string }> {
  const answer = await fetch(`${server.url}/api/publish`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-API-Key': API_KEY },
    body: JSON.stringify(publication),
  });
  if (!answer.ok) {
    const message = `publishing was answered with ${answer.status}: ${await answer.text()}`;
    throw answer.status >= 500 ? new Error(message) : new Mistaken(message);
  }
  return ((await answer.json()) as { result: { offset: number; epoch: string } }).result;
}

export class Teller {
  /** The last number that was acknowledged. */
  told = 0;
  readonly #end: Promise<void>;
  #stopped = false;

  constructor(server: Server, channel: string, event: string) {
    this.#end = this.#run(server, channel, event);
    // Whoever waits for it is told; until then it is nobody's fault.
    this.#end.catch(() => undefined);
  }

  /** Waits until so many more are told than now. */
  async goesOn(more: number): Promise<void> {
    const goal = this.told + more;
    await Promise.race([this.#end, until(`${goal} numbers are told`, () => this.told >= goal, undefined, () => this.told)]);
  }

  /** Gives the last number. */
  async stop(): Promise<number> {
    this.#stopped = true;
    await within('the teller stops', this.#end);
    return this.told;
  }

  async #run(server: Server, channel: string, event: string): Promise<void> {
    while (!this.#stopped) {
      const n = this.told + 1;
      try {
        const { offset } = await tell(server, { channel, event, data: { n }, idempotency_key: `${channel}-${n}` });
        if (offset !== n) throw new Mistaken(`number ${n} stands at ${offset}`);
        this.told = n;
      } catch (error) {
        if (error instanceof Mistaken) throw error;
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  }
}

/** Nothing that another try would mend. */
class Mistaken extends Error {}
