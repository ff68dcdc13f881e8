/**
 * A bare `EventSource` in a tab and a notebook of what it was told; nothing of ours runs there, and nothing but the browser
 * itself connects again. In: a tab, an address. Out: events in order, how often the stream opened, its state.
 * Called by the tests of bare readers.
 */
import type { Tab } from './tabs.ts';
import { until } from './until.ts';

/** An event as the browser gave it to the page. */
export interface Told { event: string; data: string; id: string }
interface Notebook { source: EventSource; told: Told[]; opened: number; failed: number }

declare global {
  interface Window {
    readers?: Record<string, Notebook>;
  }
}

/** A stream that is closed for good. */
export const CLOSED = 2;
/** Longer than the `retry` of the server and a start of it. */
const BACK_MS = 20_000;
let readers = 0;

export class Reader {
  readonly #tab: Tab;
  readonly #name: string;

  private constructor(tab: Tab, name: string) {
    this.#tab = tab;
    this.#name = name;
  }

  /** `events` are the names that the page listens to beside the server's own. */
  static async open(tab: Tab, url: string, events: readonly string[] = [], withCredentials = false): Promise<Reader> {
    const name = `reader-${(readers += 1)}`;
    await tab.run(begin, { name, url, events: ['connected', 'gap', 'disconnect', 'message', ...events], withCredentials });
    return new Reader(tab, name);
  }

  look(): Promise<{ state: number; opened: number; failed: number; told: number; last: Told | undefined }> {
    return this.#tab.run(look, this.#name);
  }

  /** All events, or those with a name. */
  async told(event?: string): Promise<Told[]> {
    const all = await this.#tab.run(read, this.#name);
    return all.filter((one) => event === undefined || one.event === event);
  }

  /** Waits until the event with the name came for the nth time, and gives what it carried. */
  async hears(event: string, times = 1): Promise<Record<string, unknown>> {
    const found = await until(`${event} is told for the ${times}. time`, async () => (await this.told(event))[times - 1], BACK_MS, () => this.look());
    return JSON.parse(found.data) as Record<string, unknown>;
  }

  async reaches(what: string, check: (seen: Awaited<ReturnType<Reader['look']>>) => boolean): Promise<void> {
    await until(what, async () => check(await this.look()), BACK_MS, () => this.look());
  }
}

// --- what runs in the page ------------------------------------------------------------------------

function begin({ name, url, events, withCredentials }: { name: string; url: string; events: string[]; withCredentials: boolean }): void {
  const source = new EventSource(url, { withCredentials });
  const notebook: Notebook = { source, told: [], opened: 0, failed: 0 };
  (window.readers ??= {})[name] = notebook;
  source.onopen = () => void (notebook.opened += 1);
  source.onerror = () => void (notebook.failed += 1);
  for (const event of events) source.addEventListener(event, ({ data, lastEventId }: MessageEvent<string>) => void notebook.told.push({ event, data, id: lastEventId }));
}

function look(name: string): Awaited<ReturnType<Reader['look']>> {
  const notebook = window.readers?.[name];
  if (notebook === undefined) throw new Error(`no ${name} in this page`);
  const { source, told, opened, failed } = notebook;
  return { state: source.readyState, opened, failed, told: told.length, last: told.at(-1) };
}

function read(name: string): Told[] {
  return window.readers?.[name]?.told ?? [];
}
