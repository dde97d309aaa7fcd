// The interpreter of the scenarios: one server, one client, and what the steps have named.

import assert from "node:assert/strict";
import {
  type Client,
  connect,
  duration,
  type Event,
  EventType,
  eventTypeFromJSON,
  milliseconds,
  type Submission,
  type SubmitResponse,
  type Task,
  TaskState,
  TaskyardError,
  type Watcher,
  type WatchOptions,
  whenFullFromJSON,
} from "../src/index.js";
import { Server } from "./server.js";

// biome-ignore lint/suspicious/noExplicitAny: the table is JSON.
type Json = any;
/** The name of the step, with what is said about it. */
export type Step = Record<string, Json>;

/** How long after its deadline or timeout a step may end, in milliseconds. */
const LONGEST_OVERTIME = 5000;

/** A watch, and what it saw that no step has looked at. */
interface Seeing {
  readonly watcher: Watcher;
  readonly isFiltered: boolean;
  unread: Event[];
  last: bigint;
  count: number;
}

type Answer = { submitted: SubmitResponse } | { failure: unknown };

export class Stage {
  readonly #data: string;
  readonly #settings: string[];
  readonly #client: Client;
  readonly #address: string;
  #server: Server | undefined;
  readonly #tasks = new Map<string, SubmitResponse>();
  readonly #background = new Map<string, Promise<Answer>>();
  readonly #watches = new Map<string, Seeing>();

  private constructor(data: string, settings: string[], server: Server, client: Client) {
    this.#data = data;
    this.#settings = settings;
    this.#server = server;
    this.#address = server.address;
    this.#client = client;
  }

  static async open(data: string, settings: string[]): Promise<Stage> {
    const server = await Server.start(data, settings);
    return new Stage(data, settings, server, await connect(server.address));
  }

  async close(): Promise<void> {
    for (const { watcher } of this.#watches.values()) await watcher.close();
    this.#client.close();
    await this.#server?.end();
  }

  async play(step: Step): Promise<void> {
    const [[name, about] = []] = Object.entries(step);
    const bound = about.deadline ?? about.timeout;
    const began = performance.now();
    await this.#play(name, about);
    if (bound === undefined) return;
    const over = performance.now() - began - span(bound);
    assert(over <= LONGEST_OVERTIME, `${name} ends ${over} ms after its ${bound}`);
  }

  async #play(name: string | undefined, about: Json): Promise<void> {
    switch (name) {
      case "submit":
        return await this.#submit(about);
      case "finish":
        return this.#submitted(
          about.submit,
          about,
          await found(this.#background, about.submit),
        );
      case "submit_and_wait": {
        const task = await this.#client.submitAndWait(request(about.request));
        return checkTask(task, about.expect);
      }
      case "submit_and_watch":
        return await this.#submitAndWatch(about);
      case "submit_stream":
        return await this.#submitStream(about);
      case "wait": {
        const upTo = about.timeout && span(about.timeout);
        const waited = this.#client.wait(this.#task(about), { upTo });
        if (!about.error) return checkTask(await waited, about.expect);
        return await assert.rejects(waited, (error) => checkError(error, about.error));
      }
      case "cancel":
        return await this.#cancel(about);
      case "watch":
        return await this.#watch(about);
      case "watch_until":
        return await this.#watchUntil(about);
      case "watch_error": {
        const { watcher } = found(this.#watches, about.watch);
        const read = async () => {
          for await (const _ of watcher);
        };
        return await assert.rejects(read, (error) => checkError(error, about.error));
      }
      case "stop":
        return await this.#stop(about);
      case "drain":
        return this.#server?.signal("SIGTERM");
      case "start":
        await this.#server?.wait();
        return await this.#start();
      case "restart":
        await this.#stop(about);
        return await this.#start();
      case "freeze":
        return this.#server?.signal("SIGSTOP");
      case "thaw":
        return this.#server?.signal("SIGCONT");
      default:
        assert.fail(`${name} is no step`);
    }
  }

  #task(about: Json): string {
    return about.task_id ?? found(this.#tasks, about.task).taskId;
  }

  async #stop(about: Json): Promise<void> {
    await this.#server?.end(about.signal === "KILL" ? "SIGKILL" : "SIGTERM");
    this.#server = undefined;
  }

  async #start(): Promise<void> {
    this.#server = await Server.start(this.#data, this.#settings, this.#address);
  }

  async #submit(about: Json): Promise<void> {
    const timeout = about.deadline && span(about.deadline);
    const answer = this.#client.submit(request(about.request), { timeout }).then(
      (submitted): Answer => ({ submitted }),
      (failure: unknown): Answer => ({ failure }),
    );
    if (about.background) this.#background.set(about.as, answer);
    else this.#submitted(about.as, about, await answer);
  }

  #submitted(name: string, about: Json, answer: Answer): void {
    if (about.error) {
      assert("failure" in answer, "it is refused");
      checkError(answer.failure, about.error);
      return;
    }
    if ("failure" in answer) throw answer.failure;
    const { expect = {} } = about;
    if ("existing" in expect) assert.equal(answer.submitted.existing, expect.existing);
    if (expect.same_task_as) {
      assert.equal(answer.submitted.taskId, found(this.#tasks, expect.same_task_as).taskId);
    }
    this.#tasks.set(name, answer.submitted);
  }

  async #submitAndWatch(about: Json): Promise<void> {
    let task: string | undefined;
    const types = [];
    for await (const seen of this.#client.submitAndWatch(request(about.request))) {
      if (seen.type === "submitted") task = seen.response.taskId;
      if (seen.type !== "events") continue;
      for (const event of seen.events) {
        assert.equal(event.taskId, task);
        types.push(EventType[event.type]);
      }
    }
    assert.deepEqual(types, about.expect);
  }

  async #submitStream(about: Json): Promise<void> {
    const requests = about.requests.map((one: Json, index: number) => ({
      sequence: BigInt(index + 1),
      request: request(one),
    }));
    const acks = [];
    for await (const message of this.#client.tasks.submitStream(requests))
      acks.push(...message.acks);
    assert.equal(acks.length, about.expect.length);
    for (const [index, ack] of acks.entries()) {
      const expect = about.expect[index];
      assert.equal(ack.sequence, BigInt(expect.sequence));
      assert.equal(ack.ack === undefined, "code" in expect);
      if (ack.error) checkError(TaskyardError.fromStatus(ack.error), expect);
    }
  }

  async #cancel(about: Json): Promise<void> {
    const cancelled = this.#client.tasks.cancelTask({ taskId: this.#task(about) });
    if (about.error) {
      await assert.rejects(cancelled, (error) => checkError(error, about.error));
    } else {
      const { task } = await cancelled;
      assert(task);
      checkTask(task, about.expect ?? {});
    }
  }

  async #watch(about: Json): Promise<void> {
    const options: WatchOptions = {};
    if (about.after) options.after = about.after;
    else if (about.after_task) options.after = found(this.#tasks, about.after_task).cursor;
    else options.start = about.start.toLowerCase();
    if (about.max_outage) options.maxOutage = span(about.max_outage);
    if (about.filter) {
      const { types = [], ...rest } = about.filter;
      options.filter = { ...rest, types: types.map(eventTypeFromJSON) };
    }
    const watcher = this.#client.watch(options);
    // From here on nothing is missed.
    if (options.start === "live") assert.equal((await watcher.next()).value?.type, "started");
    const isFiltered = about.filter !== undefined;
    this.#watches.set(about.as, { watcher, isFiltered, unread: [], last: 0n, count: 0 });
  }

  async #watchUntil(about: Json): Promise<void> {
    const task = this.#task(about);
    const seeing = found(this.#watches, about.watch);
    const isOfTask = (event: Event) => event.taskId === task;
    const isLast = (event: Event) => isOfTask(event) && EventType[event.type] === about.type;
    while (!seeing.unread.some(isLast)) {
      const { value: seen } = await seeing.watcher.next();
      assert(seen, "it does not end");
      if (seen.type !== "events") continue;
      for (const event of seen.events) {
        const follows = event.seq === seeing.last + 1n || seeing.last === 0n;
        const isLater = seeing.isFiltered && event.seq > seeing.last;
        assert(follows || isLater, `${event.seq} after ${seeing.last}`);
        seeing.last = event.seq;
        seeing.count += 1;
        seeing.unread.push(event);
      }
    }
    const types = seeing.unread.filter(isOfTask).map((event) => EventType[event.type]);
    assert.deepEqual(types, about.expect);
    if ("expect_all" in about) assert.equal(seeing.count, about.expect_all);
    seeing.unread = seeing.unread.filter((event) => !isOfTask(event));
  }
}

function found<T>(named: Map<string, T>, name: string): T {
  const value = named.get(name);
  assert(value, `nothing is named ${name}`);
  return value;
}

/** Milliseconds of a duration as protobuf's JSON writes it. */
function span(text: string): number {
  return milliseconds(duration(text));
}

/** A request as protobuf's JSON writes it. */
function request(json: Json): Submission {
  const { timeout, delay, whenFull, ...rest } = json;
  return {
    ...rest,
    ...(timeout && { timeout: duration(timeout) }),
    ...(delay && { delay: duration(delay) }),
    ...(whenFull && { whenFull: whenFullFromJSON(whenFull) }),
  };
}

function checkTask(task: Task, expect: Json): void {
  const told: Json = { ...task, state: TaskState[task.state], error: task.error?.reason };
  for (const [name, value] of Object.entries(expect)) assert.deepEqual(told[name], value, name);
}

function checkError(error: unknown, expect: Json): true {
  assert(error instanceof TaskyardError, String(error));
  assert.equal(error.code, expect.code, error.message);
  if (expect.reason) assert.equal(error.reason, expect.reason);
  if (expect.violations) {
    const subjects = new Set(error.violations.map(({ subject }) => subject));
    assert.deepEqual([...subjects].sort(), expect.violations);
  }
  if (expect.retry_after) assert(error.retryAfter !== undefined);
  for (const name of expect.metadata ?? []) assert(name in error.metadata, name);
  // It is one clear sentence, and nothing of the inside.
  assert.match(error.message, /^\S[^\n{]*$/);
  return true;
}
