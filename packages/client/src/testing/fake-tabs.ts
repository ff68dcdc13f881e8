/**
 * Web Locks and BroadcastChannel of one browser in memory; a tab can be frozen and thawed.
 * In: requests of several tabs. Out: locks by turn, or stolen; messages to all other tabs, in order. Each tab of a test
 * takes its own `Tabs` from `tab()`.
 */
import type { Broadcast, Tabs } from '../tabs/tab-line.js';

interface Claim { readonly run: () => void; readonly lose: () => void }

export class FakeBrowser {
  /** Everything that was said between tabs. */
  readonly messages: unknown[] = [];
  readonly #held = new Map<string, Claim>();
  readonly #waiting = new Map<string, Claim[]>();
  readonly #channels = new Set<{ name: string; tab: FakeTab; broadcast: Broadcast }>();

  tab(): FakeTab {
    return new FakeTab(this);
  }

  request(name: string, options: { steal?: boolean; signal?: AbortSignal }, tab: FakeTab, held: () => Promise<void>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const claim: Claim = {
        run: () => {
          this.#held.set(name, claim);
          const release = (): void => {
            if (this.#held.get(name) === claim) this.#next(name);
            resolve(undefined);
          };
          held().then(release, release);
        },
        // A frozen tab learns of its loss when it thaws.
        lose: () => tab.run(() => reject(new DOMException('stolen', 'AbortError'))),
      };
      options.signal?.addEventListener('abort', () => {
        const line = this.#waiting.get(name) ?? [];
        this.#waiting.set(name, line.filter((one) => one !== claim));
        reject(new DOMException('aborted', 'AbortError'));
      });
      const before = this.#held.get(name);
      if (options.steal === true) {
        this.#held.delete(name);
        before?.lose();
        queueMicrotask(claim.run);
      } else if (before === undefined) {
        this.#held.set(name, claim);
        queueMicrotask(claim.run);
      } else this.#waiting.set(name, [...(this.#waiting.get(name) ?? []), claim]);
    });
  }

  #next(name: string): void {
    this.#held.delete(name);
    const [next, ...rest] = this.#waiting.get(name) ?? [];
    this.#waiting.set(name, rest);
    next?.run();
  }

  broadcast(name: string, tab: FakeTab): Broadcast {
    const broadcast: Broadcast = {
      onmessage: null,
      postMessage: (data) => {
        if (tab.isFrozen) return;
        this.messages.push(data);
        // Copied and later, as the real one does.
        const text = JSON.stringify(data);
        for (const other of [...this.#channels]) {
          if (other !== own && other.name === name) queueMicrotask(() => other.tab.run(() => this.#channels.has(other) && other.broadcast.onmessage?.({ data: JSON.parse(text) as unknown })));
        }
      },
      close: () => void this.#channels.delete(own),
    };
    const own = { name, tab, broadcast };
    this.#channels.add(own);
    return broadcast;
  }
}

export class FakeTab implements Tabs {
  readonly #browser: FakeBrowser;
  #frozen: (() => void)[] | undefined;

  constructor(browser: FakeBrowser) {
    this.#browser = browser;
  }

  readonly locks: Tabs['locks'] = {
    request: (name, options, held) => (this.isFrozen ? new Promise(() => undefined) : this.#browser.request(name, options, this, held)),
  };
  readonly broadcast: Tabs['broadcast'] = (name) => this.#browser.broadcast(name, this);

  /** The timers of a frozen tab do not run; here they do, but what they would say is not said. */
  get isFrozen(): boolean {
    return this.#frozen !== undefined;
  }

  /** What comes to a frozen tab waits for it. */
  run(what: () => void): void {
    if (this.#frozen === undefined) what();
    else this.#frozen.push(what);
  }

  freeze(): void {
    this.#frozen ??= [];
  }

  thaw(): void {
    const waited = this.#frozen ?? [];
    this.#frozen = undefined;
    for (const what of waited) what();
  }
}
