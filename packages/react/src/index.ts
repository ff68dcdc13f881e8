/**
 * What `@talewire/react` offers: a provider and one hook per thing to watch. Imported by pages.
 */
export { TalewireProvider } from './provider.js';
export { useConnection, useConnectionState } from './use-connection.js';
export { useGeneration } from './use-generation.js';
export { usePresence } from './use-presence.js';
export { useReadable } from './use-readable.js';
export { useStory } from './use-story.js';
export { useTyping } from './use-typing.js';
