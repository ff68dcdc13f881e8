/**
 * The home page: start a story, or go on with one. In: the connection and account of app. Out: a page.
 */
import { deliver, newKey } from '@talewire/client';
import { useConnection } from '@talewire/react';
import type { ReactNode } from 'react';
import { AccountMenu, type Account } from '../features/account/account-menu';
import { ConnectionPill } from '../features/connection/connection-pill';
import { NewStory } from '../features/home/new-story';
import { StoryList } from '../features/home/story-list';
import { navigate, storyPath } from '../router';
import { ThemeButton } from '../ui/theme-button';
import { Wordmark } from './wordmark';

/** Starting a story is waited for by a person at a button: no two minutes here. */
const CREATE_WITHIN_MS = 20_000;

export function HomeRoute({ account }: { account: Account }): ReactNode {
  const connection = useConnection();
  const start = async (title: string, opening: string): Promise<void> => {
    const params = { title, key: newKey(), ...(opening === '' ? {} : { opening }) };
    const { story } = await deliver(() => connection.call('story.create', params), connection.patience(CREATE_WITHIN_MS));
    navigate(storyPath(story.id));
  };
  return (
    <div className="page">
      <header className="top-bar">
        <Wordmark />
        <span className="grow" />
        <ConnectionPill />
        <ThemeButton />
        <AccountMenu account={account} />
      </header>
      <main className="page-body">
        <div className="home-hello">
          <h1>What happens next, {account.user.name}?</h1>
          <p className="soft">Start a story, invite people with a link, and let the narrator join in.</p>
        </div>
        <NewStory onStart={start} />
        <section className="home-section" aria-labelledby="mine">
          <h2 id="mine">Your stories</h2>
          <StoryList />
        </section>
      </main>
    </div>
  );
}
