/**
 * The connection above, and how it stands.
 * In: the nearest TalewireProvider. Out: the Connection and its state. Called by components and by useStory.
 */
import type { Connection, ConnectionState, ConnectionStatus } from '@talewire/client';
import { use } from 'react';
import { ConnectionContext } from './provider.js';
import { useReadable } from './use-readable.js';

export function useConnection(): Connection {
  const connection = use(ConnectionContext);
  if (connection === undefined) throw new Error('useConnection needs a TalewireProvider above it');
  return connection;
}

/** connecting, live, catching up, offline or stopped: as honest as the client knows it. */
export function useConnectionState(): ConnectionState {
  return useReadable(useConnection().state);
}

/** The coarse view: connecting, connected or disconnected. */
export function useConnectionStatus(): ConnectionStatus {
  return useReadable(useConnection().status);
}
