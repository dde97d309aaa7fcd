// What is no Taskyard, and what says nothing: one clear error each, and nothing hangs.

import assert from "node:assert/strict";
import { createServer as createWeb } from "node:http";
import { createServer as createHttp2 } from "node:http2";
import { createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { Server as Grpc, ServerCredentials } from "@grpc/grpc-js";
import { HealthService } from "../src/gen/grpc/health/v1/health.js";
import { Client, type Code, connect, TaskyardError } from "../src/index.js";
import { failure } from "./scripted.js";

const LIMIT = { timeout: 30_000 };
const NOOP = { kind: "noop" };

/** Serves on a free port until the test ends. */
async function listen(t: TestContext, server: Server): Promise<string> {
  const open = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  const address = server.address();
  assert(address !== null && typeof address === "object");
  return `127.0.0.1:${address.port}`;
}

const saying = (text: string) =>
  createServer((socket) => {
    if (text !== "") socket.write(text);
    socket.resume();
  });

const places: Record<string, (t: TestContext) => Promise<string>> = {
  silent: (t) => listen(t, saying("")),
  ssh: (t) => listen(t, saying("SSH-2.0-OpenSSH_9.6\r\n")),
  closing: (t) =>
    listen(
      t,
      createServer((socket) => socket.destroy()),
    ),
  web: (t) =>
    listen(
      t,
      createWeb((_, response) => response.writeHead(404).end("no")),
    ),
  web2: (t) =>
    listen(
      t,
      createHttp2((_, response) => response.writeHead(404).end("no")),
    ),
  page: (t) =>
    listen(
      t,
      createHttp2((_, response) => response.writeHead(200).end("hello")),
    ),
  blank: (t) =>
    listen(
      t,
      createHttp2((_, response) => response.writeHead(200).end()),
    ),
  async nobody(t) {
    const server = createServer();
    const address = await listen(t, server);
    await new Promise((resolve) => server.close(resolve));
    return address;
  },
  nowhere: async () => "no-such-host.invalid:1",
  "another gRPC": (t) => grpc(t, () => {}),
};

async function grpc(t: TestContext, add: (server: Grpc) => void): Promise<string> {
  const server = new Grpc();
  add(server);
  const port = await new Promise<number>((resolve, reject) => {
    const bound = (error: Error | null, port: number) =>
      error ? reject(error) : resolve(port);
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), bound);
  });
  t.after(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

/** A gRPC server that answers the question for its health with this. */
function healthy(t: TestContext, answer: Error | { status: number }): Promise<string> {
  return grpc(t, (server) =>
    server.addService(HealthService, {
      check: (_: unknown, callback: (error: unknown, value?: unknown) => void) =>
        answer instanceof Error ? callback(answer) : callback(null, answer),
    } as never),
  );
}

function place(name: string, t: TestContext): Promise<string> {
  const at = places[name];
  assert(at);
  return at(t);
}

function isOneLine(error: unknown, code: Code, told: RegExp): true {
  assert(error instanceof TaskyardError, String(error));
  assert.equal(error.code, code, error.message);
  assert.equal(error.reason, "");
  assert.match(error.message, told);
  assert.doesNotMatch(error.message, /[\n{]|No connection established|Resolution note/);
  return true;
}

const greetings: [string, Code, RegExp][] = [
  [
    "silent",
    "UNAVAILABLE",
    /^no server answers at http:\/\/127\.0\.0\.1:\d+: it takes the connection and says nothing$/,
  ],
  ["ssh", "UNAVAILABLE", /^no server answers at http:.*: what it says is not gRPC$/],
  ["closing", "UNAVAILABLE", /^no server answers at http:.*\d: \w/],
  ["web", "UNAVAILABLE", /^no server answers at http:.*: what it says is not gRPC$/],
  ["web2", "UNIMPLEMENTED", /^no Taskyard answers at http:.*: Received HTTP status code 404$/],
  ["page", "RESOURCE_EXHAUSTED", /^no Taskyard answers at http:.*: what it says is not gRPC$/],
  [
    "blank",
    "UNAVAILABLE",
    /^no server answers at http:.*: it ended the call without a status$/,
  ],
  ["nobody", "UNAVAILABLE", /^no server answers at http:.*: connect ECONNREFUSED/],
  ["nowhere", "UNAVAILABLE", /^no server answers at http:\/\/no-such-host\.invalid:1: /],
  [
    "another gRPC",
    "UNIMPLEMENTED",
    /^no Taskyard answers at http:.*: The server does not implement/,
  ],
];

for (const [name, code, told] of greetings) {
  test(`connecting to what is no Taskyard: ${name}`, LIMIT, async (t) => {
    const address = await place(name, t);
    await assert.rejects(connect(address), (error) => isOneLine(error, code, told));
  });
}

test("a server whose health nobody knows is no Taskyard", LIMIT, async (t) => {
  const address = await healthy(t, failure("NOT_FOUND", "unknown service"));
  const told = /^no Taskyard answers at http:.*: unknown service$/;
  await assert.rejects(connect(address), (error) => isOneLine(error, "NOT_FOUND", told));
});

test("a Taskyard that is not well, or drains, is connected to", LIMIT, async (t) => {
  const draining = failure("UNAVAILABLE", "going", { reason: "DRAINING" });
  for (const answer of [{ status: 2 }, draining]) {
    const client = await connect(await healthy(t, answer));
    client.close();
  }
});

test("connecting ends by its deadline, or by its signal", LIMIT, async (t) => {
  const address = await place("silent", t);
  const told = /^connecting to http:.*: the deadline passed before the server answered$/;
  await assert.rejects(connect(address, { timeout: 50 }), (error) =>
    isOneLine(error, "DEADLINE_EXCEEDED", told),
  );
  const controller = new AbortController();
  const connecting = assert.rejects(connect(address, { signal: controller.signal }), {
    name: "AbortError",
  });
  controller.abort();
  await connecting;
  await assert.rejects(connect("https://localhost"), (error) =>
    isOneLine(error, "INVALID_ARGUMENT", /TLS/),
  );
});

test("a call that was given up leaves no timer behind", LIMIT, async (t) => {
  const timers = () =>
    process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const client = new Client(await place("silent", t));
  t.after(() => client.close());
  const before = timers();
  const controller = new AbortController();
  const calls = [1, 2].map(() =>
    assert.rejects(client.submit(NOOP, { signal: controller.signal }), { name: "AbortError" }),
  );
  await new Promise(setImmediate);
  assert(timers() > before);
  controller.abort();
  await Promise.all(calls);
  assert.equal(timers(), before);
});

for (const name of ["silent", "ssh", "closing", "nobody", "blank"]) {
  test(`nothing hangs past its deadline: ${name}`, LIMIT, async (t) => {
    const client = new Client(await place(name, t));
    t.after(() => client.close());
    const options = { timeout: 150 };
    const late = (error: unknown) =>
      isOneLine(error, "DEADLINE_EXCEEDED", /^the deadline passed before the server answered/);
    const read = async (stream: AsyncIterable<unknown>) => {
      for await (const _ of stream);
    };
    await Promise.all([
      assert.rejects(client.submit(NOOP, options), late),
      assert.rejects(client.wait("t1", options), late),
      assert.rejects(client.submitAndWait(NOOP, options), late),
      assert.rejects(read(client.submitAndWatch(NOOP, options)), late),
      assert.rejects(read(client.watch(options)), late),
    ]);
    // Made once: it may fail before.
    await assert.rejects(client.admin.getPool({}, options), TaskyardError);
    await assert.rejects(read(client.tasks.watchEvents({}, options)), TaskyardError);
  });
}

test("without a deadline a silent server is an outage", LIMIT, async (t) => {
  const client = new Client(await place("silent", t));
  t.after(() => client.close());
  const told = /^no server answers: it takes the connection and says nothing$/;
  await assert.rejects(client.admin.getPool({}), (error) =>
    isOneLine(error, "UNAVAILABLE", told),
  );
});

test("another gRPC server is told as what it is", LIMIT, async (t) => {
  const client = new Client(await place("another gRPC", t));
  t.after(() => client.close());
  const told = (error: unknown) =>
    isOneLine(error, "UNIMPLEMENTED", /^what answers is no Taskyard/);
  await assert.rejects(client.submit(NOOP), told);
  await assert.rejects(client.watch().next(), told);
  await assert.rejects(client.submitAndWatch(NOOP).next(), told);
});
