// One stream of messages: opening it, and noticing that it is dead.

import { type Bounds, LONGEST_TIMER, now } from "../bounds.js";
import { begin } from "../calls.js";
import type { Connection } from "../connection.js";
import { TaskyardError } from "../error.js";
import {
  type SubmitRequest,
  TaskServiceDefinition,
  type WatchEventsRequest,
  type WatchEventsResponse,
} from "../gen/taskyard/v1/task_service.js";
import type { Messages } from "../messages.js";
import type { Outages } from "./outages.js";

/** What is asked for. */
export type Ask =
  /** A watch, with this heartbeat in milliseconds. */
  | { readonly watch: WatchEventsRequest; readonly heartbeat: number }
  /**
   * A task that is submitted and followed. It may wait for room, and its heartbeat is the
   * server's: keep-alive alone notices a server that has gone.
   */
  | { readonly follow: SubmitRequest };

/** It broke without a word: its connection cannot be trusted any more. */
export class Silent extends TaskyardError {
  constructor(message: string) {
    super("UNAVAILABLE", message);
  }
}

const { fullName, methods } = TaskServiceDefinition;

/** A stream. Whoever has it must close it. */
export class Stream {
  readonly #bounds: Bounds;
  /** It is a watch, which does not end by itself at the end of a task. */
  readonly isWatch: boolean;
  /** For how long it may be listened to in vain, in milliseconds. */
  readonly #limit: number;
  /** For how long an answer is waited for. */
  readonly #grace: number;
  #messages: Messages<WatchEventsResponse> | undefined;
  #isClosed = false;

  constructor(ask: Ask, grace: number, bounds: Bounds) {
    this.#bounds = bounds;
    this.isWatch = "watch" in ask;
    this.#grace = grace;
    this.#limit = "watch" in ask ? 2 * ask.heartbeat + grace : Infinity;
  }

  /** Asks for it after the rest, and waits for the beginning of the answer. */
  async open(connection: Connection, ask: Ask, outages: Outages): Promise<void> {
    await this.#bounds.rest(Math.max(0, outages.restUntil - now()));
    const grace = this.isWatch ? outages.grace(now(), this.#grace) : Infinity;
    const answer = this.#ask(connection, ask);
    await this.#unlessSilent(answer, grace, "the server does not answer");
  }

  /** Its next message; undefined if the server ended it well. */
  async next(): Promise<WatchEventsResponse | undefined> {
    const messages = this.#messages;
    if (messages === undefined) return undefined;
    return await this.#unlessSilent(messages.next(), this.#limit, "the server has gone silent");
  }

  close(): void {
    this.#isClosed = true;
    this.#messages?.cancel();
  }

  async #ask(connection: Connection, ask: Ask): Promise<void> {
    const client = await connection.ready(this.#bounds);
    // Nobody waits for it any more.
    if (this.#isClosed) return;
    const path = (name: string) => `/${fullName}/${name}`;
    const [watch, follow] = [methods.watchEvents, methods.submitAndWatch];
    this.#messages =
      "watch" in ask
        ? begin(client, path(watch.name), watch, ask.watch, this.#bounds)
        : begin(client, path(follow.name), follow, ask.follow, this.#bounds);
    await this.#messages.begun();
  }

  async #unlessSilent<T>(answer: Promise<T>, limit: number, why: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<never>((_, reject) => {
      if (limit === Infinity) return;
      const passed = () => reject(new Silent(why));
      // If it was this process that was busy, what has arrived comes first.
      timer = setTimeout(() => setImmediate(passed), Math.min(limit, LONGEST_TIMER));
    });
    try {
      return await this.#bounds.race(Promise.race([answer, tooLong]));
    } catch (error) {
      throw TaskyardError.fromGrpc(error);
    } finally {
      clearTimeout(timer);
    }
  }
}
