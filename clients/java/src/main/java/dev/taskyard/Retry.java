package dev.taskyard;

import io.grpc.Status.Code;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;

/** What is worth another try, and how long to rest before it. */
final class Retry {
  /**
   * No try begins later after the first that failed: a drain and a restart of the server. A try
   * that stood for longer, as one that waited for room, did not fail in the outage before it.
   */
  static final Duration MAX_ELAPSED = Duration.ofMinutes(1);

  static final Duration INITIAL_BACKOFF = Duration.ofMillis(100);
  static final Duration MAX_BACKOFF = Duration.ofSeconds(5);
  static final int BACKOFF_MULTIPLIER = 2;

  /** The code of a call that found no server, or a draining one. */
  static final Code RETRYABLE = Code.UNAVAILABLE;

  /** The shortest rest between two tries, whatever the server asks for. */
  static final Duration LEAST_REST = Duration.ofMillis(10);

  /** A longer pushback ends the tries, as people want to know. */
  private static final Duration LONGEST_PUSHBACK = Duration.ofSeconds(30);

  private Retry() {}

  /** What {@link #backoff} draws from: between half of it and all. */
  static Duration wholeBackoff(int failures) {
    Duration whole = INITIAL_BACKOFF;
    for (int i = 1; i < failures && whole.compareTo(MAX_BACKOFF) < 0; i++) {
      whole = whole.multipliedBy(BACKOFF_MULTIPLIER);
    }
    return whole.compareTo(MAX_BACKOFF) < 0 ? whole : MAX_BACKOFF;
  }

  /** The rest after so many failures in a row; a random one, so that many clients spread. */
  static Duration backoff(int failures) {
    long whole = wholeBackoff(failures).toNanos();
    return Duration.ofNanos(ThreadLocalRandom.current().nextLong(whole / 2, whole));
  }

  /** Whether a call found no server, or a draining one. */
  static boolean isLost(TaskyardException failed) {
    return failed.code() == RETRYABLE;
  }

  /**
   * How long to rest after so many failures that may be repeated; empty if it is of no use to try
   * again.
   */
  static Optional<Duration> restAfter(int failures, TaskyardException failed) {
    if (failed.pushback().never()) {
      return Optional.empty();
    }
    return failed
        .pushback()
        .rest()
        .map(Retry::atLeast)
        .or(() -> Optional.of(backoff(failures)))
        .filter(rest -> rest.compareTo(LONGEST_PUSHBACK) <= 0);
  }

  static Duration atLeast(Duration rest) {
    return rest.compareTo(LEAST_REST) < 0 ? LEAST_REST : rest;
  }

  /** In nanoseconds; what is too long becomes some 70 years, and what is negative nothing. */
  static long nanos(Duration span) {
    long seconds = Long.MAX_VALUE / 4 / 1_000_000_000L;
    if (span.isNegative()) {
      return 0;
    }
    return span.getSeconds() >= seconds ? Long.MAX_VALUE / 4 : span.toNanos();
  }
}
