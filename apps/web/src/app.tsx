/**
 * From a visitor to a page: who is this, one connection for them, which page the address means.
 * In: the login of this tab. Out: a route below a provider. Called by main, once.
 */
import { Connection, Http, Login, type Config, isRecord, type User } from '@talewire/client';
import { TalewireProvider, useReadable } from '@talewire/react';
import { useEffect, useMemo, useState, type ReactNode } from 'react';
import type { Account } from './features/account/account-menu';
import { NameForm } from './features/account/name-form';
import { joinPath, Link, navigate, useRoute, type Route } from './router';
import { HomeRoute } from './routes/home-route';
import { rememberedCode } from './routes/join-codes';
import { JoinRoute } from './routes/join-route';
import { StoryRoute } from './routes/story-route';
import { Wordmark } from './routes/wordmark';
import { Notices } from './ui/notices';
import { ThemeButton } from './ui/theme-button';

const ASK_AGAIN_MS = 2000;
/** After a final close the server said "do not come back": we look again, slowly, in case it changed its mind. */
const AFTER_FINAL_CLOSE_MS = 15_000;
const unknownNarrator: Config['narrator'] = { provider: 'unknown', label: 'agent' };

/** Storage may be forbidden; then `window.sessionStorage` itself throws. */
function shelf(kind: 'sessionStorage' | 'localStorage'): Storage | undefined {
  try {
    return window[kind];
  } catch {
    return undefined;
  }
}

const login = new Login(new Http(), shelf('sessionStorage'));

export function App(): ReactNode {
  const state = useReadable(login.state);
  const route = useRoute();

  useEffect(() => {
    void login.ask();
    // A server that is just starting, or a train in a tunnel: asked again until somebody answers.
    const timer = setInterval(() => login.state.snapshot().phase === 'asking' && void login.ask(), ASK_AGAIN_MS);
    return () => clearInterval(timer);
  }, []);

  switch (state.phase) {
    case 'asking':
      return <Frame>{state.failed ? <p className="soft" data-testid="no-server">The server does not answer. Trying again…</p> : null}</Frame>;
    case 'nobody':
      return <Notices><FirstVisit route={route} tab={state.tab} /></Notices>;
    case 'somebody':
      // Another person is another page: nothing of the one before may stay.
      return <Notices><Inside key={`${state.user.id} ${state.tab}`} user={state.user} tab={state.tab} route={route} /></Notices>;
  }
}

function Frame({ children }: { children: ReactNode }): ReactNode {
  return (
    <div className="page">
      <header className="top-bar"><Wordmark /><span className="grow" /><ThemeButton /></header>
      <main className="page-middle"><div className="card">{children}</div></main>
    </div>
  );
}

function FirstVisit({ route, tab }: { route: Route; tab: boolean }): ReactNode {
  const enter = async (name: string): Promise<void> => {
    await login.asGuest(name);
  };
  return (
    <Frame>
      <h1>{route.page === 'join' ? 'Somebody wants to write with you' : 'Write stories together, live'}</h1>
      <p className="soft">{tab ? 'This tab’s guest is gone. What should we call you now?' : 'People and AI agents on one page. What should we call you?'}</p>
      <NameForm submit={route.page === 'join' ? 'Continue' : 'Begin'} onName={enter} />
    </Frame>
  );
}

function useNarrator(): Config['narrator'] {
  const [narrator, setNarrator] = useState(unknownNarrator);
  useEffect(() => {
    login.http.get('/app/config').then(
      (config) => {
        const told = isRecord(config) && isRecord(config['narrator']) ? config['narrator'] : undefined;
        if (typeof told?.['label'] === 'string') setNarrator({ provider: String(told['provider']), label: told['label'] });
      },
      // The label also comes with each of the narrator's turns; this one only shows earlier.
      () => undefined,
    );
  }, []);
  return narrator;
}

function Inside({ user, tab, route }: { user: User; tab: boolean; route: Route }): ReactNode {
  const connection = useMemo(() => {
    const local = shelf('localStorage');
    const memory = shelf('sessionStorage');
    return new Connection({
      login,
      user,
      url: window.location.origin,
      // A story that lies open overnight is there in the morning, whatever happened meanwhile.
      endless: true,
      lookAgain_ms: AFTER_FINAL_CLOSE_MS,
      ...(local === undefined ? {} : { shelf: local }),
      ...(memory === undefined ? {} : { memory }),
    });
  }, [user]);
  const narrator = useNarrator();
  useEffect(() => {
    connection.connect();
    return () => connection.close();
  }, [connection]);

  const account: Account = {
    user,
    tab,
    http: login.http,
    onSomeoneElse: async (name) => {
      // The second guest is not in this story yet; by the link that this browser knows, they can be.
      const code = route.page === 'story' ? rememberedCode(route.story) : undefined;
      await login.asSomeoneElse(name);
      if (code !== undefined) navigate(joinPath(code));
    },
    onBack: () => login.backToBrowserGuest(),
    onLogout: () => login.logout(),
  };
  return <TalewireProvider connection={connection}><Page route={route} account={account} narrator={narrator} /></TalewireProvider>;
}

function Page({ route, account, narrator }: { route: Route; account: Account; narrator: Config['narrator'] }): ReactNode {
  useEffect(() => {
    if (route.page !== 'story') document.title = 'Talewire';
  }, [route.page]);
  switch (route.page) {
    case 'home':
      return <HomeRoute account={account} />;
    case 'join':
      return <JoinRoute code={route.code} account={account} />;
    case 'story':
      return <StoryRoute key={route.story} story={route.story} wished={route.branch} account={account} narrator={narrator} />;
    case 'unknown':
      return <Frame><h1>Nothing is written here</h1><p><Link to="/" className="button">Your stories</Link></p></Frame>;
  }
}
