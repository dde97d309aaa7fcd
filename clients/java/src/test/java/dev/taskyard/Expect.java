package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.taskyard.v1.Event;
import dev.taskyard.v1.Task;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeSet;

/** What the table expects. */
final class Expect {
  private Expect() {}

  static void task(Task task, JsonObject expect) {
    for (Map.Entry<String, JsonElement> one : expect.entrySet()) {
      JsonElement value = one.getValue();
      switch (one.getKey()) {
        case "state" ->
            assertEquals("TASK_STATE_" + value.getAsString(), task.getState().toString());
        case "attempt" -> assertEquals(value.getAsInt(), task.getAttempt());
        case "priority" -> assertEquals(value.getAsInt(), task.getPriority());
        case "labels" -> {
          Map<String, String> labels = new HashMap<>();
          value
              .getAsJsonObject()
              .entrySet()
              .forEach(label -> labels.put(label.getKey(), label.getValue().getAsString()));
          assertEquals(labels, task.getLabelsMap());
        }
        case "error" -> assertEquals(value.getAsString(), task.getError().getReason());
        default -> fail(one.getKey() + ": this test does not check it yet");
      }
    }
  }

  static void error(TaskyardException error, JsonObject expect) {
    assertEquals(expect.get("code").getAsString(), error.code().toString(), error.getMessage());
    if (expect.has("reason")) {
      assertEquals(expect.get("reason").getAsString(), error.reason(), error.getMessage());
    }
    if (expect.has("violations")) {
      TreeSet<String> subjects = new TreeSet<>();
      error.violations().forEach(violation -> subjects.add(violation.subject()));
      assertEquals(Stage.texts(expect.get("violations")), subjects.stream().toList());
    }
    if (expect.has("metadata")) {
      assertTrue(error.metadata().keySet().containsAll(Stage.texts(expect.get("metadata"))));
    }
    if (expect.has("retry_after")) {
      assertTrue(error.retryAfter().isPresent(), error.getMessage());
    }
    oneLine(error);
  }

  /** It is one clear sentence, and nothing of the inside. */
  static void oneLine(TaskyardException error) {
    String message = error.getMessage();
    assertFalse(message.isBlank() || message.contains("\n"), message);
    assertFalse(message.contains("io.grpc") || message.contains("Exception"), message);
    assertEquals(null, error.getCause());
  }

  static String type(Event event) {
    return event.getType().toString().replace("EVENT_TYPE_", "");
  }
}
