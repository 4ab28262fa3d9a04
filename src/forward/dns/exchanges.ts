/**
 * Questions on their way to resolvers and back.
 *
 * Each question is asked with an id of its own for each resolver, from a socket of its own (RFC 5452), in the bytes that it came in, extensions included. The
 * resolvers of a route are asked in turn: the next one when the last refuses, says that it has failed, or has been silent for a second; an
 * answer of any of them counts until the end. The one that answered is asked first from then on. After five seconds, when the C library
 * of a guest would ask anew, the asker is told that it failed.
 *
 * A question that is on its way already is not asked again: who asks it meanwhile waits for the same answer. That is also what ends a loop, in
 * which a resolver of the host asks a guest, which asks us.
 *
 * Nothing is amplified: a resolver hears of a question four times at most, and an asker gets one answer. Nothing is kept for later
 * questions: the host's resolvers do that.
 */
import { randomInt } from 'node:crypto';
import {
  answerWithCode,
  fitAnswer,
  isAnswerTo,
  type Query,
  RCODE_NOT_IMPLEMENTED,
  RCODE_REFUSED,
  RCODE_SERVER_FAILURE,
  rcodeOf,
  withId,
} from './messages.ts';
import type { DnsRoute } from './routes.ts';
import { openUpstream, type Upstream, type UpstreamParts } from './upstream.ts';

const STEP_MS = 1000;
const STEPS_MAX = 4;
const DEADLINE_MS = 5000;
/** A connection takes longer to be made, and nobody repeats what was asked by one. */
const STREAM_STEP_MS = 3000;
const STREAM_DEADLINE_MS = 10_000;
const ID_RANGE = 65_536;

/** Who waits for an answer. */
export interface Asker {
  readonly query: Query;
  /** The longest answer that it takes. */
  readonly limitBytes: number;
  /** Called once, perhaps from inside `ask`. */
  answer(message: Uint8Array): void;
}

export interface ExchangeParts extends UpstreamParts {
  /** A timer has brought answers: ends the turn. */
  readonly kickTurn: () => void;
}

export class Exchanges {
  /** By stream or not, and what is asked. */
  private readonly pending = new Map<string, Exchange>();
  /** The resolver of a route that answered last. */
  private readonly preferred = new Map<DnsRoute, number>();
  private readonly parts: ExchangeParts;

  constructor(parts: ExchangeParts) {
    this.parts = parts;
  }

  /** How many questions are on their way. */
  get size(): number {
    return this.pending.size;
  }

  /** Asks the resolvers of a route, of which there must be one. */
  ask(route: DnsRoute, isStream: boolean, asker: Asker): void {
    const asked = Buffer.from(asker.query.bytes);
    const key = `${isStream ? 'S' : 'D'}${asked.toString('latin1', 2)}`;
    const known = this.pending.get(key);
    if (known !== undefined) {
      known.askers.push(asker);
      return;
    }
    const first = this.preferred.get(route) ?? 0;
    const exchange = new Exchange(this.parts, route, first, isStream, asker, (server) => {
      this.pending.delete(key);
      if (server >= 0) this.preferred.set(route, server);
    });
    this.pending.set(key, exchange);
    exchange.start();
  }

  /** Gives up everything that is on its way. */
  close(): void {
    for (const exchange of this.pending.values()) exchange.close();
    this.pending.clear();
  }
}

/** What became of a resolver. */
interface Try {
  upstream: Upstream | undefined;
  readonly id: number;
  hasFailed: boolean;
}

class Exchange {
  readonly askers: Asker[];
  private readonly parts: ExchangeParts;
  private readonly route: DnsRoute;
  private readonly query: Query;
  private readonly isStream: boolean;
  /** @param server - number of the one whose answer it was; -1: none */
  private readonly onEnd: (server: number) => void;
  /** By number of the resolver. */
  private readonly tries: (Try | undefined)[] = [];
  private next: number;
  private steps = 0;
  private fallback: Uint8Array | undefined;
  private timer: NodeJS.Timeout | undefined;
  private deadline: NodeJS.Timeout | undefined;
  private ended = false;

  constructor(
    parts: ExchangeParts,
    route: DnsRoute,
    first: number,
    isStream: boolean,
    asker: Asker,
    onEnd: (server: number) => void,
  ) {
    this.parts = parts;
    this.route = route;
    this.next = first;
    this.isStream = isStream;
    this.askers = [asker];
    this.query = asker.query;
    this.onEnd = onEnd;
  }

  start(): void {
    const give = (): void => {
      this.finish(this.fallback, -1);
      this.parts.kickTurn();
    };
    this.deadline = setTimeout(give, this.isStream ? STREAM_DEADLINE_MS : DEADLINE_MS);
    this.step();
  }

  close(): void {
    this.ended = true;
    clearTimeout(this.timer);
    clearTimeout(this.deadline);
    for (const each of this.tries) each?.upstream?.close();
  }

  /** Asks the next resolver that has not failed. */
  private step(): void {
    clearTimeout(this.timer);
    const { servers } = this.route;
    for (let left = servers.length; left > 0; left--) {
      const number = this.next % servers.length;
      this.next = number + 1;
      const attempt = this.tryOf(number);
      if (attempt.hasFailed) continue;
      this.steps++;
      if (attempt.upstream?.send(withId(this.query.bytes, attempt.id)) === true) {
        this.waitForIt();
        return;
      }
      attempt.hasFailed = true;
      attempt.upstream?.close();
    }
    this.finish(this.fallback, -1);
  }

  private waitForIt(): void {
    if (this.steps >= Math.max(STEPS_MAX, this.route.servers.length)) return;
    this.timer = setTimeout(
      () => {
        this.step();
        this.parts.kickTurn();
      },
      this.isStream ? STREAM_STEP_MS : STEP_MS,
    );
  }

  private tryOf(number: number): Try {
    const known = this.tries[number];
    if (known !== undefined) return known;
    const attempt: Try = { upstream: undefined, id: randomInt(ID_RANGE), hasFailed: false };
    attempt.upstream = openUpstream(this.parts, this.route.servers[number]!, this.isStream, {
      onMessage: (message) => this.onMessage(number, attempt, message),
      onFailure: () => this.onFailure(attempt),
    });
    attempt.hasFailed = attempt.upstream === undefined;
    this.tries[number] = attempt;
    return attempt;
  }

  private onMessage(number: number, attempt: Try, message: Uint8Array): void {
    if (this.ended || !isAnswerTo(message, this.query, attempt.id)) return;
    const rcode = rcodeOf(message);
    const isUseless = rcode === RCODE_SERVER_FAILURE || rcode === RCODE_REFUSED || rcode === RCODE_NOT_IMPLEMENTED;
    if (!isUseless) {
      this.finish(message, number);
      return;
    }
    this.fallback ??= Buffer.from(message);
    this.onFailure(attempt);
  }

  private onFailure(attempt: Try): void {
    if (this.ended || attempt.hasFailed) return;
    attempt.hasFailed = true;
    attempt.upstream?.close();
    this.step();
  }

  private finish(message: Uint8Array | undefined, server: number): void {
    if (this.ended) return;
    this.onEnd(server);
    for (const { query, limitBytes, answer } of this.askers) {
      const whole = message === undefined ? answerWithCode(query, RCODE_SERVER_FAILURE) : withId(message, query.id);
      answer(fitAnswer(whole, query, limitBytes));
    }
    this.close();
  }
}
