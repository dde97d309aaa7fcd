package dev.taskyard;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The real server, as a process. */
final class ServerProcess {
  private static final Pattern LISTENING = Pattern.compile("listening on (\\S+)");

  private final Process process;
  private final String address;
  private final Thread reader;

  private ServerProcess(Process process, String address, Thread reader) {
    this.process = process;
    this.address = address;
    this.reader = reader;
  }

  static ServerProcess start(String listen, Path data, List<String> settings) throws IOException {
    String binary = Optional.ofNullable(System.getenv("TASKYARD")).orElse("taskyard");
    List<String> command = new ArrayList<>();
    command.addAll(List.of(binary, "serve", "--listen", listen, "--data-dir", data.toString()));
    if (!settings.contains("--workers")) {
      command.addAll(List.of("--workers", "2"));
    }
    command.addAll(settings);
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectOutput(ProcessBuilder.Redirect.DISCARD);
    builder.environment().keySet().removeIf(name -> name.startsWith("TASKYARD"));
    builder.environment().put("NO_COLOR", "1");
    Process process = builder.start();
    BufferedReader log = process.errorReader();
    StringBuilder told = new StringBuilder();
    for (String line = log.readLine(); line != null; line = log.readLine()) {
      told.append(line).append('\n');
      Matcher found = LISTENING.matcher(line);
      if (found.find()) {
        Thread reader = new Thread(() -> log.lines().forEach(rest -> {}), "server log");
        reader.start();
        return new ServerProcess(process, found.group(1), reader);
      }
    }
    throw new IOException("the server did not start:\n" + told);
  }

  String address() {
    return address;
  }

  /** Sends a signal such as STOP. */
  void signal(String name) throws Exception {
    Process kill = new ProcessBuilder("kill", "-" + name, "" + process.pid()).inheritIO().start();
    if (kill.waitFor() != 0) {
      throw new IOException("no signal " + name);
    }
  }

  /** Ends it by this signal and waits for its end. */
  void end(String signal) throws Exception {
    signal(signal);
    waitFor();
  }

  /** Waits for its end, which something else brings about. */
  void waitFor() throws Exception {
    if (!process.waitFor(60, TimeUnit.SECONDS)) {
      throw new IOException("the server does not end");
    }
    reader.join();
  }

  /** Ends it however it is. */
  void kill() {
    process.destroyForcibly();
  }
}
