/**
 * Who is here: a pure reducer over connections, grouped by person for the page.
 * In: the whole list from presence(), and single joins and leaves. Out: one entry per person, however
 * many windows they have open. No timers or sockets. Called by live-story.
 */
import { isRecord } from './wire.js';

export interface Present { readonly user: string; readonly name: string }

/** One connection as centrifuge tells it. */
export interface Client { readonly client: string; readonly user: string; readonly connInfo?: unknown }

export interface PresenceState {
  readonly clients: ReadonlyMap<string, Present>;
  /** One per person, by name, so that two windows show the same order. */
  readonly people: readonly Present[];
}

export type PresenceInput =
  | { type: 'all'; clients: readonly Client[] }
  | { type: 'join'; client: Client }
  | { type: 'leave'; client: Client };

export const nobodyHere: PresenceState = { clients: new Map(), people: [] };

export function nameOf(client: Client): string {
  const info = client.connInfo;
  return isRecord(info) && typeof info['name'] === 'string' ? info['name'] : 'someone';
}

function grouped(clients: ReadonlyMap<string, Present>): PresenceState {
  const people = new Map<string, Present>();
  for (const present of clients.values()) people.set(present.user, present);
  return { clients, people: [...people.values()].sort((a, b) => a.name.localeCompare(b.name) || a.user.localeCompare(b.user)) };
}

export function stepPresence(state: PresenceState, input: PresenceInput): PresenceState {
  switch (input.type) {
    case 'all':
      return grouped(new Map(input.clients.map((client) => [client.client, { user: client.user, name: nameOf(client) }])));
    case 'join': {
      const present = { user: input.client.user, name: nameOf(input.client) };
      return grouped(new Map(state.clients).set(input.client.client, present));
    }
    case 'leave': {
      if (!state.clients.has(input.client.client)) return state;
      const clients = new Map(state.clients);
      clients.delete(input.client.client);
      return grouped(clients);
    }
  }
}
