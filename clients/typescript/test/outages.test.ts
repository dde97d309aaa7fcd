// The rules of outages and of a followed task, step by step, by a clock that the test sets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Code, EventType, SubmitRequest, TaskState, TaskyardError } from "../src/index.js";
import { Followed } from "../src/watch/followed.js";
import { LEAST_TRY, Outages } from "../src/watch/outages.js";
import { message } from "./scripted.js";

function broken(reason = "", code: Code = "UNAVAILABLE", more: object = {}): TaskyardError {
  return new TaskyardError(code, "broken", { reason, ...more });
}

test("an outage is told once, and its tries rest longer and longer", () => {
  const outages = new Outages(60_000);
  for (let failures = 1; failures <= 6; failures++) {
    assert.equal(outages.lose(broken(), 1000), failures === 1);
    const whole = Math.min(100 * 2 ** (failures - 1), 5000);
    const rest = outages.restUntil - 1000;
    assert(rest >= whole / 2 && rest <= whole, `${rest} after ${failures}`);
  }
});

test("news of a stream that stands are told once", () => {
  const outages = new Outages(60_000);
  assert.equal(outages.stands(0), false);
  outages.lose(broken(), 0);
  assert.equal(outages.stands(1), true);
  assert.equal(outages.stands(2), false);
  assert.equal(outages.lose(broken(), 3), true);
});

test("a stream that is accepted and dropped, again and again, is still an outage", () => {
  const outages = new Outages(5000);
  outages.lose(broken(), 0);
  for (let now = 500; now <= 4000; now += 500) {
    outages.stands(now);
    outages.lose(broken("", "UNAVAILABLE", { retryAfter: 0 }), now + 400);
  }
  outages.stands(5000);
  assert.throws(() => outages.lose(broken(), 5400), /broken/);
});

test("a stream that has stood for a second ends the outage", () => {
  const outages = new Outages(5000);
  outages.lose(broken(), 0);
  outages.lose(broken(), 3000);
  outages.stands(4000);
  outages.lose(broken(), 5000);
  assert(outages.restUntil <= 5100);
  outages.lose(broken(), 9500);
});

test("a lifetime that ends does not count as standing until the next loss", () => {
  const outages = new Outages(5000);
  const lifetime = broken("WATCH_LIFETIME", "UNAVAILABLE", { retryAfter: 0 });
  outages.lose(broken(), 0);
  outages.stands(100);
  outages.lose(lifetime, 200);
  outages.stands(4000);
  assert.throws(() => outages.lose(broken(), 4990), /broken/);
  // One that has stood long enough ends the outage, also if it ends by its lifetime.
  const steady = new Outages(5000);
  steady.lose(broken(), 0);
  steady.stands(100);
  steady.lose(lifetime, 1100);
  assert.equal(steady.grace(4000, 5000), 5000);
  assert.equal(steady.lose(broken(), 6000), true);
});

test("a try is not waited for beyond the longest outage", () => {
  const outages = new Outages(7000);
  assert.equal(outages.grace(0, 5000), 5000);
  outages.lose(broken(), 0);
  assert.equal(outages.grace(1000, 5000), 5000);
  assert.equal(outages.grace(5000, 5000), 2000);
  assert.equal(outages.grace(6990, 5000), LEAST_TRY);
});

test("the server may ask for a rest, or for no other try", () => {
  const outages = new Outages(60_000);
  outages.lose(broken("DRAINING", "UNAVAILABLE", { retryAfter: 2000 }), 10);
  assert.equal(outages.restUntil, 2010);
  outages.lose(broken("DRAINING", "UNAVAILABLE", { retryAfter: 0 }), 3000);
  assert.equal(outages.restUntil, 3010);
  assert.throws(() => outages.lose(broken("", "UNAVAILABLE", { mayRetry: false }), 4000));
  const stalled = broken("WATCH_STALLED", "RESOURCE_EXHAUSTED", { mayRetry: false });
  assert.throws(() => new Outages(60_000).lose(stalled, 0));
});

test("maxOutage ends the watch, before a rest that is longer", () => {
  const outages = new Outages(10_000);
  outages.lose(broken(), 0);
  outages.lose(broken(), 9000);
  assert.throws(() => outages.lose(broken(), 9990), /broken/);
  assert.throws(() => new Outages(0).lose(broken(), 0), /broken/);
  const late = broken("", "UNAVAILABLE", { retryAfter: 2000 });
  assert.throws(() => new Outages(1000).lose(late, 0), /broken/);
});

test("crowded is an outage once a stream has stood", () => {
  const crowded = broken("TOO_MANY_WATCHERS", "RESOURCE_EXHAUSTED");
  assert.throws(() => new Outages(60_000).lose(crowded, 0));
  const outages = new Outages(60_000);
  outages.lose(broken(), 0);
  assert.throws(() => outages.lose(crowded, 1));
  const later = new Outages(60_000);
  later.stands(0);
  assert.equal(later.lose(crowded, 5000), true);
});

test("a lifetime and a stall are no outage", () => {
  for (const one of [broken("WATCH_LIFETIME"), broken("WATCH_STALLED", "RESOURCE_EXHAUSTED")]) {
    const outages = new Outages(0);
    assert.equal(outages.lose(one, 50), false);
    assert.equal(outages.restUntil, 60);
    assert.equal(outages.stands(60), false);
    const asks = new TaskyardError(one.code, "no", { reason: one.reason, retryAfter: 3000 });
    assert.equal(outages.lose(asks, 100), false);
    assert.equal(outages.restUntil, 3100);
  }
});

test("everything else ends the watch", () => {
  for (const reason of ["CURSOR_EXPIRED", "CURSOR_FROM_ANOTHER_STORE", "INVALID_FIELDS", ""]) {
    assert.throws(() => new Outages(60_000).lose(broken(reason, "OUT_OF_RANGE"), 0), /broken/);
  }
});

test("a task that is followed is told once", () => {
  const followed = new Followed(SubmitRequest.fromPartial({ kind: "noop", requestId: "r" }));
  const first = message("c1", { submitted: { taskId: "t1", state: TaskState.QUEUED } });
  const later = (...seqs: number[]) =>
    message("c2", {
      events: seqs.map((seq) => ({ seq: BigInt(seq), type: EventType.STARTED })),
    });
  const seqs = (...told: number[]) =>
    followed.withoutTheKnown(later(...told)).events.map(({ seq }) => Number(seq));
  assert.equal(followed.withoutTheKnown(first).submitted?.taskId, "t1");
  assert.deepEqual(seqs(1, 2), [1, 2]);
  assert.equal(followed.withoutTheKnown(first).submitted, undefined);
  assert.deepEqual(seqs(1, 2, 5), [5]);
  assert.equal(followed.hasEnded, false);
  const end = message("c3", { events: [{ seq: 6n, type: EventType.FAILED }] });
  followed.withoutTheKnown(end);
  assert.equal(followed.hasEnded, true);
});

test("a task that ended long ago may have no events", () => {
  const followed = new Followed(SubmitRequest.create());
  followed.withoutTheKnown(message("c1", { submitted: { state: TaskState.SUCCEEDED } }));
  assert.equal(followed.hasEnded, true);
});
