// The calls of a service, as its generated definition has them: promises and async iterables.

import { type Client, Metadata } from "@grpc/grpc-js";
import { Bounds, type CallOptions, LONGEST_TIMER } from "./bounds.js";
import { callOptions } from "./checked.js";
import type { Connection } from "./connection.js";
import { TaskyardError } from "./error.js";
import { Messages } from "./messages.js";

interface MessageType<T, Partial> {
  fromPartial(object: Partial): T;
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** One method, as the generated code describes it. */
export interface Method<Request, Partial, Response> {
  readonly name: string;
  readonly requestType: MessageType<Request, Partial>;
  readonly requestStream: boolean;
  readonly responseType: Pick<MessageType<Response, never>, "decode">;
  readonly responseStream: boolean;
}

// biome-ignore lint/suspicious/noExplicitAny: any method.
type AnyMethod = Method<any, any, any>;

/** One service, as the generated code describes it. */
export interface Definition {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, AnyMethod>>;
}

type Input<M extends AnyMethod> = Parameters<M["requestType"]["fromPartial"]>[0];
type Output<M extends AnyMethod> = ReturnType<M["responseType"]["decode"]>;
/** What a stream of requests may be. */
export type Many<T> = Iterable<T> | AsyncIterable<T>;

type Call<M extends AnyMethod> = M extends { requestStream: true }
  ? (requests: Many<Input<M>>, options?: CallOptions) => AsyncGenerator<Output<M>, void, void>
  : M extends { responseStream: true }
    ? (request: Input<M>, options?: CallOptions) => AsyncGenerator<Output<M>, void, void>
    : (request: Input<M>, options?: CallOptions) => Promise<Output<M>>;

/** The calls of a service. Each is made once, and fails with a TaskyardError. */
export type Calls<D extends Definition> = {
  readonly [K in keyof D["methods"]]: Call<D["methods"][K]>;
};

/** The calls of this service over that connection. */
export function callsOf<D extends Definition>(connection: Connection, definition: D): Calls<D> {
  const calls: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    const path = `/${definition.fullName}/${method.name}`;
    calls[key] = method.requestStream
      ? (requests: Many<unknown>, options: CallOptions = {}) =>
          duplex(connection, path, method, requests, callOptions(options))
      : method.responseStream
        ? (request: unknown, options: CallOptions = {}) =>
            serverStream(connection, path, method, request, callOptions(options))
        : async (request: unknown, options: CallOptions = {}) =>
            await Bounds.during(callOptions(options), connection.closing, (bounds) =>
              unary(connection, path, method, request, bounds),
            );
  }
  return calls as Calls<D>;
}

/** One call with one answer, within these bounds and no longer than so many milliseconds. */
export async function unary<Partial, Response>(
  connection: Connection,
  path: string,
  method: Method<unknown, Partial, Response>,
  partial: Partial,
  bounds: Bounds,
  limit = Infinity,
): Promise<Response> {
  const request = written(method, partial);
  const client = await connection.ready(bounds);
  let forget = () => {};
  const answer = new Promise<Response>((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      asItIs,
      method.responseType.decode,
      request,
      new Metadata(),
      within(Math.min(bounds.left, limit)),
      (error, response) => (error ? reject(error) : resolve(response as Response)),
    );
    forget = bounds.onEnd(() => call.cancel());
  });
  try {
    return await bounds.race(answer);
  } catch (error) {
    throw TaskyardError.fromGrpc(error);
  } finally {
    forget();
  }
}

/** Begins a stream of answers. Whoever gets it must read it to its end, or cancel it. */
export function begin<Partial, Response>(
  client: Client,
  path: string,
  method: Method<unknown, Partial, Response>,
  partial: Partial,
  bounds: Bounds,
): Messages<Response> {
  const request = written(method, partial);
  const { decode } = method.responseType;
  const options = within(bounds.left);
  const call = client.makeServerStreamRequest(
    path,
    asItIs,
    decode,
    request,
    new Metadata(),
    options,
  );
  return new Messages(call, bounds);
}

async function* serverStream<Partial, Response>(
  connection: Connection,
  path: string,
  method: Method<unknown, Partial, Response>,
  partial: Partial,
  options: CallOptions,
): AsyncGenerator<Response, void, void> {
  const bounds = new Bounds(options, connection.closing).begin();
  let messages: Messages<Response> | undefined;
  try {
    const client = await connection.ready(bounds);
    messages = begin(client, path, method, partial, bounds);
    for (;;) {
      const message = await bounds.race(messages.next());
      if (message === undefined) return;
      yield message;
    }
  } catch (error) {
    throw TaskyardError.fromGrpc(error);
  } finally {
    messages?.cancel();
    bounds.dispose();
  }
}

async function* duplex<Partial, Response>(
  connection: Connection,
  path: string,
  method: Method<unknown, Partial, Response>,
  requests: Many<Partial>,
  options: CallOptions,
): AsyncGenerator<Response, void, void> {
  const bounds = new Bounds(options, connection.closing).begin();
  let messages: Messages<Response> | undefined;
  try {
    const client = await connection.ready(bounds);
    const { decode } = method.responseType;
    const call = client.makeBidiStreamRequest(
      path,
      asItIs,
      decode,
      new Metadata(),
      within(bounds.left),
    );
    messages = new Messages(call, bounds);
    const room = () => new Promise<void>((resolve) => call.once("drain", resolve));
    const write = async () => {
      for await (const partial of whileNeeded(requests, bounds)) {
        if (!call.write(written(method, partial))) await bounds.race(room());
      }
      call.end();
    };
    // The end of the bounds, below, ends it.
    write().catch((error: unknown) => bounds.end(error));
    for (;;) {
      const message = await bounds.race(messages.next());
      if (message === undefined) return;
      yield message;
    }
  } catch (error) {
    throw TaskyardError.fromGrpc(error);
  } finally {
    messages?.cancel();
    bounds.end(undefined);
  }
}

/** These items until the bounds end, which a source that waits does not hold up. */
async function* whileNeeded<T>(items: Many<T>, bounds: Bounds): AsyncGenerator<T, void, void> {
  const source =
    Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
  try {
    for (;;) {
      const { done, value } = await bounds.race(Promise.resolve(source.next()));
      if (done) return;
      yield value;
    }
  } finally {
    // It may still be waiting for its next item.
    Promise.resolve(source.return?.()).catch(() => {});
  }
}

/** The request as the wire has it. */
function written<Partial>(method: Method<unknown, Partial, unknown>, partial: Partial): Buffer {
  const { requestType: type } = method;
  try {
    return Buffer.from(type.encode(type.fromPartial(partial)).finish());
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new TypeError(`the request cannot be written: ${why}`);
  }
}

/** What is written already. */
const asItIs = (bytes: Buffer): Buffer => bytes;

function within(milliseconds: number): { deadline?: number } {
  // What is longer is bounded on this side alone.
  return milliseconds > LONGEST_TIMER ? {} : { deadline: Date.now() + milliseconds };
}
