/**
 * The client of Taskyard, a durable task service: a thin layer over the generated gRPC code,
 * which stays at hand.
 */

export type { CallOptions } from "./bounds.js";
export type { Calls, Many } from "./calls.js";
export { Client, connect, type Submission, type WaitOptions } from "./client.js";
export { serviceConfig } from "./config.js";
export { duration, milliseconds } from "./duration.js";
export { type Code, TaskyardError, type Violation } from "./error.js";
export { HealthClient, HealthDefinition, HealthService } from "./gen/grpc/health/v1/health.js";
export * from "./gen/taskyard/v1/admin_service.js";
export * from "./gen/taskyard/v1/event.js";
export * from "./gen/taskyard/v1/pool.js";
export * from "./gen/taskyard/v1/queue.js";
export * from "./gen/taskyard/v1/task.js";
export * from "./gen/taskyard/v1/task_service.js";
export { isTerminal } from "./state.js";
export type { Events, Seen, Start, WatchOptions } from "./watch/seen.js";
export { Watcher } from "./watch/watcher.js";
