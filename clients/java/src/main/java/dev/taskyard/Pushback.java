package dev.taskyard;

import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Optional;

/**
 * What the server says about another try.
 *
 * @param rest after this long, if it says so
 * @param never not to try again
 */
record Pushback(Optional<Duration> rest, boolean never) {
  static final Pushback UNSAID = new Pushback(Optional.empty(), false);
  static final Pushback NEVER = new Pushback(Optional.empty(), true);

  static final Metadata.Key<String> KEY =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

  /** Reads it from the trailing metadata or, without it, from the details; both may be null. */
  static Pushback read(Metadata trailers, RetryInfo info) {
    String value = trailers == null ? null : trailers.get(KEY);
    if (value != null) {
      try {
        return after(Duration.ofMillis(Integer.parseUnsignedInt(value.strip()) & 0xffff_ffffL));
      } catch (NumberFormatException e) {
        return NEVER;
      }
    }
    if (info == null || !info.hasRetryDelay()) {
      return UNSAID;
    }
    var delay = info.getRetryDelay();
    Duration rest = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
    return after(rest.isNegative() ? Duration.ZERO : rest);
  }

  static Pushback after(Duration rest) {
    return new Pushback(Optional.of(rest), false);
  }
}
