// A watch that stands up again. Owns the cursor, and with it the promise to go on exactly where
// a broken stream ended. Its rules are those of crates/client/src/watch/mod.rs.
//
// 1. The cursor of every message that has one replaces the one before, also of a message without
//    events. Until there is one, a broken watch begins as it began at first.
// 2. While a snapshot is told no message has a cursor: a broken snapshot is told anew.
// 3. Nothing for two heartbeats and 5 s is an outage, and so is a call without an answer for
//    5 s. It is tried again on a new connection.
// 4. An outage is a lost connection, UNAVAILABLE, an end without a status, and, once a stream
//    has stood, TOO_MANY_WATCHERS. Its tries back off, or rest as the server asks; after
//    `maxOutage` it ends the watch, and no try is waited for beyond that. It is over once a
//    stream has stood for 1 s.
// 5. WATCH_LIFETIME and WATCH_STALLED are no outage. The watch is opened again, after the rest
//    that the server asks for.
// 6. Everything else ends the watch.

import { Bounds, now } from "../bounds.js";
import type { Connection } from "../connection.js";
import { duration } from "../duration.js";
import { TaskyardError } from "../error.js";
import { type Event, EventFilter } from "../gen/taskyard/v1/event.js";
import {
  GapPolicy,
  type SubmitRequest,
  WatchEventsRequest,
  type WatchEventsResponse,
  WatchStart,
} from "../gen/taskyard/v1/task_service.js";
import { Followed } from "./followed.js";
import { Outages } from "./outages.js";
import type { Seen, Start, WatchOptions } from "./seen.js";
import { type Ask, Silent, Stream } from "./stream.js";

/**
 * Silence beyond two heartbeats that is taken for an outage, and how long the server may take
 * to answer a call, in milliseconds: it, or the way to it, may be slow.
 */
export const GRACE = 5000;

const STARTS: readonly unknown[] = ["live", "oldest", "snapshot"] satisfies Start[];

/** Whoever watched has left. */
const LEFT = Symbol("left");

/** What only tests set. */
export interface Inside {
  follow?: SubmitRequest;
  grace?: number;
}

/**
 * A watch under way: an async iterable of what is seen. It connects when it is first asked.
 * After its end, or an error, there is nothing more. Leaving its loop closes it.
 */
export class Watcher implements AsyncIterableIterator<Seen> {
  readonly #shared: Connection;
  readonly #bounds: Bounds;
  readonly #start: Start;
  readonly #request: WatchEventsRequest;
  readonly #heartbeat: number;
  readonly #grace: number;
  readonly #outages: Outages;
  /** The task that is followed, if it is one. */
  readonly #followed: Followed | undefined;
  readonly #steps: AsyncGenerator<Seen, void, void>;
  #cursor: string | undefined;
  /** The stream told that it had caught up, so it may end. */
  #caughtUp = false;

  /** @internal */
  constructor(connection: Connection, options: WatchOptions, inside: Inside = {}) {
    const { start = "live", after, heartbeat = 15_000, maxOutage = 60_000 } = options;
    if (!STARTS.includes(start)) {
      throw new TypeError(`start is ${String(start)}, not "live", "oldest" or "snapshot"`);
    }
    if (after !== undefined && options.start !== undefined) {
      throw new TypeError("a watch begins at a start or after a cursor, not at both");
    }
    if (typeof maxOutage !== "number" || Number.isNaN(maxOutage)) {
      throw new TypeError("the option maxOutage is a number of milliseconds");
    }
    this.#shared = connection;
    this.#bounds = new Bounds(options, connection.closing);
    this.#start = start;
    this.#cursor = after;
    this.#request = WatchEventsRequest.fromPartial({
      heartbeatInterval: duration(heartbeat),
      stopWhenCaughtUp: options.untilCaughtUp ?? false,
      gapPolicy: options.overGaps ? GapPolicy.CONTINUE : GapPolicy.FAIL,
    });
    if (options.filter) this.#request.filter = EventFilter.fromPartial(options.filter);
    this.#heartbeat = heartbeat;
    this.#grace = inside.grace ?? GRACE;
    this.#outages = new Outages(maxOutage);
    this.#followed = inside.follow && new Followed(inside.follow);
    this.#steps = this.#run();
  }

  /**
   * The cursor to resume after, having done with what was told; undefined until the server has
   * given one, and while a snapshot is not complete.
   */
  get cursor(): string | undefined {
    return this.#cursor;
  }

  /** What comes next. */
  next(): Promise<IteratorResult<Seen, void>> {
    return this.#steps.next();
  }

  /** Ends the watch, also while somebody waits for what comes next: nothing does then. */
  async return(): Promise<IteratorResult<Seen, void>> {
    this.#bounds.end(LEFT);
    return await this.#steps.return();
  }

  /** Ends the watch. */
  async close(): Promise<void> {
    await this.return();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Only the events, one by one. */
  async *events(): AsyncGenerator<Event, void, void> {
    for await (const seen of this) {
      if (seen.type === "events") yield* seen.events;
    }
  }

  async *#run(): AsyncGenerator<Seen, void, void> {
    const bounds = this.#bounds.begin();
    let connection = this.#shared;
    let stream: Stream | undefined;
    try {
      for (;;) {
        let lost: TaskyardError;
        try {
          bounds.check();
          if (stream === undefined) {
            this.#caughtUp = false;
            const ask = this.#ask();
            stream = new Stream(ask, this.#grace, bounds);
            await stream.open(connection, ask, this.#outages);
          }
          const message = await stream.next();
          if (message !== undefined) {
            yield* this.#take(message);
            // What is submitted and followed ends by itself, and knows of what comes after an
            // end that is told from the past; a watch never does.
            if (stream.isWatch && this.#followed?.hasToldItsEnd) return;
            continue;
          }
          if (this.#mayEnd()) return;
          lost = new TaskyardError("UNAVAILABLE", "the server ended the stream");
        } catch (error) {
          if (bounds.isOver || !(error instanceof TaskyardError)) throw error;
          lost = error;
        }
        if (this.#followed?.hasToldItsEnd) return;
        stream?.close();
        stream = undefined;
        if (lost instanceof Silent) {
          const broken = connection;
          connection = connection.anew();
          if (broken !== this.#shared) broken.close();
        }
        if (this.#outages.lose(lost, now())) yield { type: "lost", error: lost };
      }
    } catch (error) {
      if (error !== LEFT) throw error;
    } finally {
      stream?.close();
      if (connection !== this.#shared) connection.close();
      bounds.end(LEFT);
    }
  }

  #ask(): Ask {
    const watch = { ...this.#request };
    const followed = this.#followed;
    if (followed !== undefined) {
      const goOn = followed.goOn(this.#cursor);
      if (goOn === undefined) return { follow: followed.request };
      const { taskIds, ...where } = goOn;
      const filter = EventFilter.fromPartial({ taskIds });
      return { watch: { ...watch, ...where, filter }, heartbeat: this.#heartbeat };
    }
    if (this.#cursor !== undefined) watch.afterCursor = this.#cursor;
    else if (this.#start === "snapshot") watch.includeSnapshot = true;
    else watch.start = this.#start === "oldest" ? WatchStart.OLDEST : WatchStart.LIVE;
    return { watch, heartbeat: this.#heartbeat };
  }

  /** Whether it is no outage if the server ends the stream well. */
  #mayEnd(): boolean {
    const isAtTheEnd = this.#request.stopWhenCaughtUp && this.#caughtUp;
    return isAtTheEnd || (this.#followed?.hasEnded ?? false);
  }

  /** Takes a message over, and tells of it. */
  *#take(message: WatchEventsResponse): Generator<Seen, void, void> {
    const isNews = this.#outages.stands(now());
    // Without a cursor it begins anew, and `started` or `snapshotBegun` says so.
    const goesOn = this.#cursor !== undefined || this.#followed !== undefined;
    const restored = isNews && goesOn;
    if (restored) yield { type: "restored" };
    const seen = this.#tell(message, restored);
    if (seen !== undefined) yield seen;
  }

  /** What a message tells, if anything. From then on its cursor counts. */
  #tell(received: WatchEventsResponse, restored: boolean): Seen | undefined {
    const message = this.#followed?.withoutTheKnown(received) ?? received;
    const before = this.#cursor ?? "";
    const isTelling = this.#start === "snapshot" && this.#cursor === undefined;
    if (message.cursor !== "") this.#cursor = message.cursor;
    if (message.started) {
      if (isTelling) return { type: "snapshotBegun" };
      return restored ? undefined : { type: "started" };
    }
    if (message.snapshot) return { type: "snapshot", ...message.snapshot };
    if (message.snapshotEnd) return { type: "snapshotEnded" };
    if (message.caughtUp) {
      this.#caughtUp = true;
      return { type: "caughtUp" };
    }
    if (message.heartbeat) return { type: "heartbeat" };
    if (message.gap) return { type: "gap", gap: message.gap };
    if (message.draining) return { type: "draining" };
    if (message.submitted) return { type: "submitted", response: message.submitted };
    if (message.events.length === 0) return undefined;
    return { type: "events", events: message.events, before, after: message.cursor };
  }
}
