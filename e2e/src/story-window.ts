/**
 * One window on the page, in the words of a person: enter a name, write, ask, pick, read. In: clicks and keys by
 * data-testid, as a person would. Out: what stands on the page. Called by the story*.test.ts files.
 */
import { readFile } from 'node:fs/promises';
import { expect } from 'vitest';
import type { Locator, Page } from 'playwright-core';
import type { Server } from './server.ts';
import type { Streamed } from './stream-watch.ts';
import { until } from './until.ts';

/** A turn as it stands on the page. */
export interface TurnSeen { id: string; number: number; author: string; kind: string; text: string; stopped: boolean }
export interface StreamSeen { generation: string; attempt: number; text: string }
export interface ChoiceSeen { id: string; branch: string | undefined; label: string; open: boolean }
interface Drawn { turns: TurnSeen[]; streams: StreamSeen[]; pending: string[] }

/** Longer than the page's longest pause between two tries. */
export const BACK_MS = 30_000;
/** Longer than a passage of the demo storyteller. */
export const WRITTEN_MS = 30_000;

export class StoryWindow {
  readonly page: Page;
  readonly #server: Server;

  constructor(page: Page, server: Server) {
    this.page = page;
    this.#server = server;
  }

  at(id: string): Locator {
    return this.page.getByTestId(id);
  }

  // --- arriving -----------------------------------------------------------------------------------

  /** Gives a name if the page asks for one. */
  async introduce(name: string): Promise<void> {
    await this.at('name-input').or(this.at('account')).first().waitFor();
    if (!(await this.at('name-input').isVisible())) return;
    await this.at('name-input').fill(name);
    await this.at('name-submit').click();
    await this.at('account').waitFor();
  }

  /** Starts a story from the home page and gives its path. */
  async create(title: string): Promise<string> {
    await this.at('new-story-title').fill(title);
    await this.at('new-story-submit').click();
    await this.isOpen(title);
    return new URL(this.page.url()).pathname;
  }

  async isOpen(title: string): Promise<void> {
    await until(`the story "${title}" is open`, async () => (await this.at('story-title').allTextContents()).includes(title), BACK_MS, () => this.page.url());
    await this.isLive();
  }

  /** Makes a link by the dialog and gives the path in it. */
  async invite(): Promise<string> {
    await this.at('invite-open').click();
    await this.at('invite-create').click();
    const link = await this.at('invite-link').inputValue();
    expect(new URL(link).origin).toBe(this.#server.url);
    await this.page.keyboard.press('Escape');
    await this.at('invite-link').waitFor({ state: 'detached' });
    return new URL(link).pathname;
  }

  async accept(title: string): Promise<void> {
    await this.at('join-accept').click();
    await this.isOpen(title);
  }

  // --- doing --------------------------------------------------------------------------------------

  async write(text: string): Promise<void> {
    await this.at('composer').fill(text);
    await this.at('send').click();
  }

  /** Asks the narrator, with a wish if there is one. */
  async ask(wish?: string): Promise<void> {
    if (wish !== undefined) {
      await this.at('add-instruction').click();
      await this.at('instruction').fill(wish);
    }
    await this.at('ask-narrator').click();
  }

  async draft(): Promise<string> {
    return this.at('composer').inputValue();
  }

  /** The story as a file, by the button that people use. */
  async exported(): Promise<{ name: string; text: string }> {
    const [download] = await Promise.all([this.page.waitForEvent('download'), this.at('export').click()]);
    return { name: download.suggestedFilename(), text: await readFile(await download.path(), 'utf8') };
  }

  // --- reading ------------------------------------------------------------------------------------

  async state(): Promise<string> {
    return (await this.at('connection').first().getAttribute('data-state', { timeout: 2_000 }).catch(() => null)) ?? '';
  }

  async isLive(): Promise<void> {
    await until('the connection is live', async () => (await this.state()) === 'live', BACK_MS, () => this.state());
  }

  /** All of the text's parts in one look, so that they belong together. */
  async drawn(): Promise<Drawn> {
    return this.page.evaluate(() => {
      const prose = (element: Element): string => Array.from(element.querySelectorAll('.prose p'), (paragraph) => paragraph.textContent).join('\n\n');
      const all = (id: string): HTMLElement[] => [...document.querySelectorAll<HTMLElement>(`[data-testid="${id}"]`)];
      return {
        turns: all('turn').map((turn) => ({
          id: turn.dataset['turnId'] ?? '',
          number: Number(turn.dataset['turnNumber']),
          author: turn.dataset['authorKind'] ?? '',
          kind: turn.dataset['turnKind'] ?? '',
          text: prose(turn),
          stopped: turn.querySelector('[data-testid="turn-stopped"]') !== null,
        })),
        streams: all('streaming').map((stream) => ({ generation: stream.dataset['generation'] ?? '', attempt: Number(stream.dataset['attempt']), text: prose(stream) })),
        pending: all('pending').map(prose),
      };
    });
  }

  async turns(): Promise<TurnSeen[]> {
    return (await this.drawn()).turns;
  }

  /** Waits until exactly so many turns stand there and nothing is on its way. */
  async hasTurns(count: number, deadline_ms = BACK_MS): Promise<TurnSeen[]> {
    const check = async (): Promise<TurnSeen[] | undefined> => {
      const { turns, pending, streams } = await this.drawn();
      return turns.length === count && pending.length === 0 && streams.length === 0 ? turns : undefined;
    };
    return until(`${count} turns`, check, deadline_ms, () => this.drawn());
  }

  /** Waits for a generation that shows at least so many characters. */
  async streams(chars = 1, deadline_ms = WRITTEN_MS): Promise<StreamSeen> {
    const check = async (): Promise<StreamSeen | undefined> => (await this.drawn()).streams.find(({ text }) => text.length >= chars);
    return until(`a generation shows ${chars} characters`, check, deadline_ms, () => this.drawn());
  }

  /** Waits until no generation is open. */
  async isQuiet(deadline_ms = WRITTEN_MS): Promise<void> {
    await until('no generation is open', async () => (await this.drawn()).streams.length === 0, deadline_ms, () => this.drawn());
  }

  /** Every text that this page ever showed of a generation, since it was loaded. */
  async everShown(generation: string): Promise<Streamed['texts']> {
    return this.page.evaluate((id) => window.talewireStreams?.[id]?.texts ?? [], generation);
  }

  async choices(): Promise<ChoiceSeen[]> {
    return this.page.evaluate(() => [...document.querySelectorAll<HTMLButtonElement>('[data-testid="choice"]')].map((choice) => ({
      id: choice.dataset['choiceId'] ?? '',
      branch: choice.dataset['branch'],
      label: choice.querySelector('.choice-words')?.firstChild?.textContent ?? '',
      open: !choice.disabled,
    })));
  }

  choice(id: string): Locator {
    return this.page.locator(`[data-testid="choice"][data-choice-id="${id}"]`);
  }

  /** The names in the sign of who is here, as a screen reader says them. */
  async company(): Promise<string> {
    return (await this.at('presence').getAttribute('aria-label')) ?? '';
  }

  async seesCompany(count: number): Promise<string> {
    await until(`${count} people are here`, async () => (await this.at('presence').getAttribute('data-count')) === String(count), BACK_MS, () => this.company());
    return this.company();
  }
}

/** Two windows must show the same turns, in the same order, none twice, numbered without a gap. */
export function expectSame(windows: readonly TurnSeen[][]): void {
  const [first = []] = windows;
  for (const turns of windows) expect(turns).toEqual(first);
  expect(first.map(({ number }) => number)).toEqual(first.map((_, at) => at + 1));
  expect(new Set(first.map(({ id }) => id)).size).toBe(first.length);
}

/** Whatever was shown of an attempt that made it was a beginning of what it became. */
export function expectBeginnings(shown: Streamed['texts'], final: string): void {
  const last = Math.max(...shown.map(({ attempt }) => attempt));
  for (const { attempt, text } of shown) if (attempt === last) expect(final.startsWith(text.trimEnd()), `“${text.slice(-40)}” is a beginning of “${final}”`).toBe(true);
  const lengths = shown.filter(({ attempt }) => attempt === last).map(({ text }) => text.length);
  expect(lengths, 'text never shrinks').toEqual([...lengths].sort((a, b) => a - b));
}
