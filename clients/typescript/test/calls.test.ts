// Calls, against servers that do what the real one seldom does.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { test } from "node:test";
import { credentials } from "@grpc/grpc-js";
import { Bounds, Closing } from "../src/bounds.js";
import {
  Client,
  milliseconds,
  SubmitRequest,
  SubmitResponse,
  TaskServiceClient,
  TaskState,
  TaskyardError,
  type WaitTaskRequest,
  WaitTaskResponse,
} from "../src/index.js";
import { Messages } from "../src/messages.js";
import { ack, failure, scripted, soon, started, tells } from "./scripted.js";

const LIMIT = { timeout: 20_000 };
const NOOP = { kind: "noop" };
const hang = tells([]);

function failsWith(code: string, reason = "") {
  return (error: unknown) => {
    assert(error instanceof TaskyardError, String(error));
    assert.deepEqual([error.code, error.reason], [code, reason]);
    assert.match(error.message, /^\S[^\n{]*$/);
    return true;
  };
}

test("a submission is repeated as it was", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, soon(), soon(), ack);
  const request = { ...NOOP };
  assert.equal((await client.submit(request)).taskId, "t1");
  assert.deepEqual(request, NOOP);
  const [first, ...others] = requests as SubmitRequest[];
  assert.match(
    first?.requestId ?? "",
    /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-/,
  );
  assert.deepEqual(others, [first, first]);
});

test("a request_id that is given is kept", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, ack);
  await client.submit({ ...NOOP, requestId: "order-1" });
  assert.equal((requests[0] as SubmitRequest).requestId, "order-1");
});

test("a negative pushback ends the tries", LIMIT, async (t) => {
  const never = failure("UNAVAILABLE", "no", { reason: "STORE_FAILED", pushback: "-1" });
  const { client, requests } = await scripted(t, never, ack);
  await assert.rejects(client.submit(NOOP), failsWith("UNAVAILABLE", "STORE_FAILED"));
  assert.equal(requests.length, 1);
});

test("a server that drains for good is asked ten times", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, soon());
  await assert.rejects(client.submit(NOOP), failsWith("UNAVAILABLE", "DRAINING"));
  assert.equal(requests.length, 10);
});

test("a refusal is not repeated", LIMIT, async (t) => {
  const full = failure("RESOURCE_EXHAUSTED", "full", { reason: "QUEUE_FULL", pushback: "0" });
  const { client, requests } = await scripted(t, full);
  await assert.rejects(client.submit(NOOP), failsWith("RESOURCE_EXHAUSTED", "QUEUE_FULL"));
  assert.equal(requests.length, 1);
});

test("generated calls are made once", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, soon());
  await assert.rejects(client.tasks.submit(NOOP), failsWith("UNAVAILABLE", "DRAINING"));
  assert.equal(requests.length, 1);
});

test("a wait is repeated until the task has ended", LIMIT, async (t) => {
  const answer = (state: TaskState) =>
    WaitTaskResponse.fromPartial({
      task: { taskId: "t1", state },
    }) as unknown as SubmitResponse;
  const { client, requests } = await scripted(
    t,
    answer(TaskState.RUNNING),
    soon(),
    answer(TaskState.FAILED),
  );
  assert.equal((await client.wait("t1")).state, TaskState.FAILED);
  for (const { taskId, timeout } of requests as unknown as WaitTaskRequest[]) {
    assert.equal(taskId, "t1");
    assert.equal(timeout && milliseconds(timeout), 300_000);
  }
  assert.equal(requests.length, 3);
});

test("a wait that is over tells the task as it stands", LIMIT, async (t) => {
  const task = { taskId: "t1", state: TaskState.RUNNING };
  const answer = WaitTaskResponse.fromPartial({ task }) as unknown as SubmitResponse;
  const { client } = await scripted(t, answer);
  assert.equal((await client.wait("t1", { upTo: 0 })).state, TaskState.RUNNING);
  await assert.rejects(client.wait("t1", { upTo: Number.NaN }), TypeError);
});

test("a wait asks for what is left of its time", LIMIT, async (t) => {
  const later = failure("UNAVAILABLE", "not now", { reason: "DRAINING", pushback: "300" });
  const answer = WaitTaskResponse.fromPartial({ task: { taskId: "t1" } });
  const { client, requests } = await scripted(t, later, answer as unknown as SubmitResponse);
  await client.wait("t1", { upTo: 1000 });
  const [first = 0, second = 0] = (requests as unknown as WaitTaskRequest[]).map(
    ({ timeout }) => timeout && milliseconds(timeout),
  );
  assert(first > 700 && first <= 1000, `${first}`);
  assert(second > 0 && second <= first - 290, `${second} after ${first}`);
});

test("no rest and no try of a wait begins after its end", LIMIT, async (t) => {
  const later = failure("UNAVAILABLE", "not now", { reason: "DRAINING", pushback: "20000" });
  const { client, requests } = await scripted(t, later);
  const began = performance.now();
  await assert.rejects(client.wait("t1", { upTo: 300 }), failsWith("UNAVAILABLE", "DRAINING"));
  const took = performance.now() - began;
  assert(took >= 290 && took < 3000, `${took}`);
  assert.equal(requests.length, 1);
});

test("a wait that is told at once that it is late does not spin", LIMIT, async (t) => {
  const late = failure("DEADLINE_EXCEEDED", "late", { pushback: "0" });
  const { client, requests } = await scripted(t, late);
  await assert.rejects(client.wait("t1"), failsWith("DEADLINE_EXCEEDED"));
  assert.equal(requests.length, 10);
});

test("a deadline bounds every call", LIMIT, async (t) => {
  const { client } = await scripted(t, hang);
  const deadline = () => new Date(Date.now() + 50);
  const late = failsWith("DEADLINE_EXCEEDED");
  await Promise.all([
    assert.rejects(client.submit(NOOP, { timeout: 50 }), late),
    assert.rejects(client.submit(NOOP, { deadline: deadline() }), late),
    assert.rejects(client.submit(NOOP, { timeout: 0 }), late),
    assert.rejects(client.submit(NOOP, { timeout: -1 }), late),
    assert.rejects(client.submitAndWait(NOOP, { timeout: 50 }), late),
    assert.rejects(client.wait("t1", { timeout: 50 }), late),
    assert.rejects(client.tasks.submit(NOOP, { timeout: 50 }), late),
    assert.rejects(client.tasks.watchEvents({}, { timeout: 50 }).next(), late),
    assert.rejects(client.submitAndWatch(NOOP, { timeout: 50 }).next(), late),
  ]);
});

test("a signal ends every call with its reason, and is let go of", LIMIT, async (t) => {
  const warnings: string[] = [];
  const warn = ({ message }: Error) => warnings.push(message);
  process.on("warning", warn);
  t.after(() => process.off("warning", warn));
  const { client, requests } = await scripted(t, hang);
  const controller = new AbortController();
  const { signal } = controller;
  const calls = Array.from({ length: 30 }, () => client.submit(NOOP, { signal }));
  const streams = [client.tasks.watchEvents({}, { signal }).next()];
  const reason = new Error("enough");
  const ended = [...calls, ...streams].map((call) =>
    assert.rejects(call, (error) => error === reason),
  );
  assert.equal(getEventListeners(signal, "abort").length, 1);
  controller.abort(reason);
  await Promise.all(ended);
  assert.equal(getEventListeners(signal, "abort").length, 0);
  const before = requests.length;
  await assert.rejects(client.submit(NOOP, { signal }), (error) => error === reason);
  assert.equal(requests.length, before);
  // A warning comes a turn later.
  await new Promise(setImmediate);
  assert.deepEqual(warnings, []);
});

test("a call that is answered lets go of its signal", LIMIT, async (t) => {
  const { client } = await scripted(t, ack);
  const { signal } = new AbortController();
  await client.submit(NOOP, { signal, timeout: 60_000 });
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("a timeout longer than any timer is no timeout", LIMIT, async (t) => {
  const { client } = await scripted(t, ack);
  assert.equal((await client.submit(NOOP, { timeout: 2 ** 40 })).taskId, "t1");
});

test("a request that cannot be written is an error, and not a crash", LIMIT, async (t) => {
  const { client } = await scripted(t, ack);
  const wrong = { ...NOOP, priority: "high" as unknown as number };
  await assert.rejects(
    client.submit(wrong),
    /^TypeError: the request cannot be written: invalid int32/,
  );
  await assert.rejects(client.submit(null as unknown as object));
});

test("the requests of a stream that fail end it with their error", LIMIT, async (t) => {
  const { address } = await scripted(t, ack);
  const client = new Client(address);
  t.after(() => client.close());
  let isClosed = false;
  async function* requests() {
    try {
      yield { sequence: 1n, request: NOOP };
      throw new Error("no more tasks");
    } finally {
      isClosed = true;
    }
  }
  const stream = client.tasks.submitStream(requests());
  // The server does not know this call, and may say so first.
  await assert.rejects(stream.next(), /no more tasks|no Taskyard/);
  assert(isClosed);
});

test("what was read ahead comes before the error", async () => {
  const cancel = () => {};
  const call = Object.assign(new Readable({ objectMode: true, read() {} }), { cancel });
  const bounds = new Bounds({}, new Closing());
  const messages = new Messages<string>(call as never, bounds);
  call.push("one");
  call.push("two");
  call.emit("error", new Error("broken"));
  assert.equal(await messages.next(), "one");
  assert.equal(await messages.next(), "two");
  await assert.rejects(messages.next(), /broken/);
});

test("leaving a generated stream ends it", LIMIT, async (t) => {
  const { client, left } = await scripted(t, tells([started()]));
  for await (const message of client.tasks.watchEvents({})) {
    assert.equal(message.cursor, "c0");
    break;
  }
  await left(1);
});

test("gRPC's own retry rides over a restart by the published policy", LIMIT, async (t) => {
  const file = new URL("../../../service-config.json", import.meta.url);
  const config = readFileSync(file, "utf8");
  const { address, requests } = await scripted(
    t,
    failure("UNAVAILABLE", "draining", { pushback: "20" }),
    failure("UNAVAILABLE", "draining"),
    SubmitResponse.fromPartial({ taskId: "t7" }),
  );
  const tasks = new TaskServiceClient(address, credentials.createInsecure(), {
    "grpc.service_config": config,
  });
  t.after(() => tasks.close());
  const request = SubmitRequest.fromPartial({ ...NOOP, requestId: "r1" });
  const answer = await new Promise<SubmitResponse>((resolve, reject) => {
    tasks.submit(request, (error, response) => (error ? reject(error) : resolve(response)));
  });
  assert.equal(answer.taskId, "t7");
  assert.deepEqual(
    (requests as SubmitRequest[]).map(({ requestId }) => requestId),
    ["r1", "r1", "r1"],
  );
});
