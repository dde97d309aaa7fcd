package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.SubmitRequest;
import io.grpc.Status.Code;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A server that drains and does not come back, and tasks that run for long. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class DrainingTest {
  private static final SubmitRequest NOOP = SubmitRequest.newBuilder().setKind("noop").build();

  @TempDir Path dir;

  @Test
  void itsRefusalIsToldByItsReason() throws Exception {
    ServerProcess server = ServerProcess.start("127.0.0.1:0", dir, List.of());
    try (Client client = Client.connect(server.address());
        Watch watch = client.watch(WatchOptions.oldest())) {
      // What runs keeps it from ending.
      SubmitRequest.Builder sleep = SubmitRequest.newBuilder().setKind("sleep");
      sleep.getArgsBuilder().putFields("duration", text("1h"));
      client.submit(sleep.build());
      until(watch, EventType.EVENT_TYPE_STARTED);
      server.signal("TERM");
      until(watch, EventType.EVENT_TYPE_DRAINING);

      var thrown = assertThrows(RuntimeException.class, () -> client.tasks().submit(NOOP));
      TaskyardException refused = TaskyardException.of(thrown);
      assertEquals("UNAVAILABLE DRAINING", refused.code() + " " + refused.reason());
      Expect.oneLine(refused);
      var late =
          assertThrows(TaskyardException.class, () -> client.submit(NOOP, Duration.ofMillis(300)));
      assertEquals(Code.DEADLINE_EXCEEDED, late.code());
      Expect.oneLine(late);
    } finally {
      server.kill();
    }
  }

  @Test
  void aTaskThatIsNotDoneInTimeIsToldByItsId() throws Exception {
    ServerProcess server = ServerProcess.start("127.0.0.1:0", dir, List.of());
    try (Client client = Client.connect(server.address())) {
      SubmitRequest.Builder sleep = SubmitRequest.newBuilder().setKind("sleep");
      sleep.getArgsBuilder().putFields("duration", text("1h"));
      var late =
          assertThrows(
              TaskyardException.class,
              () -> client.submitAndWait(sleep.build(), Duration.ofMillis(300)));
      assertEquals(Code.DEADLINE_EXCEEDED, late.code());
      String id = late.metadata().get("task_id");
      assertEquals("the task %s was not done in time".formatted(id), late.getMessage());
    } finally {
      server.kill();
    }
  }

  private static com.google.protobuf.Value text(String text) {
    return com.google.protobuf.Value.newBuilder().setStringValue(text).build();
  }

  private static void until(Watch watch, EventType type) {
    while (true) {
      if (watch.next() instanceof Seen.Events events
          && events.events().stream().map(Event::getType).anyMatch(type::equals)) {
        return;
      }
    }
  }
}
