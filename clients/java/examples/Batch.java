import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.JsonFormat;
import dev.taskyard.Client;
import dev.taskyard.Seen;
import dev.taskyard.TaskyardException;
import dev.taskyard.Watch;
import dev.taskyard.WatchOptions;
import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventFilter;
import dev.taskyard.v1.EventType;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.TaskState;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Semaphore;

/**
 * Submits the tasks of a file, one JSON object a line, and follows them to their end, with a bar on
 * a terminal. It exits with 1 if a task did not succeed, and with 2 if anything else went wrong.
 */
public final class Batch {
  /** How many submissions are under way at a time. */
  private static final int SUBMISSIONS = 32;

  private static final int WIDTH = 40;
  private static final EventFilter ENDS =
      EventFilter.newBuilder()
          .addTypes(EventType.EVENT_TYPE_SUCCEEDED)
          .addTypes(EventType.EVENT_TYPE_FAILED)
          .addTypes(EventType.EVENT_TYPE_CANCELLED)
          .build();

  private final boolean hasBar = System.console() != null;
  private final Watch watch;
  private final int all;
  private int succeeded;
  private int failed;
  private int answered;

  /** Tasks that have not ended, with their numbers: with the same request_id, they are one task. */
  private final Map<String, List<Integer>> waiting = new HashMap<>();

  /** Ends of tasks, as long as answers to submissions are on their way. */
  private final Map<String, Event> early = new HashMap<>();

  private Batch(Watch watch, int all) {
    this.watch = watch;
    this.all = all;
  }

  /**
   * Runs it.
   *
   * @param args a file, and before it perhaps {@code --server ADDRESS}
   */
  public static void main(String[] args) {
    List<String> rest = new ArrayList<>(List.of(args));
    String server =
        Optional.ofNullable(System.getenv("TASKYARD_SERVER"))
            .filter(s -> !s.isEmpty())
            .orElse("localhost:50051");
    if (rest.size() == 3 && rest.get(0).equals("--server")) {
      server = rest.get(1);
      rest = rest.subList(2, 3);
    }
    if (rest.size() != 1 || rest.get(0).startsWith("-")) {
      System.err.println("Usage: Batch [--server ADDRESS] FILE");
      System.exit(2);
    }
    try {
      System.exit(run(server, Path.of(rest.get(0))) ? 0 : 1);
    } catch (NoSuchFileException e) {
      System.err.println("batch: there is no file " + e.getMessage());
    } catch (IOException | TaskyardException e) {
      System.err.println("batch: " + e.getMessage());
    }
    System.exit(2);
  }

  /** Whether all have succeeded. */
  private static boolean run(String server, Path file) throws IOException {
    List<SubmitRequest> requests = read(file);
    try (Client client = Client.connect(server);
        Watch watch = client.watch(WatchOptions.live().withFilter(ENDS))) {
      // From its first cursor on, no end of a task is missed.
      while (watch.cursor().isEmpty()) {
        watch.next();
      }
      Batch batch = new Batch(watch, requests.size());
      batch.draw();
      Thread submitter = new Thread(() -> batch.submit(client, requests), "submitter");
      submitter.setDaemon(true);
      submitter.start();
      for (Seen seen : watch) {
        if (seen instanceof Seen.Events events) {
          events.events().forEach(batch::ended);
        } else if (seen instanceof Seen.Lost lost) {
          batch.say("lost the server: " + lost.cause().getMessage());
        } else if (seen instanceof Seen.Restored) {
          batch.say("the server is back");
        }
      }
      return batch.close();
    }
  }

  /** All lines, so that nothing is submitted if one is wrong. */
  private static List<SubmitRequest> read(Path file) throws IOException {
    List<SubmitRequest> requests = new ArrayList<>();
    int number = 0;
    for (String line : Files.readAllLines(file)) {
      if (number++ == 0 && line.startsWith("\uFEFF")) {
        line = line.substring(1); // Some editors begin a text with it.
      }
      if (line.isBlank()) {
        continue;
      }
      SubmitRequest.Builder request = SubmitRequest.newBuilder();
      try {
        JsonFormat.parser().merge(line, request);
      } catch (InvalidProtocolBufferException e) {
        String why = e.getMessage().replaceFirst("^[\\w.]+Exception: ", "").replace('\n', ' ');
        throw new IOException("%s:%d: %s".formatted(file, number, why), e);
      }
      requests.add(request.build());
    }
    if (requests.isEmpty()) {
      throw new IOException(file + ": there are no tasks");
    }
    return requests;
  }

  private void submit(Client client, List<SubmitRequest> requests) {
    Semaphore room = new Semaphore(SUBMISSIONS);
    for (int i = 0; i < requests.size(); i++) {
      int number = i + 1;
      room.acquireUninterruptibly();
      client
          .submitAsync(requests.get(i))
          .whenComplete(
              (submitted, thrown) -> {
                room.release();
                submitted(number, submitted, thrown);
              });
    }
  }

  /** Notes the answer to the submission of this number. */
  private synchronized void submitted(int number, SubmitResponse submitted, Throwable thrown) {
    answered++;
    if (thrown != null) {
      count(number, "was refused: " + TaskyardException.of(thrown).getMessage(), false);
    } else if (early.containsKey(submitted.getTaskId())) {
      note(number, early.get(submitted.getTaskId()));
    } else if (Client.isTerminal(submitted.getState())) {
      // Its request_id was known, and it has ended before the watch began.
      String state = submitted.getState().toString().replace("TASK_STATE_", "");
      count(
          number,
          submitted.getTaskId() + " had ended: " + state,
          submitted.getState() == TaskState.TASK_STATE_SUCCEEDED);
    } else {
      waiting.computeIfAbsent(submitted.getTaskId(), id -> new ArrayList<>()).add(number);
    }
    if (answered == all) {
      early.clear();
    }
  }

  /** Notes an event that ends a task, perhaps of somebody else. */
  private synchronized void ended(Event event) {
    List<Integer> numbers = waiting.remove(event.getTaskId());
    if (numbers != null) {
      numbers.forEach(number -> note(number, event));
    }
    if (answered < all) {
      early.put(event.getTaskId(), event);
    }
  }

  private void note(int number, Event event) {
    String told = event.getTaskId() + " " + event.getType().toString().replace("EVENT_TYPE_", "");
    if (event.hasError()) {
      told += " " + event.getError().getReason() + ": " + event.getError().getMessage();
    }
    count(number, told, event.getType() == EventType.EVENT_TYPE_SUCCEEDED);
  }

  private void count(int number, String told, boolean isWell) {
    succeeded += isWell ? 1 : 0;
    failed += isWell ? 0 : 1;
    // Where there is a bar, it tells what went well.
    if (!hasBar || !isWell) {
      line("%d/%d: task %d: %s".formatted(succeeded + failed, all, number, told));
    }
    draw();
    if (succeeded + failed == all) {
      watch.close();
    }
  }

  private synchronized void say(String line) {
    line(line);
    draw();
  }

  private void line(String line) {
    System.out.println(hasBar ? "\r\033[K" + line : line);
  }

  private void draw() {
    if (hasBar) {
      int ended = succeeded + failed;
      int full = (int) ((long) WIDTH * ended / all);
      System.out.printf(
          "\r\033[K%s%s %d/%d, %d failed",
          "━".repeat(full), "╌".repeat(WIDTH - full), ended, all, failed);
      System.out.flush();
    }
  }

  /** Tells the whole, and whether all have succeeded. */
  private synchronized boolean close() {
    if (hasBar) {
      System.out.println();
    }
    System.out.printf("%d tasks: %d succeeded, %d failed%n", all, succeeded, failed);
    return failed == 0;
  }
}
