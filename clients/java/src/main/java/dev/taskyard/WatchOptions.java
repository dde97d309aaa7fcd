package dev.taskyard;

import dev.taskyard.v1.EventFilter;
import dev.taskyard.v1.GapPolicy;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchStart;
import java.time.Duration;
import java.util.Objects;

/**
 * What to watch, and how stubbornly. Begins with {@link #live}, {@link #oldest}, {@link #snapshot}
 * or {@link #after}; what the other methods change is a copy.
 *
 * @param start where to begin
 * @param filter only these events; all if it sets nothing
 * @param untilCaughtUp end once every event was seen that had happened when the watch began, or
 *     when it was last opened
 * @param overGaps go on after events that are no longer kept, with {@link Seen.Gap}, rather than
 *     end with {@code CURSOR_EXPIRED}
 * @param heartbeat silence before the server sends a heartbeat: 100 ms to 1 h, 15 s at first
 * @param maxOutage the longest outage that is waited for, 1 min at first; with zero, the first one
 *     ends the watch
 */
public record WatchOptions(
    Start start,
    EventFilter filter,
    boolean untilCaughtUp,
    boolean overGaps,
    Duration heartbeat,
    Duration maxOutage) {

  /** Where a watch begins. */
  public sealed interface Start {
    /** With the next event. */
    record Live() implements Start {}

    /** With the oldest event that is kept. */
    record Oldest() implements Start {}

    /** With the tasks and workers as they stand, then the events after them. */
    record Snapshot() implements Start {}

    /**
     * After a cursor.
     *
     * @param cursor of what was seen last
     */
    record After(String cursor) implements Start {}
  }

  /**
   * Needs all of them.
   *
   * @param start where to begin
   * @param filter only these events
   * @param untilCaughtUp whether to end there
   * @param overGaps whether to go on after them
   * @param heartbeat silence before the server sends one
   * @param maxOutage the longest outage that is waited for
   */
  public WatchOptions {
    Objects.requireNonNull(start, "start");
    Objects.requireNonNull(filter, "filter");
    Objects.requireNonNull(heartbeat, "heartbeat");
    Objects.requireNonNull(maxOutage, "maxOutage");
  }

  /**
   * All events from the next one on.
   *
   * @return with the usual heartbeat and the usual bound of an outage
   */
  public static WatchOptions live() {
    return from(new Start.Live());
  }

  /**
   * All events from the oldest one on that is kept.
   *
   * @return with the usual heartbeat and the usual bound of an outage
   */
  public static WatchOptions oldest() {
    return from(new Start.Oldest());
  }

  /**
   * The tasks and workers as they stand, then the events after them.
   *
   * @return with the usual heartbeat and the usual bound of an outage
   */
  public static WatchOptions snapshot() {
    return from(new Start.Snapshot());
  }

  /**
   * All events after a cursor.
   *
   * @param cursor of what was seen last
   * @return with the usual heartbeat and the usual bound of an outage
   */
  public static WatchOptions after(String cursor) {
    return from(new Start.After(cursor));
  }

  private static WatchOptions from(Start start) {
    EventFilter all = EventFilter.getDefaultInstance();
    return new WatchOptions(
        start, all, false, false, Duration.ofSeconds(15), Duration.ofMinutes(1));
  }

  /**
   * A copy that begins elsewhere.
   *
   * @param start where
   * @return the copy
   */
  public WatchOptions withStart(Start start) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  /**
   * A copy that sees only some events.
   *
   * @param filter which
   * @return the copy
   */
  public WatchOptions withFilter(EventFilter filter) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  /**
   * A copy that ends, or not, once it has caught up.
   *
   * @param untilCaughtUp whether
   * @return the copy
   */
  public WatchOptions withUntilCaughtUp(boolean untilCaughtUp) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  /**
   * A copy that goes on, or not, after events that are no longer kept.
   *
   * @param overGaps whether
   * @return the copy
   */
  public WatchOptions withOverGaps(boolean overGaps) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  /**
   * A copy with another heartbeat.
   *
   * @param heartbeat 100 ms to 1 h
   * @return the copy
   */
  public WatchOptions withHeartbeat(Duration heartbeat) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  /**
   * A copy with another bound of an outage.
   *
   * @param maxOutage the longest outage that is waited for
   * @return the copy
   */
  public WatchOptions withMaxOutage(Duration maxOutage) {
    return new WatchOptions(start, filter, untilCaughtUp, overGaps, heartbeat, maxOutage);
  }

  WatchEventsRequest request() {
    WatchEventsRequest.Builder request =
        WatchEventsRequest.newBuilder()
            .setHeartbeatInterval(proto(heartbeat))
            .setStopWhenCaughtUp(untilCaughtUp)
            .setGapPolicy(overGaps ? GapPolicy.GAP_POLICY_CONTINUE : GapPolicy.GAP_POLICY_FAIL);
    if (!filter.equals(EventFilter.getDefaultInstance())) {
      request.setFilter(filter);
    }
    if (start instanceof Start.After after) {
      request.setAfterCursor(after.cursor());
    } else if (start instanceof Start.Oldest) {
      request.setStart(WatchStart.WATCH_START_OLDEST);
    } else if (start instanceof Start.Live) {
      request.setStart(WatchStart.WATCH_START_LIVE);
    } else {
      request.setIncludeSnapshot(true);
    }
    return request.build();
  }

  static com.google.protobuf.Duration proto(Duration span) {
    return com.google.protobuf.Duration.newBuilder()
        .setSeconds(span.getSeconds())
        .setNanos(span.getNano())
        .build();
  }
}
