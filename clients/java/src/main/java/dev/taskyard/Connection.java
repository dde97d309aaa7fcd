package dev.taskyard;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status.Code;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import java.net.InetSocketAddress;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;

/** A channel to the server, and how to make another. */
final class Connection {
  /**
   * The longest answer that is read. A task carries a payload and a result, and an operator may
   * have raised the server's limits on both.
   */
  private static final int MAX_ANSWER = 256 << 20;

  /** How long the connection may take to be made. */
  private static final int CONNECT_TIMEOUT_MS = 5000;

  private static final String USER_AGENT = "taskyard-java/0.1.0";

  /** Null if the channel was made otherwise. */
  private final Address address;

  /** Null if the channel was made otherwise. */
  private final ManagedChannel managed;

  private final Channel channel;

  /** Those that {@link #anew} made. They are closed with this one. */
  private final Set<Connection> others = ConcurrentHashMap.newKeySet();

  private Connection(Address address, ManagedChannel managed, Channel channel) {
    this.address = address;
    this.managed = managed;
    this.channel = channel;
  }

  static Connection to(Address address) {
    ManagedChannel managed =
        NettyChannelBuilder.forTarget(
                "dns:///" + address.authority().replace("[", "%5B").replace("]", "%5D"))
            .usePlaintext()
            .userAgent(USER_AGENT)
            .eventLoopGroup(Handshake.LOOPS)
            .channelFactory(Handshake.SOCKETS, InetSocketAddress.class)
            .withOption(ChannelOption.CONNECT_TIMEOUT_MILLIS, CONNECT_TIMEOUT_MS)
            .maxInboundMessageSize(MAX_ANSWER)
            .proxyDetector(to -> null)
            .disableServiceConfigLookUp()
            // The tries are this package's.
            .disableRetry()
            // Finds out within 40 s that the machine at the other end has gone.
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .build();
    return new Connection(address, managed, new Restless(managed));
  }

  static Connection over(Channel channel) {
    return new Connection(null, null, channel);
  }

  Channel channel() {
    return channel;
  }

  /** The same server over a new connection, if it is known how to make one. */
  Connection anew() {
    if (managed == null || managed.isShutdown()) {
      return this;
    }
    Connection other = to(address);
    others.add(other);
    return other;
  }

  /** Closes what {@link #anew} has made. */
  void close(Connection other) {
    if (others.remove(other)) {
      other.close();
    }
  }

  /** Ends what is under way. A channel that was made otherwise stays open. */
  void close() {
    others.forEach(this::close);
    if (managed != null) {
      managed.shutdownNow();
    }
  }

  /**
   * A channel whose calls connect at once. By itself it rests between two connections, for minutes
   * in the end, and a server that is back must not be missed for long: the rests between tries are
   * this package's.
   */
  private static final class Restless extends Channel {
    private final ManagedChannel managed;

    Restless(ManagedChannel managed) {
      this.managed = managed;
    }

    @Override
    public <Q, A> ClientCall<Q, A> newCall(MethodDescriptor<Q, A> method, CallOptions options) {
      if (managed.isShutdown()) {
        throw new TaskyardException(Code.CANCELLED, "the client is closed");
      }
      if (managed.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
        managed.enterIdle();
      }
      return managed.newCall(method, options);
    }

    @Override
    public String authority() {
      return managed.authority();
    }
  }
}
