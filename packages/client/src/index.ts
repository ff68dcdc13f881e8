/**
 * What `@talewire/client` offers: logins, one live connection, live stories, and the pure reducers under
 * them. Imported by @talewire/react and by any other client; nothing else of this package is public.
 */
export { Cell, type Readable } from './cell.js';
export { Channel, type ChannelOptions, type Handler } from './channel.js';
export { ChannelLog, KEEP_DEFAULT } from './channel-log.js';
export type { ChannelEvent, ChannelState } from './channel-line.js';
export { Connection, type ConnectionOptions, type ConnectionState, type ConnectionStatus } from './connection.js';
export { deliver, newKey, type Patience } from './delivery.js';
export { codes, TalewireError } from './errors.js';
export { needsSnapshot, startStream, stepStream, type StreamText } from './generation.js';
export { Http } from './http.js';
export { LiveStory, type StoryView } from './live-story.js';
export { Login, type LoginState, type Shelf } from './login.js';
export type { PendingTurn } from './pending-turns.js';
export { type Present, type PresenceState, stepPresence } from './presence.js';
export { choicesAfter, openGeneration, path, step, type Path, type StoryInput, type StoryState } from './story.js';
export { isDue, stepTyping, type Typer } from './typing.js';
export { allRungs, type Rung } from './transport/rungs.js';
export * from './wire.js';
