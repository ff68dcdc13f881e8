/**
 * Thousands of readers of `/events` in this one process, each a socket and nothing else: each checks that every number comes
 * once and in order, and comes back by its last id when its stream ends. In: a server, a channel. Out: how far they are,
 * and what was wrong. Called by crowd.test.ts.
 */
import { connect, type Socket } from 'node:net';
import type { Server } from './server.ts';

/** Sockets that are being opened at once. */
const OPENING_MAX = 256;
/** Everybody comes back some time within this, as browsers do when they are told to. */
const BACK_MS = 3_000;

export class Crowd {
  /** Faults in the words of a person; only the first is of interest. */
  readonly faults: string[] = [];
  /** Streams that have begun, and how many of these went on where they were. */
  began = 0;
  recovered = 0;
  readonly #members: Member[];
  readonly #waiting: Member[] = [];
  #opening = 0;

  constructor(readonly server: Server, readonly channel: string, readonly token: string, size: number) {
    this.#members = Array.from({ length: size }, () => new Member(this));
    this.#waiting.push(...this.#members);
    this.open();
  }

  /** Members who have heard everything up to this number. */
  at(n: number): number {
    return this.#members.reduce((sum, { heard }) => (heard >= n ? sum + 1 : sum), 0);
  }

  /** Opens as many as may be opened at once. */
  open(): void {
    for (; this.#opening < OPENING_MAX; this.#opening += 1) {
      const member = this.#waiting.shift();
      if (member === undefined) return;
      member.open();
    }
  }

  opened(): void {
    this.#opening -= 1;
    this.open();
  }

  /** Its stream has ended: it comes again. */
  comesBack(member: Member): void {
    setTimeout(() => {
      this.#waiting.push(member);
      this.open();
    }, Math.random() * BACK_MS).unref();
  }

  leave(): void {
    for (const member of this.#members) member.leave();
  }
}

class Member {
  heard = 0;
  readonly #crowd: Crowd;
  #id = '';
  #left = false;
  #socket: Socket | undefined;

  constructor(crowd: Crowd) {
    this.#crowd = crowd;
  }

  open(): void {
    const crowd = this.#crowd;
    let [opening, text] = [true, ''];
    const isOpen = (): void => {
      if (opening) crowd.opened();
      opening = false;
    };
    const { server, channel, token } = crowd;
    const id = this.#id === '' ? '' : `Last-Event-ID: ${this.#id}\r\n`;
    const socket = connect(server.port, '127.0.0.1');
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('connect', () => socket.write(`GET /events?channel=${channel} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nAuthorization: Bearer ${token}\r\n${id}\r\n`));
    socket.on('data', (more: string) => {
      const blocks = (text + more).split('\n\n');
      text = blocks.pop() ?? '';
      for (const block of blocks) if (this.#block(block)) isOpen();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      isOpen();
      if (!this.#left) crowd.comesBack(this);
    });
  }

  leave(): void {
    this.#left = true;
    this.#socket?.destroy();
  }

  /** One event; whether it is the first of its stream. */
  #block(block: string): boolean {
    const field = (name: string): string | undefined => block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
    this.#id = field('id') ?? this.#id;
    const [event, data] = [field('event'), field('data') ?? ''];
    if (event === 'connected') {
      this.#crowd.began += 1;
      if (data.includes('"recovered":true')) this.#crowd.recovered += 1;
    } else if (event === 'turn') {
      const { n } = JSON.parse(data) as { n: number };
      if (n !== this.heard + 1) this.#crowd.faults.push(`number ${n} came after ${this.heard}`);
      this.heard = n;
    } else if (event === 'gap') {
      this.#crowd.faults.push(`a gap: ${data}`);
    }
    return event === 'connected';
  }
}
