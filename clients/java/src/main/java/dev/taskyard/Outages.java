package dev.taskyard;

import java.time.Duration;
import java.util.Optional;

/** How long a watch has had no stream, and when it is tried again. Times are in nanoseconds. */
final class Outages {
  /** A stream that has stood for so long ends the outage before it. */
  private static final Duration STEADY = Duration.ofSeconds(1);

  /** What every try gets to be answered in, however little is left of the longest outage. */
  private static final Duration LEAST_TRY = Duration.ofMillis(100);

  private final long maxOutage;
  private Outage current;

  /** Some stream has told something. */
  private boolean hasStood;

  private long restUntil;

  private static final class Outage {
    final long since;
    int failures;
    boolean isTold;

    /** A stream tells something again, since then. */
    Long standsSince;

    Outage(long since) {
      this.since = since;
    }
  }

  /** None yet. One that is longer than this is to end the watch. */
  Outages(Duration maxOutage) {
    this.maxOutage = Retry.nanos(maxOutage);
  }

  /** The stream is not opened before. */
  long restUntil() {
    return restUntil;
  }

  /** The stream tells something; whether that is news after an outage that was told. */
  boolean stands(long now) {
    hasStood = true;
    if (current == null) {
      return false;
    }
    if (current.standsSince == null) {
      current.standsSince = now;
    }
    boolean isNews = current.isTold;
    current.isTold = false;
    return isNews;
  }

  /**
   * There is no stream; whether that is to be told.
   *
   * @throws TaskyardException the same, if it is of no use to try again
   */
  boolean lose(TaskyardException failed, long now) {
    endIfSteady(now);
    String reason = failed.reason();
    if (reason.equals("WATCH_LIFETIME") || reason.equals("WATCH_STALLED")) {
      restUntil = now + nanosAtLeast(askedRest(failed).orElse(Duration.ZERO));
      return false;
    }
    boolean isCrowded = reason.equals("TOO_MANY_WATCHERS") && hasStood;
    if (!Retry.isLost(failed) && !isCrowded) {
      throw failed;
    }
    if (current == null) {
      current = new Outage(now);
    }
    current.failures++;
    int failures = current.failures;
    long nextTry = now + nanosAtLeast(askedRest(failed).orElseGet(() -> Retry.backoff(failures)));
    if (nextTry > current.since + maxOutage) {
      throw failed;
    }
    restUntil = nextTry;
    boolean isNews = !current.isTold;
    current.isTold = true;
    return isNews;
  }

  /**
   * For how long a try that begins now is waited for, beside what holds for all: not beyond the
   * outage, if there is one.
   */
  long grace(long now, long longest) {
    if (current == null) {
      return longest;
    }
    long left = current.since + maxOutage - now;
    return Math.min(longest, Math.max(left, LEAST_TRY.toNanos()));
  }

  /** There is no stream any more: what has stood for long ended the outage. */
  private void endIfSteady(long now) {
    if (current == null || current.standsSince == null) {
      return;
    }
    if (now - current.standsSince >= STEADY.toNanos()) {
      current = null;
    } else {
      current.standsSince = null;
    }
  }

  /**
   * The rest that the server asks for before another try, if it does.
   *
   * @throws TaskyardException it asks for no other try
   */
  private static Optional<Duration> askedRest(TaskyardException failed) {
    if (failed.pushback().never()) {
      throw failed;
    }
    return failed.pushback().rest();
  }

  private static long nanosAtLeast(Duration rest) {
    return Retry.nanos(Retry.atLeast(rest));
  }
}
