// What ends a call before its answer: a moment, a signal of the caller, the client's end.

import { TaskyardError, TOO_LATE } from "./error.js";

/** What every call takes. The earliest of them ends it. */
export interface CallOptions {
  /** Ends the call when it is aborted: the call then fails with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** How long the call may take in all, in milliseconds. */
  timeout?: number | undefined;
  /** The moment at which the call ends. */
  deadline?: Date | number | undefined;
}

/** Node's timers take no longer delay. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** A clock that does not step, in milliseconds. */
export const now = (): number => performance.now();

/** Tells who asks that a client was closed. */
export class Closing {
  #isClosed = false;
  readonly #listeners = new Set<() => void>();

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Calls this once it is closed; what is returned takes that back. */
  listen(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#isClosed = true;
    for (const listener of [...this.#listeners]) listener();
    this.#listeners.clear();
  }
}

/** Who listens to a signal. Node warns of more than ten listeners, so there is one for all. */
const listening = new WeakMap<AbortSignal, { all: Set<() => void>; abort: () => void }>();

/** Calls this once the signal is aborted; what is returned takes that back. */
function listenTo(signal: AbortSignal, listener: () => void): () => void {
  let entry = listening.get(signal);
  if (entry === undefined) {
    const all = new Set<() => void>();
    const abort = () => {
      for (const one of [...all]) one();
    };
    entry = { all, abort };
    listening.set(signal, entry);
    signal.addEventListener("abort", abort, { once: true });
  }
  const { all, abort } = entry;
  all.add(listener);
  return () => {
    if (!all.delete(listener) || all.size > 0) return;
    signal.removeEventListener("abort", abort);
    listening.delete(signal);
  };
}

/** The bounds of one call, or of one watch. They listen from `begin` to `dispose`. */
export class Bounds {
  /** By the clock `now`; Infinity if there is none. */
  readonly #ends: number;
  readonly #signal: AbortSignal | undefined;
  readonly #closing: Closing;
  readonly #listeners = new Set<(why: unknown) => void>();
  #over: { why: unknown } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #forget: (() => void) | undefined;

  constructor(options: CallOptions, closing: Closing) {
    const { signal, timeout, deadline } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw new TypeError("the option signal is no AbortSignal");
    }
    const until = deadline === undefined ? Infinity : Number(deadline) - Date.now();
    const left = Math.min(timeout ?? Infinity, until);
    if (typeof left !== "number" || Number.isNaN(left)) {
      throw new TypeError("the options timeout and deadline are milliseconds and a moment");
    }
    this.#ends = now() + left;
    this.#signal = signal;
    this.#closing = closing;
  }

  /** Listens, for as long as `work` takes. */
  static async during<T>(
    options: CallOptions,
    closing: Closing,
    work: (bounds: Bounds) => Promise<T>,
  ): Promise<T> {
    const bounds = new Bounds(options, closing).begin();
    try {
      return await work(bounds);
    } finally {
      bounds.dispose();
    }
  }

  begin(): this {
    const signal = this.#signal;
    const abort = () => this.end(signal?.reason);
    const close = () => this.end(new TaskyardError("CANCELLED", "the client is closed"));
    if (signal?.aborted) abort();
    else if (this.#closing.isClosed) close();
    else {
      const forgetSignal = signal && listenTo(signal, abort);
      const forgetClosing = this.#closing.listen(close);
      this.#forget = () => {
        forgetSignal?.();
        forgetClosing();
      };
      this.#arm();
    }
    return this;
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#forget?.();
    this.#forget = undefined;
  }

  /** Ends them now: whoever waits fails with this. */
  end(why: unknown): void {
    if (this.#over !== undefined) return;
    this.#over = { why };
    this.dispose();
    for (const listener of [...this.#listeners]) listener(why);
    this.#listeners.clear();
  }

  get isOver(): boolean {
    // Its timer may be late, while others wait for it without a rest.
    if (this.left === 0) this.end(new TaskyardError("DEADLINE_EXCEEDED", TOO_LATE));
    return this.#over !== undefined;
  }

  /** Milliseconds until the moment; Infinity without one. */
  get left(): number {
    return Math.max(0, this.#ends - now());
  }

  /** Throws if they are over. */
  check(): void {
    if (this.isOver) throw this.#over?.why;
  }

  /** Calls this with the reason once they end; what is returned takes that back. */
  onEnd(listener: (why: unknown) => void): () => void {
    if (this.#over !== undefined) listener(this.#over.why);
    else this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What is promised, unless they end before. */
  race<T>(promise: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const forget = this.onEnd(reject);
      promise.then(resolve, reject).finally(forget);
    });
  }

  /** Rests, unless they end before. */
  async rest(milliseconds: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const rested = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(milliseconds, LONGEST_TIMER));
    });
    try {
      await this.race(rested);
    } finally {
      clearTimeout(timer);
    }
  }

  #arm(): void {
    if (this.#ends === Infinity || this.isOver) return;
    const delay = Math.min(Math.ceil(this.left), LONGEST_TIMER);
    this.#timer = setTimeout(() => this.#arm(), delay);
  }
}
