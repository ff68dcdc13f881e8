/**
 * The connection above, and how it stands.
 * In: the nearest TalewireProvider. Out: the Connection and its state. Called by components and by useStory.
 */
import type { Connection, ConnectionState } from '@talewire/client';
import { use } from 'react';
import { ConnectionContext } from './provider.js';
import { useReadable } from './use-readable.js';

export function useConnection(): Connection {
  const connection = use(ConnectionContext);
  if (connection === undefined) throw new Error('useConnection needs a TalewireProvider above it');
  return connection;
}

/** connecting, live, catching up, or offline: as honest as the client knows it. */
export function useConnectionState(): ConnectionState {
  return useReadable(useConnection().state);
}
