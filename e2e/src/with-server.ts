/**
 * A server for the tests of a file, with what each of them needs before and after: clients gone, the log's end shown
 * where a test failed, the server stopped. In: what the server is started with, and where to put it. Out: hooks, told
 * to vitest. Called by the test files.
 */
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest';
import { disconnectAll } from './official.ts';
import { Server, type ServerOptions } from './server.ts';

/** One server for all tests of the file. */
export function withServer(options: () => ServerOptions | Promise<ServerOptions>, put: (server: Server) => void): void {
  let server: Server | undefined;
  beforeAll(async () => {
    server = await Server.start(await options());
    put(server);
  });
  afterAll(() => server?.stop());
  afterEach(({ task }) => endOfTest(task, server));
}

/** A server of its own for each test, for those that break it. */
export function withServerEach(options: () => ServerOptions | Promise<ServerOptions>, put: (server: Server) => void): void {
  let server: Server | undefined;
  beforeEach(async () => {
    server = await Server.start(await options());
    put(server);
  });
  afterEach(async ({ task }) => {
    endOfTest(task, server);
    await server?.stop();
    server = undefined;
  });
}

function endOfTest(task: { result?: { state: string } | undefined }, server: Server | undefined): void {
  disconnectAll();
  if (task.result?.state === 'fail') console.error(server?.tail());
}
