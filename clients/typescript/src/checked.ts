// What JavaScript hands over, checked: a name that is none would be dropped without a word.

import type { CallOptions } from "./bounds.js";
import type { EventFilter } from "./gen/taskyard/v1/event.js";
import type { RetryPolicy } from "./gen/taskyard/v1/task.js";
import { SubmitRequest } from "./gen/taskyard/v1/task_service.js";
import type { WatchOptions } from "./watch/seen.js";

/** Throws if this, which has that name, is not what it should be. */
type Check = (value: unknown, name: string) => void;
/** What a thing has, by name. */
type Shape<T> = { readonly [K in keyof Required<T>]: Check };

const any: Check = () => {};

const span: Check = (value, name) => {
  if (isRecord(value)) {
    const { seconds = 0n, nanos = 0, ...others } = value;
    const isDuration = typeof seconds === "bigint" && typeof nanos === "number";
    if (isDuration && Object.keys(others).length === 0) return;
  }
  const isNearly = typeof value === "number" || (typeof value === "string" && value !== "");
  const way = isNearly ? `duration(${shown(value)})` : 'duration("1.5s") or duration(1500)';
  throw new TypeError(`${name} is no duration: write ${way}`);
};

const plain: Check = (value, name) => {
  if (!isPlain(value))
    throw new TypeError(`${name} is not a plain object, but ${shown(value)}`);
};

const list: Check = (value, name) => {
  if (!Array.isArray(value)) throw new TypeError(`${name} is not a list, but ${shown(value)}`);
};

const RETRY: Shape<RetryPolicy> = { maxAttempts: any, initialBackoff: span, maxBackoff: span };

// The fields are those of the definitions; only some need a check.
const TASK: Readonly<Record<string, Check>> = {
  ...Object.fromEntries(Object.keys(SubmitRequest.create()).map((name) => [name, any])),
  args: plain,
  delay: span,
  timeout: span,
  retry: (value, name) => each(value, name, RETRY, "a task has no field"),
  labels: plain,
} satisfies Partial<Shape<SubmitRequest>>;

const NO_OPTION = "there is no option";

const FILTER: Shape<EventFilter> = {
  queues: list,
  kinds: list,
  taskIds: list,
  types: list,
  workers: list,
  labels: plain,
};

// Their values are checked where they are used.
const CALL: Shape<CallOptions> = { signal: any, timeout: any, deadline: any };

const WATCH: Shape<WatchOptions> = {
  ...CALL,
  start: any,
  after: any,
  filter: (value, name) => each(value, name, FILTER, NO_OPTION),
  untilCaughtUp: any,
  overGaps: any,
  heartbeat: any,
  maxOutage: any,
};

/** The task, if all that it has are fields of one. */
export function task<T>(value: T): T {
  if (value === undefined || value === null) throw new TypeError("a task is needed");
  if (!isRecord(value)) {
    throw new TypeError(`a task is an object, such as { kind: "noop" }, not ${shown(value)}`);
  }
  each(value, "", TASK, "a task has no field");
  return value;
}

/** The options of a call, if they are some. */
export const callOptions = <T>(value: T): T => options(value, CALL);
/** The options of a wait, if they are some. */
export const waitOptions = <T>(value: T): T => options(value, { ...CALL, upTo: any });
/** The options of a watch, if they are some. */
export const watchOptions = <T>(value: T): T => options(value, WATCH);

function options<T>(value: T, shape: Readonly<Record<string, Check>>): T {
  if (!isRecord(value)) {
    throw new TypeError(
      `the options are an object, such as { timeout: 5000 }, not ${shown(value)}`,
    );
  }
  each(value, "", shape, NO_OPTION);
  return value;
}

/** Checks all that it has; what is undefined is as if it were not there. */
function each(
  value: unknown,
  within: string,
  shape: Readonly<Record<string, Check>>,
  unknown: string,
): void {
  if (!isRecord(value)) throw new TypeError(`${within} is not an object, but ${shown(value)}`);
  for (const [name, one] of Object.entries(value)) {
    if (one === undefined) continue;
    const full = within === "" ? name : `${within}.${name}`;
    const check = Object.hasOwn(shape, name) ? shape[name] : undefined;
    if (check === undefined) {
      const near = nearest(name, Object.keys(shape));
      const hint = near === undefined ? "" : `: did you mean ${near}?`;
      throw new TypeError(`${unknown} ${full}${hint}`);
    }
    if (one !== null) check(one, full);
  }
}

/** The one of these that was probably meant. */
function nearest(name: string, names: readonly string[]): string | undefined {
  const letters = (text: string) => text.replaceAll(/[_-]/g, "").toLowerCase();
  const meant = letters(name);
  return (
    names.find((one) => letters(one) === meant) ??
    names.find((one) => isOneEdit(letters(one), meant))
  );
}

/** Whether one letter too many, too few or another, or two that changed places, is all. */
function isOneEdit(a: string, b: string): boolean {
  const shorter = Math.min(a.length, b.length);
  let head = 0;
  while (head < shorter && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < shorter - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const [x, y] = [a, b].map((text) => text.slice(head, text.length - tail)) as [string, string];
  return Math.max(x.length, y.length) <= 1 || (x.length === 2 && x === `${y[1]}${y[0]}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Also one of another realm. */
function isPlain(value: unknown): boolean {
  if (!isRecord(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/** What it is, in a few letters. */
function shown(value: unknown): string {
  if (typeof value === "string") {
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  }
  if (Array.isArray(value)) return "a list";
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "Object" ? `a ${name}` : "an object";
}
