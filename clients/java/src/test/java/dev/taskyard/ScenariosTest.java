package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/**
 * The client against {@code clients/scenarios.json}, which every client's tests run. {@code
 * clients/README.md} says what the steps mean.
 */
class ScenariosTest {
  private static final Path TABLE = Path.of("../scenarios.json");

  /** Longer than any scenario takes. */
  private static final Duration PATIENCE = Duration.ofMinutes(1);

  @TempDir Path dir;

  @TestFactory
  Stream<DynamicTest> theClientDoesWhatEveryClientMustDo() throws IOException {
    List<DynamicTest> tests = new ArrayList<>();
    JsonObject table = JsonParser.parseString(Files.readString(TABLE)).getAsJsonObject();
    for (JsonElement element : table.getAsJsonArray("scenarios")) {
      JsonObject scenario = element.getAsJsonObject();
      String name = scenario.get("name").getAsString();
      Path data = dir.resolve("data-" + tests.size());
      tests.add(DynamicTest.dynamicTest(name, () -> play(name, scenario, data)));
    }
    assertTrue(tests.size() > 10, "the table has scenarios");
    return tests.stream();
  }

  private static void play(String name, JsonObject scenario, Path data) throws IOException {
    boolean isOk = false;
    List<String> settings = new ArrayList<>();
    if (scenario.has("server")) {
      scenario.getAsJsonArray("server").forEach(setting -> settings.add(setting.getAsString()));
    }
    try {
      assertTimeoutPreemptively(
          PATIENCE,
          () -> {
            try (Stage stage = new Stage(data, settings)) {
              for (JsonElement step : scenario.getAsJsonArray("steps")) {
                var only = step.getAsJsonObject().entrySet().iterator().next();
                stage.step(only.getKey(), only.getValue().getAsJsonObject());
              }
            }
          });
      isOk = true;
    } finally {
      report(name, isOk);
    }
  }

  /** Adds a line to the report that all clients share, if there is one. */
  private static void report(String name, boolean isOk) throws IOException {
    String file = System.getenv("SCENARIO_REPORT");
    if (file != null && !file.isEmpty()) {
      String line = "java\t%s\t%s\n".formatted(name, isOk ? "ok" : "failed");
      Files.writeString(Path.of(file), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
  }
}
