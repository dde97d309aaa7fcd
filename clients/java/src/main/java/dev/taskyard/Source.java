package dev.taskyard;

import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchEventsResponse;

/**
 * Where a watch has its streams and its time from. There is at most one stream. All but {@link
 * #close} is for one thread. Times are in nanoseconds, from a beginning of its own.
 */
interface Source {
  /** What a stream brings. */
  sealed interface Got {
    /** The server has answered the call. */
    record Answer() implements Got {}

    /** A message. */
    record Message(WatchEventsResponse message) implements Got {}

    /** The end; why is null if the server ended it well. */
    record End(TaskyardException why) implements Got {}

    /** The watch was closed. */
    record Closed() implements Got {}
  }

  long now();

  /** Rests until then; false if the watch was closed. */
  boolean rest(long until) throws InterruptedException;

  /** Opens a stream of events. */
  void open(WatchEventsRequest request);

  /** Opens a stream of one task. */
  void open(SubmitRequest request);

  /** What comes next, also if that moment has passed; null if nothing does until then. */
  Got next(long until) throws InterruptedException;

  /** Ends the stream. */
  void drop();

  /** What is opened from here on is over a new connection. */
  void anew();

  /** Ends the stream, now and for ever, and with it all waiting for it. */
  void close();
}
