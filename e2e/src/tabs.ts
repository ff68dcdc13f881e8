/**
 * Chromium and Firefox behind the few words that a reader's test needs: a tab, an address, a function to run there.
 * In: nothing. Out: tabs; processes that end with `close`. Called by the tests of bare readers.
 */
import puppeteer from 'puppeteer-core';
import { launchChromium } from './browser.ts';

const FIREFOX = process.env['E2E_FIREFOX'] ?? '/usr/bin/firefox-esr';

export interface Tab {
  go: (url: string) => Promise<void>;
  run: <Argument, Result>(work: (argument: Argument) => Result | Promise<Result>, argument: Argument) => Promise<Result>;
}

export interface Browser {
  /** A tab without anybody's cookies. */
  tab: () => Promise<Tab>;
  close: () => Promise<void>;
}

export async function chromium(): Promise<Browser> {
  const browser = await launchChromium();
  return {
    tab: async () => {
      const page = await (await browser.newContext()).newPage();
      return {
        go: async (url) => void (await page.goto(url)),
        run: (work, argument) => page.evaluate(work as (argument: unknown) => never, argument),
      };
    },
    close: () => browser.close(),
  };
}

/** Over WebDriver BiDi, the standard, which Firefox speaks unmodified. */
export async function firefox(): Promise<Browser> {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true });
  return {
    tab: async () => {
      const page = await (await browser.createBrowserContext()).newPage();
      return {
        go: async (url) => void (await page.goto(url)),
        run: (work, argument) => page.evaluate(work as (argument: unknown) => never, argument),
      };
    },
    close: () => browser.close(),
  };
}
