package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.reflect.TypeToken;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.TaskState;
import dev.taskyard.v1.WaitTaskRequest;
import dev.taskyard.v1.WaitTaskResponse;
import io.grpc.BindableService;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.stub.StreamObserver;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Repeated submissions, by this client and by the one that gRPC generates. */
class RetriesTest {
  private static final Path CONFIG = Path.of("../service-config.json");
  private static final SubmitRequest NOOP = SubmitRequest.newBuilder().setKind("noop").build();

  private Server server;
  private ManagedChannel channel;

  private Client serve(BindableService service) throws Exception {
    server = Scripted.serve(service);
    channel = Grpc.newChannelBuilder(target(), InsecureChannelCredentials.create()).build();
    return Client.over(channel);
  }

  private String target() {
    return "127.0.0.1:" + server.getPort();
  }

  @AfterEach
  void stop() {
    if (server != null) {
      channel.shutdownNow();
      server.shutdownNow();
    }
  }

  @Test
  void aSubmissionIsRepeatedAsItWas() throws Exception {
    Scripted service = new Scripted("0", "20");
    assertEquals("t1", serve(service).submit(NOOP).getTaskId());
    List<SubmitRequest> submissions = service.submissions;
    assertEquals(3, submissions.size());
    assertEquals(1, submissions.stream().distinct().count());
    String form = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}";
    assertTrue(submissions.get(0).getRequestId().matches(form), submissions.get(0).toString());
  }

  @Test
  void aRequestIdOfTheCallersOwnIsKept() throws Exception {
    Scripted service = new Scripted();
    serve(service).submit(NOOP.toBuilder().setRequestId("mine").build());
    assertEquals("mine", service.submissions.get(0).getRequestId());
  }

  @Test
  void aNegativePushbackEndsTheTries() throws Exception {
    Scripted service = new Scripted("-1");
    Client client = serve(service);
    var failed = assertThrows(TaskyardException.class, () -> client.submit(NOOP));
    assertEquals(Code.UNAVAILABLE, failed.code());
    assertEquals(1, service.submissions.size());
  }

  @Test
  void aServerThatDrainsIsAskedAsOftenAsItTakes() throws Exception {
    Scripted service = new Scripted("0 0 0 0 0 0 0 0 0 0 0 0".split(" "));
    serve(service).submit(NOOP, Duration.ofMinutes(1));
    assertEquals(13, service.submissions.size());
  }

  @Test
  void aWaitGoesOnUntilTheTaskHasEnded() throws Exception {
    Scripted service = new Scripted();
    assertEquals(TaskState.TASK_STATE_SUCCEEDED, serve(service).submitAndWait(NOOP).getState());
    assertEquals(3, service.waits.get());
  }

  @Test
  void anEndlessWaitThatIsLateAtOnceIsAFailedTry() throws Exception {
    AtomicInteger waits = new AtomicInteger();
    serve(
        new TaskServiceGrpc.TaskServiceImplBase() {
          @Override
          public void waitTask(WaitTaskRequest request, StreamObserver<WaitTaskResponse> answer) {
            waits.incrementAndGet();
            answer.onError(Status.DEADLINE_EXCEEDED.asRuntimeException());
          }
        });
    PartsTest.Clock clock = new PartsTest.Clock();
    Calls calls = new Calls(Connection.over(channel), clock);
    var failed = assertThrows(ExecutionException.class, calls.waitFor("t1", null)::get);
    assertEquals(Code.DEADLINE_EXCEEDED, TaskyardException.of(failed).code());
    assertEquals(clock.rests.size() + 1, waits.get());
    assertTrue(waits.get() > 10 && waits.get() < 40, "" + waits);
  }

  @Test
  void aWaitThatIsOverTellsTheTaskAsItStands() throws Exception {
    Scripted service = new Scripted();
    Client client = serve(service);
    assertEquals(
        TaskState.TASK_STATE_RUNNING, client.waitFor("t1", Duration.ofNanos(1)).getState());
    assertEquals(1, service.waits.get());
  }

  @Test
  void theFiguresAreThoseOfTheServiceConfig() throws Exception {
    JsonObject method =
        JsonParser.parseString(Files.readString(CONFIG))
            .getAsJsonObject()
            .getAsJsonArray("methodConfig")
            .get(0)
            .getAsJsonObject();
    JsonObject policy = method.getAsJsonObject("retryPolicy");
    assertEquals(Retry.INITIAL_BACKOFF, span(policy, "initialBackoff"));
    assertEquals(Retry.MAX_BACKOFF, span(policy, "maxBackoff"));
    assertEquals(Retry.BACKOFF_MULTIPLIER, policy.get("backoffMultiplier").getAsInt());
    assertEquals(
        "[\"" + Retry.RETRYABLE + "\"]", policy.getAsJsonArray("retryableStatusCodes").toString());
    assertTrue(method.getAsJsonArray("name").toString().contains("\"Submit\""));
  }

  private static Duration span(JsonObject policy, String name) {
    return Duration.parse("PT" + policy.get(name).getAsString());
  }

  @Test
  void theGeneratedClientRidesOverRefusalsByTheServiceConfig() throws Exception {
    Scripted service = new Scripted("", "20");
    serve(service);
    Map<String, ?> config =
        new Gson()
            .fromJson(Files.readString(CONFIG), new TypeToken<Map<String, Object>>() {}.getType());
    ManagedChannel stock =
        Grpc.newChannelBuilder(target(), InsecureChannelCredentials.create())
            .defaultServiceConfig(config)
            .build();
    try {
      var answer =
          TaskServiceGrpc.newBlockingStub(stock).submit(NOOP.toBuilder().setRequestId("1").build());
      assertEquals("t1", answer.getTaskId());
      assertEquals(3, service.submissions.size());
    } finally {
      stock.shutdownNow();
    }
  }
}
