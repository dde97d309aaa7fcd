// A server that does what a test says, and the errors of servers.

import type { TestContext } from "node:test";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import type { Any } from "../src/gen/google/protobuf/any.js";
import { ErrorInfo, RetryInfo } from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import {
  Client,
  duration,
  Event,
  type SubmitRequest,
  SubmitResponse,
  type TaskServiceServer,
  TaskServiceService,
  type WatchEventsRequest,
  WatchEventsResponse,
} from "../src/index.js";

export function packed<Partial, T>(
  name: string,
  type: { fromPartial(partial: Partial): T; encode(message: T): { finish(): Uint8Array } },
  partial: Partial,
): Any {
  const value = Buffer.from(type.encode(type.fromPartial(partial)).finish());
  return { typeUrl: `type.googleapis.com/${name}`, value };
}

export function retryInfo(milliseconds: number): Any {
  return packed("google.rpc.RetryInfo", RetryInfo, { retryDelay: duration(milliseconds) });
}

/** What a server answers with, or a stock generated client fails with. */
export function failure(
  name: string,
  message = "no",
  { reason, pushback }: { reason?: string; pushback?: string } = {},
  details?: Any[],
): ServiceError {
  const code = status[name as keyof typeof status];
  const metadata = new Metadata();
  const info = reason ? [packed("google.rpc.ErrorInfo", ErrorInfo, { reason })] : [];
  const one = Status.fromPartial({ code, message, details: details ?? info });
  if (one.details.length > 0) {
    metadata.set("grpc-status-details-bin", Buffer.from(Status.encode(one).finish()));
  }
  if (pushback !== undefined) metadata.set("grpc-retry-pushback-ms", pushback);
  return Object.assign(new Error(message), { code, details: message, metadata });
}

/** UNAVAILABLE, to be tried again at once. */
export const soon = (reason = "DRAINING") =>
  failure("UNAVAILABLE", "not now", { reason, pushback: "0" });

export type Writable = ServerWritableStream<unknown, WatchEventsResponse>;
type Asked = SubmitRequest | WatchEventsRequest;

/** What to do with the next call: answer it, fail it, or tell its messages. */
export type Part = ServiceError | SubmitResponse | ((call: Writable) => void);

export interface Scripted {
  readonly address: string;
  readonly client: Client;
  /** The requests that have come. */
  readonly requests: Asked[];
  /** Resolves when so many streams have been left by the client. */
  left(count: number): Promise<void>;
  kill(): void;
}

/** Serves each call by the next part, and the last one for ever. Ends with the test. */
export async function scripted(t: TestContext, ...script: Part[]): Promise<Scripted> {
  const requests: Asked[] = [];
  let leftCount = 0;
  const waiting: (() => void)[] = [];
  const next = (request: unknown): Part => {
    requests.push(request as Asked);
    return (script.length > 1 ? script.shift() : script[0]) as Part;
  };
  const stream = (call: Writable) => {
    call.on("cancelled", () => {
      leftCount += 1;
      for (const wake of waiting) wake();
    });
    const part = next(call.request);
    if (typeof part === "function") part(call);
    else call.emit("error", part);
  };
  const unary = <T>(call: ServerUnaryCall<unknown, T>, callback: sendUnaryData<T>) => {
    const part = next(call.request);
    if (part instanceof Error) callback(part);
    else if (typeof part !== "function") callback(null, part as T);
  };
  const server = new Server();
  server.addService(TaskServiceService, {
    submit: unary,
    waitTask: unary,
    submitAndWatch: stream,
    watchEvents: stream,
  } as unknown as TaskServiceServer);
  const port = await new Promise<number>((resolve, reject) => {
    const bound = (error: Error | null, port: number) =>
      error ? reject(error) : resolve(port);
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), bound);
  });
  const address = `127.0.0.1:${port}`;
  const client = new Client(address);
  t.after(() => {
    client.close();
    server.forceShutdown();
  });
  const left = async (count: number) => {
    while (leftCount < count) await new Promise<void>((resolve) => waiting.push(resolve));
  };
  return { address, client, requests, left, kill: () => server.forceShutdown() };
}

/** Tells these messages, and then ends as it says: "hang" is never. */
export function tells(
  messages: WatchEventsResponse[],
  end: ServiceError | "end" | "hang" = "hang",
) {
  return (call: Writable): void => {
    for (const message of messages) call.write(message);
    if (end === "end") call.end();
    else if (end !== "hang") call.emit("error", end);
  };
}

type Message = Parameters<typeof WatchEventsResponse.fromPartial>[0];

export function message(cursor: string, rest: Message = {}): WatchEventsResponse {
  return WatchEventsResponse.fromPartial({ cursor, ...rest });
}

export const started = (cursor = "c0") => message(cursor, { started: {} });

export function events(cursor: string, ...seqs: number[]): WatchEventsResponse {
  return message(cursor, {
    events: seqs.map((seq) => Event.fromPartial({ seq: BigInt(seq) })),
  });
}

export const ack = SubmitResponse.fromPartial({ taskId: "t1" });
