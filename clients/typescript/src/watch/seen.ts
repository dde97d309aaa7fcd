// What to watch, and what a watcher sees.

import type { CallOptions } from "../bounds.js";
import type { TaskyardError } from "../error.js";
import type { Event, EventFilter } from "../gen/taskyard/v1/event.js";
import type { Worker } from "../gen/taskyard/v1/pool.js";
import type { Task } from "../gen/taskyard/v1/task.js";
import type { SubmitResponse, WatchGap } from "../gen/taskyard/v1/task_service.js";

/**
 * Where a watch begins: with the next event, with the oldest event that is kept, or with the
 * tasks and workers as they stand, and then the events after them.
 */
export type Start = "live" | "oldest" | "snapshot";

/** What to watch, and how stubbornly. Its signal, timeout and deadline end the whole watch. */
export interface WatchOptions extends CallOptions {
  /** Where to begin; `"live"` at first. Not together with `after`. */
  start?: Start | undefined;
  /** Begin after this cursor. */
  after?: string | undefined;
  /** Only these events; all at first. */
  filter?: Parameters<typeof EventFilter.fromPartial>[0] | undefined;
  /**
   * End once every event was seen that had happened when the watch began, or when it was last
   * opened.
   */
  untilCaughtUp?: boolean | undefined;
  /** Go on after events that are no longer kept, rather than end with `CURSOR_EXPIRED`. */
  overGaps?: boolean | undefined;
  /** Silence before the server sends a heartbeat, in ms: 100 to 1 h, 15,000 at first. */
  heartbeat?: number | undefined;
  /**
   * The longest outage that is waited for, in ms, 60,000 at first; with 0, the first one ends
   * the watch.
   */
  maxOutage?: number | undefined;
}

/** What a watcher sees. */
export type Seen =
  /** The task that is followed was submitted, or had been. Told once. */
  | { readonly type: "submitted"; readonly response: SubmitResponse }
  /**
   * The stream stands. Also after an outage before there was a cursor: then the watch begins
   * anew, and a live one does not know what happened in between.
   */
  | { readonly type: "started" }
  | Events
  /** A snapshot begins, perhaps again: what an earlier one told is void. */
  | { readonly type: "snapshotBegun" }
  /** A part of the snapshot: tasks that have not ended, and in the first parts the pool. */
  | {
      readonly type: "snapshot";
      readonly tasks: readonly Task[];
      readonly workers: readonly Worker[];
    }
  /** The snapshot is complete; what follows are events. */
  | { readonly type: "snapshotEnded" }
  /** What had happened when the watch was opened has been seen. */
  | { readonly type: "caughtUp" }
  /** Nothing has happened that the filter lets through; the cursor went on. */
  | { readonly type: "heartbeat" }
  /** Events are missing here, as they are no longer kept. */
  | { readonly type: "gap"; readonly gap: WatchGap }
  /** The server began to drain; the stream is about to be lost. */
  | { readonly type: "draining" }
  /** The stream broke. It is tried again; told once, until it stands. */
  | { readonly type: "lost"; readonly error: TaskyardError }
  /** The watch goes on, exactly where it had stopped. Instead of `started`. */
  | { readonly type: "restored" };

/** Events that arrived together, at least one. */
export interface Events {
  readonly type: "events";
  /** In commit order. */
  readonly events: readonly Event[];
  /** Resume after it, and these events come again; empty at the very start. */
  readonly before: string;
  /** Resume after it, and what follows comes next. */
  readonly after: string;
}
