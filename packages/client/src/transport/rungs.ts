/**
 * The transports from best to worst, where each lives on a server, and what the official client is told of it.
 * In: the address of a server. Out: one endpoint per rung. Called by negotiation and connection.
 */
import type { TransportEndpoint } from 'centrifuge';

export type Rung = 'websocket' | 'http_stream' | 'sse' | 'poll';

export const allRungs: readonly Rung[] = ['websocket', 'http_stream', 'sse', 'poll'];

export interface Endpoints {
  readonly rungs: readonly Rung[];
  readonly of: (rung: Rung) => TransportEndpoint;
  readonly emulation: string;
  readonly poll: string;
}

/** `http(s)://host`: every rung of that server. `ws(s)://…`: that one WebSocket address and nothing else. */
export function endpointsOf(url: string, wanted: readonly Rung[] = allRungs): Endpoints {
  const socketOnly = /^wss?:/i.test(url);
  const base = socketOnly ? '' : url.replace(/\/+$/, '');
  const addresses: Record<Rung, string> = {
    websocket: socketOnly ? url : `${base.replace(/^http/i, 'ws')}/connection/websocket`,
    http_stream: `${base}/connection/http_stream`,
    sse: `${base}/connection/sse`,
    poll: `${base}/poll`,
  };
  return {
    rungs: socketOnly ? ['websocket'] : allRungs.filter((rung) => wanted.includes(rung)),
    // The poll wears a WebSocket's interface; the constructor tells the two apart by the address.
    of: (rung) => ({ transport: rung === 'poll' ? 'websocket' : rung, endpoint: addresses[rung] }),
    emulation: `${base}/emulation`,
    poll: addresses.poll,
  };
}
