/**
 * The hooks for channels in a simulated page, over the real client and a server in memory: what is drawn and
 * called when things are published, and what the server hears of redraws.
 */
import { Connection, Http, Login } from '@talewire/client';
import { act, cleanup, render, screen, waitFor } from '@testing-library/react';
import { StrictMode, useState, type ReactNode } from 'react';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FakeServer } from '../../client/src/testing/fake-server.js';
import { TalewireProvider, useChannel, useConnectionStatus, useEventMap, useEvents } from './index.js';

let server: FakeServer;
let connection: Connection;

beforeEach(() => {
  server = new FakeServer();
  server.logs.set('chat:1', []);
  connection = new Connection({ login: new Login(new Http('', server.fetch)), user: { id: 'ana', name: 'Ana', guest: true }, url: 'ws://fake', websocket: server.socketClass });
  connection.connect();
});
afterEach(() => {
  cleanup();
  connection.close();
});

const draw = (page: ReactNode): ReturnType<typeof render> => render(<StrictMode><TalewireProvider connection={connection}>{page}</TalewireProvider></StrictMode>);
const subscribed = (): boolean => [...server.sockets].some((socket) => socket.channels.has('chat:1'));

describe('useChannel', () => {
  function Chat({ keep }: { keep?: number }): ReactNode {
    const { publications, status, publish } = useChannel<string>('chat:1', keep === undefined ? {} : { keep });
    return (
      <div>
        <p>status: {status}, {useConnectionStatus()}</p>
        <p>said: {publications.map((one) => one.data).join(' ')}</p>
        <button type="button" onClick={() => void publish('from here')}>say</button>
      </div>
    );
  }

  it('draws what is published, keeps so many, and publishes', async () => {
    draw(<Chat keep={2} />);
    await screen.findByText('status: subscribed, connected');
    for (const text of ['one', 'two', 'three']) act(() => server.append('chat:1', text));
    await screen.findByText('said: two three');
    screen.getByText('say').click();
    await waitFor(() => expect(server.published).toEqual([{ channel: 'chat:1', data: 'from here' }]));
    expect(server.subscribes).toHaveLength(1);
  });

  it('never shows a list with a hole in it', async () => {
    draw(<Chat />);
    await screen.findByText('status: subscribed, connected');
    act(() => server.append('chat:1', 'one'));
    await screen.findByText('said: one');
    act(() => {
      server.epoch = 'e2';
      server.cut({ down: false });
    });
    await screen.findByText('said:', {}, { timeout: 5000 });
    act(() => server.append('chat:1', 'after'));
    await screen.findByText('said: after');
  });

  it('leaves the channel when it is not drawn any more', async () => {
    const { unmount } = draw(<Chat />);
    await waitFor(() => expect(subscribed()).toBe(true));
    unmount();
    await waitFor(() => expect(subscribed()).toBe(false));
  });
});

describe('useEvents and useEventMap', () => {
  const heard: string[] = [];
  function Ears(): ReactNode {
    const [times, setTimes] = useState(0);
    // A new function at each draw, which knows the newest state.
    const { phase } = useEvents<{ n: number }>('chat:1', 'turn', ({ n }) => {
      heard.push(`turn ${n} after ${times}`);
      setTimes(times + 1);
    });
    useEventMap('chat:1', { note: (data) => heard.push(`note ${String(data)}`), message: () => heard.push('message') });
    return <p>{phase}, {times}</p>;
  }

  it('call the newest handlers for their types, over one subscription that asks for these types alone', async () => {
    heard.length = 0;
    draw(<Ears />);
    await screen.findByText('subscribed, 0');
    act(() => server.append('chat:1', { n: 1 }, 'turn'));
    await screen.findByText('subscribed, 1');
    act(() => server.append('chat:1', { n: 2 }, 'turn'));
    await screen.findByText('subscribed, 2');
    act(() => server.append('chat:1', 'x', 'note'));
    act(() => server.append('chat:1', 'x', 'other'));
    act(() => server.append('chat:1', 'plain'));
    await waitFor(() => expect(heard).toEqual(['turn 1 after 0', 'turn 2 after 1', 'note x', 'message']));
    expect(server.subscribes).toHaveLength(1);
    expect(server.subscribes[0]?.['tf']).toEqual({ op: 'or', nodes: [{ key: 'event', cmp: 'in', vals: ['turn', 'note'] }, { key: 'event', cmp: 'nex' }] });
  });
});
