// Flow control holds up who sends too fast, and ends no connection: with the library's own
// client, as any generated code uses it.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Client, credentials } from "@grpc/grpc-js";
import { EventType } from "../src/gen/taskyard/v1/event.js";
import {
  SubmitStreamRequest,
  SubmitStreamResponse,
  WatchEventsRequest,
  WatchEventsResponse,
} from "../src/gen/taskyard/v1/task_service.js";
import { Server } from "./server.js";

const SERVICE = "/taskyard.v1.TaskService";
const TASKS = 10_000;

for (const size of [0, 40, 300]) {
  test(`a stream of ${size} bytes each that is pushed back keeps its connection`, {
    timeout: 120_000,
  }, async (t) => {
    const data = await mkdtemp(join(tmpdir(), "taskyard-"));
    const server = await Server.start(data, ["--queue-max-tasks", "100", "--workers", "32"]);
    const client = new Client(
      server.address.replace(/^http:\/\//, ""),
      credentials.createInsecure(),
    );
    t.after(async () => {
      client.close();
      await server.end();
      await rm(data, { recursive: true });
    });
    const watch = client.makeServerStreamRequest(
      `${SERVICE}/WatchEvents`,
      (request: WatchEventsRequest) => Buffer.from(WatchEventsRequest.encode(request).finish()),
      (bytes: Buffer) => WatchEventsResponse.decode(bytes),
      WatchEventsRequest.create(),
    );
    const seen = watch[Symbol.asyncIterator]();
    const first: WatchEventsResponse = (await seen.next()).value;
    assert(first.started !== undefined);

    const stream = client.makeBidiStreamRequest(
      `${SERVICE}/SubmitStream`,
      (request: SubmitStreamRequest) =>
        Buffer.from(SubmitStreamRequest.encode(request).finish()),
      (bytes: Buffer) => SubmitStreamResponse.decode(bytes),
    );
    const sent = (async () => {
      for (let sequence = 0; sequence < TASKS; sequence += 1) {
        const request = { kind: "noop", data: Buffer.alloc(size) };
        const message = SubmitStreamRequest.fromPartial({
          sequence: BigInt(sequence),
          request,
        });
        if (!stream.write(message)) {
          await new Promise((resolve) => stream.once("drain", resolve));
        }
      }
      stream.end();
    })();
    const taken: bigint[] = [];
    for await (const message of stream) {
      for (const ack of (message as SubmitStreamResponse).acks) {
        if (ack.ack !== undefined) taken.push(ack.sequence);
      }
    }
    await sent;
    assert.deepEqual(
      taken,
      Array.from({ length: TASKS }, (_, sequence) => BigInt(sequence)),
    );
    // The watch on the same connection has missed nothing.
    let left = TASKS;
    while (left > 0) {
      const { events }: WatchEventsResponse = (await seen.next()).value;
      left -= events.filter(({ type }) => type === EventType.SUCCEEDED).length;
    }
    watch.on("error", () => {});
    watch.cancel();
  });
}
