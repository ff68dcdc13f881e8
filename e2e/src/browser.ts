/**
 * Real browsers: one Chromium, a context for each person (cookies and storage of their own), windows inside.
 * In: a server. Out: windows; on failure their pictures and texts in test-results; an error for every exception
 * that a page did not catch. Called by the story*.test.ts files; tabs takes the Chromium alone.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions } from 'playwright-core';
import { expect } from 'vitest';
import type { Server } from './server.ts';
import { StoryWindow } from './story-window.ts';
import { watchStreams } from './stream-watch.ts';

const RESULTS = resolve(import.meta.dirname, '../test-results');
const DESKTOP = { width: 1280, height: 800 };

/** Debian's, without what a browser does on its own. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env['E2E_CHROMIUM'] ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
}

export interface Person { name: string; context: BrowserContext }

export class Browsers {
  readonly #browser: Browser;
  readonly #server: Server;
  readonly #windows: { window: StoryWindow; label: string }[] = [];
  /** Exceptions that no code caught, and what the content policy refused. */
  readonly #faults: string[] = [];

  private constructor(browser: Browser, server: Server) {
    this.#browser = browser;
    this.#server = server;
  }

  static async launch(server: Server): Promise<Browsers> {
    return new Browsers(await launchChromium(), server);
  }

  /** Somebody with a browser of their own, who has not said a name yet. */
  async person(name: string, options: BrowserContextOptions = {}): Promise<Person> {
    const context = await this.#browser.newContext({ viewport: DESKTOP, baseURL: this.#server.url, acceptDownloads: true, ...options });
    context.setDefaultTimeout(15_000);
    await context.addInitScript(watchStreams);
    return { name, context };
  }

  /** A further window of somebody, at a path; a name is given if the page asks for one. */
  async window(person: Person, path = '/'): Promise<StoryWindow> {
    const page = await person.context.newPage();
    const window = new StoryWindow(page, this.#server);
    this.#windows.push({ window, label: `${person.name}-${this.#windows.length + 1}` });
    page.on('pageerror', (error) => this.#faults.push(`${person.name}: ${error.stack ?? error.message}`));
    page.on('console', (message) => {
      if (message.type() === 'error' && message.text().includes('Content Security Policy')) this.#faults.push(`${person.name}: ${message.text()}`);
    });
    await page.goto(path);
    await window.introduce(person.name);
    return window;
  }

  /** After each test: evidence if it failed, no window left open, no fault overlooked. */
  async after(task: { name: string; result?: { state: string } | undefined }): Promise<void> {
    if (task.result?.state === 'fail') {
      await this.#keepEvidence(task.name);
      console.error(this.#server.tail());
    }
    for (const { window } of this.#windows) await window.page.close().catch(() => undefined);
    this.#windows.length = 0;
    const faults = this.#faults.splice(0);
    expect(faults, 'nothing went wrong unseen in a page').toEqual([]);
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }

  async #keepEvidence(test: string): Promise<void> {
    const name = test.toLowerCase().replace(/[^a-z0-9]+/g, '-').slice(0, 80);
    mkdirSync(RESULTS, { recursive: true });
    for (const { window, label } of this.#windows) {
      const path = resolve(RESULTS, `${name}--${label}`);
      rmSync(`${path}.png`, { force: true });
      await window.page.screenshot({ path: `${path}.png`, timeout: 5_000 }).catch(() => undefined);
      const text = await window.page.locator('body').innerText({ timeout: 2_000 }).catch((error: unknown) => String(error));
      writeFileSync(`${path}.txt`, `${window.page.url()}\n\n${text}\n`);
    }
    writeFileSync(resolve(RESULTS, `${name}--server.log`), `${this.#server.tail(1_000)}\n`);
  }
}
