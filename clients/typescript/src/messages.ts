// The messages of a stream, one at a time and in order, and how it ended.

import type { ClientReadableStream } from "@grpc/grpc-js";
import type { Bounds } from "./bounds.js";

/** Reads a stream. Nobody else may. */
export class Messages<T> {
  readonly #call: ClientReadableStream<T>;
  #failure: { error: unknown } | undefined;
  #hasEnded = false;
  #hasBegun = false;
  #wake: (() => void) | undefined;
  readonly #forget: () => void;

  /** It is cancelled when the bounds end, also while nobody reads. */
  constructor(call: ClientReadableStream<T>, bounds: Bounds) {
    this.#call = call;
    this.#forget = bounds.onEnd(() => call.cancel());
    const wake = () => this.#wake?.();
    call.on("metadata", () => {
      this.#hasBegun = true;
      wake();
    });
    call.on("readable", wake);
    call.on("end", () => {
      this.#hasEnded = true;
      wake();
    });
    // Comes before what was read ahead is taken, and must not pass it.
    call.on("error", (error) => {
      this.#failure ??= { error };
      wake();
    });
  }

  /** Waits until the server has begun to answer, or has refused to. */
  async begun(): Promise<void> {
    while (!this.#hasBegun && !this.#hasEnded && this.#failure === undefined) {
      await this.#woken();
    }
  }

  /** The next message; undefined if the server ended the stream well. */
  async next(): Promise<T | undefined> {
    for (;;) {
      const message = this.#call.read() as T | null;
      if (message !== null) return message;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#hasEnded) return undefined;
      await this.#woken();
    }
  }

  cancel(): void {
    this.#forget();
    this.#call.cancel();
  }

  #woken(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
