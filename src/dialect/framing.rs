//! How a stream's documents are told apart: as events, as lines, or as elements of an array.

use std::borrow::Cow;

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
pub(super) enum Block {
    Event(sse::Block),
    Line(lines::Block),
    Element(elements::Block),
}

/// A document of our own: the name of its event, where the dialect names events, and its data.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Carrier {
    pub(super) event: Option<&'static str>,
    pub(super) data: String,
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
        match self {
            Self::Events(framing) => framing.push(bytes),
            Self::Lines(framing) => framing.push(bytes),
            Self::Elements(framing) => framing.push(bytes),
        }
    }

    /// The next whole block, `None` until more bytes come.
    ///
    /// # Errors
    /// `event_too_large`, `invalid_utf8`, and `invalid_json` between elements.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, ShapeError> {
        Ok(match self {
            Self::Events(framing) => framing.next_block()?.map(Block::Event),
            Self::Lines(framing) => framing.next_block()?.map(Block::Line),
            Self::Elements(framing) => framing.next_block()?.map(Block::Element),
        })
    }

    /// What the end of the stream has cut off, where that may be read all the same.
    ///
    /// # Errors
    /// As for [`next_block`](Self::next_block), and `cut_event` where it may not.
    pub(super) fn rest(&mut self) -> Result<Option<Block>, ShapeError> {
        Ok(match self {
            Self::Events(framing) => framing.end()?.map(Block::Event),
            Self::Lines(framing) => framing.rest()?.map(Block::Line),
            Self::Elements(framing) => framing.rest()?.map(Block::Element),
        })
    }

    /// Whether the framing itself says that the stream is whole.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Elements(framing) if framing.is_whole())
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Events(framing) => framing.held(),
            Self::Lines(framing) => framing.held(),
            Self::Elements(framing) => framing.held(),
        }
    }

    /// Documents of our own at the end of a stream that was cut off.
    pub(super) fn loose(&self, carriers: &[Carrier]) -> String {
        match self {
            Self::Events(_) => carriers.iter().map(Carrier::event).collect(),
            Self::Lines(_) => carriers.iter().map(Carrier::line).collect(),
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

impl Block {
    /// The block's document, if it has one.
    pub(super) fn data(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Event(block) => block.data(),
            Self::Line(block) => block.data().map(Cow::Borrowed),
            Self::Element(block) => block.data().map(Cow::Borrowed),
        }
    }

    /// The lines of an event that are not data.
    pub(super) fn fields(&self) -> impl Iterator<Item = (usize, sse::Field<'_>)> {
        let event = match self {
            Self::Event(block) => Some(block),
            _ => None,
        };
        event.into_iter().flat_map(sse::Block::fields)
    }

    /// What goes before the block, which are `carriers`, and the block with new data and lines, all else as it came.
    pub(super) fn encoded(
        &self,
        data: Option<&str>,
        lines: &[(usize, String)],
        carriers: &[Carrier],
    ) -> (String, String) {
        match self {
            Self::Event(block) => (
                carriers.iter().map(Carrier::event).collect(),
                block.encoded(data, lines),
            ),
            Self::Line(block) => (
                carriers.iter().map(Carrier::line).collect(),
                block.encoded(data),
            ),
            Self::Element(block) => {
                let ours: Vec<String> = carriers
                    .iter()
                    .map(|carrier| carrier.data.clone())
                    .collect();
                block.encoded(data, &ours)
            }
        }
    }
}
