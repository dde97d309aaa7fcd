// One task, followed from its submission to its end.

import { EventType } from "../gen/taskyard/v1/event.js";
import type { SubmitRequest, WatchEventsResponse } from "../gen/taskyard/v1/task_service.js";
import { isTerminal } from "../state.js";

const ENDS: ReadonlySet<EventType> = new Set([
  EventType.SUCCEEDED,
  EventType.FAILED,
  EventType.CANCELLED,
]);

/**
 * The task. A stream that broke is opened by the same request, which finds the same task and
 * tells it again from its beginning.
 */
export class Followed {
  /** Has a `requestId`. */
  readonly request: SubmitRequest;
  #isSubmitted = false;
  #hasEnded = false;
  /** The number of the last event that was told. */
  #last = 0n;

  constructor(request: SubmitRequest) {
    this.request = request;
  }

  /** By what was told, it has ended, so that its stream may. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The message without what was told by an earlier stream. */
  withoutTheKnown(message: WatchEventsResponse): WatchEventsResponse {
    const { submitted } = message;
    const isKnown = submitted !== undefined && this.#isSubmitted;
    if (submitted !== undefined) {
      this.#isSubmitted = true;
      // Of a task that ended long ago there may be no events any more.
      this.#hasEnded = isTerminal(submitted.state);
    }
    const events = message.events.filter((event) => event.seq > this.#last);
    const last = events.at(-1);
    if (last !== undefined) {
      this.#last = last.seq;
      this.#hasEnded = ENDS.has(last.type);
    }
    return { ...message, events, submitted: isKnown ? undefined : submitted };
  }
}
