package dev.taskyard;

import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.Task;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.TaskState;
import dev.taskyard.v1.WaitTaskRequest;
import dev.taskyard.v1.WaitTaskResponse;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchEventsResponse;
import dev.taskyard.v1.WatchStarted;
import io.grpc.BindableService;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * A service that refuses the first submissions as UNAVAILABLE, with these pushbacks if they are not
 * empty, and answers what is asked after them. It says of a task first that it runs, then that it
 * hangs, and in the end that it has succeeded. Its watches stand, and no more.
 */
final class Scripted extends TaskServiceGrpc.TaskServiceImplBase {
  final List<SubmitRequest> submissions = new CopyOnWriteArrayList<>();
  final AtomicInteger waits = new AtomicInteger();
  private final Queue<String> pushbacks;

  Scripted(String... pushbacks) {
    this.pushbacks = new ArrayDeque<>(List.of(pushbacks));
  }

  static Server serve(BindableService... services) throws IOException {
    var server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create());
    for (BindableService service : services) {
      server.addService(service);
    }
    return server.build().start();
  }

  @Override
  public synchronized void submit(SubmitRequest request, StreamObserver<SubmitResponse> answer) {
    submissions.add(request);
    String pushback = pushbacks.poll();
    if (pushback == null) {
      answer.onNext(SubmitResponse.newBuilder().setTaskId("t1").build());
      answer.onCompleted();
      return;
    }
    Metadata trailers = new Metadata();
    if (!pushback.isEmpty()) {
      trailers.put(Pushback.KEY, pushback);
    }
    answer.onError(Status.UNAVAILABLE.withDescription("not now").asRuntimeException(trailers));
  }

  @Override
  public void waitTask(WaitTaskRequest request, StreamObserver<WaitTaskResponse> answer) {
    int wait = waits.incrementAndGet();
    if (wait == 2) {
      answer.onError(Status.DEADLINE_EXCEEDED.asRuntimeException());
      return;
    }
    TaskState state = wait == 1 ? TaskState.TASK_STATE_RUNNING : TaskState.TASK_STATE_SUCCEEDED;
    answer.onNext(WaitTaskResponse.newBuilder().setTask(Task.newBuilder().setState(state)).build());
    answer.onCompleted();
  }

  @Override
  public void watchEvents(WatchEventsRequest request, StreamObserver<WatchEventsResponse> events) {
    events.onNext(
        WatchEventsResponse.newBuilder()
            .setCursor("a")
            .setStarted(WatchStarted.getDefaultInstance())
            .build());
  }
}
