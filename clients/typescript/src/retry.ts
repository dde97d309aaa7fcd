// Trying again: for how long, with which rests in between, and on which answers.

import { type Bounds, now } from "./bounds.js";
import { isLost, TaskyardError, TOO_LATE } from "./error.js";

/**
 * No try begins later after the first that failed: a drain and a restart of the server. A try
 * that stood for longer, as one that waited for room, did not fail in the outage before it.
 */
export const MAX_ELAPSED = 60_000;
/** Milliseconds, as everything here. */
export const INITIAL_BACKOFF = 100;
export const MAX_BACKOFF = 5000;
export const BACKOFF_MULTIPLIER = 2;
/** The shortest rest between two tries, whatever the server asks for. */
export const LEAST_REST = 10;
/** A longer pushback of the server ends the tries: people want to know. */
const LONGEST_PUSHBACK = 30_000;

/** The longest rest after so many failures in a row. */
export function longestBackoff(failures: number): number {
  return Math.min(INITIAL_BACKOFF * BACKOFF_MULTIPLIER ** (failures - 1), MAX_BACKOFF);
}

/** The rest after so many failures: between half and all, so that many clients spread. */
export function backoff(failures: number): number {
  return longestBackoff(failures) * (0.5 + Math.random() / 2);
}

/** How long to rest after this many failures; undefined if there is to be no other try. */
export function restAfter(
  failures: number,
  error: TaskyardError,
  isWorthIt = isLost,
): number | undefined {
  if (!isWorthIt(error) || !error.mayRetry) return undefined;
  const asked = error.retryAfter;
  if (asked === undefined) return backoff(failures);
  return asked <= LONGEST_PUSHBACK ? Math.max(asked, LEAST_REST) : undefined;
}

/** What else `repeat` is told. */
interface Repeated {
  /** Instead of a try that began after this, by the clock `now`, the last error is thrown then. */
  readonly until?: number;
  /** Whether an error is worth another try. */
  readonly isWorthIt?: (error: TaskyardError) => boolean;
  /** Milliseconds. */
  readonly maxElapsed?: number;
}

/** Calls until there is an answer. Only to be used for what may safely be repeated. */
export async function repeat<T>(
  bounds: Bounds,
  call: () => Promise<T>,
  { until = Infinity, isWorthIt = isLost, maxElapsed = MAX_ELAPSED }: Repeated = {},
): Promise<T> {
  let last: TaskyardError | undefined;
  let since = 0;
  try {
    for (let failures = 1; ; failures++) {
      const begun = now();
      try {
        return await call();
      } catch (error) {
        if (bounds.isOver || !(error instanceof TaskyardError)) throw error;
        if (now() > begun + maxElapsed) failures = 1;
        if (failures === 1) since = now();
        const rest = restAfter(failures, error, isWorthIt);
        if (rest === undefined || now() + rest > since + maxElapsed) throw error;
        last = error;
        const left = until - now();
        await bounds.rest(Math.max(0, Math.min(rest, left)));
        if (rest >= left || now() >= until) throw error;
      }
    }
  } catch (error) {
    const isLate = error instanceof TaskyardError && error.code === "DEADLINE_EXCEEDED";
    if (!isLate || error.reason !== "" || last === undefined || last.code === error.code) {
      throw error;
    }
    throw new TaskyardError("DEADLINE_EXCEEDED", `${TOO_LATE}; before that: ${last.message}`);
  }
}
