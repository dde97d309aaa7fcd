// Where a server is.

import { TaskyardError } from "./error.js";

const DEFAULT_PORT = 50051;

/** Reads `http://host:port`, `host:port` or `host`, and returns `host:port`. */
export function parseAddress(text: string): string {
  const wrong = (why: string) =>
    new TaskyardError(
      "INVALID_ARGUMENT",
      `the address ${JSON.stringify(text)} ${why}; it looks like http://127.0.0.1:50051 or host:port`,
    );
  if (typeof text !== "string") throw wrong("is no text");
  const [, scheme, rest] = /^(?:([^/]*):\/\/)?(.*?)\/*$/s.exec(text.trim()) ?? [];
  if (scheme === "https") throw wrong("asks for TLS, which is not supported");
  if (scheme !== undefined && scheme !== "http") {
    throw wrong(`has the unknown scheme ${JSON.stringify(scheme)}`);
  }
  const parts = /^(\[[0-9a-fA-F:.]+(?:%\w+)?\]|[\p{L}\p{N}._-]+)(?::(.*))?$/u.exec(rest ?? "");
  const host = parts?.[1];
  if (host === undefined) throw wrong("is not an address");
  const port = parts?.[2] ?? String(DEFAULT_PORT);
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) throw wrong("has no valid port");
  return `${host}:${Number(port)}`;
}
