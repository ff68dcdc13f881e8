/**
 * A channel on the page: its newest publications, how the subscription stands, and publishing.
 * In: a channel's name, event types if not all. Out: what changed redraws the component. Called by components.
 */
import { type Channel, type ChannelEvent, ChannelLog, type ChannelOptions, type ChannelState } from '@talewire/client';
import { useMemo } from 'react';
import { useConnection } from './use-connection.js';
import { useReadable } from './use-readable.js';

export interface UseChannelOptions extends Pick<ChannelOptions, 'events'> {
  /** How many publications are kept; 100 where nothing is said. */
  readonly keep?: number;
}

export interface UsedChannel<T> {
  readonly publications: readonly ChannelEvent<T>[];
  readonly status: ChannelState['phase'];
  readonly error: ChannelState['error'];
  readonly publish: Channel['publish'];
}

export function useChannel<T = unknown>(name: string, options: UseChannelOptions = {}): UsedChannel<T> {
  const connection = useConnection();
  const { keep } = options;
  // A list written in place is another one at each draw: its words are what counts.
  const events = options.events?.join(',');
  const { channel, log } = useMemo(() => {
    const made = connection.channel(name, events === undefined ? {} : { events: events.split(',') });
    return { channel: made, log: new ChannelLog<T>(made, keep) };
  }, [connection, name, events, keep]);
  const publish = useMemo<Channel['publish']>(() => (data, event) => channel.publish(data, event), [channel]);
  const publications = useReadable(log);
  const { phase, error } = useReadable(channel.state);
  return { publications, status: phase, error, publish };
}
