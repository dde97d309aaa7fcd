package dev.taskyard;

import static dev.taskyard.ScriptedSource.pushed;
import static dev.taskyard.ScriptedSource.refusal;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Duration;
import com.google.rpc.BadRequest;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Addresses, errors, and what is worth another try. */
class PartsTest {
  private static final TaskyardException LOST = TaskyardException.of(Status.UNAVAILABLE, null);

  @ParameterizedTest
  @CsvSource({
    "http://127.0.0.1:50051, http://127.0.0.1:50051",
    "127.0.0.1:7000, http://127.0.0.1:7000",
    "localhost, http://localhost:50051",
    "' my_host:1 ', http://my_host:1",
    "http://example.org/, http://example.org:50051",
    "[::1]:9, http://[::1]:9",
    "[::1], http://[::1]:50051",
  })
  void addressesAreTakenAsPeopleWriteThem(String text, String address) {
    assertEquals(address, Address.parse(text).toString());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "https://a:1",
        "ftp://a",
        "a b",
        "http://",
        "a:99999",
        "a:",
        "a:-1",
        "a:1/path",
        "a@b:1",
        "::1",
        "a\nb"
      })
  void otherTextsAreNone(String text) {
    TaskyardException wrong = assertThrows(TaskyardException.class, () -> Client.connect(text));
    assertEquals(Code.INVALID_ARGUMENT, wrong.code());
    Expect.oneLine(wrong);
  }

  @Test
  void restsGrowAndAreBounded() {
    int[] failures = {1, 3, 6, 7, 1000};
    int[] most = {100, 400, 3200, 5000, 5000};
    for (int i = 0; i < failures.length; i++) {
      for (int n = 0; n < 100; n++) {
        long rest = Retry.backoff(failures[i]).toNanos();
        long whole = most[i] * 1_000_000L;
        assertTrue(rest >= whole / 2 && rest < whole, rest + " after " + failures[i]);
      }
    }
  }

  @Test
  void onlyLostCallsAreRepeated() {
    assertTrue(Retry.restAfter(1000, LOST).isPresent());
    Clock clock = new Clock();
    var full = refusal(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL");
    var failed = failure(Repetition.of(clock, null, () -> CompletableFuture.failedFuture(full)));
    assertEquals("QUEUE_FULL", failed.reason());
    assertEquals(List.of(), clock.rests);
  }

  @Test
  void aPushbackIsHonoured() {
    assertEquals(Optional.of(ms(700)), Retry.restAfter(1, pushed("700")));
    assertEquals(Optional.of(ms(10)), Retry.restAfter(1, pushed("0")));
    assertEquals(Optional.empty(), Retry.restAfter(1, pushed("-1")));
    assertEquals(Optional.empty(), Retry.restAfter(1, pushed("soon")));
    assertEquals(Optional.empty(), Retry.restAfter(1, pushed("3600000")));
    assertEquals(Optional.of(ms(700)), pushed("700").retryAfter());
    Duration delay = Duration.newBuilder().setNanos(250_000_000).build();
    RetryInfo info = RetryInfo.newBuilder().setRetryDelay(delay).build();
    var draining = refusal(Code.UNAVAILABLE, "DRAINING", info);
    assertEquals(Optional.of(ms(250)), Retry.restAfter(1, draining));
  }

  /** Time that passes only while a repetition rests. */
  static final class Clock extends Deadline.Ticker implements Repetition.Later {
    private long now;
    final List<java.time.Duration> rests = new ArrayList<>();

    @Override
    public long nanoTime() {
      return now;
    }

    @Override
    public void run(java.time.Duration rest, Runnable what) {
      rests.add(rest);
      now += rest.toNanos();
      what.run();
    }
  }

  @Test
  void aCallIsRepeatedUntilItIsAnswered() throws Exception {
    Clock clock = new Clock();
    int[] calls = {0};
    CompletableFuture<Integer> answer =
        Repetition.of(
            clock,
            null,
            () -> {
              calls[0]++;
              return calls[0] < 4
                  ? CompletableFuture.failedFuture(LOST)
                  : CompletableFuture.completedFuture(calls[0]);
            });
    assertEquals(4, answer.get());
    assertEquals(3, clock.rests.size());
  }

  @Test
  void maxOutageEnds() {
    Clock clock = new Clock();
    var failed = failure(Repetition.of(clock, null, () -> CompletableFuture.failedFuture(LOST)));
    assertEquals(Code.UNAVAILABLE, failed.code());
    // The last rest, of 5 s at most, would have ended beyond it.
    assertTrue(clock.now > 55_000_000_000L && clock.now <= 60_000_000_000L, "" + clock.now);
    assertTrue(clock.rests.size() < 40, "" + clock.rests);
  }

  @Test
  void aTryThatStoodForLongEndsTheOutageBeforeIt() throws Exception {
    Clock clock = new Clock();
    int[] calls = {0};
    var answer =
        Repetition.of(
            clock,
            null,
            () -> {
              if (++calls[0] % 3 == 0) {
                clock.now += 100_000_000_000L;
              }
              return calls[0] <= 12
                  ? CompletableFuture.failedFuture(LOST)
                  : CompletableFuture.completedFuture(calls[0]);
            });
    assertEquals(13, answer.get());
  }

  @Test
  void aDrainIsWaitedForAndItsEndIsNoticed() throws Exception {
    Clock clock = new Clock();
    var answer =
        Repetition.of(
            clock,
            null,
            () ->
                clock.now < 30_000_000_000L
                    ? CompletableFuture.failedFuture(pushed("1000"))
                    : clock.now < 40_000_000_000L
                        ? CompletableFuture.failedFuture(LOST)
                        : CompletableFuture.completedFuture(1));
    assertEquals(1, answer.get());
    assertTrue(clock.now <= 46_000_000_000L, "" + clock.now);
  }

  @Test
  void theDeadlineBoundsTriesAndRests() {
    Clock clock = new Clock();
    Deadline deadline = Deadline.after(1, TimeUnit.SECONDS, clock);
    var failed =
        failure(Repetition.of(clock, deadline, () -> CompletableFuture.failedFuture(LOST)));
    assertEquals(Code.DEADLINE_EXCEEDED, failed.code());
    assertEquals(1_000_000_000L, clock.now);
    assertTrue(failed.getMessage().contains("at last"), failed.getMessage());
  }

  @Test
  void cancellingGivesUpTheCall() {
    CompletableFuture<Object> call = new CompletableFuture<>();
    Repetition.of(new Clock(), null, () -> call).cancel(true);
    assertTrue(call.isCancelled());
  }

  @Test
  void everythingHasItsName() {
    BadRequest bad =
        BadRequest.newBuilder()
            .addFieldViolations(
                BadRequest.FieldViolation.newBuilder()
                    .setField("kind")
                    .setDescription("is required"))
            .build();
    PreconditionFailure state =
        PreconditionFailure.newBuilder()
            .addViolations(
                PreconditionFailure.Violation.newBuilder()
                    .setSubject("t1")
                    .setDescription("has ended"))
            .build();
    TaskyardException error = refusal(Code.INVALID_ARGUMENT, "INVALID_FIELDS", bad, state);
    assertEquals(Code.INVALID_ARGUMENT, error.code());
    assertEquals("INVALID_FIELDS", error.reason());
    assertEquals(Map.of("a", "b"), error.metadata());
    assertEquals(
        List.of(new Violation("kind", "is required"), new Violation("t1", "has ended")),
        error.violations());
    assertEquals("no (INVALID_FIELDS)", error.getMessage());
  }

  @Test
  void detailsThatCannotBeReadAreNone() {
    Metadata trailers = new Metadata();
    trailers.put(
        Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER),
        new byte[] {-1, 1});
    var error = TaskyardException.of(Status.NOT_FOUND.withDescription("gone"), trailers);
    assertEquals("gone", error.getMessage());
    assertEquals("", error.reason());
  }

  @Test
  void whatAFutureThrowsIsTakenApart() {
    Throwable thrown = new StatusRuntimeException(Status.NOT_FOUND);
    assertEquals(Code.NOT_FOUND, TaskyardException.of(new CompletionException(thrown)).code());
    assertEquals(Code.UNKNOWN, TaskyardException.of(new IOException("disk")).code());
  }

  @ParameterizedTest
  @CsvSource({
    "INTERNAL, Received unexpected EOS on empty DATA frame from server, UNAVAILABLE",
    "CANCELLED, RST_STREAM closed stream. HTTP/2 error code: CANCEL, UNAVAILABLE",
    "RESOURCE_EXHAUSTED, Connection closed. HTTP/2 error code: ENHANCE_YOUR_CALM, UNAVAILABLE",
    "INTERNAL, panic, INTERNAL",
    "CANCELLED, given up, CANCELLED",
    "UNKNOWN, HTTP status code 500, UNKNOWN",
  })
  void aStreamThatWasCutOffIsALostConnection(Code is, String message, Code code) {
    TaskyardException error =
        TaskyardException.of(is.toStatus().withDescription(message), new Metadata());
    assertEquals(code, error.code());
    Expect.oneLine(error);
  }

  @Test
  void whatTheTransportSaysIsALostConnection() {
    Status status = Status.UNKNOWN.withDescription("closed").withCause(new IOException("reset"));
    TaskyardException error = TaskyardException.of(status, null);
    assertEquals(Code.UNAVAILABLE, error.code());
    assertEquals("the connection to the server was lost: reset", error.getMessage());
  }

  private static java.time.Duration ms(int millis) {
    return java.time.Duration.ofMillis(millis);
  }

  private static TaskyardException failure(CompletableFuture<?> future) {
    return TaskyardException.of(assertThrows(ExecutionException.class, future::get));
  }
}
