package dev.taskyard;

import io.grpc.Status.Code;
import java.net.InetAddress;
import java.net.UnknownHostException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Where a server is. An IPv6 host is in brackets. */
record Address(String host, int port) {
  /** The port of an address that names none. */
  private static final String DEFAULT_PORT = "50051";

  private static final Pattern PARTS =
      Pattern.compile("(\\[[0-9A-Fa-f:.]+]|[A-Za-z0-9._-]+)(?::(.*))?");

  /** Reads {@code http://host:port}, {@code host:port} or {@code host}. */
  static Address parse(String text) {
    String rest = text.strip();
    int scheme = rest.indexOf("://");
    if (scheme >= 0) {
      switch (rest.substring(0, scheme)) {
        case "http" -> rest = rest.substring(scheme + 3);
        case "https" -> throw wrong(text, "asks for TLS, which is not supported");
        default -> throw wrong(text, "has an unknown scheme");
      }
    }
    Matcher parts = PARTS.matcher(rest.replaceFirst("/+$", ""));
    if (!parts.matches()) {
      throw wrong(text, "is not an address");
    }
    String port = parts.group(2) == null ? DEFAULT_PORT : parts.group(2);
    if (!port.matches("[0-9]{1,5}") || Integer.parseInt(port) > 0xffff) {
      throw wrong(text, "has no valid port");
    }
    return new Address(parts.group(1), Integer.parseInt(port));
  }

  private static TaskyardException wrong(String text, String why) {
    return new TaskyardException(
        Code.INVALID_ARGUMENT,
        "the address \"%s\" %s; it looks like http://127.0.0.1:50051 or host:port"
            .formatted(text, why));
  }

  /** Whether the host is one, as far as the system knows; this may take long. */
  boolean isKnown() {
    try {
      return InetAddress.getAllByName(host).length > 0;
    } catch (UnknownHostException e) {
      return false;
    }
  }

  String authority() {
    return host + ":" + port;
  }

  @Override
  public String toString() {
    return "http://" + authority();
  }
}
