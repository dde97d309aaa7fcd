package dev.taskyard;

import dev.taskyard.v1.SubmitRequest;
import dev.taskyard.v1.TaskServiceGrpc;
import dev.taskyard.v1.WatchEventsRequest;
import dev.taskyard.v1.WatchEventsResponse;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The streams of a real server. */
final class GrpcSource implements Source {
  private final Connection given;
  private final long beginning = System.nanoTime();
  private final CountDownLatch closed = new CountDownLatch(1);

  /** Guarded by this, as are the fields below. */
  private Connection connection;

  /** Null if there is none. */
  private Call stream;

  GrpcSource(Connection given) {
    this.given = given;
    this.connection = given;
  }

  @Override
  public long now() {
    return System.nanoTime() - beginning;
  }

  @Override
  public boolean rest(long until) throws InterruptedException {
    return !closed.await(until - now(), TimeUnit.NANOSECONDS);
  }

  @Override
  public void open(WatchEventsRequest request) {
    open(TaskServiceGrpc.getWatchEventsMethod(), request);
  }

  @Override
  public void open(SubmitRequest request) {
    open(TaskServiceGrpc.getSubmitAndWatchMethod(), request);
  }

  private synchronized <Q> void open(MethodDescriptor<Q, WatchEventsResponse> method, Q request) {
    Call opened = new Call();
    stream = opened;
    if (closed.getCount() == 0) {
      opened.got.add(new Got.Closed());
      return;
    }
    ClientCall<Q, WatchEventsResponse> call =
        connection.channel().newCall(method, CallOptions.DEFAULT);
    opened.call = call;
    call.start(opened, new Metadata());
    // One at a time: what is not read stays with the server.
    call.request(1);
    call.sendMessage(request);
    call.halfClose();
  }

  @Override
  public Got next(long until) throws InterruptedException {
    Call reading;
    synchronized (this) {
      reading = stream;
    }
    Got got = reading.got.poll(until - now(), TimeUnit.NANOSECONDS);
    if (got instanceof Got.Message) {
      reading.call.request(1);
    }
    return got;
  }

  @Override
  public synchronized void drop() {
    if (stream != null) {
      stream.cancel();
    }
    stream = null;
  }

  @Override
  public synchronized void anew() {
    Connection fresh = given.anew();
    leave();
    connection = fresh;
  }

  @Override
  public synchronized void close() {
    closed.countDown();
    if (stream != null) {
      stream.got.add(new Got.Closed());
      stream.cancel();
    }
    leave();
  }

  /** Closes the connection, if it was made for this watch. */
  private void leave() {
    given.close(connection);
    connection = given;
  }

  /** One call. What it brings is one message at most, and how it began and ended. */
  private static final class Call extends ClientCall.Listener<WatchEventsResponse> {
    private final BlockingQueue<Got> got = new LinkedBlockingQueue<>();

    /** Null if it was never made. */
    private ClientCall<?, WatchEventsResponse> call;

    void cancel() {
      if (call != null) {
        call.cancel("the watch reads no further", null);
      }
    }

    @Override
    public void onHeaders(Metadata headers) {
      got.add(new Got.Answer());
    }

    @Override
    public void onMessage(WatchEventsResponse message) {
      got.add(new Got.Message(message));
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      got.add(new Got.End(status.isOk() ? null : TaskyardException.of(status, trailers)));
    }
  }
}
