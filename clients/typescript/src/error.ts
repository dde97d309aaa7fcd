// What went wrong, in words for programs and for people.

import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { milliseconds } from "./duration.js";
import {
  BadRequest,
  ErrorInfo,
  PreconditionFailure,
  RetryInfo,
} from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";

/** The name of a gRPC code. */
export type Code = keyof typeof status;

/** What is told of a deadline that passed on this side. */
export const TOO_LATE = "the deadline passed before the server answered";

const HERE = new URL(".", import.meta.url).href.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
/** A line of a stack that is of this package, or of Node itself. */
const INSIDE = new RegExp(`^ +at .*(?:${HERE}|\\bnode:internal/)`);

/** One thing that is wrong with a request, or with the state of what it is about. */
export interface Violation {
  /** The field, such as `retry.max_attempts`, or the thing in question, such as a task. */
  readonly subject: string;
  /** What is wrong with it. */
  readonly description: string;
}

interface Details {
  reason?: string;
  metadata?: Readonly<Record<string, string>>;
  violations?: readonly Violation[];
  retryAfter?: number | undefined;
  mayRetry?: boolean;
}

/**
 * Why a call failed: the status of the server, or of the way to it, taken apart. Its
 * `message` is one line for people.
 */
export class TaskyardError extends Error {
  override readonly name = "TaskyardError";
  /**
   * The gRPC code, such as `"INVALID_ARGUMENT"`. A lost connection is `"UNAVAILABLE"`,
   * whatever the transport made of it.
   */
  readonly code: Code;
  /**
   * The server's reason, such as `"QUEUE_FULL"`: stable, to be compared by programs. Empty if
   * no Taskyard answered.
   */
  readonly reason: string;
  /** What goes with the reason, by name: such as the `cursor` to go on after. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Everything that is wrong with the request. */
  readonly violations: readonly Violation[];
  /** How long the server asks to wait before another try, in milliseconds, if it does. */
  readonly retryAfter: number | undefined;
  /** Not to be seen: it tells nothing of whether another try would help. */
  readonly #mayRetry: boolean;

  /** @internal */
  constructor(code: Code, message: string, details: Details = {}) {
    super(oneLine(message));
    this.code = code;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.violations = details.violations ?? [];
    this.retryAfter = details.retryAfter;
    this.#mayRetry = details.mayRetry ?? true;
    // Where the caller called, without the inside of the client.
    const frames = this.stack?.split("\n").filter((line) => !INSIDE.test(line));
    if (frames !== undefined) this.stack = frames.join("\n");
  }

  /**
   * The server did not forbid another try, whether it would help or not.
   * @internal
   */
  get mayRetry(): boolean {
    return this.#mayRetry;
  }

  /** The error of one task in a batch or in a stream. */
  static fromStatus(one: Status): TaskyardError {
    return made(codeOf(one.code), one.message, one, undefined);
  }

  /**
   * The error that a call of a stock generated client failed with. What is no error of gRPC
   * is handed back as it is.
   */
  static fromGrpc<T>(error: T): T | TaskyardError {
    if (!isServiceError(error)) return error;
    const packed = error.metadata?.get("grpc-status-details-bin")[0];
    const pushback = error.metadata?.get("grpc-retry-pushback-ms")[0];
    return made(codeOf(error.code), error.details, unpacked(packed), pushback?.toString());
  }
}

/** Whether there was no answer, so that another try is worth it. */
export function isLost(error: TaskyardError): boolean {
  return error.code === "UNAVAILABLE";
}

function isServiceError(error: unknown): error is ServiceError {
  if (!(error instanceof Error)) return false;
  const { code, details, metadata } = error as Partial<ServiceError>;
  const hasTrailer = typeof (metadata as Partial<Metadata> | undefined)?.get === "function";
  return typeof code === "number" && typeof details === "string" && hasTrailer;
}

function codeOf(code: number): Code {
  return (status[code] as Code | undefined) ?? "UNKNOWN";
}

function unpacked(packed: Buffer | string | undefined): Status | undefined {
  if (!(packed instanceof Uint8Array)) return undefined;
  return decoded(Status, packed);
}

/** The message, or nothing if these bytes are none. */
function decoded<T>(type: { decode(bytes: Uint8Array): T }, bytes: Uint8Array): T | undefined {
  try {
    return type.decode(bytes);
  } catch {
    return undefined;
  }
}

function made(
  code: Code,
  message: string,
  from: Status | undefined,
  pushback: string | undefined,
): TaskyardError {
  const details: Details & { violations: Violation[] } = { violations: [] };
  for (const { typeUrl, value } of from?.details ?? []) {
    switch (typeUrl.slice(typeUrl.lastIndexOf("/") + 1)) {
      case "google.rpc.ErrorInfo": {
        const info = decoded(ErrorInfo, value);
        details.reason = info?.reason ?? "";
        details.metadata = info?.metadata ?? {};
        break;
      }
      case "google.rpc.BadRequest":
        for (const one of decoded(BadRequest, value)?.fieldViolations ?? []) {
          details.violations.push({ subject: one.field, description: one.description });
        }
        break;
      case "google.rpc.PreconditionFailure":
        for (const one of decoded(PreconditionFailure, value)?.violations ?? []) {
          details.violations.push({ subject: one.subject, description: one.description });
        }
        break;
      case "google.rpc.RetryInfo": {
        const delay = decoded(RetryInfo, value)?.retryDelay;
        if (delay !== undefined) details.retryAfter = Math.max(0, milliseconds(delay));
      }
    }
  }
  if (pushback !== undefined) {
    details.mayRetry = /^\s*\d+\s*$/.test(pushback);
    details.retryAfter = details.mayRetry ? Number(pushback) : undefined;
  }
  if (details.reason) {
    return new TaskyardError(code, `${message} (${details.reason})`, details);
  }
  const told = withoutReason(code, message);
  return new TaskyardError(told.code, told.message, details);
}

export const NOT_GRPC = "what it says is not gRPC";
const STRANGER = "what answers is no Taskyard, or one of another version";
const NOBODY = "no server answers";
const LOST = "the connection to the server was lost";

/** What the transport says of a stream that was cut off, rather than a server that answered. */
const BROKEN: Partial<Record<Code, RegExp>> = {
  INTERNAL: /^Received RST_STREAM/,
  CANCELLED: /^Call cancelled$/,
  RESOURCE_EXHAUSTED: /^Bandwidth exhausted or memory limit exceeded$/,
  UNKNOWN: /^$/,
};

/** What happened on this side or on the way, told as what it is. */
function withoutReason(code: Code, message: string): { code: Code; message: string } {
  if (code === "DEADLINE_EXCEEDED") return { code, message: TOO_LATE };
  if (code === "UNIMPLEMENTED" || message.startsWith("Received HTTP status code")) {
    return { code, message: `${STRANGER}: ${message}` };
  }
  if (
    code === "UNAVAILABLE" &&
    /^(No connection established|Name resolution failed)/.test(message)
  ) {
    return { code, message: `${NOBODY}: ${rootCause(message)}` };
  }
  if (code === "UNAVAILABLE" || BROKEN[code]?.test(message)) {
    const told = `${LOST}: ${rootCause(message)}`;
    return { code: "UNAVAILABLE", message: told };
  }
  return { code, message: message.trim() || `the server answered ${code} without a message` };
}

/** The part of gRPC's message that says something. */
function rootCause(message: string): string {
  const [, last = message] = /Last error: (.*?)\.? Resolution note:/s.exec(message) ?? [];
  const cause = oneLine(last)
    .replace(/^Error: /, "")
    .replace(/ \(\d{4}-[^)]*\)$/, "");
  if (/protocol error/i.test(cause)) return NOT_GRPC;
  const [, number, how] = /^Received RST_STREAM with code (\d+) ?(.*)$/.exec(cause) ?? [];
  if (how?.includes("without gRPC status")) return "it ended the call without a status";
  if (number !== undefined) return `it broke the call off (HTTP/2 error ${number})`;
  return cause || "without a reason";
}

/** The end of what is told of a failure to get an answer, for one that begins otherwise. */
export function withoutBeginning(message: string): string {
  const beginning = [STRANGER, NOBODY, LOST].find((one) => message.startsWith(`${one}: `));
  return beginning === undefined ? message : message.slice(beginning.length + 2);
}

function oneLine(text: string): string {
  return text.split(/\s+/).join(" ").trim();
}
