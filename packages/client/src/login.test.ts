/**
 * Logins over HTTP: the cookie's guest with its CSRF token, the tab's own guest with its token.
 * A scripted fetch stands in for the server and notes what it was sent.
 */
import { describe, expect, it } from 'vitest';
import { TalewireError } from './errors.js';
import { Http } from './http.js';
import { Login, type Shelf } from './login.js';

interface Sent { path: string; headers: Headers; credentials: string | undefined; body: unknown }

function scripted(answers: Record<string, (sent: Sent) => Response>): { http: Http; sent: Sent[] } {
  const sent: Sent[] = [];
  const http = new Http('', (input, init) => {
    const path = String(input instanceof Request ? input.url : input);
    const one: Sent = { path, headers: new Headers(init?.headers), credentials: init?.credentials, body: typeof init?.body === 'string' ? JSON.parse(init.body) : undefined };
    sent.push(one);
    const answer = answers[`${init?.method ?? 'GET'} ${path}`];
    return answer === undefined ? Promise.reject(new TypeError('failed to fetch')) : Promise.resolve(answer(one));
  });
  return { http, sent };
}

function aShelf(): Shelf & { values: Map<string, string> } {
  const values = new Map<string, string>();
  return { values, getItem: (key) => values.get(key) ?? null, setItem: (key, value) => values.set(key, value), removeItem: (key) => values.delete(key) };
}

const unauthorized = (): Response => Response.json({ error: { code: 101, name: 'unauthorized', message: 'who are you?' } }, { status: 401 });
const user = (name: string): object => ({ id: name.toLowerCase(), name, guest: true });

describe('the guest of the browser', () => {
  it('is nobody until a name is given, and then known by cookie and CSRF token', async () => {
    const { http, sent } = scripted({ 'GET /app/me': unauthorized, 'POST /app/login': () => Response.json({ user: user('Ana'), csrf: 'c1' }), 'POST /app/rpc/x': () => Response.json({}) });
    const login = new Login(http, aShelf());
    await login.ask();
    expect(login.state.snapshot()).toEqual({ phase: 'nobody', tab: false });
    await login.asGuest('Ana');
    expect(login.state.snapshot()).toMatchObject({ phase: 'somebody', tab: false, user: { name: 'Ana' } });
    await http.post('/app/rpc/x', {});
    expect(sent.at(-1)?.headers.get('X-CSRF-Token')).toBe('c1');
    expect(sent.at(-1)?.credentials).toBe('same-origin');
  });

  it('asks for a new CSRF token after a 403, and sends again once', async () => {
    let good = 'c2';
    const { http, sent } = scripted({
      'GET /app/me': () => Response.json({ user: user('Ana'), csrf: good }),
      'POST /app/rpc/x': (one) => (one.headers.get('X-CSRF-Token') === good ? Response.json({ done: true }) : Response.json({ error: { code: 103, name: 'permission denied', message: 'csrf' } }, { status: 403 })),
    });
    await new Login(http, aShelf()).ask();
    good = 'c3';
    expect(await http.post('/app/rpc/x', { a: 1 })).toEqual({ done: true });
    expect(sent.map((one) => one.path)).toEqual(['/app/me', '/app/rpc/x', '/app/me', '/app/rpc/x']);
  });

  it('does not take every 403 for a stale token', async () => {
    const refuse = scripted({ 'GET /app/me': () => Response.json({ user: user('Ana'), csrf: 'same' }), 'POST /app/rpc/x': () => Response.json({ error: { code: 103, name: 'permission denied', message: 'not yours' } }, { status: 403 }) });
    await new Login(refuse.http, aShelf()).ask();
    await expect(refuse.http.post('/app/rpc/x', {})).rejects.toMatchObject({ code: 103, message: 'not yours' });
    expect(refuse.sent.filter((one) => one.path === '/app/rpc/x')).toHaveLength(1);
  });

  it('does not say as somebody else what one person wanted to say', async () => {
    let who = 'Ana';
    const { http, sent } = scripted({ 'GET /app/me': () => Response.json({ user: user(who), csrf: `csrf of ${who}` }), 'POST /app/rpc/x': () => Response.json({ error: { code: 103, name: 'permission denied', message: 'csrf' } }, { status: 403 }) });
    const login = new Login(http, aShelf());
    await login.ask();
    // Another tab has logged in as Ben: the cookie is his now.
    who = 'Ben';
    await expect(http.post('/app/rpc/x', {})).rejects.toMatchObject({ code: 103 });
    expect(sent.filter((one) => one.path === '/app/rpc/x')).toHaveLength(1);
    expect(login.state.snapshot()).toMatchObject({ user: { name: 'Ben' } });
  });

  it('is asked about again while the server does not answer, and not thrown out for it', async () => {
    const login = new Login(scripted({}).http, aShelf());
    await login.ask();
    expect(login.state.snapshot()).toEqual({ phase: 'asking', failed: true });
  });

  it('keeps the same object when it is the same person, so that nothing is torn down', async () => {
    const login = new Login(scripted({ 'GET /app/me': () => Response.json({ user: user('Ana'), csrf: 'c' }) }).http, aShelf());
    await login.ask();
    const before = login.state.snapshot();
    await login.ask();
    expect(login.state.snapshot()).toBe(before);
  });
});

describe('a second guest in this tab', () => {
  const answers = { 'POST /app/login': (): Response => Response.json({ user: user('Ben'), token: 't1' }), 'GET /app/me': (): Response => Response.json({ user: user('Ben') }) };

  it('lives by a token in sessionStorage and leaves the cookie alone', async () => {
    const { http, sent } = scripted(answers);
    const shelf = aShelf();
    const login = new Login(http, shelf);
    await login.asSomeoneElse('Ben');
    expect(sent[0]?.body).toEqual({ name: 'Ben', tab: true });
    expect([...shelf.values.values()]).toEqual(['t1']);
    expect(login.token).toBe('t1');
    await http.get('/app/me');
    expect(sent.at(-1)?.headers.get('Authorization')).toBe('Bearer t1');
    expect(sent.at(-1)?.credentials).toBe('omit');
  });

  it('is still there after a reload', async () => {
    const shelf = aShelf();
    shelf.setItem('talewire.tab-token', 't1');
    const login = new Login(scripted(answers).http, shelf);
    await login.ask();
    expect(login.state.snapshot()).toMatchObject({ phase: 'somebody', tab: true, user: { name: 'Ben' } });
  });

  it('asks anew when its token is refused, and becomes a guest of this tab again', async () => {
    const shelf = aShelf();
    shelf.setItem('talewire.tab-token', 'expired');
    const { http, sent } = scripted({ ...answers, 'GET /app/me': unauthorized });
    const login = new Login(http, shelf);
    await login.ask();
    expect(login.state.snapshot()).toEqual({ phase: 'nobody', tab: true });
    expect(shelf.values.size).toBe(0);
    await login.asGuest('Ben');
    expect(sent.at(-1)?.body).toEqual({ name: 'Ben', tab: true });
    expect(login.state.snapshot()).toMatchObject({ phase: 'somebody', tab: true });
  });

  it('goes back to the browser’s guest', async () => {
    const shelf = aShelf();
    const { http } = scripted({ ...answers, 'GET /app/me': (one) => (one.headers.has('Authorization') ? Response.json({ user: user('Ben') }) : Response.json({ user: user('Ana'), csrf: 'c' })) });
    const login = new Login(http, shelf);
    await login.asSomeoneElse('Ben');
    await login.logout();
    expect(login.state.snapshot()).toMatchObject({ phase: 'somebody', tab: false, user: { name: 'Ana' } });
    expect(shelf.values.size).toBe(0);
  });

  it('is not given up for a refusal that has nothing to do with who one is', async () => {
    const { http } = scripted({ ...answers, 'POST /app/rpc/x': () => Response.json({ error: { code: 404, name: 'not found', message: 'no' } }, { status: 404 }) });
    const login = new Login(http, aShelf());
    await login.asSomeoneElse('Ben');
    await expect(http.post('/app/rpc/x', {})).rejects.toBeInstanceOf(TalewireError);
    expect(login.token).toBe('t1');
  });
});
