package dev.taskyard;

import io.grpc.netty.shaded.io.netty.channel.ChannelFactory;
import io.grpc.netty.shaded.io.netty.channel.ChannelHandlerContext;
import io.grpc.netty.shaded.io.netty.channel.ChannelInboundHandlerAdapter;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.nio.NioIoHandler;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioSocketChannel;
import io.grpc.netty.shaded.io.netty.handler.codec.http2.Http2Error;
import io.grpc.netty.shaded.io.netty.handler.codec.http2.Http2Exception;
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory;
import java.time.Duration;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/**
 * Closes a connection on which the server says nothing at first. gRPC bounds only the time until
 * there is a connection: a server that hangs is still connected to, by its system, and then a call
 * would wait for its HTTP/2 as long as it takes.
 */
final class Handshake extends ChannelInboundHandlerAdapter {
  /** How long the server may take for its first word. */
  private static final Duration LONGEST = Duration.ofSeconds(5);

  /** Of all clients, as gRPC's own are; the threads end with the program. */
  static final EventLoopGroup LOOPS =
      new MultiThreadIoEventLoopGroup(
          0, new DefaultThreadFactory("taskyard", true), NioIoHandler.newFactory());

  /** Makes the sockets whose handshakes are bounded. */
  static final ChannelFactory<NioSocketChannel> SOCKETS =
      () -> {
        NioSocketChannel socket = new NioSocketChannel();
        socket.pipeline().addFirst(new Handshake());
        return socket;
      };

  /** Null until there is a connection. */
  private Future<?> timer;

  private Handshake() {}

  @Override
  public void channelActive(ChannelHandlerContext context) {
    timer =
        context.executor().schedule(() -> giveUp(context), LONGEST.toNanos(), TimeUnit.NANOSECONDS);
    context.fireChannelActive();
  }

  @Override
  public void channelRead(ChannelHandlerContext context, Object bytes) {
    context.fireChannelRead(bytes);
    context.pipeline().remove(this);
  }

  @Override
  public void handlerRemoved(ChannelHandlerContext context) {
    if (timer != null) {
      timer.cancel(false);
    }
  }

  private static void giveUp(ChannelHandlerContext context) {
    context.fireExceptionCaught(
        Http2Exception.connectionError(
            Http2Error.SETTINGS_TIMEOUT,
            "the server has said nothing for %d s",
            LONGEST.toSeconds()));
    context.close();
  }
}
