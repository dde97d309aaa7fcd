//! As much of HTTP/2 as it takes to watch: so little that the server is what is
//! measured, not the client. RFC 9113.
//!
//! A connection opens all its calls with one write. After that it only reads, into a
//! buffer that all connections of a thread share, and hands the bytes of each stream
//! to its counter.

use std::{cell::RefCell, net::SocketAddr, pin::Pin};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

use crate::count::Counter;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;
/// The window that there is when nothing was said.
const DEFAULT_WINDOW: u32 = 65_535;
/// As large as one can be.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Bytes read before a window is opened again.
const REOPEN: u32 = 1 << 29;
/// Bytes of a frame that is not data, at most.
const MAX_CONTROL: usize = 16 << 10;

/// How far ahead of its reader a server may send.
#[derive(Clone, Copy)]
pub enum Windows {
    /// As far as it can.
    Largest,
    /// As far as the protocol has it by default, as most clients do.
    Default,
}

/// A connection with calls of one method, that have one message for a request.
pub struct Connection {
    stream: TcpStream,
    /// Of each call: its bytes, and those since its window was last opened.
    calls: Vec<(Counter, u32)>,
    read_since: u32,
    /// The frame that is arriving.
    header: [u8; FRAME_HEADER],
    header_len: usize,
    payload_left: usize,
    /// The frame's payload, unless it is data.
    control: Vec<u8>,
    /// To be sent.
    answer: Vec<u8>,
}

impl Connection {
    /// Connects and makes the calls.
    pub async fn open(
        address: SocketAddr,
        path: &str,
        calls: usize,
        windows: Windows,
    ) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut begin = GREETING.to_vec();
        match windows {
            Windows::Default => put_frame(&mut begin, SETTINGS, 0, 0, &[]),
            Windows::Largest => {
                let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
                setting.extend_from_slice(&MAX_WINDOW.to_be_bytes());
                put_frame(&mut begin, SETTINGS, 0, 0, &setting);
                put_window_update(&mut begin, 0, MAX_WINDOW - DEFAULT_WINDOW);
            }
        }
        let headers = request_headers(path)?;
        // One message without fields.
        let message = [0; 5];
        for call in 0..calls {
            let id = u32::try_from(2 * call + 1)?;
            put_frame(&mut begin, HEADERS, END_HEADERS, id, &headers);
            put_frame(&mut begin, DATA, END_STREAM, id, &message);
        }
        stream.write_all(&begin).await?;
        Ok(Self {
            stream,
            calls: vec![(Counter::default(), 0); calls],
            read_since: 0,
            header: [0; FRAME_HEADER],
            header_len: 0,
            payload_left: 0,
            control: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Reads what has arrived, once there is something.
    pub async fn read(&mut self) -> Result<(), Error> {
        std::future::poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Err("the server has closed a connection".into()).into();
                }
                self.pass(buffer.filled()).into()
            })
        })
        .await?;
        if !self.answer.is_empty() {
            self.stream.write_all(&self.answer).await?;
            self.answer.clear();
        }
        Ok(())
    }

    /// What each call has brought.
    pub fn counters(&self) -> impl Iterator<Item = &Counter> {
        self.calls.iter().map(|(counter, _)| counter)
    }

    fn pass(&mut self, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            if self.header_len < FRAME_HEADER {
                let count = data.len().min(FRAME_HEADER - self.header_len);
                self.header[self.header_len..self.header_len + count]
                    .copy_from_slice(&data[..count]);
                self.header_len += count;
                data = &data[count..];
                if self.header_len < FRAME_HEADER {
                    return Ok(());
                }
                let [a, b, c, ..] = self.header;
                self.payload_left = u32::from_be_bytes([0, a, b, c]) as usize;
            }
            let count = data.len().min(self.payload_left);
            let (payload, rest) = data.split_at(count);
            self.payload_left -= count;
            data = rest;
            if self.header[3] == DATA {
                self.pass_data(payload)?;
            } else {
                self.control.extend_from_slice(payload);
                if self.control.len() > MAX_CONTROL {
                    return Err("the server sent a frame that is too long".into());
                }
            }
            if self.payload_left == 0 {
                self.header_len = 0;
                self.end_frame()?;
            }
        }
        Ok(())
    }

    fn stream_id(&self) -> u32 {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a, b, c, d]) & MAX_WINDOW
    }

    fn pass_data(&mut self, payload: &[u8]) -> Result<(), Error> {
        if self.header[4] & PADDED != 0 {
            return Err("the server pads its frames".into());
        }
        let id = self.stream_id();
        let call = self.calls.get_mut(id as usize / 2);
        let (counter, read_since) = call.ok_or("the server answers a call that nobody made")?;
        counter.pass(payload)?;
        let count = u32::try_from(payload.len())?;
        for (read_since, id) in [(read_since, id), (&mut self.read_since, 0)] {
            *read_since += count;
            if *read_since >= REOPEN {
                put_window_update(&mut self.answer, id, *read_since);
                *read_since = 0;
            }
        }
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        let control = std::mem::take(&mut self.control);
        let flags = self.header[4];
        match self.header[3] {
            RST_STREAM | GOAWAY => Err("the server has ended a watch or a connection".into()),
            DATA | HEADERS if flags & END_STREAM != 0 => {
                Err("the server has ended a watch, or refused it".into())
            }
            SETTINGS if flags & ACK == 0 => {
                put_frame(&mut self.answer, SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            PING if flags & ACK == 0 => {
                put_frame(&mut self.answer, PING, ACK, 0, &control);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [.., a, b, c] = payload.len().to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_frame(out, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

/// A request's headers: each literal, and not to be remembered. RFC 7541, 6.2.2.
fn request_headers(path: &str) -> Result<Vec<u8>, Error> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            // A longer one would need a length of several bytes.
            let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
            block.push(length.ok_or("a header is too long")?);
            block.extend_from_slice(text.as_bytes());
        }
    }
    Ok(block)
}
