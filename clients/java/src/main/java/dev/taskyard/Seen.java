package dev.taskyard;

import dev.taskyard.v1.Event;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.Task;
import dev.taskyard.v1.WatchGap;
import dev.taskyard.v1.Worker;
import java.util.List;

/** What a watch sees. More may be added; pass over those that you do not know. */
public sealed interface Seen {
  /**
   * The task that is followed was submitted, or had been. Told once.
   *
   * @param response its acknowledgement
   */
  record Submitted(SubmitResponse response) implements Seen {}

  /**
   * The stream stands. Also after an outage before there was a cursor: then the watch begins anew,
   * and a live one does not know what happened in between.
   */
  record Started() implements Seen {}

  /**
   * Events that arrived together.
   *
   * @param events at least one, in commit order
   * @param before resume after it, and these events come again; empty at the very start
   * @param after resume after it, and what follows comes next
   */
  record Events(List<Event> events, String before, String after) implements Seen {}

  /** A snapshot begins, perhaps again: what an earlier one told is void. */
  record SnapshotBegun() implements Seen {}

  /**
   * A part of the snapshot.
   *
   * @param tasks that have not ended, in the order of submission
   * @param workers the pool, in the first parts
   */
  record Snapshot(List<Task> tasks, List<Worker> workers) implements Seen {}

  /** The snapshot is complete; what follows are events. */
  record SnapshotEnded() implements Seen {}

  /** What had happened when the watch was opened has been seen. */
  record CaughtUp() implements Seen {}

  /** Nothing has happened that the filter lets through; the cursor went on. */
  record Heartbeat() implements Seen {}

  /**
   * Events are missing here, as they are no longer kept.
   *
   * @param gap where
   */
  record Gap(WatchGap gap) implements Seen {}

  /** The server began to drain; the stream is about to be lost. */
  record Draining() implements Seen {}

  /**
   * The stream broke. It is tried again; told once, until it stands.
   *
   * @param cause why
   */
  record Lost(TaskyardException cause) implements Seen {}

  /** The watch goes on, exactly where it had stopped. Instead of {@link Started}. */
  record Restored() implements Seen {}
}
