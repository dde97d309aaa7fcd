package dev.taskyard;

import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import dev.taskyard.v1.Event;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.WatchCaughtUp;
import dev.taskyard.v1.WatchDraining;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchEventsResponse;
import dev.taskyard.v1.WatchGap;
import dev.taskyard.v1.WatchHeartbeat;
import dev.taskyard.v1.WatchSnapshot;
import dev.taskyard.v1.WatchSnapshotEnd;
import dev.taskyard.v1.WatchStarted;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Map;

/**
 * A server whose streams do what is written, in a time of its own, which passes only while somebody
 * waits. When the script is over, streams are refused as UNAVAILABLE.
 */
final class ScriptedSource implements Source {
  /** Steps of a stream are what it brings, and silences. */
  record Silence(Duration span) {}

  private final Deque<Deque<Object>> streams = new ArrayDeque<>();

  /** What each stream was asked for. */
  final List<String> asked = new ArrayList<>();

  /** What was watched, in full. */
  final List<WatchEventsRequest> watched = new ArrayList<>();

  /** How often a new connection was asked for. */
  int connections;

  private Deque<Object> current = new ArrayDeque<>();
  private long now;
  private boolean isClosed;

  /** A stream that is answered, and then does this. */
  ScriptedSource then(Object... steps) {
    Deque<Object> stream = new ArrayDeque<>(List.of(steps));
    stream.addFirst(new Got.Answer());
    streams.add(stream);
    return this;
  }

  /** A stream that is never answered. */
  ScriptedSource thenNoAnswer() {
    streams.add(new ArrayDeque<>());
    return this;
  }

  /** What has passed, in milliseconds. */
  long passedMillis() {
    return now / 1_000_000;
  }

  @Override
  public long now() {
    return now;
  }

  @Override
  public boolean rest(long until) {
    now = Math.max(now, until);
    return !isClosed;
  }

  @Override
  public void open(WatchEventsRequest request) {
    watched.add(request);
    String start = request.getStart().toString().replace("WATCH_START_", "").toLowerCase();
    if (request.getIncludeSnapshot()) {
      start = "snapshot";
    }
    open(request.getAfterCursor().isEmpty() ? start : "after " + request.getAfterCursor());
  }

  @Override
  public void open(SubmitRequest request) {
    open(request.getRequestId());
  }

  private void open(String what) {
    asked.add(what);
    current = streams.isEmpty() ? new ArrayDeque<>(List.of(LOST)) : streams.removeFirst();
  }

  @Override
  public Got next(long until) {
    if (isClosed) {
      return new Got.Closed();
    }
    while (current.peekFirst() instanceof Silence silence) {
      long ends = now + silence.span().toNanos();
      if (ends > until) {
        current.removeFirst();
        current.addFirst(new Silence(Duration.ofNanos(ends - Math.max(now, until))));
        now = Math.max(now, until);
        return null;
      }
      current.removeFirst();
      now = ends;
    }
    if (current.isEmpty()) {
      if (until == Long.MAX_VALUE) {
        throw new AssertionError("it waits for ever");
      }
      now = Math.max(now, until);
      return null;
    }
    return (Got) current.removeFirst();
  }

  @Override
  public void drop() {
    current.clear();
  }

  @Override
  public void anew() {
    connections++;
  }

  @Override
  public void close() {
    isClosed = true;
  }

  static final Got LOST = ended(TaskyardException.of(Status.UNAVAILABLE, null));
  static final Got END = ended(null);
  static final Got EXPIRED = refused(Code.OUT_OF_RANGE, "CURSOR_EXPIRED");

  static Got ended(TaskyardException why) {
    return new Got.End(why);
  }

  static Got refused(Code code, String reason, Message... details) {
    return ended(refusal(code, reason, details));
  }

  static TaskyardException refusal(Code code, String reason, Message... details) {
    ErrorInfo info =
        ErrorInfo.newBuilder().setReason(reason).putAllMetadata(Map.of("a", "b")).build();
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(code.value())
            .setMessage("no")
            .addDetails(com.google.protobuf.Any.pack(info));
    for (Message detail : details) {
      status.addDetails(com.google.protobuf.Any.pack(detail));
    }
    return TaskyardException.of(status.build());
  }

  /** An UNAVAILABLE with this pushback in its trailer. */
  static TaskyardException pushed(String pushback) {
    Metadata trailers = new Metadata();
    trailers.put(Pushback.KEY, pushback);
    return TaskyardException.of(Status.UNAVAILABLE, trailers);
  }

  static Silence silence(int seconds) {
    return new Silence(Duration.ofSeconds(seconds));
  }

  static Got events(String cursor, long... seqs) {
    WatchEventsResponse.Builder message = WatchEventsResponse.newBuilder().setCursor(cursor);
    for (long seq : seqs) {
      message.addEvents(Event.newBuilder().setSeq(seq));
    }
    return new Got.Message(message.build());
  }

  static Got event(String cursor, Event event) {
    return new Got.Message(
        WatchEventsResponse.newBuilder().setCursor(cursor).addEvents(event).build());
  }

  static Got control(String cursor, Message control) {
    WatchEventsResponse.Builder message = WatchEventsResponse.newBuilder().setCursor(cursor);
    if (control instanceof WatchStarted it) {
      message.setStarted(it);
    } else if (control instanceof WatchHeartbeat it) {
      message.setHeartbeat(it);
    } else if (control instanceof WatchSnapshot it) {
      message.setSnapshot(it);
    } else if (control instanceof WatchSnapshotEnd it) {
      message.setSnapshotEnd(it);
    } else if (control instanceof WatchCaughtUp it) {
      message.setCaughtUp(it);
    } else if (control instanceof WatchGap it) {
      message.setGap(it);
    } else if (control instanceof WatchDraining it) {
      message.setDraining(it);
    } else {
      message.setSubmitted((SubmitResponse) control);
    }
    return new Got.Message(message.build());
  }

  static Got started(String cursor) {
    return control(cursor, WatchStarted.getDefaultInstance());
  }

  static Got heartbeat(String cursor) {
    return control(cursor, WatchHeartbeat.getDefaultInstance());
  }

  static Got caughtUp(String cursor) {
    return control(cursor, WatchCaughtUp.getDefaultInstance());
  }
}
