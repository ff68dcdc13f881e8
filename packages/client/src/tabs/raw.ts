/**
 * From the official client's objects back to the native JSON protocol that it made them from.
 * In: contexts and results of a Centrifuge. Out: the objects of PROTOCOL.md. Called by switchboard and shared-channel.
 */
import type { ClientInfo, HistoryResult, PresenceResult } from 'centrifuge';

type Json = Record<string, unknown>;
export type Info = ClientInfo;

export function rawInfo(info: Info): Json {
  const { user, client } = info;
  const conn: unknown = info.connInfo;
  const chan: unknown = info.chanInfo;
  return { user, client, ...(conn === undefined ? {} : { conn_info: conn }), ...(chan === undefined ? {} : { chan_info: chan }) };
}

export function rawPresence(result: PresenceResult): Json {
  return { presence: Object.fromEntries(Object.entries(result.clients).map(([client, info]) => [client, rawInfo(info)])) };
}

export function rawHistory(result: HistoryResult): Json {
  const publications = result.publications.map(({ data, offset, tags, info }) => ({
    data: data as unknown,
    ...(offset === undefined ? {} : { offset }),
    ...(tags === undefined ? {} : { tags }),
    ...(info === undefined ? {} : { info: rawInfo(info) }),
  }));
  return { publications, offset: result.offset, epoch: result.epoch };
}
