// What needs no server: addresses, durations, errors, and when to try again.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inspect } from "node:util";
import { Metadata, status } from "@grpc/grpc-js";
import { parseAddress } from "../src/address.js";
import { Bounds, Closing } from "../src/bounds.js";
import {
  BadRequest,
  ErrorInfo,
  PreconditionFailure,
} from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import { duration, milliseconds, TaskyardError } from "../src/index.js";
import * as retry from "../src/retry.js";
import { failure, packed, retryInfo } from "./scripted.js";

test("addresses are taken as people write them", () => {
  const table = {
    "http://127.0.0.1:50051": "127.0.0.1:50051",
    "127.0.0.1:7000": "127.0.0.1:7000",
    localhost: "localhost:50051",
    " http://example.org/ ": "example.org:50051",
    "[::1]:9": "[::1]:9",
    "http://[fe80::1%eth0]": "[fe80::1%eth0]:50051",
  };
  for (const [text, target] of Object.entries(table)) assert.equal(parseAddress(text), target);
});

test("what is no address is told as what it is", () => {
  const table = {
    "": "is not an address",
    "https://a:1": "asks for TLS",
    "ftp://a": 'has the unknown scheme "ftp"',
    "a b": "is not an address",
    "http://": "is not an address",
    "::1": "is not an address",
    "user@host": "is not an address",
    "a:1/path": "has no valid port",
    "a:99999": "has no valid port",
    "a:": "has no valid port",
  };
  for (const [text, why] of Object.entries(table)) {
    assert.throws(
      () => parseAddress(text),
      (error) => {
        assert(error instanceof TaskyardError);
        assert.equal(error.code, "INVALID_ARGUMENT");
        assert.equal(
          error.message.startsWith(`the address ${JSON.stringify(text)} ${why}`),
          true,
          error.message,
        );
        return true;
      },
    );
  }
});

test("durations are read and written", () => {
  assert.deepEqual(duration(1500), { seconds: 1n, nanos: 500_000_000 });
  assert.deepEqual(duration("1.5s"), { seconds: 1n, nanos: 500_000_000 });
  assert.deepEqual(duration("-0.25s"), { seconds: 0n, nanos: -250_000_000 });
  assert.deepEqual(duration(-1500), { seconds: -1n, nanos: -500_000_000 });
  assert.deepEqual(duration(1999.999_999_9), { seconds: 2n, nanos: 0 });
  assert.equal(milliseconds(duration(0.5)), 0.5);
  assert.equal(milliseconds(duration("-3600s")), -3_600_000);
  assert.equal(duration(Infinity).seconds, 300_000_000_000n);
  for (const wrong of ["1m", "", "s", "1e3s", Number.NaN])
    assert.throws(() => duration(wrong), TypeError);
});

test("everything in an error has its name", () => {
  const error = failure("INVALID_ARGUMENT", "kind is wrong", { reason: "INVALID_FIELDS" }, [
    packed("google.rpc.ErrorInfo", ErrorInfo, {
      reason: "INVALID_FIELDS",
      metadata: { a: "b" },
    }),
    packed("google.rpc.BadRequest", BadRequest, {
      fieldViolations: [{ field: "kind", description: "is required" }],
    }),
    packed("google.rpc.PreconditionFailure", PreconditionFailure, {
      violations: [{ subject: "t1", description: "has ended" }],
    }),
    retryInfo(7),
  ]);
  const taken = TaskyardError.fromGrpc(error);
  assert(taken instanceof TaskyardError);
  assert.equal(taken.code, "INVALID_ARGUMENT");
  assert.equal(taken.reason, "INVALID_FIELDS");
  assert.deepEqual(taken.metadata, { a: "b" });
  assert.deepEqual(taken.violations, [
    { subject: "kind", description: "is required" },
    { subject: "t1", description: "has ended" },
  ]);
  assert.equal(taken.retryAfter, 7);
  assert.equal(taken.message, "kind is wrong (INVALID_FIELDS)");
  assert.equal(String(taken), "TaskyardError: kind is wrong (INVALID_FIELDS)");
});

test("an error shows nothing that would lead to a vain try", () => {
  const taken = TaskyardError.fromGrpc(failure("INVALID_ARGUMENT", "no", { reason: "A" }));
  assert.doesNotMatch(inspect(taken), /mayRetry/);
  const shown = ["code", "metadata", "name", "reason", "retryAfter", "violations"];
  assert.deepEqual(Object.keys(taken).sort(), shown);
});

test("what happened on the way is told as what it is", () => {
  const table: [string, string, string, string][] = [
    [
      "DEADLINE_EXCEEDED",
      "Deadline exceeded after 0.5s,LB pick: 0s",
      "DEADLINE_EXCEEDED",
      "the deadline passed before the server answered",
    ],
    [
      "INTERNAL",
      "Received RST_STREAM with code 2 (Internal server error)",
      "UNAVAILABLE",
      "the connection to the server was lost: it broke the call off (HTTP/2 error 2)",
    ],
    [
      "CANCELLED",
      "Call cancelled",
      "UNAVAILABLE",
      "the connection to the server was lost: Call cancelled",
    ],
    [
      "RESOURCE_EXHAUSTED",
      "Bandwidth exhausted or memory limit exceeded",
      "UNAVAILABLE",
      "the connection to the server was lost: Bandwidth exhausted or memory limit exceeded",
    ],
    [
      "UNAVAILABLE",
      "Connection dropped",
      "UNAVAILABLE",
      "the connection to the server was lost: Connection dropped",
    ],
    [
      "UNAVAILABLE",
      "No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ",
      "UNAVAILABLE",
      "no server answers: connect ECONNREFUSED 127.0.0.1:1",
    ],
    [
      "UNIMPLEMENTED",
      "The server does not\nimplement the method",
      "UNIMPLEMENTED",
      "what answers is no Taskyard, or one of another version: The server does not implement the method",
    ],
    ["INTERNAL", "", "INTERNAL", "the server answered INTERNAL without a message"],
    ["INTERNAL", "as the server says", "INTERNAL", "as the server says"],
    ["UNKNOWN", "", "UNAVAILABLE", "the connection to the server was lost: without a reason"],
  ];
  for (const [code, details, told, message] of table) {
    const taken = TaskyardError.fromGrpc(failure(code, details));
    assert(taken instanceof TaskyardError);
    assert.deepEqual([taken.code, taken.reason, taken.message], [told, "", message]);
  }
});

test("the status of a server that answered is its own", () => {
  const answered = failure("RESOURCE_EXHAUSTED", "no room", { reason: "QUEUE_FULL" });
  const taken = TaskyardError.fromGrpc(answered);
  assert(taken instanceof TaskyardError);
  assert.deepEqual([taken.code, taken.reason], ["RESOURCE_EXHAUSTED", "QUEUE_FULL"]);
});

test("details that are damaged do no harm", () => {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from([255, 255, 255]));
  const error = Object.assign(new Error("no"), {
    code: status.ABORTED,
    details: "no",
    metadata,
  });
  const taken = TaskyardError.fromGrpc(error);
  assert(taken instanceof TaskyardError);
  assert.deepEqual([taken.code, taken.reason, taken.message], ["ABORTED", "", "no"]);
  const other = new Error("of something else");
  assert.equal(TaskyardError.fromGrpc(other), other);
});

test("a task of a batch has an error of its own", () => {
  const details = [packed("google.rpc.ErrorInfo", ErrorInfo, { reason: "TOO_LARGE" })];
  const one = Status.fromPartial({
    code: status.RESOURCE_EXHAUSTED,
    message: "too large",
    details,
  });
  const { code, message } = TaskyardError.fromStatus(one);
  assert.deepEqual([code, message], ["RESOURCE_EXHAUSTED", "too large (TOO_LARGE)"]);
});

test("the stack of an error begins at the caller", () => {
  assert.throws(
    () => parseAddress("a b"),
    (error: Error) => {
      assert.match(error.stack ?? "", /parts\.test/);
      assert.doesNotMatch(error.stack ?? "", /address\.js|node:internal/);
      return true;
    },
  );
});

const pushed = (value: string) =>
  TaskyardError.fromGrpc(failure("UNAVAILABLE", "no", { pushback: value })) as TaskyardError;

test("rests grow and are bounded", () => {
  for (const [failures, most] of [
    [1, 100],
    [3, 400],
    [6, 3200],
    [7, 5000],
    [1000, 5000],
  ] as const) {
    for (let times = 0; times < 100; times++) {
      const rest = retry.backoff(failures);
      assert(rest >= most / 2 && rest < most, `${rest} after ${failures} failures`);
    }
  }
});

test("only lost calls are repeated", () => {
  const lost = new TaskyardError("UNAVAILABLE", "gone");
  assert(retry.restAfter(1000, lost) !== undefined);
  assert.equal(retry.restAfter(1, new TaskyardError("RESOURCE_EXHAUSTED", "full")), undefined);
});

test("a pushback is honoured", () => {
  assert.equal(retry.restAfter(1, pushed("700")), 700);
  assert.equal(retry.restAfter(1, pushed("0")), retry.LEAST_REST);
  assert.equal(retry.restAfter(1, pushed("-1")), undefined);
  assert.equal(retry.restAfter(1, pushed("soon")), undefined);
  assert.equal(retry.restAfter(1, pushed("3600000")), undefined);
});

test("without a pushback the details tell the rest", () => {
  const asked = TaskyardError.fromGrpc(failure("UNAVAILABLE", "no", {}, [retryInfo(250)]));
  assert.equal(retry.restAfter(1, asked as TaskyardError), 250);
  const both = failure("UNAVAILABLE", "no", { pushback: "40" }, [retryInfo(250)]);
  assert.equal(retry.restAfter(1, TaskyardError.fromGrpc(both) as TaskyardError), 40);
});

test("repeating has an end, and the last error is told", async () => {
  const bounds = new Bounds({}, new Closing()).begin();
  let calls = 0;
  const lost = () => {
    calls += 1;
    return Promise.reject(Object.assign(pushed("0"), { message: `no ${calls}` }));
  };
  const told = (error: unknown) => error instanceof Error && error.message === `no ${calls}`;
  await assert.rejects(retry.repeat(bounds, lost, { maxElapsed: 300 }), told);
  assert(calls >= 2 && calls <= 300 / retry.LEAST_REST + 1, `${calls}`);
});

test("a try that stood for long ends the outage before it", async () => {
  const bounds = new Bounds({}, new Closing()).begin();
  let calls = 0;
  const call = async () => {
    calls += 1;
    // The real minute is too long for a test.
    if (calls === 2) await bounds.rest(2100);
    if (calls < 4) throw pushed("0");
    return calls;
  };
  assert.equal(await retry.repeat(bounds, call, { maxElapsed: 2000 }), 4);
  assert.equal(retry.MAX_ELAPSED, 60_000);
});

test("a deadline tells what was tried before it", async () => {
  const bounds = new Bounds({ timeout: 30 }, new Closing()).begin();
  const lost = () => Promise.reject(new TaskyardError("UNAVAILABLE", "no server answers"));
  const told = /^TaskyardError: the deadline passed .*; before that: no server answers$/;
  await assert.rejects(retry.repeat(bounds, lost), told);
});

test("the figures are those of the published policy", () => {
  const file = new URL("../../../service-config.json", import.meta.url);
  const { methodConfig } = JSON.parse(readFileSync(file, "utf8"));
  assert(methodConfig.length > 0);
  for (const { retryPolicy } of methodConfig) {
    assert.equal(milliseconds(duration(retryPolicy.initialBackoff)), retry.INITIAL_BACKOFF);
    assert.equal(milliseconds(duration(retryPolicy.maxBackoff)), retry.MAX_BACKOFF);
    assert.equal(retryPolicy.backoffMultiplier, retry.BACKOFF_MULTIPLIER);
    const codes = Object.keys(status).filter((code) => Number.isNaN(Number(code)));
    const repeated = codes.filter(
      (code) => retry.restAfter(1, new TaskyardError(code as "OK", "no")) !== undefined,
    );
    assert.deepEqual(repeated, retryPolicy.retryableStatusCodes);
  }
});

test("bounds that are none are a TypeError", () => {
  const closing = new Closing();
  for (const options of [
    { timeout: Number.NaN },
    { deadline: new Date("no") },
    { signal: {} },
    { timeout: "5s" },
  ]) {
    assert.throws(() => new Bounds(options as object, closing), TypeError);
  }
});
