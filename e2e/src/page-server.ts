/**
 * Pages of other origins than the server's: an empty page on a port of its own. In: nothing. Out: its origin, `close`.
 * Called by the tests of bare readers.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface PageServer { origin: string; close: () => void }

export async function servePages(): Promise<PageServer> {
  const server = createServer((_, answer) => answer.writeHead(200, { 'Content-Type': 'text/html' }).end('<!doctype html><title>elsewhere</title>'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
