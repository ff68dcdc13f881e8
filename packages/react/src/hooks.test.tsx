/**
 * The hooks in a simulated page, over the real client and a server in memory: what is drawn when the
 * story, the company, a generation and the line change, and that a story is left when nobody draws it.
 */
import { Connection, Http, Login, path } from '@talewire/client';
import { act, cleanup, render, screen, waitFor } from '@testing-library/react';
import { StrictMode, type ReactNode } from 'react';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeServer } from '../../client/src/testing/fake-server.js';
import { aGeneration, anOpened, aTurn } from '../../client/src/testing/objects.js';
import { TalewireProvider, useConnection, useConnectionState, useGeneration, usePresence, useStory, useTyping } from './index.js';

let server: FakeServer;
let connection: Connection;
let draws: Record<string, number>;

function Story(): ReactNode {
  const { live, view } = useStory('s');
  const people = usePresence(live);
  const { typers } = useTyping(live);
  draws['story'] = (draws['story'] ?? 0) + 1;
  return (
    <div>
      <p>state: {useConnectionState()}</p>
      <p>phase: {view.phase}</p>
      <ol>{view.state !== undefined && path(view.state, 'main').turns.map((turn) => <li key={turn.id}>{turn.text}</li>)}</ol>
      <p>here: {people.map((one) => one.name).join(', ')}</p>
      <p>typing: {typers.map((one) => one.name).join(', ')}</p>
      <Stream />
    </div>
  );
}

function Stream(): ReactNode {
  const { live } = useStory('s');
  return <p>stream: {useGeneration(live, 'g').text}</p>;
}

beforeEach(() => {
  draws = {};
  server = new FakeServer();
  server.logs.set('story:s', [{}, {}]);
  server.methods['story.open'] = () => anOpened(1);
  server.present = { c1: { client: 'c1', user: 'ana', conn_info: { name: 'Ana' } } };
  server.snapshots.set('generation:s.g', () => ({ type: 'snapshot', generation: 'g', attempt: 1, at: 0, text: 'Once', status: 'running' }));
  connection = new Connection({ login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake/connection/websocket', websocket: server.socketClass });
  connection.connect();
});
afterEach(() => {
  cleanup();
  connection.close();
});

const page = (): ReactNode => (
  <StrictMode>
    <TalewireProvider connection={connection}><Story /></TalewireProvider>
  </StrictMode>
);

describe('the hooks', () => {
  it('draw a story, its company and its state, and follow them', async () => {
    render(page());
    await screen.findByText('main 1');
    await screen.findByText('state: live');
    await screen.findByText('here: Ana');
    act(() => server.append('story:s', { type: 'turn.added', turn: aTurn('main', 2) }));
    await screen.findByText('main 2');
    act(() => server.push('typing:s', { pub: { data: { typing: true }, info: { client: 'c2', user: 'ben', conn_info: { name: 'Ben' } } } }));
    await screen.findByText('typing: Ben');
    act(() => server.cut({ down: true }));
    await waitFor(() => expect(screen.queryByText('state: live')).toBeNull());
  });

  it('redraw a stream without redrawing the page around it', async () => {
    render(page());
    await screen.findByText('state: live');
    act(() => server.append('story:s', { type: 'generation.requested', generation: aGeneration('g') }));
    await screen.findByText('stream: Once');
    await screen.findByText('state: live');
    const before = draws['story'];
    for (let at = 4; at < 24; at += 2) act(() => server.push('generation:s.g', { pub: { data: { type: 'delta', generation: 'g', attempt: 1, at, text: ' x' } } }));
    await screen.findByText(/stream: Once( x){10}$/);
    expect(draws['story']).toBe(before);
  });

  it('leave the story a moment after nobody draws it any more, and not before', async () => {
    const { unmount } = render(page());
    await screen.findByText('state: live');
    // StrictMode mounts twice: the story was opened once all the same.
    expect(server.calls.filter((call) => call.method === 'story.open')).toHaveLength(1);
    unmount();
    const subscribed = (): boolean => [...server.sockets].some((socket) => socket.channels.has('story:s'));
    expect(subscribed()).toBe(true);
    await waitFor(() => expect(subscribed()).toBe(false), { timeout: 3000 });
  });

  it('say so when there is no provider above', () => {
    function Lost(): ReactNode {
      useConnection();
      return null;
    }
    const quiet = console.error;
    console.error = () => undefined;
    expect(() => render(<Lost />)).toThrow('TalewireProvider');
    console.error = quiet;
  });
});
