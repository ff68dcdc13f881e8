/**
 * One's stories, newest activity first, page by page. In: the connection above. Out: links to stories.
 * Called by the home page.
 */
import type { Story } from '@talewire/client';
import { useConnection } from '@talewire/react';
import { useEffect, useState, type ReactNode } from 'react';
import { Link, storyPath } from '../../router';
import { Icon } from '../../ui/icon';
import { useAction } from '../../ui/notices';
import { when } from '../../ui/when';
import './home.css';

const PAGE = 20;
const ASK_AGAIN_MS = 3000;

export function StoryList(): ReactNode {
  const connection = useConnection();
  const [stories, setStories] = useState<readonly Story[] | undefined>();
  const [next, setNext] = useState<string | undefined>();

  useEffect(() => {
    let gone = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = (): void => {
      connection.call('story.list', { limit: PAGE }).then(
        (page) => {
          if (gone) return;
          setStories(page.stories);
          setNext(page.next);
        },
        () => {
          if (!gone) timer = setTimeout(ask, ASK_AGAIN_MS);
        },
      );
    };
    ask();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [connection]);

  const more = useAction(async () => {
    if (next === undefined) return;
    const page = await connection.call('story.list', { limit: PAGE, before: next });
    setStories((known) => [...(known ?? []), ...page.stories]);
    setNext(page.next);
  });

  if (stories === undefined) return <p className="soft">Looking for your stories…</p>;
  if (stories.length === 0) return <p className="soft">No stories yet. The first one starts above, or with a link that somebody gives you.</p>;
  const now = Date.now();
  return (
    <>
      <ul className="story-list">
        {stories.map((story) => (
          <li key={story.id}>
            <Link to={storyPath(story.id)} className="story-card" data-testid="story-link" data-story-id={story.id}>
              <span className="story-card-title">{story.title}</span>
              <span className="soft story-card-facts">
                {story.turns === 1 ? '1 turn' : `${story.turns} turns`} · {story.members === 1 ? 'only you' : `${story.members} people`} · {when(story.active_at, now)}
              </span>
              <Icon name="send" />
            </Link>
          </li>
        ))}
      </ul>
      {next !== undefined && <button type="button" className="button" onClick={() => more.run()} disabled={more.busy}>Older stories</button>}
    </>
  );
}
