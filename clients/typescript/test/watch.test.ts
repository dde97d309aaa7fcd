// The watch, against servers that do what the real one seldom does.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { type TestContext, test } from "node:test";
import { Closing } from "../src/bounds.js";
import { Connection } from "../src/connection.js";
import {
  EventType,
  GapPolicy,
  milliseconds,
  type Seen,
  type SubmitRequest,
  TaskState,
  TaskyardError,
  type WatchEventsRequest,
  type WatchOptions,
  WatchStart,
} from "../src/index.js";
import { type Inside, Watcher } from "../src/watch/watcher.js";
import {
  events,
  failure,
  message,
  type Part,
  scripted,
  soon,
  started,
  tells,
} from "./scripted.js";

const LIMIT = { timeout: 20_000 };

/** What a watch tells, up to this many or to its end. */
async function told(watcher: Watcher, count = Infinity): Promise<string[]> {
  const all: string[] = [];
  while (all.length < count) {
    const { value, done } = await watcher.next();
    if (done) return all;
    all.push(name(value));
  }
  await watcher.close();
  return all;
}

function name(seen: Seen): string {
  if (seen.type !== "events") return seen.type;
  return `${seen.before}>${seen.events.map(({ seq }) => seq)}>${seen.after}`;
}

/** A watch of a script, of which a test may set the inside. */
async function watched(
  t: TestContext,
  options: WatchOptions,
  inside: Inside,
  ...script: Part[]
) {
  const server = await scripted(t, ...script);
  const closing = new Closing();
  const connection = new Connection(server.address, closing);
  t.after(() => {
    closing.close();
    connection.close();
  });
  return { server, watcher: new Watcher(connection, options, inside), closing, connection };
}

const asked = (request: SubmitRequest | WatchEventsRequest | undefined) =>
  request as WatchEventsRequest;

test(
  "the cursor of every message counts, and a broken watch goes on after it",
  LIMIT,
  async (t) => {
    const { client, requests } = await scripted(
      t,
      tells([started("c1"), message("c2", { heartbeat: {} }), events("c4", 3, 4)], soon()),
      tells([started("c4"), message("c5")], soon()),
      tells([message("c5", { draining: {} }), events("c6", 6)]),
    );
    const watcher = client.watch({ heartbeat: 2500, overGaps: true });
    assert.equal(watcher.cursor, undefined);
    const seen = await told(watcher, 9);
    const first = ["started", "heartbeat", "c2>3,4>c4"];
    const rest = ["lost", "restored", "lost", "restored", "draining", "c5>6>c6"];
    assert.deepEqual(seen, [...first, ...rest]);
    assert.equal(watcher.cursor, "c6");
    const [live, again, third] = requests.map(asked);
    assert.deepEqual([live?.start, live?.afterCursor], [WatchStart.LIVE, ""]);
    assert.equal(live?.gapPolicy, GapPolicy.CONTINUE);
    assert(live?.heartbeatInterval && milliseconds(live.heartbeatInterval) === 2500);
    assert.deepEqual([again?.start, again?.afterCursor], [WatchStart.UNSPECIFIED, "c4"]);
    assert.equal(third?.afterCursor, "c5");
  },
);

test("until there is a cursor a watch begins as it began at first", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, soon(), soon(), tells([started("c0")]));
  const filter = { queues: ["mail"], types: [EventType.FAILED] };
  const watcher = client.watch({ start: "oldest", filter });
  assert.deepEqual(await told(watcher, 2), ["lost", "started"]);
  for (const request of requests.map(asked)) {
    assert.equal(request.start, WatchStart.OLDEST);
    assert.deepEqual(
      [request.filter?.queues, request.filter?.types],
      [["mail"], [EventType.FAILED]],
    );
  }
  assert.equal(requests.length, 3);
});

test("a broken snapshot is told anew", LIMIT, async (t) => {
  const part = message("", { snapshot: { tasks: [{ taskId: "t1" }], workers: [{}] } });
  const { client, requests } = await scripted(
    t,
    tells([started(""), part], soon()),
    tells([started(""), part, message("c7", { snapshotEnd: {} })], soon()),
    tells([started("c7"), events("c8", 8)]),
  );
  const seen = await told(client.watch({ start: "snapshot" }), 9);
  const begun = ["snapshotBegun", "snapshot"];
  const later = ["snapshotEnded", "lost", "restored", "c7>8>c8"];
  assert.deepEqual(seen, [...begun, "lost", ...begun, ...later]);
  const [first, second, third] = requests.map(asked);
  assert.deepEqual([first?.includeSnapshot, second?.includeSnapshot], [true, true]);
  assert.deepEqual([third?.includeSnapshot, third?.afterCursor], [false, "c7"]);
});

test("an end without a status is an outage", LIMIT, async (t) => {
  const { client } = await scripted(t, tells([started()], "end"), tells([started()]));
  assert.deepEqual(await told(client.watch(), 3), ["started", "lost", "restored"]);
});

test("it ends where it may, and there is a gap", LIMIT, async (t) => {
  const gap = message("c9", { gap: { fromCursor: "c5", toCursor: "c9", missingEvents: 4n } });
  const { client, requests } = await scripted(
    t,
    // Caught up, but broken off before its end: it has to catch up again.
    tells([started("c5"), gap, message("", { caughtUp: {} })], soon()),
    tells([started("c9")], "end"),
    tells([started("c9"), message("", { caughtUp: {} })], "end"),
  );
  const watcher = client.watch({ untilCaughtUp: true });
  const seen = await told(watcher);
  const first = ["started", "gap", "caughtUp"];
  assert.deepEqual(seen, [...first, "lost", "restored", "lost", "restored", "caughtUp"]);
  assert.equal(asked(requests[1]).stopWhenCaughtUp, true);
  assert.deepEqual(await watcher.next(), { done: true, value: undefined });
});

test("a lifetime and a stall are no outage, and a full house is one", LIMIT, async (t) => {
  const stalled = failure("RESOURCE_EXHAUSTED", "slow", { reason: "WATCH_STALLED" });
  const crowded = failure("RESOURCE_EXHAUSTED", "full", {
    reason: "TOO_MANY_WATCHERS",
    pushback: "0",
  });
  const { client } = await scripted(
    t,
    tells([started("c0")], soon("WATCH_LIFETIME")),
    tells([started("c0")], stalled),
    tells([started("c0")], crowded),
    tells([started("c0")]),
  );
  const seen = await told(client.watch(), 5);
  assert.deepEqual(seen, ["started", "started", "started", "lost", "restored"]);
  const { client: other } = await scripted(t, crowded);
  await assert.rejects(told(other.watch()), /full \(TOO_MANY_WATCHERS\)/);
});

test("what is of no use to try again ends the watch", LIMIT, async (t) => {
  const expired = failure("OUT_OF_RANGE", "too old", { reason: "CURSOR_EXPIRED" });
  const { client, requests } = await scripted(t, expired);
  const watcher = client.watch({ after: "c1" });
  await assert.rejects(watcher.next(), (error) => {
    assert(error instanceof TaskyardError);
    assert.equal(error.reason, "CURSOR_EXPIRED");
    return true;
  });
  assert.deepEqual(await watcher.next(), { done: true, value: undefined });
  assert.equal(requests.length, 1);
  assert.equal(asked(requests[0]).afterCursor, "c1");
});

test("messages that were told before the error come before it", LIMIT, async (t) => {
  const many = Array.from({ length: 100 }, (_, index) => events(`c${index}`, index + 1));
  const wrong = failure("INTERNAL", "unreadable", { reason: "HISTORY_UNREADABLE" });
  const { client } = await scripted(t, tells(many, wrong));
  let last = 0n;
  await assert.rejects(async () => {
    for await (const event of client.watch().events()) last = event.seq;
  }, /HISTORY_UNREADABLE/);
  assert.equal(last, 100n);
});

test("silence is an outage, and is tried again on a new connection", LIMIT, async (t) => {
  const peers = new Set<string>();
  const from = (part: ReturnType<typeof tells>) => (call: Parameters<typeof part>[0]) => {
    peers.add(call.getPeer());
    part(call);
  };
  const script = [from(tells([started("c0")])), from(tells([started("c0"), events("c1", 1)]))];
  const { server, watcher } = await watched(t, { heartbeat: 20 }, { grace: 1000 }, ...script);
  assert.deepEqual(name((await watcher.next()).value as Seen), "started");
  const lost = (await watcher.next()).value as Seen;
  assert.equal(lost.type === "lost" && lost.error.message, "the server has gone silent");
  assert.deepEqual(await told(watcher, 2), ["restored", "c0>1>c1"]);
  await server.left(2);
  assert(peers.size > 1);
});

test("a call that is not answered is an outage", LIMIT, async (t) => {
  const { watcher } = await watched(t, { maxOutage: 0 }, { grace: 200 }, tells([]));
  await assert.rejects(watcher.next(), /the server does not answer/);
});

const submitted = (cursor: string, state = TaskState.QUEUED) =>
  message(cursor, { submitted: { taskId: "t1", state } });
const one = (seq: number, type: EventType) =>
  message(`c${seq}`, { events: [{ seq: BigInt(seq), taskId: "t1", type }] });

test(
  "until a task was told to be submitted, the same request is repeated",
  LIMIT,
  async (t) => {
    const { client, requests } = await scripted(
      t,
      soon(),
      tells([], soon()),
      tells([submitted("c1"), one(2, EventType.STARTED), one(3, EventType.SUCCEEDED)], "end"),
    );
    const seen = await told(client.submitAndWatch({ kind: "noop" }));
    assert.deepEqual(seen, ["lost", "restored", "submitted", "c1>2>c2", "c2>3>c3"]);
    assert.deepEqual(requests[1], requests[0]);
    assert.deepEqual(requests[2], requests[0]);
    assert.match((requests[0] as SubmitRequest).requestId, /^[0-9a-f-]{36}$/);
  },
);

test("a task that was submitted is watched over an outage to its end", LIMIT, async (t) => {
  const { client, requests, left } = await scripted(
    t,
    tells([submitted("c1"), one(2, EventType.STARTED)], soon()),
    tells([started("c2"), message("c2", { caughtUp: {} })], soon("WATCH_LIFETIME")),
    // It goes on for ever.
    tells([started("c2"), one(3, EventType.SUCCEEDED)]),
  );
  const seen = await told(client.submitAndWatch({ kind: "noop" }));
  assert.deepEqual(seen, ["submitted", "c1>2>c2", "lost", "restored", "c2>3>c3"]);
  await left(1);
  assert.equal(requests.length, 3);
  for (const request of requests.slice(1).map(asked)) {
    assert.equal(request.afterCursor, "c2");
    assert.deepEqual(request.filter?.taskIds, ["t1"]);
    assert.equal(request.gapPolicy, GapPolicy.FAIL);
    assert.equal(request.stopWhenCaughtUp, false);
    assert(request.heartbeatInterval && milliseconds(request.heartbeatInterval) === 15_000);
  }
});

test("a task whose end was told is not looked for again", LIMIT, async (t) => {
  const script = tells([submitted("c1"), one(2, EventType.CANCELLED)], soon());
  const { client, requests } = await scripted(t, script);
  const seen = await told(client.submitAndWatch({ kind: "noop" }));
  assert.deepEqual(seen, ["submitted", "c1>2>c2"]);
  assert.equal(requests.length, 1);
});

test(
  "of a task that had ended before, what is kept is told over an outage",
  LIMIT,
  async (t) => {
    const { client, requests } = await scripted(
      t,
      tells([submitted("c1", TaskState.FAILED)], soon()),
      tells([started("c9"), message("c9", { caughtUp: {} })], "end"),
    );
    const seen = await told(client.submitAndWatch({ kind: "noop" }));
    assert.deepEqual(seen, ["submitted", "lost", "restored"]);
    assert.equal(asked(requests[1]).stopWhenCaughtUp, true);
  },
);

test("a try to go on is waited for no longer than the longest outage", LIMIT, async (t) => {
  const { client } = await scripted(t, tells([started("c0")], soon()), tells([]));
  const began = performance.now();
  await assert.rejects(told(client.watch({ maxOutage: 500 })), /the server does not answer/);
  const took = performance.now() - began;
  assert(took < 3000, `${took}`);
});

test("a stream of which much is unread can be left", LIMIT, async (t) => {
  const labels = { a: "b".repeat(50_000) };
  const big = message("c1", { events: [{ seq: 1n, labels }] });
  const { client, left } = await scripted(t, tells(Array.from({ length: 500 }, () => big)));
  const watcher = client.watch();
  await watcher.next();
  await watcher.close();
  await left(1);
});

test("whoever leaves the loop ends the stream", LIMIT, async (t) => {
  const { client, left } = await scripted(t, tells([started()]));
  for await (const _ of client.watch()) break;
  await left(1);
});

test(
  "a watch that is waited for can be closed, by whoever has it or by its client",
  LIMIT,
  async (t) => {
    const { client, left } = await scripted(t, tells([started()]));
    const watcher = client.watch();
    await watcher.next();
    const waiting = watcher.next();
    await watcher.close();
    assert.deepEqual(await waiting, { done: true, value: undefined });
    await left(1);
    const other = client.watch();
    await other.next();
    const inVain = assert.rejects(other.next(), /the client is closed/);
    const idle = client.watch();
    await idle.next();
    client.close();
    await inVain;
    await left(3);
    await assert.rejects(client.watch().next(), /the client is closed/);
    await assert.rejects(client.submit({ kind: "noop" }), /the client is closed/);
  },
);

test("a watch that has not begun can be closed", LIMIT, async (t) => {
  const { client, requests } = await scripted(t, tells([started()]));
  const watcher = client.watch();
  await watcher.close();
  assert.deepEqual(await watcher.next(), { done: true, value: undefined });
  assert.equal(requests.length, 0);
});

test("a signal and a timeout end a watch, and leave no listener behind", LIMIT, async (t) => {
  const { client, left } = await scripted(t, tells([started()]));
  const controller = new AbortController();
  const watcher = client.watch({ signal: controller.signal });
  await watcher.next();
  assert.equal(getEventListeners(controller.signal, "abort").length, 1);
  const reason = new Error("enough");
  const waiting = assert.rejects(watcher.next(), (error) => error === reason);
  controller.abort(reason);
  await waiting;
  await left(1);
  assert.equal(getEventListeners(controller.signal, "abort").length, 0);
  await assert.rejects(client.watch({ signal: controller.signal }).next(), reason);
  const late = client.watch({ timeout: 50 });
  await assert.rejects(told(late), (error) => {
    assert(error instanceof TaskyardError);
    assert.equal(error.code, "DEADLINE_EXCEEDED");
    return true;
  });
  const brief = { signal: new AbortController().signal };
  for await (const _ of client.watch(brief)) break;
  assert.equal(getEventListeners(brief.signal, "abort").length, 0);
});

test("a server that dies is waited for no longer than the longest outage", LIMIT, async (t) => {
  const { client, kill } = await scripted(t, tells([started("c0")]));
  const watcher = client.watch({ maxOutage: 200 });
  await watcher.next();
  kill();
  const lost = await watcher.next();
  assert.equal(lost.value?.type, "lost");
  await assert.rejects(told(watcher), (error) => {
    assert(error instanceof TaskyardError);
    assert.equal(error.code, "UNAVAILABLE");
    assert.match(error.message, /^no server answers: connect ECONNREFUSED/);
    return true;
  });
});

test("a beginning is one of those that are", async (t) => {
  const { client } = await scripted(t, soon());
  for (const wrong of [
    { start: "yesterday" },
    { start: "oldest", after: "c1" },
    { heartbeat: Number.NaN },
    { maxOutage: "long" },
    { timeout: Number.NaN },
  ]) {
    assert.throws(() => client.watch(wrong as WatchOptions), TypeError);
  }
});
