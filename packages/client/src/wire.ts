/**
 * The objects and methods of PROTOCOL.md sections 2 to 4, as types, and the two places where untyped
 * JSON becomes one of them. In: parsed JSON. Out: a typed value, or undefined for what this version
 * does not know. Called by live-story and connection; the types are used by every view.
 */

export interface User { id: string; name: string; guest: boolean }
export type Role = 'owner' | 'writer' | 'reader';
export interface Story { id: string; title: string; owner: string; branch: string; created_at: number; active_at: number; turns: number; members: number }
export interface Member { user: string; name: string; role: Role; joined_at: number }
export interface Branch { id: string; parent?: string; from?: string; choice?: string; label: string; created_at: number }
export interface Author { kind: 'person' | 'agent'; id: string; name: string }
export type GenerationStatus = 'queued' | 'running' | 'done' | 'cancelled' | 'failed';
export interface TurnOrigin { id: string; attempt: number; status: GenerationStatus; label: string }
export interface Turn {
  id: string; branch: string; number: number; author: Author; kind: 'prose' | 'choice'; text: string; created_at: number;
  generation?: TurnOrigin;
}
export interface Choice { id: string; turn: string; number: number; label: string; branch?: string }
export interface Generation {
  id: string; branch: string; agent: { id: string; name: string }; status: GenerationStatus; attempt: number; by: string;
  requested_at: number; after?: string; reason?: { code: number | string; message: string };
}
export interface Invite { code: string; role: Role; created_at: number; expires_at: number; uses: number }
export interface Position { offset: number; epoch: string }
export interface Config { narrator: { provider: string; label: string }; version: string }

export interface StoryOpened {
  story: Story; me: Member; members: Member[]; branches: Branch[]; choices: Choice[]; turns: Turn[]; more: boolean;
  generations: Generation[]; position: Position;
}

/** Every method of section 3: what it takes and what it gives. */
export interface Methods {
  'story.create': { params: { title: string; opening?: string; key: string }; result: { story: Story } };
  'story.list': { params: { limit?: number; before?: string }; result: { stories: Story[]; next?: string } };
  'story.open': { params: { story: string; branch?: string; limit?: number }; result: StoryOpened };
  'story.turns': { params: { story: string; branch: string; before: string; limit?: number }; result: { turns: Turn[]; choices?: Choice[]; more: boolean } };
  'story.rename': { params: { story: string; title: string; key: string }; result: { story: Story } };
  'story.join': { params: { code: string }; result: { story: Story; me: Member } };
  'invite.create': { params: { story: string; role: Role; key: string }; result: { invite: Invite } };
  'invite.list': { params: { story: string }; result: { invites: Invite[] } };
  'invite.revoke': { params: { story: string; code: string }; result: Record<string, never> };
  'invite.show': { params: { code: string }; result: { title: string; role: Role; members: number } };
  'turn.add': { params: { story: string; branch: string; text: string; key: string }; result: { turn: Turn } };
  'generation.request': { params: { story: string; branch: string; instruction?: string; key: string }; result: { generation: Generation } };
  'generation.stop': { params: { story: string; generation: string }; result: { generation: Generation } };
  'generation.snapshot': { params: { story: string; generation: string }; result: StreamSnapshot };
  'choice.pick': { params: { story: string; choice: string; key: string }; result: { branch: Branch; turn: Turn; generation?: Generation } };
}
export type Method = keyof Methods;
export type Params<M extends Method> = Methods[M]['params'];
export type Result<M extends Method> = Methods[M]['result'];

/** One entry of a story's log. */
export type LogEntry =
  | { type: 'story.created'; story: Story }
  | { type: 'story.renamed'; title: string }
  | { type: 'member.joined'; member: Member }
  | { type: 'turn.added'; turn: Turn }
  | { type: 'generation.requested'; generation: Generation }
  | { type: 'generation.started'; generation: Generation }
  | { type: 'generation.ended'; generation: Generation; turn?: Turn; choices?: Choice[] }
  | { type: 'choice.picked'; choice: Choice; branch: Branch; turn: Turn; generation?: Generation };

export interface StreamSnapshot { type: 'snapshot'; generation: string; attempt: number; at: number; text: string; status: GenerationStatus }

/** One frame of a generation stream. */
export type StreamFrame =
  | StreamSnapshot
  | { type: 'delta'; generation: string; attempt: number; at: number; text: string }
  | { type: 'reset'; generation: string; attempt: number }
  /** `at` is how long the whole text is; absent where nobody knows. */
  | { type: 'end'; generation: string; attempt: number; at?: number; status: GenerationStatus };

const entryFields: Record<LogEntry['type'], readonly string[]> = {
  'story.created': ['story'],
  'story.renamed': ['title'],
  'member.joined': ['member'],
  'turn.added': ['turn'],
  'generation.requested': ['generation'],
  'generation.started': ['generation'],
  'generation.ended': ['generation'],
  'choice.picked': ['choice', 'branch', 'turn'],
};

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * A log entry, if this version knows its type and the fields that the reducer needs are there. The
 * fields' own shape is the server's promise: checking it again here would only move a crash.
 */
export function asLogEntry(data: unknown): LogEntry | undefined {
  if (!isRecord(data) || typeof data['type'] !== 'string') return undefined;
  const fields = Object.hasOwn(entryFields, data['type']) ? entryFields[data['type'] as LogEntry['type']] : undefined;
  if (fields === undefined || fields.some((field) => data[field] === undefined || data[field] === null)) return undefined;
  return data as LogEntry;
}

/** A stream frame whose numbers are numbers, since the reducer counts with them. */
export function asStreamFrame(data: unknown): StreamFrame | undefined {
  if (!isRecord(data) || typeof data['generation'] !== 'string' || !Number.isInteger(data['attempt'])) return undefined;
  switch (data['type']) {
    case 'snapshot':
      return typeof data['text'] === 'string' ? (data as unknown as StreamFrame) : undefined;
    case 'delta':
      return typeof data['text'] === 'string' && Number.isInteger(data['at']) ? (data as unknown as StreamFrame) : undefined;
    case 'end':
      return data['at'] === undefined || Number.isInteger(data['at']) ? (data as unknown as StreamFrame) : undefined;
    case 'reset':
      return data as unknown as StreamFrame;
    default:
      return undefined;
  }
}

/** Whether nothing will be written any more. */
export function isEnd(status: GenerationStatus): boolean {
  return status === 'done' || status === 'cancelled' || status === 'failed';
}
