// States of tasks.

import { TaskState } from "./gen/taskyard/v1/task.js";

const TERMINAL: ReadonlySet<TaskState> = new Set([
  TaskState.SUCCEEDED,
  TaskState.FAILED,
  TaskState.CANCELLED,
]);

/** Whether a task in this state has ended. */
export function isTerminal(state: TaskState): boolean {
  return TERMINAL.has(state);
}
