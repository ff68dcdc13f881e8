/**
 * Tokens as other people's programs make them: claims in, a signed JWT (HS256) out; nothing of ours is used.
 * Called by official-tokens.test.ts.
 */
import { createHmac } from 'node:crypto';

export const SECRET = 'a secret of the end-to-end tests, long enough';

export function signed(claims: Record<string, unknown>, secret = SECRET, header: Record<string, unknown> = { alg: 'HS256', typ: 'JWT' }): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const content = `${part(header)}.${part(claims)}`;
  return `${content}.${createHmac('sha256', secret).update(content).digest('base64url')}`;
}

/** Unix seconds, so far from now. */
export const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds;
