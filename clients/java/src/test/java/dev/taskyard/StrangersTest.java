package dev.taskyard;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.taskyard.v1.AdminServiceGrpc;
import dev.taskyard.v1.GetPoolRequest;
import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.TaskServiceGrpc;
import io.grpc.BindableService;
import io.grpc.Server;
import io.grpc.Status.Code;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.protobuf.services.HealthStatusManager;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;

/** Servers that are no Taskyard, or say nothing. */
@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class StrangersTest {
  private static final SubmitRequest NOOP = SubmitRequest.newBuilder().setKind("noop").build();
  private static final Duration SOON = Duration.ofMillis(300);

  private final List<AutoCloseable> toClose = new CopyOnWriteArrayList<>();

  @AfterEach
  void close() throws Exception {
    for (AutoCloseable one : toClose) {
      one.close();
    }
  }

  /** What becomes of a connection. */
  private interface Serve {
    void serve(Socket socket) throws IOException;
  }

  @Test
  void anIpv6AddressIsOne() {
    var nobody = assertThrows(TaskyardException.class, () -> Client.connect("[::1]:1"));
    assertEquals(Code.UNAVAILABLE, nobody.code());
    assertTrue(nobody.getMessage().contains("http://[::1]:1"), nobody.getMessage());
  }

  private String listen(Serve serve) throws IOException {
    ServerSocket listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    toClose.add(listener);
    Thread accepting =
        new Thread(
            () -> {
              while (!listener.isClosed()) {
                try {
                  Socket socket = listener.accept();
                  toClose.add(socket);
                  new Thread(() -> serveQuietly(serve, socket), "stranger").start();
                } catch (IOException e) {
                  return;
                }
              }
            },
            "strangers");
    accepting.start();
    return "127.0.0.1:" + listener.getLocalPort();
  }

  private static void serveQuietly(Serve serve, Socket socket) {
    try (socket) {
      serve.serve(socket);
    } catch (IOException e) {
      // The client has gone.
    }
  }

  private String silent() throws IOException {
    return listen(socket -> socket.getInputStream().transferTo(OutputStream.nullOutputStream()));
  }

  /** Says this once it was asked something, and then reads on. */
  private String saying(String what) throws IOException {
    return listen(
        socket -> {
          InputStream in = socket.getInputStream();
          in.read();
          socket.getOutputStream().write(what.getBytes(StandardCharsets.US_ASCII));
          in.transferTo(OutputStream.nullOutputStream());
        });
  }

  /** Says nothing on the first connection, and is a good server on the others. */
  private String silentAtFirst() throws IOException {
    String real = serve(new Scripted());
    AtomicInteger connections = new AtomicInteger();
    return listen(
        socket -> {
          if (connections.incrementAndGet() == 1) {
            socket.getInputStream().transferTo(OutputStream.nullOutputStream());
          } else {
            forward(socket, Address.parse(real));
          }
        });
  }

  private static String nobody() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
      return "127.0.0.1:" + socket.getLocalPort();
    }
  }

  private String serve(BindableService... services) throws IOException {
    Server server = Scripted.serve(services);
    toClose.add(server::shutdownNow);
    return "127.0.0.1:" + server.getPort();
  }

  /** Connecting there fails with this code, and tells this. */
  private static void refuses(String address, Code code, String told) {
    refuses(address, Duration.ofSeconds(20), code, told);
  }

  private static void refuses(String address, Duration within, Code code, String told) {
    var failed = assertThrows(TaskyardException.class, () -> Client.connect(address, within));
    assertEquals(code, failed.code(), failed.getMessage());
    assertTrue(failed.getMessage().startsWith(told.formatted(address)), failed.getMessage());
    Expect.oneLine(failed);
  }

  @Test
  void nobodyAnswers() throws Exception {
    refuses(nobody(), Code.UNAVAILABLE, "no server answers at http://%s: Connection refused");
  }

  @Test
  void aNameThatIsNone() {
    refuses(
        "nowhere.invalid", Code.UNAVAILABLE, "no server answers at http://%s:50051: unknown name");
  }

  @Test
  void aServerThatClosesAtOnce() throws Exception {
    refuses(listen(socket -> {}), Code.UNAVAILABLE, "no server answers at http://%s: ");
  }

  @Test
  void aServerThatSaysNothing() throws Exception {
    refuses(
        silent(),
        Duration.ofSeconds(1),
        Code.UNAVAILABLE,
        "no server answers at http://%s within 1 s");
  }

  @Test
  void aServerOfHttp1() throws Exception {
    refuses(
        saying("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        Code.UNAVAILABLE,
        "no server answers at http://%s: what answers speaks HTTP/1, not gRPC");
  }

  @Test
  void aServerOfSsh() throws Exception {
    refuses(
        saying("SSH-2.0-OpenSSH_9.2\r\n"),
        Code.UNAVAILABLE,
        "no server answers at http://%s: what answers does not speak gRPC");
  }

  @Test
  void aServerOfGrpcWithoutHealth() throws Exception {
    refuses(serve(), Code.UNIMPLEMENTED, "no Taskyard answers at http://%s: ");
  }

  @Test
  void aServerOfGrpcWithoutTheService() throws Exception {
    var health = new HealthStatusManager().getHealthService();
    refuses(serve(health), Code.NOT_FOUND, "no Taskyard answers at http://%s: ");
  }

  private Client over(String address) {
    Connection connection = Connection.to(Address.parse(address));
    toClose.add(connection::close);
    return Client.over(connection.channel());
  }

  @Test
  void aSubmissionEndsByItsDeadline() throws Exception {
    for (String address : List.of(nobody(), silent())) {
      Client client = over(address);
      var failed = assertThrows(TaskyardException.class, () -> client.submit(NOOP, SOON));
      assertEquals(Code.DEADLINE_EXCEEDED, failed.code());
      Expect.oneLine(failed);
    }
  }

  @Test
  void aCallOfTheGeneratedClientEndsByItsDeadline() throws Exception {
    var stub =
        AdminServiceGrpc.newBlockingStub(over(silent()).channel())
            .withDeadlineAfter(SOON.toMillis(), TimeUnit.MILLISECONDS);
    var thrown =
        assertThrows(
            RuntimeException.class, () -> stub.getPool(GetPoolRequest.getDefaultInstance()));
    assertEquals(Code.DEADLINE_EXCEEDED, TaskyardException.of(thrown).code());
  }

  @Test
  void aWatchOfAServerThatSaysNothingIsLost() throws Exception {
    try (Watch watch = over(silent()).watch(WatchOptions.live().withMaxOutage(Duration.ZERO))) {
      var failed = assertThrows(TaskyardException.class, watch::next);
      assertEquals(Code.UNAVAILABLE, failed.code());
    }
  }

  @Test
  void aServerThatWentSilentIsTriedAgainOnANewConnection() throws Exception {
    String address = silentAtFirst();
    Connection connection = Connection.to(Address.parse(address));
    try (Watch watch = new Watch(new GrpcSource(connection), WatchOptions.live())) {
      assertInstanceOf(Seen.Lost.class, watch.next());
      assertInstanceOf(Seen.Started.class, watch.next());
      // It ends with the client.
      connection.close();
      assertThrows(TaskyardException.class, () -> watch.forEachRemaining(seen -> assertLost(seen)));
    }
  }

  @Test
  void aTryOnAConnectionThatSaysNothingIsRepeatedOnANewOne() throws Exception {
    assertEquals("t1", over(silentAtFirst()).submit(NOOP).getTaskId());
  }

  @Test
  void aConnectionThatSaysNothingIsALostOne() throws Exception {
    var stub = AdminServiceGrpc.newBlockingStub(over(silent()).channel());
    var thrown =
        assertThrows(
            RuntimeException.class, () -> stub.getPool(GetPoolRequest.getDefaultInstance()));
    var failed = TaskyardException.of(thrown);
    assertEquals(Code.UNAVAILABLE, failed.code());
    assertEquals(
        "the connection to the server was lost: the server has said nothing for 5 s",
        failed.getMessage());
  }

  private static void assertLost(Seen seen) {
    assertInstanceOf(Seen.Lost.class, seen);
  }

  private static void forward(Socket from, Address to) throws IOException {
    try (Socket other = new Socket(to.host(), to.port())) {
      Thread back =
          new Thread(
              () ->
                  serveQuietly(
                      socket -> socket.getInputStream().transferTo(from.getOutputStream()), other),
              "back");
      back.start();
      from.getInputStream().transferTo(other.getOutputStream());
    }
  }

  @Test
  void aThreadThatIsInterruptedWaitsNoLonger() throws Exception {
    Client client = over(silent());
    Watch watch = client.watch(WatchOptions.live());
    toClose.add(watch);
    for (Executable call :
        List.<Executable>of(() -> client.submit(NOOP), () -> client.waitFor("t1"), watch::next)) {
      Thread.currentThread().interrupt();
      var failed = assertThrows(TaskyardException.class, call);
      assertEquals(Code.CANCELLED, failed.code());
      Expect.oneLine(failed);
      assertTrue(Thread.interrupted());
    }
  }

  @Test
  void closingAWatchEndsTheWaitForIt() throws Exception {
    Watch watch = over(serve(new Scripted())).watch(WatchOptions.live());
    assertInstanceOf(Seen.Started.class, watch.next());
    CompletableFuture<Boolean> reading = CompletableFuture.supplyAsync(watch::hasNext);
    watch.close();
    assertFalse(reading.get());
  }

  @Test
  void aClientThatIsClosedSaysSo() throws Exception {
    var health = new HealthStatusManager();
    health.setStatus(TaskServiceGrpc.SERVICE_NAME, ServingStatus.NOT_SERVING);
    Client client = Client.connect(serve(health.getHealthService()));
    client.close();
    var failed = assertThrows(TaskyardException.class, () -> client.submit(NOOP));
    assertEquals("the client is closed", failed.getMessage());
    assertThrows(TaskyardException.class, client.watch(WatchOptions.live())::next);
  }
}
