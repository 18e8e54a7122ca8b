/** A clock, a WebSocket and a node that tests hold in their hands. */
import { readFileSync } from 'node:fs';

/** What a node's hello tells of limits: a test of the programs keeps the file equal to what they say. */
export const HELLO = JSON.parse(readFileSync(new URL('hello.json', import.meta.url), 'utf8'));

/** Time that passes only when told to. */
export class Clock {
  constructor(now = 1_700_000_000_000) {
    this.time = now;
    this.timers = new Map();
    this.last = 0;
    this.now = () => this.time;
    this.setTimeout = (run, ms) => {
      this.last += 1;
      this.timers.set(this.last, { at: this.time + ms, run });
      return this.last;
    };
    this.clearTimeout = (id) => this.timers.delete(id);
  }

  /** Lets time pass, timer by timer in their order. */
  pass(ms) {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at || a[0] - b[0])[0];
      if (!due) break;
      this.timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].run();
    }
    this.time = end;
  }
}

/** @returns a WebSocket class whose instances are listed in `made` */
export function socketClass() {
  return class FakeSocket {
    static made = [];
    static get last() {
      return FakeSocket.made.at(-1);
    }

    constructor(url) {
      this.url = url;
      this.sent = [];
      this.closed = null;
      FakeSocket.made.push(this);
    }

    send(data) {
      if (this.closed !== null) throw new Error('sent on a closed socket');
      this.sent.push(JSON.parse(data));
    }

    close(code) {
      this.closed = code;
    }

    /** The node's side. */
    open() {
      this.onopen();
    }

    say(...objects) {
      this.onmessage({ data: objects.map((object) => JSON.stringify(object)).join('\n') });
    }

    end(code, reason = '') {
      this.onclose({ code, reason });
    }

    /** The last request with this verb. */
    asked(verb) {
      return this.sent.findLast((object) => verb in object);
    }

    /** All bodies sent with this verb. */
    bodies(verb) {
      return this.sent.filter((object) => verb in object).map((object) => object[verb]);
    }

    answer(verb, body) {
      this.say({ id: this.asked(verb).id, [verb]: body });
    }

    refuse(verb, error) {
      this.say({ id: this.asked(verb).id, error });
    }

    welcome(origin = 'aaaaaaaaaa', nodes = []) {
      this.open();
      this.answer('hello', { origin, node: origin.slice(0, 4), name: this.asked('hello').hello.name, limits: HELLO.limits, nodes });
    }
  };
}

/** A localStorage in memory. */
export class FakeStorage {
  constructor() {
    this.map = new Map();
  }

  get length() {
    return this.map.size;
  }

  key(index) {
    return [...this.map.keys()][index] ?? null;
  }

  getItem(key) {
    return this.map.get(key) ?? null;
  }

  setItem(key, value) {
    this.map.set(key, String(value));
  }

  removeItem(key) {
    this.map.delete(key);
  }
}

/** A message as a node would push it. */
export function message(id, ts, more = {}) {
  return { room: 'lobby', id, ts, mid: `mid-${id}`, from: 'bob', text: `text of ${id}`, ...more };
}
