package dev.taskyard;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.PreconditionFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;

/**
 * Why a call failed: the status of the server, or of the way to it, taken apart. Its message is one
 * line for a person; the rest is for programs.
 */
public final class TaskyardException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private final transient Status status;

  /** The gRPC code. */
  private final Code code;

  /** The server's reason; empty if no Taskyard answered. */
  private final String reason;

  private final transient Map<String, String> metadata;
  private final transient List<Violation> violations;
  private final transient Pushback pushback;

  TaskyardException(Code code, String message) {
    this(code, message, Map.of());
  }

  TaskyardException(Code code, String message, Map<String, String> metadata) {
    super(StatusText.oneLine(message));
    this.status = code.toStatus().withDescription(getMessage());
    this.code = code;
    this.reason = "";
    this.metadata = Map.copyOf(metadata);
    this.violations = List.of();
    this.pushback = Pushback.UNSAID;
  }

  private TaskyardException(Status status, Details details, Pushback pushback) {
    super(StatusText.of(status, details.reason));
    this.status = status;
    this.reason = details.reason;
    this.code =
        reason.isEmpty() && StatusText.isBroken(status) ? Code.UNAVAILABLE : status.getCode();
    this.metadata = Map.copyOf(details.metadata);
    this.violations = List.copyOf(details.violations);
    this.pushback = pushback;
  }

  /**
   * What a call of a generated client threw, taken apart.
   *
   * @param thrown a {@link StatusRuntimeException} or {@link StatusException}, perhaps within what
   *     a future throws
   * @return the same failure; anything else becomes UNKNOWN
   */
  public static TaskyardException of(Throwable thrown) {
    Throwable cause = thrown;
    while ((cause instanceof ExecutionException || cause instanceof CompletionException)
        && cause.getCause() != null) {
      cause = cause.getCause();
    }
    if (cause instanceof TaskyardException known) {
      return known;
    }
    if (cause instanceof StatusRuntimeException failed) {
      return of(failed.getStatus(), failed.getTrailers());
    }
    if (cause instanceof StatusException failed) {
      return of(failed.getStatus(), failed.getTrailers());
    }
    return new TaskyardException(Code.UNKNOWN, String.valueOf(cause));
  }

  /**
   * Why one task of a batch or of a stream was refused.
   *
   * @param status its own status
   * @return the same, as if it had been submitted alone
   */
  public static TaskyardException of(com.google.rpc.Status status) {
    Status of = Status.fromCodeValue(status.getCode()).withDescription(status.getMessage());
    Details details = Details.read(status.getDetailsList());
    return new TaskyardException(of, details, Pushback.read(null, details.retryInfo));
  }

  static TaskyardException of(Status status, Metadata trailers) {
    byte[] bytes = trailers == null ? null : trailers.get(DETAILS);
    List<Any> list = List.of();
    if (bytes != null) {
      try {
        list = com.google.rpc.Status.parseFrom(bytes).getDetailsList();
      } catch (InvalidProtocolBufferException e) {
        // The code and the message still tell what matters.
      }
    }
    Details details = Details.read(list);
    return new TaskyardException(status, details, Pushback.read(trailers, details.retryInfo));
  }

  /**
   * The gRPC code: {@code DEADLINE_EXCEEDED} if the deadline passed on either side, {@code
   * UNAVAILABLE} if the connection was lost, whatever the transport made of it.
   *
   * @return never {@code OK}
   */
  public Code code() {
    return code;
  }

  /**
   * The server's reason, such as {@code QUEUE_FULL}: stable, to be compared by programs.
   *
   * @return empty if no Taskyard answered
   */
  public String reason() {
    return reason;
  }

  /**
   * What goes with the reason, by name: such as the {@code cursor} to go on after.
   *
   * @return perhaps empty
   */
  public Map<String, String> metadata() {
    return metadata;
  }

  /**
   * Everything that is wrong with the request.
   *
   * @return perhaps empty
   */
  public List<Violation> violations() {
    return violations;
  }

  /**
   * How long the server asks to wait before another try.
   *
   * @return empty if it does not
   */
  public Optional<Duration> retryAfter() {
    return pushback.rest();
  }

  /**
   * The status as it came.
   *
   * @return with the cause of the transport, if there is one
   */
  public Status status() {
    return status;
  }

  Pushback pushback() {
    return pushback;
  }

  /** The details of a status that this client knows. */
  private static final class Details {
    private String reason = "";
    private Map<String, String> metadata = Map.of();
    private final List<Violation> violations = new ArrayList<>();
    private RetryInfo retryInfo;

    static Details read(List<Any> list) {
      Details details = new Details();
      unpack(list, ErrorInfo.class)
          .ifPresent(
              info -> {
                details.reason = info.getReason();
                details.metadata = info.getMetadataMap();
              });
      unpack(list, BadRequest.class)
          .ifPresent(
              bad ->
                  bad.getFieldViolationsList()
                      .forEach(v -> details.add(v.getField(), v.getDescription())));
      unpack(list, PreconditionFailure.class)
          .ifPresent(
              bad ->
                  bad.getViolationsList()
                      .forEach(v -> details.add(v.getSubject(), v.getDescription())));
      details.retryInfo = unpack(list, RetryInfo.class).orElse(null);
      return details;
    }

    private void add(String subject, String description) {
      violations.add(new Violation(subject, description));
    }

    private static <T extends Message> Optional<T> unpack(List<Any> list, Class<T> type) {
      for (Any any : list) {
        if (any.is(type)) {
          try {
            return Optional.of(any.unpack(type));
          } catch (InvalidProtocolBufferException e) {
            return Optional.empty();
          }
        }
      }
      return Optional.empty();
    }
  }
}
