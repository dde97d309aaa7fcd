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
  duration,
  milliseconds,
  SubmitRequest,
  SubmitResponse,
  serviceConfig,
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

test("a server that drains is asked as often as it takes", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, ...Array(12).fill(soon()), ack);
  await client.submit(NOOP);
  assert.equal(requests.length, 13);
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
  const { client, requests } = await scripted(t, failure("DEADLINE_EXCEEDED", "late", {}));
  await assert.rejects(client.wait("t1", { timeout: 3000 }), failsWith("DEADLINE_EXCEEDED"));
  // With rests of 50 ms, 100 ms, 200 ms and so on, at the least.
  assert(requests.length >= 3 && requests.length <= 7, `${requests.length} calls`);
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

test("a task that is not done in time is named by the error", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, ack, hang);
  await assert.rejects(client.submitAndWait(NOOP, { timeout: 200 }), {
    name: "TaskyardError",
    message: "the task t1 was not done in time",
    code: "DEADLINE_EXCEEDED",
    metadata: { task_id: "t1" },
  });
  assert.equal(requests.length, 2);
  const lost = await scripted(t, ack, failure("UNAVAILABLE", "no", { pushback: "5000" }));
  await assert.rejects(lost.client.submitAndWait(NOOP, { timeout: 200 }), {
    message:
      "the task t1 was not done in time; before that: the connection to the server was lost: no",
    metadata: { task_id: "t1" },
  });
  await assert.rejects(client.submitAndWait(NOOP, { signal: AbortSignal.timeout(50) }), {
    name: "TimeoutError",
  });
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
});

test("a name that is none, and a value that is none, is a TypeError", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, ack);
  const tasks: [unknown, string][] = [
    [undefined, "a task is needed"],
    [null, "a task is needed"],
    ["noop", 'a task is an object, such as { kind: "noop" }, not "noop"'],
    [{ ...NOOP, request_id: "a" }, "a task has no field request_id: did you mean requestId?"],
    [{ ...NOOP, prioritty: 1 }, "a task has no field prioritty: did you mean priority?"],
    [{ ...NOOP, knid: 1 }, "a task has no field knid: did you mean kind?"],
    [{ ...NOOP, toString: 1 }, "a task has no field toString"],
    [
      { ...NOOP, retry: { max_attempts: 2 } },
      "a task has no field retry.max_attempts: did you mean maxAttempts?",
    ],
    [{ ...NOOP, retry: 3 }, "retry is not an object, but 3"],
    [{ ...NOOP, delay: 5000 }, "delay is no duration: write duration(5000)"],
    [{ ...NOOP, timeout: "5s" }, 'timeout is no duration: write duration("5s")'],
    [
      { ...NOOP, timeout: { seconds: 5 } },
      'timeout is no duration: write duration("1.5s") or duration(1500)',
    ],
    [
      { ...NOOP, retry: { maxBackoff: 100 } },
      "retry.maxBackoff is no duration: write duration(100)",
    ],
    [{ ...NOOP, args: "x" }, 'args is not a plain object, but "x"'],
    [{ ...NOOP, args: [1] }, "args is not a plain object, but a list"],
    [{ ...NOOP, args: new Map() }, "args is not a plain object, but a Map"],
  ];
  for (const [wrong, message] of tasks) {
    const told = { name: "TypeError", message };
    await assert.rejects(client.submit(wrong as object), told);
    await assert.rejects(client.submitAndWait(wrong as object), told);
    assert.throws(() => client.submitAndWatch(wrong as object), told);
  }
  const options: [unknown, string][] = [
    [{ timeot: 5 }, "there is no option timeot: did you mean timeout?"],
    [{ nobody: 5 }, "there is no option nobody"],
    [5, "the options are an object, such as { timeout: 5000 }, not 5"],
    [null, "the options are an object, such as { timeout: 5000 }, not null"],
  ];
  for (const [wrong, message] of options) {
    const told = { name: "TypeError", message };
    await assert.rejects(client.submit(NOOP, wrong as object), told);
    await assert.rejects(client.submitAndWait(NOOP, wrong as object), told);
    assert.throws(() => client.submitAndWatch(NOOP, wrong as object), told);
    assert.throws(() => client.watch(wrong as object), told);
    await assert.rejects(client.wait("t1", wrong as object), told);
    await assert.rejects(client.greet(wrong as object), told);
    await assert.rejects(client.tasks.submit(NOOP, wrong as object), told);
  }
  const filters: [unknown, string][] = [
    [{ queue: [] }, "there is no option filter.queue: did you mean queues?"],
    [{ task_ids: [] }, "there is no option filter.task_ids: did you mean taskIds?"],
    [{ queues: "mail" }, 'filter.queues is not a list, but "mail"'],
    [["mail"], "filter is not an object, but a list"],
  ];
  for (const [filter, message] of filters) {
    const wrong = { filter } as object;
    assert.throws(() => client.watch(wrong), { name: "TypeError", message });
  }
  assert.equal(requests.length, 0);
  const all = SubmitRequest.create({ ...NOOP, delay: duration(5), retry: { maxAttempts: 2 } });
  await client.submit(all, { timeout: undefined, signal: undefined });
  await client.submit(Object.assign(Object.create(null), NOOP, { nobody: undefined }));
  assert.equal(requests.length, 2);
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
  assert.deepEqual(JSON.parse(serviceConfig), JSON.parse(readFileSync(file, "utf8")));
  const { address, requests } = await scripted(
    t,
    failure("UNAVAILABLE", "draining", { pushback: "20" }),
    failure("UNAVAILABLE", "draining"),
    SubmitResponse.fromPartial({ taskId: "t7" }),
  );
  const tasks = new TaskServiceClient(address, credentials.createInsecure(), {
    "grpc.service_config": serviceConfig,
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
