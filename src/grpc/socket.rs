//! The socket of a connection, and what is to be written to it.
//!
//! HTTP/2 writes and flushes every frame of data by itself, and a system call for
//! each would be most of what it costs to tell a thousand watchers of an event. So
//! what is written while a connection has its turn is collected, and goes out with
//! one call at the end of the turn, or whenever there is much of it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Bytes that are collected; as many as the system takes in one piece.
const MAX_COLLECTED: usize = 64 << 10;
/// Bytes for which it does not matter that their buffer grows step by step.
const FEW: usize = 2 << 10;

/// Bytes that are received in a turn of the connection, before its calls have theirs: what
/// they have not taken yet is kept frame by frame, which is dear if frames are small.
const MAX_RECEIVED: usize = 256 << 10;

/// Bytes of `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`. RFC 9113, 3.4.
const GREETING_BYTES: u64 = 24;

/// How many bytes a socket has received.
#[derive(Clone, Debug, Default)]
pub struct Received(Arc<AtomicU64>);

impl Received {
    /// All so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether the client has said that it speaks HTTP/2.
    pub fn has_greeting(&self) -> bool {
        self.bytes() >= GREETING_BYTES
    }
}

/// The end of a socket that the connection has.
pub struct Socket {
    reader: OwnedReadHalf,
    writer: CoalescingWriter,
    received: Received,
    /// Bytes received in this turn.
    of_turn: usize,
}

/// The end that whoever gives the connection its turns has.
#[derive(Clone)]
pub struct CoalescingWriter(Arc<Mutex<Collected>>);

struct Collected {
    writer: OwnedWriteHalf,
    bytes: Vec<u8>,
    /// Of these, the ones that the system has taken.
    taken: usize,
    /// Bytes that the system has taken in all.
    written: u64,
    /// To be told to the connection, which believed it written.
    failed: Option<io::Error>,
}

impl Socket {
    /// Both ends of `stream`. What it receives is counted in `received`.
    pub fn new(stream: TcpStream, received: Received) -> (Self, CoalescingWriter) {
        let (reader, writer) = stream.into_split();
        let collected = Collected { writer, bytes: Vec::new(), taken: 0, written: 0, failed: None };
        let writer = CoalescingWriter(Arc::new(Mutex::new(collected)));
        (Self { reader, writer: writer.clone(), received, of_turn: 0 }, writer)
    }
}

impl CoalescingWriter {
    /// Hands to the system what was collected, as far as it takes it; the rest when it
    /// takes more.
    pub fn write_out(&self, cx: &mut Context<'_>) {
        let mut collected = self.collected();
        if let Poll::Ready(Err(error)) = collected.poll_write_out(cx) {
            collected.failed = Some(error);
            cx.waker().wake_by_ref();
        }
    }

    /// Bytes that the system has taken in all; `None` while it does not take more, as the
    /// client does not read.
    pub fn written(&self) -> Option<u64> {
        let collected = self.collected();
        collected.bytes.is_empty().then_some(collected.written)
    }

    /// Held by one task for a moment, and never across an await.
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.taken < self.bytes.len() {
            let rest = &self.bytes[self.taken..];
            let count = ready!(Pin::new(&mut self.writer).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += count;
            self.written += count as u64;
        }
        // Given back, so that a connection that is silent keeps nothing.
        (self.bytes, self.taken) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Returns how many more bytes can be collected: at least one.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.bytes.len() >= MAX_COLLECTED {
            ready!(self.poll_write_out(cx))?;
        }
        Poll::Ready(Ok(MAX_COLLECTED - self.bytes.len()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.of_turn >= MAX_RECEIVED {
            self.of_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.reader).poll_read(cx, buf);
        if polled.is_pending() {
            self.of_turn = 0;
        }
        ready!(polled)?;
        let count = buf.filled().len() - before;
        self.of_turn += count;
        self.received.0.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    /// Nothing: it is written out at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.writer.collected().failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut collected = self.writer.collected();
        ready!(collected.poll_write_out(cx))?;
        Pin::new(&mut collected.writer).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut collected = self.writer.collected();
        let room = ready!(collected.poll_room(cx))?;
        let coming: usize = bufs.iter().map(|buf| buf.len()).sum();
        if collected.bytes.len() + coming > FEW {
            collected.bytes.reserve_exact(room);
        }
        let mut left = room;
        for buf in bufs {
            let count = buf.len().min(left);
            collected.bytes.extend_from_slice(&buf[..count]);
            left -= count;
        }
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    /// Both ends of the server's socket, and the client's.
    async fn connected() -> (Socket, CoalescingWriter, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (socket, writer) = Socket::new(stream, Received::default());
        (socket, writer, client)
    }

    async fn end_turn(writer: &CoalescingWriter) {
        let turn = |cx: &mut Context<'_>| {
            writer.write_out(cx);
            Poll::Ready(())
        };
        poll_fn(turn).await;
    }

    #[tokio::test]
    async fn what_is_written_in_a_turn_goes_out_at_its_end() {
        let (mut socket, writer, mut client) = connected().await;
        socket.write_all(b"one ").await.unwrap();
        socket.flush().await.unwrap();
        socket.write_all(b"other").await.unwrap();
        assert_eq!(writer.collected().bytes, b"one other");
        end_turn(&writer).await;
        assert_eq!(writer.collected().bytes.capacity(), 0, "it is given back");
        let mut bytes = [0; 9];
        timeout(PATIENCE, client.read_exact(&mut bytes)).await.expect("it hangs").unwrap();
        assert_eq!(&bytes, b"one other");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_up_a_bounded_number_of_bytes() {
        let (mut socket, writer, mut client) = connected().await;
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
        let mut written = Vec::<u8>::new();
        // Until neither the system nor the writer takes more.
        loop {
            let chunk = io::IoSlice::new(&bytes[written.len() % 1_000..]);
            let write = poll_fn(|cx| {
                Poll::Ready(Pin::new(&mut socket).poll_write_vectored(cx, &[chunk, chunk]))
            });
            let Poll::Ready(count) = write.await else { break };
            let count = count.unwrap();
            written.extend(chunk.iter().chain(chunk.iter()).take(count));
            assert!(writer.collected().bytes.len() <= MAX_COLLECTED);
        }
        let reads = tokio::spawn(async move {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.map(|_| read)
        });
        timeout(PATIENCE, socket.shutdown()).await.expect("it hangs").unwrap();
        let read = timeout(PATIENCE, reads).await.expect("it hangs").unwrap().unwrap();
        assert!(read == written, "{} of {} bytes", read.len(), written.len());
    }

    #[tokio::test]
    async fn a_connection_learns_that_what_it_wrote_was_lost() {
        let (mut socket, writer, client) = connected().await;
        client.set_zero_linger().unwrap();
        drop(client);
        let failed = async {
            loop {
                if socket.write_all(b"lost").await.is_err() || socket.flush().await.is_err() {
                    return;
                }
                end_turn(&writer).await;
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, failed).await.expect("it is not told");
    }
}
