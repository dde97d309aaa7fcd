package dev.taskyard;

import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.Task;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.WaitTaskRequest;
import dev.taskyard.v1.WaitTaskResponse;
import io.grpc.CallOptions;
import io.grpc.Deadline;
import io.grpc.Status.Code;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;

/** Submitting and waiting, so that a lost connection or a restart of the server does not matter. */
final class Calls {
  /**
   * How long one call waits for the end of a task: short enough that proxies and firewalls on the
   * way keep the connection.
   */
  private static final Duration ONE_WAIT = Duration.ofMinutes(5);

  /**
   * What a call that waits is given beyond its wait. The server answers by itself; this is for one
   * that hangs.
   */
  private static final Duration GRACE = Duration.ofSeconds(10);

  private final Connection connection;
  private final Repetition.Later later;

  Calls(Connection connection, Repetition.Later later) {
    this.connection = connection;
    this.later = later;
  }

  /** The request must have a request_id; the deadline may be null. */
  CompletableFuture<SubmitResponse> submit(SubmitRequest request, Duration within) {
    Deadline deadline = within == null ? null : after(within);
    CallOptions options = CallOptions.DEFAULT.withDeadline(deadline);
    return Repetition.of(
        later,
        deadline,
        () -> Repetition.once(connection, TaskServiceGrpc.getSubmitMethod(), options, request));
  }

  /** For as long as it takes if the timeout is null. */
  CompletableFuture<Task> waitFor(String taskId, Duration timeout) {
    CompletableFuture<Task> result = new CompletableFuture<>();
    waitOnce(taskId, timeout == null ? null : after(timeout), result);
    return result;
  }

  /** The request must have a request_id. */
  CompletableFuture<Task> submitAndWait(SubmitRequest request) {
    CompletableFuture<Task> result = new CompletableFuture<>();
    CompletableFuture<SubmitResponse> submission = submit(request, null);
    Repetition.cancelling(result, () -> submission.cancel(true));
    submission.whenComplete(
        (submitted, thrown) -> {
          if (thrown != null) {
            result.completeExceptionally(thrown);
          } else {
            waitOnce(submitted.getTaskId(), null, result);
          }
        });
    return result;
  }

  private void waitOnce(String taskId, Deadline end, CompletableFuture<Task> result) {
    OneWait wait = new OneWait(taskId, end);
    CompletableFuture<WaitTaskResponse> waiting =
        Repetition.of(
            later,
            end,
            // That nobody was there says more than that the time is over.
            UnaryOperator.identity(),
            wait::mayRepeat,
            wait::call);
    Repetition.cancelling(result, () -> waiting.cancel(true));
    waiting.whenComplete(
        (answer, thrown) -> {
          if (thrown != null) {
            TaskyardException failed = TaskyardException.of(thrown);
            // A server that hangs is asked again.
            if (!wait.isOver(failed) || result.isDone()) {
              result.completeExceptionally(failed);
              return;
            }
          } else if (Client.isTerminal(answer.getTask().getState())
              || (end != null && end.isExpired())) {
            result.complete(answer.getTask());
            return;
          }
          waitOnce(taskId, end, result);
        });
  }

  /** One wait for a task, which may take several calls. They come one after the other. */
  private final class OneWait {
    private final String taskId;

    /** Null if it is endless. */
    private final Deadline end;

    /** When the time of the latest call will have passed. */
    private volatile Deadline over;

    OneWait(String taskId, Deadline end) {
      this.taskId = taskId;
      this.end = end;
    }

    CompletableFuture<WaitTaskResponse> call() {
      Duration left = end == null ? ONE_WAIT : left(end);
      Duration one = left.compareTo(ONE_WAIT) < 0 ? left : ONE_WAIT;
      over = after(one);
      return Repetition.once(
          connection,
          TaskServiceGrpc.getWaitTaskMethod(),
          CallOptions.DEFAULT.withDeadline(after(one.plus(GRACE))),
          WaitTaskRequest.newBuilder()
              .setTaskId(taskId)
              .setTimeout(WatchOptions.proto(one))
              .build());
    }

    /** Whether it was an endless wait, and has taken its time. */
    boolean isOver(TaskyardException failed) {
      return isLate(failed) && over.isExpired();
    }

    /** What is late before its time is a failure: at once again, it would be asked without end. */
    boolean mayRepeat(TaskyardException failed) {
      return Retry.isLost(failed) || (isLate(failed) && !over.isExpired());
    }

    private boolean isLate(TaskyardException failed) {
      return end == null && failed.code() == Code.DEADLINE_EXCEEDED;
    }
  }

  private static Duration left(Deadline end) {
    return Duration.ofNanos(Math.max(0, end.timeRemaining(TimeUnit.NANOSECONDS)));
  }

  private static Deadline after(Duration span) {
    return Deadline.after(Retry.nanos(span), TimeUnit.NANOSECONDS);
  }
}
