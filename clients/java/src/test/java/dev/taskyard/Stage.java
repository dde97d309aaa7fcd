package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import dev.taskyard.v1.CancelTaskRequest;
import dev.taskyard.v1.Event;
import dev.taskyard.v1.EventFilter;
import dev.taskyard.v1.SubmitAck;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.SubmitResponse;
import dev.taskyard.v1.SubmitStreamRequest;
import dev.taskyard.v1.SubmitStreamResponse;
import dev.taskyard.v1.Task;
import dev.taskyard.v1.TaskServiceGrpc;
import io.grpc.stub.StreamObserver;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.function.Supplier;

/** Where one scenario is played: its server, its client, and what was made so far. */
final class Stage implements AutoCloseable {
  private static final Duration PATIENCE = Duration.ofMinutes(1);

  /** How long after its deadline or timeout a step ends at the latest. */
  private static final Duration LATEST = Duration.ofSeconds(5);

  private final Path data;
  private final List<String> settings;
  private final Client client;
  private final String address;
  private final Map<String, SubmitResponse> tasks = new HashMap<>();
  private final Map<String, CompletableFuture<SubmitResponse>> background = new HashMap<>();
  private final Map<String, Seeing> watches = new HashMap<>();
  private ServerProcess server;

  Stage(Path data, List<String> settings) throws Exception {
    this.data = data;
    this.settings = settings;
    this.server = ServerProcess.start("127.0.0.1:0", data, settings);
    this.address = server.address();
    this.client = Client.connect(address);
  }

  @Override
  public void close() {
    watches.values().forEach(seeing -> seeing.watch.close());
    client.close();
    server.kill();
  }

  void step(String name, JsonObject about) throws Exception {
    long began = System.nanoTime();
    play(name, about);
    Duration took = Duration.ofNanos(System.nanoTime() - began);
    for (String bound : List.of("deadline", "timeout")) {
      if (about.has(bound)) {
        Duration most = duration(about.get(bound)).plus(LATEST);
        assertTrue(took.compareTo(most) <= 0, name + " took " + took);
      }
    }
  }

  private void play(String name, JsonObject about) throws Exception {
    switch (name) {
      case "submit" -> submit(about);
      case "finish" -> {
        String submit = text(about, "submit");
        submitted(submit, about, () -> joined(background.get(submit)));
      }
      case "submit_and_wait" ->
          Expect.task(client.submitAndWait(request(about.get("request"))), expect(about));
      case "submit_and_watch" -> submitAndWatch(about);
      case "submit_stream" -> submitStream(about);
      case "wait" -> waitFor(about);
      case "cancel" -> cancel(about);
      case "watch" -> watch(about);
      case "watch_until" -> watches.get(text(about, "watch")).until(taskId(about), about);
      case "watch_error" -> {
        Watch watch = watches.get(text(about, "watch")).watch;
        Expect.error(
            assertThrows(TaskyardException.class, () -> watch.forEachRemaining(seen -> {})),
            about.getAsJsonObject("error"));
      }
      case "stop" -> server.end(text(about, "signal"));
      case "drain" -> server.signal("TERM");
      case "start" -> {
        server.waitFor();
        server = ServerProcess.start(address, data, settings);
      }
      case "restart" -> {
        server.end(text(about, "signal"));
        server = ServerProcess.start(address, data, settings);
      }
      case "freeze" -> server.signal("STOP");
      case "thaw" -> server.signal("CONT");
      default -> fail(name + " is no step");
    }
  }

  private String taskId(JsonObject about) {
    return about.has("task_id")
        ? text(about, "task_id")
        : tasks.get(text(about, "task")).getTaskId();
  }

  private void waitFor(JsonObject about) {
    String task = taskId(about);
    Supplier<Task> call =
        about.has("timeout")
            ? () -> client.waitFor(task, duration(about.get("timeout")))
            : () -> client.waitFor(task);
    if (about.has("error")) {
      Expect.error(
          assertThrows(TaskyardException.class, call::get), about.getAsJsonObject("error"));
    } else {
      Expect.task(call.get(), expect(about));
    }
  }

  private void submit(JsonObject about) throws Exception {
    SubmitRequest request = request(about.get("request"));
    Duration deadline = about.has("deadline") ? duration(about.get("deadline")) : null;
    String name = about.has("as") ? text(about, "as") : "";
    if (about.has("background")) {
      background.put(name, client.submitAsync(request));
    } else if (deadline != null) {
      submitted(name, about, () -> client.submit(request, deadline));
    } else {
      submitted(name, about, () -> client.submit(request));
    }
  }

  private void submitted(String name, JsonObject about, Callable<SubmitResponse> call)
      throws Exception {
    if (about.has("error")) {
      Expect.error(
          assertThrows(TaskyardException.class, call::call), about.getAsJsonObject("error"));
      return;
    }
    SubmitResponse submitted = call.call();
    JsonObject expect = expect(about);
    if (expect.has("existing")) {
      assertEquals(expect.get("existing").getAsBoolean(), submitted.getExisting());
    }
    if (expect.has("same_task_as")) {
      assertEquals(tasks.get(text(expect, "same_task_as")).getTaskId(), submitted.getTaskId());
    }
    tasks.put(name, submitted);
  }

  private void submitAndWatch(JsonObject about) throws Exception {
    List<String> types = new ArrayList<>();
    String task = null;
    try (Watch watch = client.submitAndWatch(request(about.get("request")))) {
      for (Seen seen : watch) {
        if (seen instanceof Seen.Submitted submitted) {
          task = submitted.response().getTaskId();
        } else if (seen instanceof Seen.Events events) {
          for (Event event : events.events()) {
            assertEquals(task, event.getTaskId());
            types.add(Expect.type(event));
          }
        }
      }
    }
    assertEquals(texts(about.get("expect")), types);
  }

  private void submitStream(JsonObject about) throws Exception {
    List<SubmitAck> acks = new ArrayList<>();
    CompletableFuture<Void> end = new CompletableFuture<>();
    StreamObserver<SubmitStreamRequest> stream =
        TaskServiceGrpc.newStub(client.channel())
            .submitStream(
                new StreamObserver<>() {
                  @Override
                  public void onNext(SubmitStreamResponse message) {
                    acks.addAll(message.getAcksList());
                  }

                  @Override
                  public void onError(Throwable thrown) {
                    end.completeExceptionally(thrown);
                  }

                  @Override
                  public void onCompleted() {
                    end.complete(null);
                  }
                });
    long sequence = 0;
    for (JsonElement request : about.getAsJsonArray("requests")) {
      sequence++;
      stream.onNext(
          SubmitStreamRequest.newBuilder()
              .setSequence(sequence)
              .setRequest(request(request))
              .build());
    }
    stream.onCompleted();
    end.get();
    JsonArray expected = about.getAsJsonArray("expect");
    assertEquals(expected.size(), acks.size());
    for (int i = 0; i < acks.size(); i++) {
      JsonObject expect = expected.get(i).getAsJsonObject();
      assertEquals(expect.get("sequence").getAsLong(), acks.get(i).getSequence());
      assertEquals(expect.has("code"), acks.get(i).hasError());
      if (acks.get(i).hasError()) {
        Expect.error(TaskyardException.of(acks.get(i).getError()), expect);
      }
    }
  }

  private void cancel(JsonObject about) {
    CancelTaskRequest request = CancelTaskRequest.newBuilder().setTaskId(taskId(about)).build();
    if (about.has("error")) {
      Exception thrown =
          assertThrows(RuntimeException.class, () -> client.tasks().cancelTask(request));
      Expect.error(TaskyardException.of(thrown), about.getAsJsonObject("error"));
    } else {
      Expect.task(client.tasks().cancelTask(request).getTask(), expect(about));
    }
  }

  private void watch(JsonObject about) throws Exception {
    WatchOptions options;
    boolean isLive = false;
    if (about.has("after")) {
      options = WatchOptions.after(text(about, "after"));
    } else if (about.has("after_task")) {
      options = WatchOptions.after(tasks.get(text(about, "after_task")).getCursor());
    } else if (text(about, "start").equals("OLDEST")) {
      options = WatchOptions.oldest();
    } else {
      options = WatchOptions.live();
      isLive = true;
    }
    options =
        options.withMaxOutage(
            about.has("max_outage") ? duration(about.get("max_outage")) : PATIENCE);
    boolean isFiltered = about.has("filter");
    if (isFiltered) {
      EventFilter.Builder filter = EventFilter.newBuilder();
      merge(about.get("filter"), filter);
      options = options.withFilter(filter.build());
    }
    Watch watch = client.watch(options);
    watches.put(text(about, "as"), new Seeing(watch, isFiltered));
    if (isLive) {
      // From here on nothing is missed.
      assertInstanceOf(Seen.Started.class, watch.next());
    }
  }

  /** A watch, and what it saw so far that no step has looked at. */
  private static final class Seeing {
    private final Watch watch;
    private final boolean isFiltered;
    private final List<Event> unread = new ArrayList<>();
    private long last;
    private int count;

    Seeing(Watch watch, boolean isFiltered) {
      this.watch = watch;
      this.isFiltered = isFiltered;
    }

    void until(String task, JsonObject about) {
      String type = text(about, "type");
      while (unread.stream()
          .noneMatch(event -> isOf(task, event) && Expect.type(event).equals(type))) {
        if (watch.next() instanceof Seen.Events events) {
          events.events().forEach(this::note);
        }
      }
      assertEquals(
          texts(about.get("expect")),
          unread.stream().filter(event -> isOf(task, event)).map(Expect::type).toList());
      if (about.has("expect_all")) {
        assertEquals(about.get("expect_all").getAsInt(), count);
      }
      unread.removeIf(event -> isOf(task, event));
    }

    private void note(Event event) {
      boolean follows = event.getSeq() == last + 1 || last == 0;
      assertTrue(follows || (isFiltered && event.getSeq() > last), event + " after " + last);
      last = event.getSeq();
      count++;
      unread.add(event);
    }

    private static boolean isOf(String task, Event event) {
      return event.getTaskId().equals(task);
    }
  }

  private static <T> T joined(CompletableFuture<T> future) throws Exception {
    try {
      return future.get();
    } catch (java.util.concurrent.ExecutionException e) {
      throw TaskyardException.of(e);
    }
  }

  private static JsonObject expect(JsonObject about) {
    return about.has("expect") ? about.getAsJsonObject("expect") : new JsonObject();
  }

  private static String text(JsonObject about, String name) {
    return about.get(name).getAsString();
  }

  static List<String> texts(JsonElement list) {
    List<String> texts = new ArrayList<>();
    list.getAsJsonArray().forEach(element -> texts.add(element.getAsString()));
    return texts;
  }

  private static SubmitRequest request(JsonElement json) throws InvalidProtocolBufferException {
    SubmitRequest.Builder request = SubmitRequest.newBuilder();
    merge(json, request);
    return request.build();
  }

  private static void merge(JsonElement json, Message.Builder into)
      throws InvalidProtocolBufferException {
    JsonFormat.parser().merge(json.toString(), into);
  }

  /** A duration as protobuf's JSON writes it. */
  private static Duration duration(JsonElement json) {
    return Duration.parse("PT" + json.getAsString());
  }
}
