// The client: connecting, submitting and waiting, so that a lost connection or a restart of the
// server does not matter.

import { randomUUID } from "node:crypto";
import { parseAddress } from "./address.js";
import { Bounds, type CallOptions, now } from "./bounds.js";
import { type Calls, callsOf, unary } from "./calls.js";
import * as checked from "./checked.js";
import { CONNECT_TIMEOUT, Connection } from "./connection.js";
import { duration } from "./duration.js";
import { isLost, NOT_GRPC, TaskyardError, TOO_LATE, withoutBeginning } from "./error.js";
import { HealthDefinition } from "./gen/grpc/health/v1/health.js";
import { AdminServiceDefinition } from "./gen/taskyard/v1/admin_service.js";
import { Task } from "./gen/taskyard/v1/task.js";
import {
  SubmitRequest,
  type SubmitResponse,
  TaskServiceDefinition,
} from "./gen/taskyard/v1/task_service.js";
import { repeat } from "./retry.js";
import { isTerminal } from "./state.js";
import type { WatchOptions } from "./watch/seen.js";
import { Watcher } from "./watch/watcher.js";

/**
 * How long one call waits for the end of a task, in milliseconds: short enough that proxies and
 * firewalls on the way keep the connection.
 */
const ONE_WAIT = 300_000;

/**
 * What a call that waits is given beyond its wait. The server answers by itself; this is for
 * one that hangs.
 */
const GRACE = 10_000;

const { fullName, methods } = TaskServiceDefinition;

/** The task to submit: a SubmitRequest, of which only the kind is required. */
export type Submission = Parameters<typeof SubmitRequest.fromPartial>[0];

/** How long to wait for the end of a task. */
export interface WaitOptions extends CallOptions {
  /** After so many milliseconds the task is answered as it stands. */
  upTo?: number | undefined;
}

/**
 * Connects to a server at `http://host:port`, `host:port` or `host`; the port is 50051 if none
 * is given. Without an address it goes to the one that the variable TASKYARD_SERVER names, or
 * to http://127.0.0.1:50051. Fails if the address is none, or if no Taskyard answers there
 * within 5 s.
 */
export async function connect(address?: string, options: CallOptions = {}): Promise<Client> {
  const client = new Client(address);
  try {
    await client.greet(options);
    return client;
  } catch (error) {
    client.close();
    throw error;
  }
}

/** A connection to a server, which it makes anew by itself when it breaks. */
export class Client {
  /** Every call of tasks and events. Each is made once, and fails with a TaskyardError. */
  readonly tasks: Calls<TaskServiceDefinition>;
  /** Every call for operators. */
  readonly admin: Calls<AdminServiceDefinition>;
  readonly #connection: Connection;

  /** As `connect`, but it connects with the first call. */
  constructor(address: string = process.env.TASKYARD_SERVER || "127.0.0.1") {
    this.#connection = new Connection(parseAddress(address));
    this.tasks = callsOf(this.#connection, TaskServiceDefinition);
    this.admin = callsOf(this.#connection, AdminServiceDefinition);
  }

  /** Where it connects to, as `http://host:port`. */
  get address(): string {
    return `http://${this.#connection.target}`;
  }

  /** Makes sure that a Taskyard answers, whatever its health is. */
  async greet(options: CallOptions = {}): Promise<void> {
    await this.#within(checked.callOptions(options), async (bounds) => {
      const service = { service: fullName };
      const path = `/${HealthDefinition.fullName}/Check`;
      try {
        await unary(
          this.#connection,
          path,
          HealthDefinition.methods.check,
          service,
          bounds,
          CONNECT_TIMEOUT,
        );
      } catch (error) {
        if (!(error instanceof TaskyardError)) throw error;
        const failure = this.#nobody(error, bounds);
        if (failure !== undefined) throw failure;
      }
    });
  }

  /**
   * Submits a task, as often as it takes to know the outcome: a server that drains or has
   * gone is looked for for 1 min. It is given a random `requestId` if it has none, so that it
   * is enqueued once. A deadline bounds all of it, also the wait for room in a full queue:
   * with the reason `DEADLINE` nothing was enqueued, otherwise the outcome is unknown.
   */
  async submit(request: Submission, options: CallOptions = {}): Promise<SubmitResponse> {
    const task = identified(request);
    return await this.#within(checked.callOptions(options), (bounds) =>
      this.#submit(task, bounds),
    );
  }

  /** Waits for the end of a task. One that failed is no error: its state and error say so. */
  async wait(taskId: string, options: WaitOptions = {}): Promise<Task> {
    const { upTo } = checked.waitOptions(options);
    return await this.#within(options, (bounds) => this.#wait(taskId, bounds, upTo));
  }

  /**
   * `submit`, then `wait` for as long as it takes, all of it within the options. If the time is
   * over once the task is submitted, the error's metadata has its `task_id`, to wait on.
   */
  async submitAndWait(request: Submission, options: CallOptions = {}): Promise<Task> {
    const task = identified(request);
    return await this.#within(checked.callOptions(options), async (bounds) => {
      const { taskId } = await this.#submit(task, bounds);
      try {
        return await this.#wait(taskId, bounds, undefined);
      } catch (error) {
        throw bounds.left === Infinity ? error : notDone(taskId, error);
      }
    });
  }

  /**
   * Submits a task and follows it, over outages, to its end: first comes `submitted`, then this
   * task's events, each once. Leaving does not cancel the task.
   */
  submitAndWatch(request: Submission, options: CallOptions = {}): Watcher {
    const follow = identified(request);
    return new Watcher(this.#connection, checked.callOptions(options), { follow });
  }

  /**
   * Watches events, over outages of the server and of the way to it. A watcher that is not
   * asked for long should have a client of its own: what it does not read takes room on its
   * connection from others.
   */
  watch(options: WatchOptions = {}): Watcher {
    return new Watcher(this.#connection, checked.watchOptions(options));
  }

  /** Closes the connection. What is under way on it fails with `CANCELLED`. */
  close(): void {
    this.#connection.closing.close();
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  async #submit(request: SubmitRequest, bounds: Bounds): Promise<SubmitResponse> {
    return await repeat(bounds, () =>
      unary(this.#connection, `/${fullName}/Submit`, methods.submit, request, bounds),
    );
  }

  async #wait(taskId: string, bounds: Bounds, upTo: number | undefined): Promise<Task> {
    const until = upTo === undefined ? Infinity : now() + upTo;
    if (Number.isNaN(until)) throw new TypeError("the option upTo is a number of milliseconds");
    const isForEver = until === Infinity;
    const isLate = (error: TaskyardError) => isForEver && error.code === "DEADLINE_EXCEEDED";
    const isWorthIt = (error: TaskyardError) => isLost(error) || isLate(error);
    const once = () => this.#waitOnce(taskId, bounds, until);
    for (;;) {
      const task = await repeat(bounds, once, { until, isWorthIt });
      if (task !== undefined && (isTerminal(task.state) || now() >= until)) return task;
    }
  }

  /** One try of a wait; undefined if its time passed without an answer, and there is more. */
  async #waitOnce(taskId: string, bounds: Bounds, until: number): Promise<Task | undefined> {
    // Whatever the tries before it took, and the connection now, is not waited for again.
    await this.#connection.ready(bounds);
    const began = now();
    const one = Math.max(0, Math.min(until - began, ONE_WAIT));
    const request = { taskId, timeout: duration(one) };
    const path = `/${fullName}/WaitTask`;
    try {
      const { waitTask } = methods;
      const limit = one + GRACE;
      const answer = await unary(this.#connection, path, waitTask, request, bounds, limit);
      return answer.task ?? Task.create();
    } catch (error) {
      const isLate = error instanceof TaskyardError && error.code === "DEADLINE_EXCEEDED";
      // One that comes sooner is a failure like others: asking at once would never rest.
      if (isLate && until === Infinity && !bounds.isOver && now() - began >= one) return;
      throw error;
    }
  }

  #within<T>(options: CallOptions, work: (bounds: Bounds) => Promise<T>): Promise<T> {
    return Bounds.during(options, this.#connection.closing, async (bounds) => {
      bounds.check();
      return await work(bounds);
    });
  }

  /** What a greeting that failed says; undefined if a Taskyard answered all the same. */
  #nobody(error: TaskyardError, bounds: Bounds): TaskyardError | undefined {
    const { address } = this;
    // The beginning of a page, read as the length of a message.
    const isPage = error.message.startsWith("Received message larger than max");
    const cause = isPage ? NOT_GRPC : withoutBeginning(error.message);
    if (error.reason !== "") return undefined;
    if (bounds.isOver || bounds.left === 0) {
      return new TaskyardError(error.code, `connecting to ${address}: ${error.message}`);
    }
    if (error.code === "DEADLINE_EXCEEDED") {
      return new TaskyardError("UNAVAILABLE", `no server answers at ${address} within 5 s`);
    }
    if (error.code === "UNAVAILABLE") {
      return new TaskyardError("UNAVAILABLE", `no server answers at ${address}: ${cause}`);
    }
    return new TaskyardError(error.code, `no Taskyard answers at ${address}: ${cause}`);
  }
}

/** The error of a wait for this task, which names the task if the time was too short. */
function notDone(taskId: string, error: unknown): unknown {
  if (!(error instanceof TaskyardError) || error.code !== "DEADLINE_EXCEEDED") return error;
  const before = error.message.startsWith(TOO_LATE) ? error.message.slice(TOO_LATE.length) : "";
  const metadata = { ...error.metadata, task_id: taskId };
  const { code, reason } = error;
  const message = `the task ${taskId} was not done in time${before}`;
  return new TaskyardError(code, message, { reason, metadata });
}

/** The request, so that it can be repeated. */
function identified(partial: Submission): SubmitRequest {
  const request = SubmitRequest.fromPartial(checked.task(partial));
  request.requestId ||= randomUUID();
  return request;
}
