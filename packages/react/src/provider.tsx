/**
 * Hands one Connection to everything below it.
 * In: a Connection that the page made. Out: context for the hooks. The page decides when to connect and close.
 */
import type { Connection } from '@talewire/client';
import { createContext, type ReactNode } from 'react';

export const ConnectionContext = createContext<Connection | undefined>(undefined);

export function TalewireProvider(props: { connection: Connection; children: ReactNode }): ReactNode {
  return <ConnectionContext value={props.connection}>{props.children}</ConnectionContext>;
}
