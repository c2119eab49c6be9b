//! How a stream's documents are told apart: as events, as lines, or as elements of an array.

use std::{borrow::Cow, ops::Range};

use super::{ShapeError, elements, lines, sse};

/// Cuts a byte stream into blocks, each of which has one document or none.
#[derive(Debug)]
pub(super) enum Framing {
    Events(sse::Framing),
    Lines(lines::Framing),
    Elements(elements::Framing),
}

/// One block.
#[derive(Debug)]
pub(super) enum Block<'f> {
    Event(sse::Block<'f>),
    Line(lines::Block<'f>),
    /// Whether the array has ended.
    Element(elements::Block<'f>, bool),
}

/// A document of our own: the name of its event, where the dialect names events, and its data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) event: Option<&'static str>,
    pub(super) data: String,
}

impl Default for Framing {
    fn default() -> Self {
        Self::events()
    }
}

/// The same of whichever framing it is.
macro_rules! each {
    ($self:ident, $framing:ident => $what:expr) => {
        match $self {
            Self::Events($framing) => $what,
            Self::Lines($framing) => $what,
            Self::Elements($framing) => $what,
        }
    };
}

impl Framing {
    pub(super) fn events() -> Self {
        Self::Events(sse::Framing::default())
    }

    pub(super) fn lines() -> Self {
        Self::Lines(lines::Framing::default())
    }

    pub(super) fn elements() -> Self {
        Self::Elements(elements::Framing::default())
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        each!(self, framing => framing.push(bytes));
    }

    /// Goes to the next whole block; `false` until more bytes come.
    ///
    /// # Errors
    /// `event_too_large`, and `invalid_json` between elements.
    pub(super) fn advance(&mut self) -> Result<bool, ShapeError> {
        each!(self, framing => framing.advance())
    }

    /// Goes to what the end of the stream has cut off, where that may be read all the same.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance), and `cut_event` where it may not.
    pub(super) fn rest(&mut self) -> Result<bool, ShapeError> {
        match self {
            Self::Events(framing) => framing.end(),
            Self::Lines(framing) => framing.rest(),
            Self::Elements(framing) => framing.rest(),
        }
    }

    /// The block that was found last.
    ///
    /// # Errors
    /// `invalid_utf8`.
    pub(super) fn block(&self) -> Result<Block<'_>, ShapeError> {
        Ok(match self {
            Self::Events(framing) => Block::Event(framing.block()?),
            Self::Lines(framing) => Block::Line(framing.block()?),
            Self::Elements(framing) => Block::Element(framing.block()?, framing.is_whole()),
        })
    }

    /// What has not been looked at yet, where that begins a block.
    pub(super) fn unread(&mut self) -> Option<&[u8]> {
        each!(self, framing => framing.unread())
    }

    /// Passes over so many bytes of [`unread`](Self::unread), which are whole blocks.
    pub(super) fn skip(&mut self, bytes: usize) {
        each!(self, framing => framing.skip(bytes));
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        each!(self, framing => framing.held())
    }

    /// Documents of our own at the end of a stream that was cut off.
    pub(super) fn loose(&self, carriers: &[Carrier]) -> String {
        match self {
            Self::Events(_) => carriers.iter().map(Carrier::event).collect(),
            Self::Lines(framing) => {
                let open = framing.is_open() && !carriers.is_empty();
                let end = if open { "\n" } else { "" };
                let lines: String = carriers.iter().map(Carrier::line).collect();
                format!("{end}{lines}")
            }
            Self::Elements(_) => carriers
                .iter()
                .map(|carrier| format!(",{}", carrier.data))
                .collect(),
        }
    }
}

impl Carrier {
    fn event(&self) -> String {
        let name = self
            .event
            .map_or_else(String::new, |name| format!("event: {name}\n"));
        format!("{name}data: {}\n\n", self.data)
    }

    fn line(&self) -> String {
        format!("{}\n", self.data)
    }
}

impl Block<'_> {
    /// The same by itself.
    pub(super) fn into_owned(self) -> Block<'static> {
        match self {
            Self::Event(block) => Block::Event(block.into_owned()),
            Self::Line(block) => Block::Line(block.into_owned()),
            Self::Element(block, whole) => Block::Element(block.into_owned(), whole),
        }
    }

    /// The block's document, if it has one.
    pub(super) fn data(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Event(block) => block.data(),
            Self::Line(block) => block.data().map(Cow::Borrowed),
            Self::Element(block, _) => block.data().map(Cow::Borrowed),
        }
    }

    /// All of the block as it came, and where in it the document stands, where that is in one piece.
    pub(super) fn place(&self) -> Option<(&str, Range<usize>)> {
        match self {
            Self::Event(block) => block.place(),
            Self::Line(block) => block.place(),
            Self::Element(block, _) => block.place(),
        }
    }

    /// Whether the framing itself says with this block that the stream is whole.
    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::Element(_, true))
    }

    /// The lines of an event that are not data.
    pub(super) fn fields(&self) -> impl Iterator<Item = (usize, sse::Field<'_>)> {
        let event = match self {
            Self::Event(block) => Some(block),
            _ => None,
        };
        event.into_iter().flat_map(sse::Block::fields)
    }

    /// Appends `carriers` to `before`, and the block with new data and lines, all else as it came, to `out`.
    pub(super) fn encode(
        &self,
        data: Option<&str>,
        lines: &[(usize, String)],
        carriers: &[Carrier],
        before: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) {
        let mut put = |text: &str| before.extend_from_slice(text.as_bytes());
        match self {
            Self::Event(block) => {
                carriers.iter().for_each(|carrier| put(&carrier.event()));
                block.encode(data, lines, out);
            }
            Self::Line(block) => {
                carriers.iter().for_each(|carrier| put(&carrier.line()));
                block.encode(data, out);
            }
            Self::Element(block, _) => {
                let ours: Vec<String> = carriers
                    .iter()
                    .map(|carrier| carrier.data.clone())
                    .collect();
                let (ours, block) = block.encoded(data, &ours);
                put(&ours);
                out.extend_from_slice(block.as_bytes());
            }
        }
    }
}
