// Submits the tasks of a file, one JSON object on each line, and follows them to the end.
//
//     node examples/batch.mjs examples/tasks.ndjson [server]
//
// On a terminal it shows a progress bar, otherwise one line for each task. The exit code is 1 if
// a task failed, was cancelled or was refused, 2 if the file is wrong, 4 if the server cannot be
// reached, and 130 after Ctrl-C, which leaves the tasks to the server.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  connect,
  duration,
  EventType,
  isTerminal,
  RetryPolicy,
  SubmitRequest,
  TaskState,
  TaskyardError,
} from "taskyard";

const IN_FLIGHT = 64;
const ENDS = [EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED];

/**
 * The tasks of the file; the error names the line that is none.
 * @param {string} path
 */
function read(path) {
  const requests = [];
  // Some editors begin a text with a byte order mark.
  const text = readFileSync(path, "utf8").replace(/^\uFEFF/, "");
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    try {
      requests.push(parse(JSON.parse(line, exact)));
    } catch (error) {
      throw new Error(
        `${path}:${index + 1}: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
  return requests;
}

/**
 * Refuses a whole number that has become another one by now, as numbers are doubles.
 * @param {string} name
 * @param {any} value
 */
function exact(name, value) {
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new Error(`${name} cannot be carried exactly; write it as a string`);
  }
  return value;
}

/**
 * A message with the names that this client has: protobuf's JSON may also have `request_id`.
 * @param {any} json
 * @param {object} like has all the names that there are
 * @param {string} what
 */
function named(json, like, what) {
  /** @type {Record<string, any>} */
  const message = {};
  for (const [name, value] of Object.entries(Object(json))) {
    const own = name.replaceAll(/_([a-z])/g, (_, letter) => letter.toUpperCase());
    if (!Object.hasOwn(like, own)) {
      throw new Error(`${what} has no field ${JSON.stringify(name)}`);
    }
    if (own in message) throw new Error(`${what} has ${JSON.stringify(own)} twice`);
    message[own] = value;
  }
  return message;
}

/**
 * A request as protobuf's JSON writes it, in which durations are texts.
 * @param {any} json
 */
function parse(json) {
  const spans = (/** @type {any} */ from, /** @type {string[]} */ names) => {
    for (const name of names) if (name in from) from[name] = duration(from[name]);
    return from;
  };
  if (typeof json?.kind !== "string") throw new Error("is no task: it has no kind");
  const task = spans(named(json, SubmitRequest.create(), "a task"), ["delay", "timeout"]);
  if (task.retry) {
    const retry = named(task.retry, RetryPolicy.create(), "its retry");
    task.retry = spans(retry, ["initialBackoff", "maxBackoff"]);
  }
  return SubmitRequest.fromJSON({ requestId: randomUUID(), ...task });
}

/** What has become of the tasks, and how it is shown. */
class Progress {
  ended = 0;
  bad = 0;
  onTerminal = process.stderr.isTTY;
  since = performance.now();

  /** @param {number} total */
  constructor(total) {
    this.total = total;
  }

  /**
   * Counts and shows the end of one task.
   * @param {string} state
   * @param {string} about
   * @param {string[]} details
   */
  end(state, about, details = []) {
    this.ended += 1;
    if (state !== "SUCCEEDED") this.bad += 1;
    const more = details.map((detail) => `\n    ${detail}`).join("");
    if (!this.onTerminal) console.log(`${this.ended}/${this.total} ${state} ${about}${more}`);
    else if (state !== "SUCCEEDED") this.say(`${state} ${about}${more}`);
    else this.show();
  }

  /**
   * Tells what happens besides, above the bar.
   * @param {string} text
   */
  say(text) {
    process.stderr.write(this.onTerminal ? `\r\x1b[K${text}\n` : `${text}\n`);
    this.show();
  }

  /** Draws the bar again, on a terminal. */
  show() {
    if (!this.onTerminal) return;
    const done = Math.floor((30 * this.ended) / Math.max(this.total, 1));
    const bar = "━".repeat(done).padEnd(30);
    const bad = this.bad > 0 ? `, ${this.bad} not well` : "";
    process.stderr.write(`\r\x1b[K${bar} ${this.ended}/${this.total}${bad}`);
  }

  /** Leaves the line of the bar. */
  leave() {
    if (this.onTerminal) process.stderr.write("\n");
  }

  finish() {
    const took = ((performance.now() - this.since) / 1000).toFixed(1);
    this.leave();
    const well = this.ended - this.bad;
    console.log(`${this.total} tasks: ${well} succeeded, ${this.bad} did not, in ${took} s`);
  }
}

/** The tasks of one run: those submitted that have not ended, and the ends that were seen. */
class Batch {
  /**
   * Of how many lines: those with the same requestId are one task.
   * @type {Map<string, number>}
   */
  running = new Map();
  /**
   * A task may end before all submissions of it are answered; ends of others are here too, until
   * everything is submitted.
   * @type {Map<string, [string, string]>}
   */
  ends = new Map();
  allSubmitted = false;
  /** Submissions under way. */
  unanswered = 0;

  /**
   * @param {import("taskyard").Client} client
   * @param {Progress} progress
   */
  constructor(client, progress) {
    this.client = client;
    this.progress = progress;
  }

  /** All is submitted, and all has ended. */
  get isOver() {
    return this.allSubmitted && this.running.size === 0;
  }

  /**
   * Submits them, a bounded number at a time.
   * @param {SubmitRequest[]} requests
   */
  async submitAll(requests) {
    const queue = requests.values();
    const submitter = async () => {
      for (const request of queue) await this.submit(request);
    };
    await Promise.all(Array.from({ length: IN_FLIGHT }, submitter));
    this.allSubmitted = true;
    this.ends.clear();
  }

  /** @param {SubmitRequest} request */
  async submit(request) {
    this.unanswered += 1;
    try {
      const { taskId, state } = await this.client.submit(request);
      const end = this.ends.get(taskId);
      if (end !== undefined) this.progress.end(...end);
      else if (isTerminal(state)) {
        this.progress.end(TaskState[state], `${taskId} ${request.kind}, as before`);
      } else this.running.set(taskId, (this.running.get(taskId) ?? 0) + 1);
    } catch (error) {
      if (!(error instanceof TaskyardError)) throw error;
      const details = error.violations.map((one) => `${one.subject}: ${one.description}`);
      this.progress.end("REFUSED", `${request.kind}: ${error.message}`, details);
    } finally {
      this.unanswered -= 1;
    }
  }

  /** What becomes of the tasks that have not ended, if nobody follows them any more. */
  left() {
    const { ended, total } = this.progress;
    const running = [...this.running.values()].reduce((sum, lines) => sum + lines, 0);
    const never = total - ended - running - this.unanswered;
    const parts = [`${running} tasks have not ended, and go on`];
    if (this.unanswered > 0) parts.push(`${this.unanswered} may have been submitted`);
    if (never > 0) parts.push(`${never} were not submitted`);
    return parts.join("; ");
  }

  /**
   * Takes the end of some task over.
   * @param {import("taskyard").Event} event
   */
  end(event) {
    const why = event.error ? `: ${event.error.message}` : "";
    const state = EventType[event.type];
    const about = `${event.taskId} ${event.kind}${why}`;
    const lines = this.running.get(event.taskId) ?? 0;
    for (let line = 0; line < lines; line++) this.progress.end(state, about);
    this.running.delete(event.taskId);
    if (!this.allSubmitted) this.ends.set(event.taskId, [state, about]);
  }
}

/**
 * Submits and follows them; the exit code.
 * @param {SubmitRequest[]} requests
 * @param {string | undefined} server
 */
async function run(requests, server) {
  const progress = new Progress(requests.length);
  const client = await connect(server);
  const batch = new Batch(client, progress);
  const interrupt = () => {
    progress.leave();
    console.error(`interrupted: ${batch.left()}`);
    process.exit(130);
  };
  process.once("SIGINT", interrupt);
  try {
    const watcher = client.watch({ filter: { types: ENDS }, maxOutage: 300_000 });
    /** @param {import("taskyard").Seen} seen */
    const take = (seen) => {
      if (seen.type === "events") seen.events.forEach((event) => void batch.end(event));
      else if (seen.type === "lost") progress.say(`${seen.error.message}; trying again`);
      else if (seen.type === "restored") progress.say("the server is back");
    };
    // From its first cursor on nothing is missed.
    while (watcher.cursor === undefined) {
      const { value: seen } = await watcher.next();
      if (!seen) break;
      take(seen);
    }
    progress.show();
    const follow = async () => {
      for await (const seen of watcher) {
        take(seen);
        if (batch.isOver) return;
      }
    };
    const submit = async () => {
      await batch.submitAll(requests);
      if (batch.isOver) await watcher.close();
    };
    await Promise.all([follow(), submit()]);
  } finally {
    process.off("SIGINT", interrupt);
    client.close();
  }
  progress.finish();
  return progress.bad > 0 ? 1 : 0;
}

const [path, server] = process.argv.slice(2);
try {
  if (path === undefined) throw new Error("name the file of the tasks");
  process.exitCode = await run(read(path), server);
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : error}`);
  const isWrong = !(error instanceof TaskyardError) || error.code === "INVALID_ARGUMENT";
  process.exitCode = isWrong ? 2 : 4;
}
