/**
 * The links in a simulated page: one tap makes one link, and no link is revoked by a single tap or a double one.
 */
import type { Invite, LiveStory } from '@talewire/client';
import { cleanup, fireEvent, render, screen, waitFor } from '@testing-library/react';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { InviteDialog } from './invite-dialog';

const invites: Invite[] = [];
const createInvite = vi.fn((): Promise<Invite> => {
  const invite: Invite = { code: `code${invites.length}`, role: 'writer', uses: 0, created_at: 0, expires_at: 0 };
  invites.push(invite);
  return Promise.resolve(invite);
});
const revokeInvite = vi.fn<(code: string) => Promise<void>>(() => Promise.resolve());

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
  const live = { listInvites: () => Promise.resolve([...invites]), createInvite, revokeInvite } as unknown as LiveStory;
  render(<InviteDialog live={live} onClose={vi.fn()} onCode={vi.fn()} />);
});
afterEach(() => {
  cleanup();
  vi.useRealTimers();
  vi.clearAllMocks();
  invites.length = 0;
});
const later = (ms: number): unknown => vi.setSystemTime(Date.now() + ms);

describe('the links of a story', () => {
  it('come one at a time, however quickly Create is tapped', async () => {
    fireEvent.click(screen.getByTestId('invite-create'));
    await waitFor(() => expect(screen.getByTestId<HTMLInputElement>('invite-link').value).toContain('/join/code0'));
    fireEvent.click(screen.getByTestId('invite-create'));
    expect(createInvite).toHaveBeenCalledOnce();
    later(1000);
    fireEvent.click(screen.getByTestId('invite-create'));
    await waitFor(() => expect(screen.getByTestId('invite-other-link')).toBeDefined());
    expect(createInvite).toHaveBeenCalledTimes(2);
  });

  it('are revoked when one says so twice, not by a double tap', async () => {
    fireEvent.click(screen.getByTestId('invite-create'));
    const revoke = await screen.findByTestId('invite-revoke');
    fireEvent.click(revoke);
    fireEvent.click(revoke);
    expect(revoke.textContent).toBe('Really revoke?');
    expect(revokeInvite).not.toHaveBeenCalled();
    fireEvent.blur(revoke);
    expect(revoke.textContent).toBe('Revoke');
    fireEvent.click(revoke);
    later(600);
    fireEvent.click(revoke);
    expect(revokeInvite).toHaveBeenCalledWith('code0');
    await waitFor(() => expect(screen.getByTestId<HTMLButtonElement>('invite-create').disabled).toBe(false));
  });
});
