/**
 * What `@talewire/react` offers: a provider and one hook per thing to watch. Imported by pages.
 */
export { TalewireProvider } from './provider.js';
export { useChannel, type UseChannelOptions, type UsedChannel } from './use-channel.js';
export { useConnection, useConnectionState, useConnectionStatus } from './use-connection.js';
export { type EventMap, useEventMap, useEvents } from './use-events.js';
export { useGeneration } from './use-generation.js';
export { usePresence } from './use-presence.js';
export { useReadable } from './use-readable.js';
export { useStory } from './use-story.js';
export { useTyping } from './use-typing.js';
