//! Documents one a line, as in NDJSON: incremental and byte-exact.
//!
//! Promises: the same lines come out for every way of cutting the bytes; a line nobody changed leaves as it came. Empty
//! lines pass. A last line without its end is read all the same: it is whole where its document is.
//!
//! Never holds more than its cap and one push.

use super::{ShapeError, sse::MAX_EVENT_BYTES};

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    buffer: Vec<u8>,
    begin: usize,
    seen: usize,
}

/// One line with its end.
#[derive(Debug)]
pub(crate) struct Block(String);

impl Framing {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.begin);
        self.seen -= self.begin;
        self.begin = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line.
    ///
    /// # Errors
    /// `event_too_large`, `invalid_utf8`.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block>, ShapeError> {
        let unseen = self.buffer.get(self.seen..).unwrap_or_default();
        let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.seen = self.buffer.len();
            within_cap(self.seen - self.begin)?;
            return Ok(None);
        };
        self.seen += end + 1;
        self.take().map(Some)
    }

    /// The last line, where it had no end.
    ///
    /// # Errors
    /// As for [`next_block`](Self::next_block).
    pub(crate) fn rest(&mut self) -> Result<Option<Block>, ShapeError> {
        self.seen = self.buffer.len();
        if self.begin == self.seen {
            return Ok(None);
        }
        self.take().map(Some)
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    fn take(&mut self) -> Result<Block, ShapeError> {
        within_cap(self.seen - self.begin)?;
        let line = self.buffer.get(self.begin..self.seen).unwrap_or_default();
        let line = text(line)?;
        self.begin = self.seen;
        Ok(Block(line))
    }
}

/// # Errors
/// `event_too_large`.
pub(super) fn within_cap(bytes: usize) -> Result<(), ShapeError> {
    if bytes > MAX_EVENT_BYTES {
        return Err(ShapeError::new(
            "event_too_large",
            format!("an event of the stream is over {MAX_EVENT_BYTES} bytes"),
        ));
    }
    Ok(())
}

/// # Errors
/// `invalid_utf8`.
pub(super) fn text(bytes: &[u8]) -> Result<String, ShapeError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        ShapeError::new(
            "invalid_utf8",
            "an event of the stream is not UTF-8".to_owned(),
        )
    })
}

impl Block {
    fn content(&self) -> &str {
        self.0.trim_matches([' ', '\t', '\r', '\n'])
    }

    /// The line's document, where the line is not empty.
    pub(crate) fn data(&self) -> Option<&str> {
        Some(self.content()).filter(|content| !content.is_empty())
    }

    /// The line with another document.
    pub(crate) fn encoded(&self, data: Option<&str>) -> String {
        data.map_or_else(
            || self.0.clone(),
            |data| self.0.replacen(self.content(), data, 1),
        )
    }
}
