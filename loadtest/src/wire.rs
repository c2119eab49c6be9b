//! As much HTTP/1.1 as the load test speaks: heads, and bodies by length or in chunks.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A head, as it was sent, without the empty line.
pub struct Head(Bytes);

impl Head {
    /// The status of an answer; 0 where there is none.
    pub fn status(&self) -> u16 {
        let status = self.0.get(9..12).and_then(|s| std::str::from_utf8(s).ok());
        status.and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// What the first line begins with.
    pub fn starts_with(&self, start: &str) -> bool {
        self.0.starts_with(start.as_bytes())
    }

    /// The value of a field; `name` in small letters.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.split(|&b| b == b'\n').skip(1).find_map(|line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            let named = field.eq_ignore_ascii_case(name.as_bytes());
            named.then(|| std::str::from_utf8(value).ok().map(str::trim))?
        })
    }
}

enum Rest {
    Length(usize),
    Chunk(usize),
    ChunkEnd,
    Size,
    Trailers,
    Over,
}

/// One connection, read message by message.
pub struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
    rest: Rest,
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: BytesMut::with_capacity(64 << 10),
            rest: Rest::Over,
        })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next head; `None` where the connection ended before it.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = Head(self.buffer.split_to(at + 4).freeze());
                self.rest = match head.field("content-length") {
                    Some(length) => Rest::Length(length.parse().map_err(io::Error::other)?),
                    None if head.field("transfer-encoding") == Some("chunked") => Rest::Size,
                    None => Rest::Over,
                };
                return Ok(Some(head));
            }
            if self.fill().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.rest {
                Rest::Over => return Ok(None),
                Rest::Length(0) => self.rest = Rest::Over,
                Rest::Chunk(0) => self.rest = Rest::ChunkEnd,
                Rest::Length(left) => {
                    let piece = self.at_most(left).await?;
                    self.rest = Rest::Length(left - piece.len());
                    return Ok(Some(piece));
                }
                Rest::Chunk(left) => {
                    let piece = self.at_most(left).await?;
                    self.rest = Rest::Chunk(left - piece.len());
                    return Ok(Some(piece));
                }
                Rest::ChunkEnd => {
                    self.line().await?;
                    self.rest = Rest::Size;
                }
                Rest::Size => {
                    let line = self.line().await?;
                    let size = std::str::from_utf8(&line).map_err(io::Error::other)?;
                    self.rest = match usize::from_str_radix(size, 16) {
                        Ok(0) => Rest::Trailers,
                        Ok(size) => Rest::Chunk(size),
                        Err(error) => return Err(io::Error::other(error)),
                    };
                }
                Rest::Trailers => {
                    if self.line().await?.is_empty() {
                        self.rest = Rest::Over;
                    }
                }
            }
        }
    }

    async fn at_most(&mut self, bytes: usize) -> io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let length = bytes.min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at + 2).freeze();
                return Ok(line.slice(..at));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(64 << 10);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
