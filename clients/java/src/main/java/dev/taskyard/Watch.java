package dev.taskyard;

import dev.taskyard.Source.Got;
import dev.taskyard.WatchOptions.Start;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.WatchEventsResponse;
import io.grpc.Status.Code;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;

/**
 * A watch under way, which goes on exactly where a broken stream ended. It connects when it is
 * first asked.
 *
 * <p>{@link #hasNext} and {@link #next} wait for what comes next. They throw a {@link
 * TaskyardException} with what the server answered if trying again is of no use or an outage is too
 * long; after that, there is nothing more. If their thread is interrupted, they throw one with the
 * code {@code CANCELLED} and the thread stays interrupted; nothing is lost, and they may be called
 * again. A watch is read by one thread at a time; {@link #close} may be called by any.
 */
public final class Watch implements Iterator<Seen>, Iterable<Seen>, AutoCloseable {
  /**
   * Silence beyond two heartbeats that is taken for an outage, and how long the server may take to
   * answer a call: it, or the way to it, may be slow.
   */
  private static final Duration GRACE = Duration.ofSeconds(5);

  private static final long NEVER = Long.MAX_VALUE;

  private final Source source;
  private final Outages outages;

  /** The task that is followed; null if none is. */
  private final Followed followed;

  /** What to ask for next: its start is where the watch stands. */
  private WatchOptions options;

  private boolean isOpen;

  /** The stream is that of a submission. */
  private boolean isSubmitting;

  /** The server has answered, since the stream was opened. */
  private boolean isAnswered;

  /** When the stream is given up if nothing comes. */
  private long silentAt = NEVER;

  /** It is being listened to, since it brought something last. */
  private boolean isListenedTo;

  /** What came after an outage, to be told after {@link Seen.Restored}. */
  private WatchEventsResponse untold;

  /** The stream told that it had caught up, so it may end. */
  private boolean caughtUp;

  private boolean over;

  /** What is to be handed out next, if it is known already. */
  private Seen ahead;

  /** Where the watch stood before that. */
  private Start before;

  Watch(Source source, WatchOptions options) {
    this(source, options, null);
  }

  private Watch(Source source, WatchOptions options, Followed followed) {
    this.source = source;
    this.options = options;
    this.outages = new Outages(options.maxOutage());
    this.followed = followed;
  }

  /** Submits a task and follows it. The request must have a request_id. */
  static Watch follow(Source source, SubmitRequest request) {
    return new Watch(source, WatchOptions.live(), new Followed(request));
  }

  /**
   * The cursor to resume after, having done with what was told.
   *
   * @return empty until the server has given one, and while a snapshot is not complete
   */
  public Optional<String> cursor() {
    Start stands = ahead == null ? options.start() : before;
    return stands instanceof Start.After after ? Optional.of(after.cursor()) : Optional.empty();
  }

  /**
   * Waits for what comes next.
   *
   * @return false once it has caught up, if it was to end there, once the task that is followed has
   *     ended, or once the watch was closed
   */
  @Override
  public boolean hasNext() {
    return look(NEVER);
  }

  /**
   * Waits for what comes next.
   *
   * @return at its end there is none
   */
  @Override
  public Seen next() {
    if (!hasNext()) {
      throw new NoSuchElementException("the watch is over");
    }
    return handOut();
  }

  /**
   * Waits for what comes next, for no longer than so long.
   *
   * @param timeout how long
   * @return empty if nothing came, or the watch is over
   */
  public Optional<Seen> poll(Duration timeout) {
    return look(source.now() + Retry.nanos(timeout)) ? Optional.of(handOut()) : Optional.empty();
  }

  /**
   * Itself: it is read once.
   *
   * @return this
   */
  @Override
  public Iterator<Seen> iterator() {
    return this;
  }

  /** Ends the watch, and any waiting for it. A task that is followed is not cancelled. */
  @Override
  public void close() {
    source.close();
  }

  private Seen handOut() {
    Seen seen = ahead;
    ahead = null;
    return seen;
  }

  /** Looks ahead; whether there is something. */
  private boolean look(long until) {
    if (ahead != null || over) {
      return ahead != null;
    }
    try {
      ahead = advance(until);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new TaskyardException(Code.CANCELLED, "the watch was interrupted while it waited");
    } catch (TaskyardException e) {
      over = true;
      // It is the caller's watch that failed, not a thread of the transport.
      e.fillInStackTrace();
      throw e;
    } finally {
      if (over) {
        source.close();
      }
    }
    return ahead != null;
  }

  /** What comes next; null if nothing does until then, or the watch is over. */
  private Seen advance(long until) throws InterruptedException {
    while (!over) {
      before = options.start();
      Seen seen = null;
      if (untold != null) {
        WatchEventsResponse message = untold;
        untold = null;
        seen = tell(message, true);
      } else if (!isOpen) {
        if (source.now() < outages.restUntil() && until <= source.now()) {
          return null;
        }
        open(until);
      } else {
        Got got = listen(until);
        if (got == null && source.now() < silentAt) {
          return null;
        }
        seen = note(got);
      }
      if (seen != null) {
        return seen;
      }
    }
    return null;
  }

  /** Opens a stream, after the rest before it if that does not last longer. */
  private void open(long until) throws InterruptedException {
    long restUntil = Math.min(outages.restUntil(), until);
    if (source.now() < restUntil && !source.rest(restUntil)) {
      over = true;
    }
    if (over || source.now() < outages.restUntil()) {
      return;
    }
    isOpen = true;
    isAnswered = false;
    isListenedTo = false;
    caughtUp = false;
    boolean goesOn = options.start() instanceof Start.After;
    isSubmitting = followed != null && !(followed.isSubmitted() && goesOn);
    if (isSubmitting) {
      // It may wait for room, and its heartbeat is the server's: keep-alive alone notices a
      // server that has gone.
      silentAt = NEVER;
      source.open(followed.request());
    } else {
      long now = source.now();
      silentAt = now + outages.grace(now, GRACE.toNanos());
      source.open(options.request());
    }
  }

  /** What the stream brings until then, or until it has been silent for too long; or null. */
  private Got listen(long until) throws InterruptedException {
    if (isAnswered && !isListenedTo && !isSubmitting) {
      silentAt = source.now() + 2 * Retry.nanos(options.heartbeat()) + GRACE.toNanos();
    }
    isListenedTo = true;
    Got got = source.next(Math.min(until, silentAt));
    if (got != null) {
      isListenedTo = false;
    }
    return got;
  }

  /** What is told of what the stream has brought, if anything; of null, that it is dead. */
  private Seen note(Got got) {
    if (got instanceof Got.Answer) {
      isAnswered = true;
      return null;
    }
    if (got instanceof Got.Message message) {
      isAnswered = true;
      return take(message.message());
    }
    TaskyardException why;
    if (got instanceof Got.End && followed != null && followed.endIsTold()) {
      over = true;
      return null;
    } else if (got == null) {
      source.anew();
      why = new TaskyardException(Code.UNAVAILABLE, "the server has gone silent");
    } else if (got instanceof Got.End end && end.why() != null) {
      why = end.why();
    } else if (got instanceof Got.Closed || mayEnd()) {
      over = true;
      return null;
    } else {
      why = new TaskyardException(Code.UNAVAILABLE, "the server ended the stream");
    }
    isOpen = false;
    source.drop();
    return outages.lose(why, source.now()) ? new Seen.Lost(why) : null;
  }

  /** Whether it is no outage if the server ends the stream well. */
  private boolean mayEnd() {
    return (options.untilCaughtUp() && caughtUp) || (followed != null && followed.mayEnd());
  }

  /** Takes a message over; what is to be told first, if anything. */
  private Seen take(WatchEventsResponse message) {
    boolean isNews = outages.stands(source.now());
    // Without a cursor it begins anew, and Started or SnapshotBegun says so.
    boolean goesOn = options.start() instanceof Start.After || followed != null;
    if (isNews && goesOn) {
      untold = message;
      return new Seen.Restored();
    }
    return tell(message, false);
  }

  /** What a message tells, if anything. From then on its cursor counts. */
  private Seen tell(WatchEventsResponse arrived, boolean restored) {
    WatchEventsResponse message = followed == null ? arrived : followed.passOverTheKnown(arrived);
    String from = options.start() instanceof Start.After after ? after.cursor() : "";
    boolean isTelling = options.start() instanceof Start.Snapshot;
    if (!message.getCursor().isEmpty()) {
      options = options.withStart(new Start.After(message.getCursor()));
    }
    if (followed != null) {
      options = followed.watched(arrived, options);
      // The stream of a submission ends by itself, and only there a task that was redriven goes
      // on after an end that is past.
      over = !isSubmitting && followed.endIsTold();
    }
    return switch (message.getControlCase()) {
      case STARTED -> {
        if (isTelling) {
          yield new Seen.SnapshotBegun();
        }
        yield restored || followed != null ? null : new Seen.Started();
      }
      case SNAPSHOT ->
          new Seen.Snapshot(
              message.getSnapshot().getTasksList(), message.getSnapshot().getWorkersList());
      case SNAPSHOT_END -> new Seen.SnapshotEnded();
      case CAUGHT_UP -> {
        caughtUp = true;
        yield followed != null ? null : new Seen.CaughtUp();
      }
      case HEARTBEAT -> new Seen.Heartbeat();
      case GAP -> new Seen.Gap(message.getGap());
      case DRAINING -> new Seen.Draining();
      case SUBMITTED -> new Seen.Submitted(message.getSubmitted());
      case CONTROL_NOT_SET ->
          message.getEventsCount() == 0
              ? null
              : new Seen.Events(message.getEventsList(), from, message.getCursor());
    };
  }
}
