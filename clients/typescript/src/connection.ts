// The connection to a server, which is made anew when it breaks.

import { Client, credentials, connectivityState as State } from "@grpc/grpc-js";
import { type Bounds, Closing, now } from "./bounds.js";
import { TaskyardError } from "./error.js";

export const VERSION = "0.1.0";

/** How long the connection may take to be made, in milliseconds. */
export const CONNECT_TIMEOUT = 5000;

/**
 * The longest answer that is read. A task carries a payload and a result, and an operator may
 * have raised the server's limits on both.
 */
const MAX_ANSWER = 256 * 2 ** 20;

const SAYS_NOTHING = "no server answers: it takes the connection and says nothing";

const OPTIONS = {
  "grpc.primary_user_agent": `taskyard-typescript/${VERSION}`,
  "grpc.max_receive_message_length": MAX_ANSWER,
  "grpc.max_send_message_length": -1,
  // Finds out within 40 s that the machine at the other end has gone.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  // The rests between calls are this package's; a server that is back must not be missed for
  // long.
  "grpc.enable_retries": 0,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1000,
  // Clients must not share a broken connection, and a private network has no proxy.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
  "grpc.service_config_disable_resolution": 1,
};

/** A connection. It connects when it is first used. */
export class Connection {
  /** `host:port`. */
  readonly target: string;
  readonly #closing: Closing;
  #client: Client;
  #forget: (() => void) | undefined;
  /** Who waits for the client to leave a state. */
  #waiting = new Map<State, Set<() => void>>();
  /** Since when all that was seen of it was that it fails. */
  #failsSince: number | undefined;

  constructor(target: string, closing = new Closing()) {
    this.target = target;
    this.#closing = closing;
    this.#client = this.#made();
  }

  /** Another connection to the same server, which ends with this one. */
  anew(): Connection {
    const other = new Connection(this.target, this.#closing);
    other.#forget = this.#closing.listen(() => other.close());
    return other;
  }

  /** Told when the whole client is closed. */
  get closing(): Closing {
    return this.#closing;
  }

  close(): void {
    this.#forget?.();
    this.#client.close();
  }

  /**
   * What to make a call with, once it stands or is known not to. gRPC itself would wait for
   * ever for a server that takes the connection and says nothing.
   */
  async ready(bounds: Bounds): Promise<Client> {
    const ends = now() + CONNECT_TIMEOUT;
    for (;;) {
      bounds.check();
      const client = this.#client;
      const channel = client.getChannel();
      const state = channel.getConnectivityState(true);
      if (state === State.READY) {
        this.#failsSince = undefined;
        return client;
      }
      if (state === State.TRANSIENT_FAILURE) {
        this.#failsSince ??= now();
        // It may hang on to a connection that died while it was made.
        if (now() - this.#failsSince < CONNECT_TIMEOUT) return client;
        this.#renew(client);
        continue;
      }
      const left = ends - now();
      if (left <= 0) {
        this.#renew(client);
        throw new TaskyardError("UNAVAILABLE", SAYS_NOTHING);
      }
      await this.#change(client, state, left, bounds);
    }
  }

  /** Waits until it has left this state, or for so many milliseconds. */
  async #change(client: Client, state: State, limit: number, bounds: Bounds): Promise<void> {
    const waiting = this.#waitingFor(client, state);
    let wake = () => {};
    const changed = new Promise<void>((resolve) => {
      wake = resolve;
    });
    waiting.add(wake);
    const timer = setTimeout(wake, limit);
    try {
      await bounds.race(changed);
    } finally {
      clearTimeout(timer);
      waiting.delete(wake);
    }
  }

  /**
   * Who waits for it to leave this state. gRPC is told once for all of them, and without a
   * time: it cannot be told to forget, and its timer would keep the process.
   */
  #waitingFor(client: Client, state: State): Set<() => void> {
    const states = this.#waiting;
    const known = states.get(state);
    if (known !== undefined) return known;
    const waiting = new Set<() => void>();
    states.set(state, waiting);
    client.getChannel().watchConnectivityState(state, Infinity, () => {
      states.delete(state);
      for (const wake of waiting) wake();
    });
    return waiting;
  }

  #renew(old: Client): void {
    if (this.#client !== old) return;
    this.#client = this.#made();
    this.#waiting = new Map();
    this.#failsSince = undefined;
    // What runs on it goes on to its end.
    old.close();
  }

  #made(): Client {
    return new Client(`dns:${this.target}`, credentials.createInsecure(), OPTIONS);
  }
}
