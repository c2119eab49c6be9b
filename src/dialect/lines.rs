//! Documents one a line, as in NDJSON: incremental and byte-exact.
//!
//! Promises: the same lines come out for every way of cutting the bytes; a line nobody changed leaves as it came. Empty
//! lines pass. A last line without its end is read all the same: it is whole where its document is.
//!
//! Never holds more than its cap and one push.

use std::{borrow::Cow, ops::Range};

use memchr::memchr;

use super::{
    ShapeError,
    sse::{MAX_EVENT_BYTES, text},
};

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    buffer: Vec<u8>,
    begin: usize,
    seen: usize,
    /// `begin..seen` is a whole line, which the next step passes over.
    found: bool,
    /// The last line had no end.
    open: bool,
}

/// One line with its end.
#[derive(Debug)]
pub(crate) struct Block<'f>(Cow<'f, str>);

impl Framing {
    /// Takes the next bytes; [`advance`](Self::advance) goes to what they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pass();
        self.buffer.drain(..self.begin);
        self.seen -= self.begin;
        self.begin = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Goes to the next whole line, which is [`block`](Self::block) then; `false` until more bytes come.
    ///
    /// # Errors
    /// `event_too_large`.
    pub(crate) fn advance(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        let unseen = self.buffer.get(self.seen..).unwrap_or_default();
        let end = memchr(b'\n', unseen);
        self.seen += end.map_or(unseen.len(), |end| end + 1);
        within_cap(self.seen - self.begin)?;
        self.found = end.is_some();
        Ok(self.found)
    }

    /// The line that was found last.
    ///
    /// # Errors
    /// `invalid_utf8`.
    pub(crate) fn block(&self) -> Result<Block<'_>, ShapeError> {
        let line = self.buffer.get(self.begin..self.seen).unwrap_or_default();
        Ok(Block(Cow::Borrowed(text(line)?)))
    }

    /// What has not been looked at yet, between two lines.
    pub(crate) fn unread(&mut self) -> Option<&[u8]> {
        self.pass();
        let between = self.seen == self.begin;
        between.then(|| self.buffer.get(self.begin..).unwrap_or_default())
    }

    /// Passes over so many bytes of [`unread`](Self::unread), which are whole lines.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.begin += bytes;
        self.seen = self.begin;
    }

    /// Goes to the last line, where it had no end.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub(crate) fn rest(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        self.seen = self.buffer.len();
        within_cap(self.seen - self.begin)?;
        self.found = self.begin < self.seen;
        self.open = self.found;
        Ok(self.found)
    }

    /// Whether the last line had no end, so that what follows it must begin a line.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// What was found has been looked at.
    fn pass(&mut self) {
        if std::mem::take(&mut self.found) {
            self.begin = self.seen;
        }
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

impl Block<'_> {
    /// The same by itself.
    pub(crate) fn into_owned(self) -> Block<'static> {
        Block(Cow::Owned(self.0.into_owned()))
    }

    fn content(&self) -> &str {
        self.0.trim_matches([' ', '\t', '\r', '\n'])
    }

    /// The line's document, where the line is not empty.
    pub(crate) fn data(&self) -> Option<&str> {
        Some(self.content()).filter(|content| !content.is_empty())
    }

    /// All of it as it came, and where in it the document stands.
    pub(crate) fn place(&self) -> Option<(&str, Range<usize>)> {
        let start = self.0.len() - self.0.trim_start_matches([' ', '\t', '\r', '\n']).len();
        Some((&self.0, start..start + self.content().len()))
    }

    /// Appends the line with another document.
    pub(crate) fn encode(&self, data: Option<&str>, out: &mut Vec<u8>) {
        let line = data.map(|data| self.0.replacen(self.content(), data, 1));
        out.extend_from_slice(line.as_deref().unwrap_or(&self.0).as_bytes());
    }
}
