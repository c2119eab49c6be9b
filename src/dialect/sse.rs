//! Event-stream framing (WHATWG HTML sections 9.2.5 and 9.2.6), incremental and byte-exact.
//!
//! Promises: the same events come out for every way of cutting the bytes, inside a CRLF or a character too; an event
//! nobody changed leaves with the very bytes it came with; a changed one keeps its fields and their order. A block of
//! bytes is an event once its blank line came, never before: what the end cuts off is told apart.
//!
//! Stricter than the specification in one thing: text that is not UTF-8 is refused, where a browser would replace it.
//! A comment that begins a block is a block of its own, so that a keep-alive leaves at once.
//!
//! Never holds more than its cap and one push. Knows nothing of what the data means.

use std::{borrow::Cow, ops::Range};

use memchr::memchr2;

use super::ShapeError;

/// The largest event in bytes; a larger one is `event_too_large`. Room for an image, and for a last event that repeats
/// a whole answer.
pub(crate) const MAX_EVENT_BYTES: usize = 8 << 20;

/// Cuts a byte stream into blocks.
#[derive(Debug)]
pub(crate) struct Framing {
    buffer: Vec<u8>,
    /// Where in `buffer` the block being read begins: all before was handed out.
    begin: usize,
    /// Where its line being read begins.
    line: usize,
    /// How far `buffer` was looked at.
    seen: usize,
    /// The last line ended with a CR at the very end of what came: an LF that follows is part of it.
    after_cr: bool,
    /// No line has ended yet, so that a byte order mark may be met.
    fresh: bool,
    /// `begin..seen` is a whole block, which the next step passes over.
    found: bool,
    lines: Vec<Line>,
    cap: usize,
}

/// One line of a block, by offsets into the block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// The line without its end.
    content: Range<usize>,
    /// One past its line end.
    end: usize,
}

/// A block up to its blank line: an event, a comment, or the LF of a CRLF that was cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block<'f> {
    raw: Cow<'f, str>,
    lines: Cow<'f, [Line]>,
}

/// One line of a block, read: a comment's name is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) value: &'a str,
    /// The whole line without its end.
    pub(crate) line: &'a str,
}

impl Default for Framing {
    fn default() -> Self {
        Self::with_cap(MAX_EVENT_BYTES)
    }
}

impl Framing {
    /// A framing whose blocks have at most `cap` bytes.
    pub(crate) fn with_cap(cap: usize) -> Self {
        let (buffer, lines) = (Vec::new(), Vec::new());
        Self {
            buffer,
            begin: 0,
            line: 0,
            seen: 0,
            after_cr: false,
            fresh: true,
            found: false,
            lines,
            cap,
        }
    }

    /// Takes the next bytes; [`advance`](Self::advance) goes to what they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pass();
        self.buffer.drain(..self.begin);
        self.line -= self.begin;
        self.seen -= self.begin;
        self.begin = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Goes to the next whole block, which is [`block`](Self::block) then; `false` until more bytes come.
    ///
    /// # Errors
    /// `event_too_large`.
    pub(crate) fn advance(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        while let Some(&byte) = self.buffer.get(self.seen) {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                self.seen += 1;
                self.line = self.seen;
                match self.lines.last_mut() {
                    Some(line) => line.end += 1,
                    None => return self.found(),
                }
                continue;
            }
            let unseen = self.buffer.get(self.seen..).unwrap_or_default();
            let Some(place) = memchr2(b'\n', b'\r', unseen) else {
                self.seen = self.buffer.len();
                break;
            };
            let cr = unseen.get(place) == Some(&b'\r');
            self.seen += place + 1;
            if cr {
                match self.buffer.get(self.seen) {
                    Some(b'\n') => self.seen += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if self.end_line() {
                return self.found();
            }
        }
        self.within_cap()?;
        Ok(false)
    }

    /// The block that was found last.
    ///
    /// # Errors
    /// `invalid_utf8`.
    pub(crate) fn block(&self) -> Result<Block<'_>, ShapeError> {
        let raw = self.buffer.get(self.begin..self.seen).unwrap_or_default();
        Ok(Block {
            raw: Cow::Borrowed(text(raw)?),
            lines: Cow::Borrowed(&self.lines),
        })
    }

    /// What has not been looked at yet, between two blocks.
    pub(crate) fn unread(&mut self) -> Option<&[u8]> {
        self.pass();
        let between = self.seen == self.begin && !self.after_cr && !self.fresh;
        between.then(|| self.buffer.get(self.begin..).unwrap_or_default())
    }

    /// Passes over so many bytes of [`unread`](Self::unread), which are whole blocks.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.begin += bytes;
        self.line = self.begin;
        self.seen = self.begin;
    }

    fn found(&mut self) -> Result<bool, ShapeError> {
        self.within_cap()?;
        self.found = true;
        Ok(true)
    }

    /// What was found has been looked at.
    fn pass(&mut self) {
        if std::mem::take(&mut self.found) {
            self.begin = self.seen;
            self.lines.clear();
        }
    }

    /// Goes to what the end of the stream has cut off: lines without a blank line behind them, the last perhaps not
    /// whole.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub(crate) fn rest(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        if self.begin == self.buffer.len() {
            return Ok(false);
        }
        if self.line < self.buffer.len() {
            self.seen = self.buffer.len();
            self.end_line();
        }
        self.found()
    }

    /// Goes to what of the cut-off rest may be read all the same: nothing but line ends, or a terminal event. Some
    /// servers leave out the last blank line, and that event carries no text.
    ///
    /// # Errors
    /// As for [`block`](Self::block), and `cut_event`.
    pub(crate) fn end(&mut self) -> Result<bool, ShapeError> {
        if !self.rest()? {
            return Ok(false);
        }
        let rest = self.block()?;
        let terminal = rest.data().is_some_and(|data| is_done(&data)) && rest.fields().count() == 1;
        if !terminal && rest.fields().next().is_some() {
            return Err(ShapeError::new(
                "cut_event",
                "the stream ends inside an event".to_owned(),
            ));
        }
        Ok(true)
    }

    /// Bytes in memory.
    pub(crate) fn held(&self) -> usize {
        self.buffer.len() + self.lines.len() * size_of::<Line>()
    }

    /// Notes the line that ends at `seen`; whether it ends its block.
    fn end_line(&mut self) -> bool {
        let bytes = self.buffer.get(self.line..self.seen).unwrap_or_default();
        let mark = if std::mem::take(&mut self.fresh) && bytes.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        };
        let end = bytes
            .iter()
            .rposition(|byte| !matches!(byte, b'\r' | b'\n'))
            .map_or(0, |last| last + 1);
        let content = self.line - self.begin + mark..self.line - self.begin + end.max(mark);
        let comment = bytes.get(mark) == Some(&b':') && self.lines.is_empty();
        let blank = content.is_empty();
        self.lines.push(Line {
            content,
            end: self.seen - self.begin,
        });
        self.line = self.seen;
        blank || comment
    }

    fn within_cap(&self) -> Result<(), ShapeError> {
        if self.seen - self.begin > self.cap {
            return Err(ShapeError::new(
                "event_too_large",
                format!("an event of the stream is over {} bytes", self.cap),
            ));
        }
        Ok(())
    }
}

/// # Errors
/// `invalid_utf8`.
pub(super) fn text(bytes: &[u8]) -> Result<&str, ShapeError> {
    std::str::from_utf8(bytes).map_err(|_| {
        ShapeError::new(
            "invalid_utf8",
            "an event of the stream is not UTF-8".to_owned(),
        )
    })
}

/// Whether `data` says that the stream is over, as OpenAI's do and everyone's who speaks its protocol.
pub(crate) fn is_done(data: &str) -> bool {
    data.trim_matches([' ', '\t']) == "[DONE]"
}

impl Block<'_> {
    /// The same by itself.
    pub(crate) fn into_owned(self) -> Block<'static> {
        Block {
            raw: Cow::Owned(self.raw.into_owned()),
            lines: Cow::Owned(self.lines.into_owned()),
        }
    }

    /// All of it as it came, and where in it the data stands, where that is in one piece.
    pub(crate) fn place(&self) -> Option<(&str, Range<usize>)> {
        let mut lines = self.lines.iter().filter(|line| {
            let field = self.field(line);
            field.is_some_and(|field| field.name == "data")
        });
        let line = lines.next().filter(|_| lines.next().is_none())?;
        let start = line.content.end - self.field(line)?.value.len();
        Some((&self.raw, start..line.content.end))
    }

    /// The lines in order, the blank one left out.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (usize, Field<'_>)> {
        let whole = |(at, line): (usize, &Line)| Some((at, self.field(line)?));
        self.lines.iter().enumerate().filter_map(whole)
    }

    /// The data: the values of the `data` lines joined by LF, `None` where there is no such line.
    pub(crate) fn data(&self) -> Option<Cow<'_, str>> {
        let mut values = self
            .fields()
            .filter(|(_, field)| field.name == "data")
            .map(|(_, field)| field.value);
        let mut data = Cow::Borrowed(values.next()?);
        for value in values {
            let data = data.to_mut();
            data.push('\n');
            data.push_str(value);
        }
        Some(data)
    }

    /// Appends the block with new data and new text for the lines in `lines` (number, line; in their order), in the order and with the
    /// line ends it came with. A line end inside a line becomes a space: it could end the event.
    pub(crate) fn encode(&self, data: Option<&str>, lines: &[(usize, String)], out: &mut Vec<u8>) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        let mut data = data.map(Some);
        let mut at = 0;
        for (number, line) in self.lines.iter().enumerate() {
            let before = self.raw.get(at..line.content.start).unwrap_or_default();
            let end = self.raw.get(line.content.end..line.end).unwrap_or_default();
            let as_received = self.raw.get(line.content.clone()).unwrap_or_default();
            at = line.end;
            let field = self.field(line);
            put(before);
            let new = lines.binary_search_by_key(&number, |(changed, _)| *changed);
            let new = new.ok().and_then(|at| lines.get(at));
            match (field, new, &mut data) {
                (Some(field), _, Some(data)) if field.name == "data" => {
                    for part in data.take().into_iter().flat_map(|data| data.split('\n')) {
                        put("data: ");
                        put(part);
                        put(end);
                    }
                }
                (Some(_), Some((_, line)), _) => {
                    put(&line.replace(['\r', '\n'], " "));
                    put(end);
                }
                _ => {
                    put(as_received);
                    put(end);
                }
            }
        }
        put(self.raw.get(at..).unwrap_or_default());
    }

    fn field(&self, line: &Line) -> Option<Field<'_>> {
        let content = self
            .raw
            .get(line.content.clone())
            .filter(|content| !content.is_empty())?;
        let (name, value) = content.split_once(':').unwrap_or((content, ""));
        Some(Field {
            name,
            value: value.strip_prefix(' ').unwrap_or(value),
            line: content,
        })
    }
}
