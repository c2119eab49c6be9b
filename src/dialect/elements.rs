//! Documents as the elements of one JSON array that arrives bit by bit: incremental and byte-exact.
//!
//! ```text
//! [{...}  ,\r\n{...}  ]      each block is what stands before an element, and the element
//! ```
//!
//! Promises: the same elements come out for every way of cutting the bytes; an element nobody changed leaves as it came,
//! and so does what stands between elements. Never holds more than its cap and one push.

use std::{borrow::Cow, ops::Range};

use super::{ShapeError, lines::within_cap, sse::text};

/// Cuts a byte stream into elements.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    buffer: Vec<u8>,
    begin: usize,
    seen: usize,
    /// Where the element being read begins.
    element: Option<usize>,
    /// Arrays and objects open inside the element.
    depth: usize,
    in_string: bool,
    /// The character before was a backslash in a string.
    escaped: bool,
    state: State,
    /// An element was passed.
    any: bool,
    /// `begin..seen` is a whole block, which the next step passes over.
    found: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the array's `[`.
    #[default]
    Start,
    /// Behind `[`: an element or the end.
    First,
    /// Behind an element: a comma or the end.
    Behind,
    /// Behind a comma.
    Comma,
    /// Behind the array.
    End,
}

/// An element and what stands before it, or the array's end.
#[derive(Debug)]
pub(crate) struct Block<'f> {
    raw: Cow<'f, str>,
    /// Where the element begins; the length where there is none.
    element: usize,
    /// There was one before.
    after_another: bool,
}

impl Framing {
    /// Takes the next bytes; [`advance`](Self::advance) goes to what they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pass();
        self.buffer.drain(..self.begin);
        self.seen -= self.begin;
        self.element = self.element.map(|element| element - self.begin);
        self.begin = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Goes to the next whole element, which is [`block`](Self::block) then; `false` until more bytes come.
    ///
    /// # Errors
    /// `event_too_large`, and `invalid_json` where something else stands between elements.
    pub(crate) fn advance(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        while let Some(&byte) = self.buffer.get(self.seen) {
            let whole = if self.element.is_some() {
                self.seen += 1;
                self.inside(byte)
            } else {
                self.between(byte)?
            };
            if whole {
                return self.found();
            }
        }
        within_cap(self.seen - self.begin)?;
        Ok(false)
    }

    /// The element that was found last, with what stands before it.
    ///
    /// # Errors
    /// `invalid_utf8`.
    pub(crate) fn block(&self) -> Result<Block<'_>, ShapeError> {
        let raw = text(self.buffer.get(self.begin..self.seen).unwrap_or_default())?;
        let element = self
            .element
            .map_or(raw.len(), |element| element - self.begin);
        Ok(Block {
            raw: Cow::Borrowed(raw),
            element,
            after_another: self.any,
        })
    }

    /// What has not been looked at yet, behind an element.
    pub(crate) fn unread(&mut self) -> Option<&[u8]> {
        self.pass();
        let between = self.seen == self.begin && self.state == State::Behind;
        between.then(|| self.buffer.get(self.begin..).unwrap_or_default())
    }

    /// Passes over so many bytes of [`unread`](Self::unread), which are whole elements with what stands before them.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.begin += bytes;
        self.seen = self.begin;
    }

    /// Goes to what stands behind the array.
    ///
    /// # Errors
    /// `cut_event` where the array did not end.
    pub(crate) fn rest(&mut self) -> Result<bool, ShapeError> {
        self.pass();
        if !self.is_whole() && self.begin < self.buffer.len() {
            return Err(ShapeError::new(
                "cut_event",
                "the stream ends inside an event".to_owned(),
            ));
        }
        if self.begin == self.buffer.len() {
            return Ok(false);
        }
        self.seen = self.buffer.len();
        self.found()
    }

    /// Whether the array has ended.
    pub(crate) fn is_whole(&self) -> bool {
        self.state == State::End
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// A byte inside an element: whether it ends it.
    fn inside(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// A byte between elements: whether the array ended with it.
    fn between(&mut self, byte: u8) -> Result<bool, ShapeError> {
        self.state = match (byte, self.state) {
            (b' ' | b'\t' | b'\r' | b'\n', state) => state,
            (b'[', State::Start) => State::First,
            (b',', State::Behind) => State::Comma,
            (b']', State::First | State::Behind) => {
                self.seen += 1;
                self.state = State::End;
                return Ok(true);
            }
            (b'{', State::First | State::Comma) => {
                self.element = Some(self.seen);
                self.depth = 0;
                return Ok(false);
            }
            _ => {
                return Err(ShapeError::new(
                    "invalid_json",
                    "the stream is not an array of objects".to_owned(),
                ));
            }
        };
        self.seen += 1;
        Ok(false)
    }

    fn found(&mut self) -> Result<bool, ShapeError> {
        within_cap(self.seen - self.begin)?;
        self.found = true;
        Ok(true)
    }

    /// What was found has been looked at.
    fn pass(&mut self) {
        if !std::mem::take(&mut self.found) {
            return;
        }
        self.begin = self.seen;
        if self.element.take().is_some() {
            self.state = State::Behind;
            self.any = true;
        }
    }
}

impl Block<'_> {
    /// The same by itself.
    pub(crate) fn into_owned(self) -> Block<'static> {
        Block {
            raw: Cow::Owned(self.raw.into_owned()),
            ..self
        }
    }

    /// The element's document, where there is an element.
    pub(crate) fn data(&self) -> Option<&str> {
        self.raw
            .get(self.element..)
            .filter(|element| !element.is_empty())
    }

    /// All of it as it came, and where in it the element stands.
    pub(crate) fn place(&self) -> Option<(&str, Range<usize>)> {
        Some((&self.raw, self.element..self.raw.len()))
    }

    /// The block with another document, and `carriers` as elements of their own before it, each part by itself.
    pub(crate) fn encoded(&self, data: Option<&str>, carriers: &[String]) -> (String, String) {
        let (between, element) = self.raw.split_at(self.element);
        let element = data.unwrap_or(element);
        if carriers.is_empty() {
            return (String::new(), format!("{between}{element}"));
        }
        let ours = carriers.join(",");
        if element.is_empty() {
            let comma = if self.after_another { "," } else { "" };
            return (format!("{comma}{ours}"), between.to_owned());
        }
        (format!("{between}{ours},"), element.to_owned())
    }
}
