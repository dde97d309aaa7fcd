package dev.taskyard;

import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What a status says to a person, and whether the transport made it. */
final class StatusText {
  /** How the transport begins the statuses of a stream that was cut off. */
  private static final Pattern CUT_OFF =
      Pattern.compile(
          "Received unexpected EOS|Encountered end-of-stream mid-frame|.*HTTP/2 error code: .*",
          Pattern.DOTALL);

  /** What the native transport writes before what the system says. */
  private static final Pattern SYSTEM_CALL =
      Pattern.compile("^\\w+\\(\\.\\.\\) failed(?: with error\\(-?\\d+\\))?: ");

  /** The first bytes of an answer that is not HTTP/2. */
  private static final Pattern NOT_SETTINGS = Pattern.compile("Hex dump for first 5 bytes: (\\w*)");

  private StatusText() {}

  /**
   * Whether the connection broke, rather than a server answering. Statuses that the transport made
   * carry their cause, if they have one; those that came over the wire never do.
   */
  static boolean isBroken(Status status) {
    String message = description(status);
    Throwable cause = status.getCause();
    boolean isMadeHere = cause != null && !(cause instanceof InvalidProtocolBufferException);
    return switch (status.getCode()) {
      case UNAVAILABLE -> true;
      case INTERNAL, UNKNOWN, RESOURCE_EXHAUSTED ->
          isMadeHere || CUT_OFF.matcher(message).lookingAt();
      // Not if the caller gave it up.
      case CANCELLED -> message.contains("RST_STREAM");
      default -> false;
    };
  }

  /** One line for a person. */
  static String of(Status status, String reason) {
    String message = oneLine(description(status));
    if (!reason.isEmpty()) {
      return message + " (" + reason + ")";
    }
    if (status.getCode() == Code.DEADLINE_EXCEEDED) {
      return "the deadline passed before the server answered";
    }
    if (isStranger(message)) {
      return "what answers is no Taskyard: " + stranger(message);
    }
    if (isBroken(status)) {
      return "the connection to the server was lost: " + rootCause(status);
    }
    if (status.getCode() == Code.CANCELLED) {
      return message.equals("Thread interrupted")
          ? "the call was interrupted"
          : "the call was cancelled";
    }
    return message.isEmpty()
        ? "the server answered " + status.getCode() + " without a message"
        : message;
  }

  /** The innermost cause, which is the one that says something. */
  static String rootCause(Status status) {
    Throwable cause = status.getCause();
    while (cause != null && cause.getCause() != null) {
      cause = cause.getCause();
    }
    String message =
        oneLine(
            cause == null || cause.getMessage() == null ? description(status) : cause.getMessage());
    Matcher foreign = NOT_SETTINGS.matcher(message);
    if (foreign.find()) {
      return foreign.group(1).equals("485454502f")
          ? "what answers speaks HTTP/1, not gRPC"
          : "what answers does not speak gRPC";
    }
    message = SYSTEM_CALL.matcher(message).replaceFirst("");
    return message.isEmpty() ? "no reason is known" : message;
  }

  /** Whether an HTTP server answered that knows nothing of gRPC. */
  static boolean isStranger(String message) {
    return message.startsWith("HTTP status code") || message.contains("invalid content-type");
  }

  /** What another kind of server answered, without what gRPC adds. */
  static String stranger(String message) {
    return oneLine(message).replaceFirst("(?s) ?(invalid content-type|headers: ).*", "");
  }

  static String description(Status status) {
    return status.getDescription() == null ? "" : status.getDescription();
  }

  static String oneLine(String text) {
    return text.strip().replaceAll("\\s+", " ");
  }
}
