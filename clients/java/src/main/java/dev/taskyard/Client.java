package dev.taskyard;

import dev.taskyard.v1.AdminServiceGrpc;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.Task;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.TaskState;
import io.grpc.Channel;
import io.grpc.Deadline;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import java.time.Duration;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;

/**
 * A connection to a server, which it makes anew by itself when it breaks. It may be used by many
 * threads at once.
 *
 * <p>Every call throws a {@link TaskyardException} if it fails. If its thread is interrupted that
 * has the code {@code CANCELLED}, and the thread stays interrupted. A task that fails is no error
 * of the call: its state and error say so.
 */
public final class Client implements AutoCloseable {
  /** How long a server may take to greet. */
  private static final Duration GREETING = Duration.ofSeconds(5);

  private final Connection connection;
  private final Calls calls;

  private Client(Connection connection) {
    this.connection = connection;
    this.calls = new Calls(connection, Repetition.Later.REAL);
  }

  /**
   * Connects to a server.
   *
   * @param address {@code http://host:port}, {@code host:port} or {@code host}; the port is 50051
   *     if none is given
   * @return a client, to be closed
   * @throws TaskyardException if the address is none, or if no Taskyard answers there within 5 s
   */
  public static Client connect(String address) {
    return connect(address, GREETING);
  }

  static Client connect(String text, Duration within) {
    Address address = Address.parse(text);
    Deadline deadline = Deadline.after(Retry.nanos(within), TimeUnit.NANOSECONDS);
    // A channel would tell its log of a name that is none, trace and all.
    CompletableFuture<Boolean> isKnown = CompletableFuture.supplyAsync(address::isKnown);
    if (!await(isKnown.completeOnTimeout(true, within.toMillis(), TimeUnit.MILLISECONDS))) {
      throw new TaskyardException(
          Code.UNAVAILABLE, "no server answers at " + address + ": unknown name");
    }
    Connection connection = Connection.to(address);
    try {
      greet(connection, address, deadline, within);
    } catch (TaskyardException e) {
      connection.close();
      throw e;
    }
    return new Client(connection);
  }

  /**
   * A client over a channel that was made otherwise, and stays open if the client is closed. It
   * should have HTTP/2's keep-alive: without it a server that has gone without a word is noticed by
   * nobody, and a watch is tried again on the same channel.
   *
   * @param channel to a server
   * @return a client; nobody has asked yet whether a server is there
   */
  public static Client over(Channel channel) {
    return new Client(Connection.over(channel));
  }

  /** Asks for the health of the service, whatever it is: that it is told is enough. */
  private static void greet(
      Connection connection, Address address, Deadline deadline, Duration within) {
    try {
      var unused =
          HealthGrpc.newBlockingStub(connection.channel())
              .withDeadline(deadline)
              .check(
                  HealthCheckRequest.newBuilder().setService(TaskServiceGrpc.SERVICE_NAME).build());
    } catch (StatusRuntimeException e) {
      TaskyardException failed = TaskyardException.of(e);
      if (!failed.reason().isEmpty()) {
        return;
      }
      throw switch (failed.code()) {
        case CANCELLED ->
            new TaskyardException(
                Code.CANCELLED, "connecting to " + address + ": " + failed.getMessage());
        case DEADLINE_EXCEEDED ->
            new TaskyardException(
                Code.UNAVAILABLE,
                "no server answers at %s within %d s".formatted(address, within.toSeconds()));
        case UNAVAILABLE ->
            new TaskyardException(
                Code.UNAVAILABLE,
                "no server answers at %s: %s"
                    .formatted(address, StatusText.rootCause(failed.status())));
        default ->
            new TaskyardException(
                failed.code(),
                "no Taskyard answers at %s: %s"
                    .formatted(
                        address, StatusText.stranger(StatusText.description(failed.status()))));
      };
    }
  }

  /**
   * The channel, for all other stubs of {@link TaskServiceGrpc} and {@link AdminServiceGrpc}.
   *
   * @return of this client
   */
  public Channel channel() {
    return connection.channel();
  }

  /**
   * The generated client of tasks and events. Its calls are made once each, and throw what {@link
   * TaskyardException#of(Throwable)} takes apart.
   *
   * @return a blocking one
   */
  public TaskServiceGrpc.TaskServiceBlockingStub tasks() {
    return TaskServiceGrpc.newBlockingStub(channel());
  }

  /**
   * The generated client for operators. Its calls are made once each, and throw what {@link
   * TaskyardException#of(Throwable)} takes apart.
   *
   * @return a blocking one
   */
  public AdminServiceGrpc.AdminServiceBlockingStub admin() {
    return AdminServiceGrpc.newBlockingStub(channel());
  }

  /**
   * Submits a task, as often as it takes to know the outcome: a server that drains or has gone is
   * looked for for 1 min.
   *
   * @param request is given a random request_id if it has none, so that it is enqueued once
   * @return its acknowledgement: the task is on disk
   */
  public SubmitResponse submit(SubmitRequest request) {
    return await(submitAsync(request));
  }

  /**
   * Submits a task as {@link #submit(SubmitRequest)} does, for no longer than so long.
   *
   * @param request is given a random request_id if it has none
   * @param deadline bounds all of it, also the wait for room in the queue; if it has passed,
   *     nothing was enqueued if the error has a reason, and otherwise the outcome is unknown
   * @return its acknowledgement
   */
  public SubmitResponse submit(SubmitRequest request, Duration deadline) {
    return await(submitAsync(request, deadline));
  }

  /**
   * Submits a task as {@link #submit(SubmitRequest)} does.
   *
   * @param request is given a random request_id if it has none
   * @return fails with a {@link TaskyardException}; cancelling it gives up the call, not the task
   */
  public CompletableFuture<SubmitResponse> submitAsync(SubmitRequest request) {
    return calls.submit(identified(request), null);
  }

  /**
   * Submits a task as {@link #submit(SubmitRequest, Duration)} does.
   *
   * @param request is given a random request_id if it has none
   * @param deadline bounds all of it
   * @return fails with a {@link TaskyardException}; cancelling it gives up the call, not the task
   */
  public CompletableFuture<SubmitResponse> submitAsync(SubmitRequest request, Duration deadline) {
    return calls.submit(identified(request), deadline);
  }

  /**
   * Waits for the end of a task, as long as it takes.
   *
   * @param taskId from its acknowledgement
   * @return the task, in a terminal state
   */
  public Task waitFor(String taskId) {
    return await(waitForAsync(taskId));
  }

  /**
   * Waits for the end of a task, for no longer than so long.
   *
   * @param taskId from its acknowledgement
   * @param timeout how long; a server that hangs has 10 s beyond it
   * @return the task as it stands
   */
  public Task waitFor(String taskId, Duration timeout) {
    return await(waitForAsync(taskId, timeout));
  }

  /**
   * Waits for the end of a task, as long as it takes.
   *
   * @param taskId from its acknowledgement
   * @return the task, in a terminal state; fails with a {@link TaskyardException}
   */
  public CompletableFuture<Task> waitForAsync(String taskId) {
    return calls.waitFor(taskId, null);
  }

  /**
   * Waits for the end of a task, for no longer than so long.
   *
   * @param taskId from its acknowledgement
   * @param timeout how long; a server that hangs has 10 s beyond it
   * @return the task as it stands; fails with a {@link TaskyardException}
   */
  public CompletableFuture<Task> waitForAsync(String taskId, Duration timeout) {
    return calls.waitFor(taskId, timeout);
  }

  /**
   * Submits a task and waits for its end, as long as it takes.
   *
   * @param request is given a random request_id if it has none
   * @return the task, in a terminal state
   */
  public Task submitAndWait(SubmitRequest request) {
    return await(submitAndWaitAsync(request));
  }

  /**
   * Submits a task and waits for its end, both for no longer than so long.
   *
   * @param request is given a random request_id if it has none
   * @param deadline bounds all of it, but for a server that hangs, which has 10 s beyond it; if the
   *     task is not done by then, {@code DEADLINE_EXCEEDED} tells its id as the metadata {@code
   *     task_id}, and it goes on
   * @return the task, in a terminal state
   */
  public Task submitAndWait(SubmitRequest request, Duration deadline) {
    long began = System.nanoTime();
    String id = submit(request, deadline).getTaskId();
    Duration left = deadline.minusNanos(System.nanoTime() - began);
    Task task = waitFor(id, left.isNegative() ? Duration.ZERO : left);
    if (!isTerminal(task.getState())) {
      throw new TaskyardException(
          Code.DEADLINE_EXCEEDED,
          "the task %s was not done in time".formatted(id),
          Map.of("task_id", id));
    }
    return task;
  }

  /**
   * Submits a task and waits for its end, as long as it takes.
   *
   * @param request is given a random request_id if it has none
   * @return the task, in a terminal state; fails with a {@link TaskyardException}
   */
  public CompletableFuture<Task> submitAndWaitAsync(SubmitRequest request) {
    return calls.submitAndWait(identified(request));
  }

  /**
   * Submits a task and follows it, over outages, to its end: first comes {@link Seen.Submitted},
   * then this task's events, each once, then nothing. Closing the watch does not cancel the task.
   *
   * @param request is given a random request_id if it has none
   * @return connects when it is first asked
   */
  public Watch submitAndWatch(SubmitRequest request) {
    return Watch.follow(new GrpcSource(connection), identified(request));
  }

  /**
   * Watches events, over outages of the server and of the way to it.
   *
   * @param options where to begin, and what to see
   * @return connects when it is first asked. One that is not asked for long should have a client of
   *     its own: what it does not read takes room on its connection from others
   */
  public Watch watch(WatchOptions options) {
    return new Watch(new GrpcSource(connection), options);
  }

  /**
   * Whether a task in this state has ended.
   *
   * @param state of a task
   * @return whether it leaves the state only if somebody redrives it
   */
  public static boolean isTerminal(TaskState state) {
    return switch (state) {
      case TASK_STATE_SUCCEEDED, TASK_STATE_FAILED, TASK_STATE_CANCELLED -> true;
      default -> false;
    };
  }

  /** Closes the connection. What is under way on it fails. */
  @Override
  public void close() {
    connection.close();
  }

  /** The request, so that it can be repeated. */
  private static SubmitRequest identified(SubmitRequest request) {
    return request.getRequestId().isEmpty()
        ? request.toBuilder().setRequestId(UUID.randomUUID().toString()).build()
        : request;
  }

  private static <T> T await(CompletableFuture<T> future) {
    try {
      return future.get();
    } catch (InterruptedException e) {
      future.cancel(true);
      Thread.currentThread().interrupt();
      throw new TaskyardException(Code.CANCELLED, "the call was interrupted");
    } catch (ExecutionException e) {
      TaskyardException failed = TaskyardException.of(e);
      // It is the caller's call that failed, not a thread of the transport.
      failed.fillInStackTrace();
      throw failed;
    }
  }
}
