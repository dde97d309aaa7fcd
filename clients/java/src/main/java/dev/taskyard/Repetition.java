package dev.taskyard;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Deadline;
import io.grpc.MethodDescriptor;
import io.grpc.Status.Code;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;

/**
 * One call, made until there is an answer, {@link Retry#MAX_ELAPSED} is over, or its deadline has
 * passed. Only for what may safely be repeated.
 */
final class Repetition<A> {
  /** Runs something after a rest. */
  interface Later {
    Later REAL =
        (rest, what) ->
            CompletableFuture.delayedExecutor(Retry.nanos(rest), TimeUnit.NANOSECONDS)
                .execute(what);

    void run(Duration rest, Runnable what);

    /** The time by which it rests, in nanoseconds from any moment. */
    default long nanoTime() {
      return System.nanoTime();
    }
  }

  private final Later later;

  /** Bounds all tries and rests; null if nothing does. */
  private final Deadline deadline;

  /** What is told if the deadline passes, of the last failure. */
  private final UnaryOperator<TaskyardException> late;

  /** Which failures are worth another try. */
  private final Predicate<TaskyardException> mayRepeat;

  private final Supplier<CompletableFuture<A>> call;
  private final CompletableFuture<A> result = new CompletableFuture<>();
  private int failures;
  private long firstFailure;
  private long begun;

  private Repetition(
      Later later,
      Deadline deadline,
      UnaryOperator<TaskyardException> late,
      Predicate<TaskyardException> mayRepeat,
      Supplier<CompletableFuture<A>> call) {
    this.later = later;
    this.deadline = deadline;
    this.late = late;
    this.mayRepeat = mayRepeat;
    this.call = call;
  }

  /** Begins at once. Cancelling the future cancels the call. */
  static <A> CompletableFuture<A> of(
      Later later, Deadline deadline, Supplier<CompletableFuture<A>> call) {
    return of(later, deadline, Repetition::tooLate, Retry::isLost, call);
  }

  /**
   * The same, with what is told if the deadline passes, of the last failure, and which failures are
   * worth another try.
   */
  static <A> CompletableFuture<A> of(
      Later later,
      Deadline deadline,
      UnaryOperator<TaskyardException> late,
      Predicate<TaskyardException> mayRepeat,
      Supplier<CompletableFuture<A>> call) {
    Repetition<A> repetition = new Repetition<>(later, deadline, late, mayRepeat, call);
    repetition.attempt();
    return repetition.result;
  }

  /** One call of a method; cancelling the future cancels it. */
  static <Q, A> CompletableFuture<A> once(
      Connection connection, MethodDescriptor<Q, A> method, CallOptions options, Q request) {
    CompletableFuture<A> result = new CompletableFuture<>();
    ClientCall<Q, A> call = connection.channel().newCall(method, options);
    ClientCalls.asyncUnaryCall(
        call,
        request,
        new StreamObserver<A>() {
          @Override
          public void onNext(A answer) {
            result.complete(answer);
          }

          @Override
          public void onError(Throwable thrown) {
            result.completeExceptionally(TaskyardException.of(thrown));
          }

          @Override
          public void onCompleted() {}
        });
    return cancelling(result, () -> call.cancel("given up", null));
  }

  /** The future, which does this if it is cancelled. */
  static <A> CompletableFuture<A> cancelling(CompletableFuture<A> future, Runnable cancel) {
    future.whenComplete(
        (answer, thrown) -> {
          if (future.isCancelled()) {
            cancel.run();
          }
        });
    return future;
  }

  private void attempt() {
    if (result.isDone()) {
      return;
    }
    begun = later.nanoTime();
    CompletableFuture<A> one;
    try {
      one = call.get();
    } catch (RuntimeException e) {
      result.completeExceptionally(e);
      return;
    }
    cancelling(result, () -> one.cancel(true));
    one.whenComplete(
        (answer, thrown) -> {
          if (thrown == null) {
            result.complete(answer);
          } else {
            failed(TaskyardException.of(thrown));
          }
        });
  }

  private void failed(TaskyardException failed) {
    if (later.nanoTime() - begun > Retry.MAX_ELAPSED.toNanos()) {
      failures = 0;
    }
    if (++failures == 1) {
      firstFailure = later.nanoTime();
    }
    long left = firstFailure + Retry.MAX_ELAPSED.toNanos() - later.nanoTime();
    Optional<Duration> rest =
        mayRepeat.test(failed)
            ? Retry.restAfter(failures, failed).filter(one -> one.toNanos() <= left)
            : Optional.empty();
    if (rest.isEmpty()) {
      result.completeExceptionally(failed);
      return;
    }
    Duration beforeDeadline =
        deadline == null
            ? rest.get()
            : Duration.ofNanos(Math.max(0, deadline.timeRemaining(TimeUnit.NANOSECONDS)));
    if (beforeDeadline.compareTo(rest.get()) >= 0) {
      later.run(rest.get(), this::attempt);
    } else {
      later.run(beforeDeadline, () -> result.completeExceptionally(late.apply(failed)));
    }
  }

  private static TaskyardException tooLate(TaskyardException last) {
    return new TaskyardException(
        Code.DEADLINE_EXCEEDED,
        "the deadline passed before the server answered; at last " + last.getMessage());
  }
}
