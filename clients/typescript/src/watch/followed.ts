// One task, followed from its submission to its end.

import { EventType } from "../gen/taskyard/v1/event.js";
import type { SubmitRequest, WatchEventsResponse } from "../gen/taskyard/v1/task_service.js";
import { isTerminal } from "../state.js";

const ENDS: ReadonlySet<EventType> = new Set([
  EventType.SUCCEEDED,
  EventType.FAILED,
  EventType.CANCELLED,
]);

/** What is asked for, to go on after a cursor. */
interface GoOn {
  readonly afterCursor: string;
  readonly taskIds: string[];
  /** The task had ended before, so that all of its events have happened. */
  readonly stopWhenCaughtUp: boolean;
}

/**
 * The task. Until it was told that it is submitted, a stream that broke is opened by the same
 * request, which finds the same task. From then on it is watched: a server may forget the
 * request together with the task, and would then run it again.
 */
export class Followed {
  /** Has a `requestId`. */
  readonly request: SubmitRequest;
  /** Once it was told. */
  #taskId: string | undefined;
  /** It had ended when it was submitted, and no event was told since. */
  #hadEnded = false;
  #hasToldItsEnd = false;
  /** The number of the last event that was told. */
  #last = 0n;

  constructor(request: SubmitRequest) {
    this.request = request;
  }

  /** By what was told, it has ended, so that its stream may. */
  get hasEnded(): boolean {
    return this.#hadEnded || this.#hasToldItsEnd;
  }

  /** The last event that was told is the task's end: there is nothing to go on for. */
  get hasToldItsEnd(): boolean {
    return this.#hasToldItsEnd;
  }

  /** How to go on watching it; undefined if it is to be submitted, perhaps again. */
  goOn(cursor: string | undefined): GoOn | undefined {
    if (this.#taskId === undefined || cursor === undefined) return undefined;
    const taskIds = [this.#taskId];
    return { afterCursor: cursor, taskIds, stopWhenCaughtUp: this.#hadEnded };
  }

  /** The message without what an earlier stream told, and without what only a watch tells. */
  withoutTheKnown(message: WatchEventsResponse): WatchEventsResponse {
    const { submitted } = message;
    const isKnown = submitted !== undefined && this.#taskId !== undefined;
    if (submitted !== undefined) {
      this.#taskId = submitted.taskId;
      // Of a task that ended long ago there may be no events any more.
      this.#hadEnded = isTerminal(submitted.state);
    }
    const events = message.events.filter((event) => event.seq > this.#last);
    const last = events.at(-1);
    if (last !== undefined) {
      this.#last = last.seq;
      this.#hadEnded = false;
      this.#hasToldItsEnd = ENDS.has(last.type);
    }
    const told = isKnown ? undefined : submitted;
    return { ...message, events, submitted: told, started: undefined, caughtUp: undefined };
  }
}
