/**
 * Handlers for events of a channel, for as long as the component is mounted.
 * In: a channel's name, one event type or a handler for each of several. Out: calls of the newest handlers; the state of the
 * subscription. A new handler at each draw costs nothing: the subscription stays.
 */
import type { ChannelState, Handler } from '@talewire/client';
import { useEffect, useLayoutEffect, useMemo, useRef } from 'react';
import { useConnection } from './use-connection.js';
import { useReadable } from './use-readable.js';

/** A handler for each event type; `message` for publications without one. */
export type EventMap = Readonly<Record<string, Handler<never>>>;

export function useEvents<T = unknown>(channel: string, type: string, handler: Handler<T>): ChannelState {
  return useEventMap(channel, { [type]: handler });
}

export function useEventMap(name: string, handlers: EventMap): ChannelState {
  const connection = useConnection();
  const newest = useRef(handlers);
  useLayoutEffect(() => {
    newest.current = handlers;
  });
  const types = Object.keys(handlers).sort().join(',');
  const channel = useMemo(() => connection.channel(name, { events: types.split(',') }), [connection, name, types]);
  useEffect(() => channel.onAny((event) => (newest.current[event.type] as Handler | undefined)?.(event.data, event)), [channel]);
  return useReadable(channel.state);
}
