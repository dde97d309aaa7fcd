package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.SubmitAck;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitStreamRequest;
import dev.taskyard.v1.SubmitStreamResponse;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchEventsResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.stub.ClientCallStreamObserver;
import io.grpc.stub.ClientResponseObserver;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Flow control holds up who sends too fast, and ends no connection: with the library's own client,
 * as any generated code uses it.
 */
class PushedBackTest {
  private static final int TASKS = 10_000;

  @ParameterizedTest
  @ValueSource(ints = {0, 40, 300})
  @Timeout(value = 120, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
  void aStreamThatIsPushedBackKeepsItsConnection(int size, @TempDir Path data) throws Exception {
    ServerProcess server =
        ServerProcess.start(
            "127.0.0.1:0", data, List.of("--queue-max-tasks", "100", "--workers", "32"));
    ManagedChannel channel =
        Grpc.newChannelBuilder(
                server.address().replace("http://", ""), InsecureChannelCredentials.create())
            .build();
    try {
      Iterator<WatchEventsResponse> watch =
          TaskServiceGrpc.newBlockingStub(channel)
              .watchEvents(WatchEventsRequest.getDefaultInstance());
      assertTrue(watch.next().hasStarted());
      var stream = new Pushed(size);
      TaskServiceGrpc.newStub(channel).submitStream(stream);
      assertTrue(stream.ended.await(100, TimeUnit.SECONDS), "it does not end");
      assertNull(stream.failure.get());
      assertEquals(LongStream.range(0, TASKS).boxed().toList(), List.copyOf(stream.taken));
      // The watch on the same connection has missed nothing.
      long left = TASKS;
      while (left > 0) {
        left -=
            watch.next().getEventsList().stream()
                .filter(event -> event.getType() == EventType.EVENT_TYPE_SUCCEEDED)
                .count();
      }
    } finally {
      channel.shutdownNow();
      server.kill();
    }
  }

  /** Sends whenever the library says that there is room. */
  private static final class Pushed
      implements ClientResponseObserver<SubmitStreamRequest, SubmitStreamResponse> {
    private final SubmitRequest task;
    private final ConcurrentLinkedQueue<Long> taken = new ConcurrentLinkedQueue<>();
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final CountDownLatch ended = new CountDownLatch(1);

    Pushed(int size) {
      task =
          SubmitRequest.newBuilder()
              .setKind("noop")
              .setData(ByteString.copyFrom(new byte[size]))
              .build();
    }

    @Override
    public void beforeStart(ClientCallStreamObserver<SubmitStreamRequest> requests) {
      requests.setOnReadyHandler(
          new Runnable() {
            private int sent = 0;

            @Override
            public void run() {
              while (requests.isReady() && sent < TASKS) {
                requests.onNext(
                    SubmitStreamRequest.newBuilder().setSequence(sent).setRequest(task).build());
                sent += 1;
                if (sent == TASKS) {
                  requests.onCompleted();
                }
              }
            }
          });
    }

    @Override
    public void onNext(SubmitStreamResponse message) {
      message.getAcksList().stream()
          .filter(SubmitAck::hasAck)
          .forEach(ack -> taken.add(ack.getSequence()));
    }

    @Override
    public void onError(Throwable error) {
      failure.set(error);
      ended.countDown();
    }

    @Override
    public void onCompleted() {
      ended.countDown();
    }
  }
}
