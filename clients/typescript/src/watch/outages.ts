// How long there has been no stream, and when it is tried again.

import { isLost, type TaskyardError } from "../error.js";
import { backoff, LEAST_REST } from "../retry.js";

/** A stream that has stood for so long ends the outage before it, in milliseconds. */
const STEADY = 1000;
/** What every try gets to be answered in, also the last one of an outage, in milliseconds. */
export const LEAST_TRY = 100;

interface Outage {
  failures: number;
  readonly since: number;
  isTold: boolean;
  /** A stream tells something again, since then. */
  standsSince: number | undefined;
}

/** The outages of a watch. Times are those of one steady clock, in milliseconds. */
export class Outages {
  readonly #maxOutage: number;
  #current: Outage | undefined;
  /** Some stream has told something. */
  #hasStood = false;
  #restUntil = 0;

  /** None yet. One that is longer than `maxOutage` is to end the watch. */
  constructor(maxOutage: number) {
    this.#maxOutage = maxOutage;
  }

  /** The stream is not opened before. */
  get restUntil(): number {
    return this.#restUntil;
  }

  /** The stream tells something; whether that is news after an outage that was told. */
  stands(now: number): boolean {
    this.#hasStood = true;
    const outage = this.#current;
    if (outage === undefined) return false;
    outage.standsSince ??= now;
    const isNews = outage.isTold;
    outage.isTold = false;
    return isNews;
  }

  /** There is no stream; whether that is to be told. Throws if trying again is of no use. */
  lose(error: TaskyardError, now: number): boolean {
    const stoodSince = this.#current?.standsSince;
    if (this.#current !== undefined) this.#current.standsSince = undefined;
    if (stoodSince !== undefined && now - stoodSince >= STEADY) this.#current = undefined;
    if (error.reason === "WATCH_LIFETIME" || error.reason === "WATCH_STALLED") {
      if (!error.mayRetry) throw error;
      this.#restUntil = now + Math.max(error.retryAfter ?? 0, LEAST_REST);
      return false;
    }
    const isCrowded = error.reason === "TOO_MANY_WATCHERS" && this.#hasStood;
    if (!isLost(error) && !isCrowded) throw error;
    this.#current ??= { failures: 0, since: now, isTold: false, standsSince: undefined };
    const outage = this.#current;
    outage.failures += 1;
    if (!error.mayRetry) throw error;
    const rest = Math.max(error.retryAfter ?? backoff(outage.failures), LEAST_REST);
    if (now + rest > outage.since + this.#maxOutage) throw error;
    this.#restUntil = now + rest;
    const isNews = !outage.isTold;
    outage.isTold = true;
    return isNews;
  }

  /**
   * For how long an answer to a try that begins now is waited for, up to the longest that holds
   * for all: in an outage not longer than is waited for.
   */
  grace(now: number, longest: number): number {
    if (this.#current === undefined) return longest;
    const left = this.#current.since + this.#maxOutage - now;
    return Math.min(longest, Math.max(left, LEAST_TRY));
  }
}
