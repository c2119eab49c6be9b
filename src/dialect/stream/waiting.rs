//! A document that does not leave yet: whether its texts end with it, the next document tells.

use std::collections::BTreeMap;

use super::Ends;
use crate::dialect::{
    Channel,
    framing::{Block, Carrier},
    json::{self, Span},
};

/// The texts of a document by channel: where each stands and what leaves in its place.
pub(super) type Pieces = BTreeMap<Channel, Vec<(Span, String)>>;

/// A document and what has been decided of it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) block: Block<'static>,
    pub(super) data: String,
    /// New text for lines of the block that are not data.
    pub(super) lines: Vec<(usize, String)>,
    pub(super) edits: Vec<(Span, String)>,
    pub(super) pieces: Pieces,
    /// Documents of ours that go before it.
    pub(super) carriers: Vec<Carrier>,
    /// The texts that end with it unless the next document goes on with them.
    pub(super) ends: Vec<Ends>,
    /// What came behind it that is no document.
    pub(super) behind: Vec<u8>,
}

impl Waiting {
    /// Appends it, and to `before` what goes before it.
    pub(super) fn write(self, before: &mut Vec<u8>, out: &mut Vec<u8>) {
        let new = rewritten(&self.data, self.edits, self.pieces);
        self.block
            .encode(new.as_deref(), &self.lines, &self.carriers, before, out);
        out.extend_from_slice(&self.behind);
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        let edits = self.edits.iter().map(|(_, new)| new.len());
        let pieces = self.pieces.values().flatten().map(|(_, new)| new.len());
        2 * self.data.len() + edits.sum::<usize>() + pieces.sum::<usize>() + self.behind.len()
    }
}

/// `data` with the edits, and with the pieces whose text is not the one that came; `None` where nothing changes.
pub(super) fn rewritten(
    data: &str,
    mut edits: Vec<(Span, String)>,
    pieces: Pieces,
) -> Option<String> {
    let pieces = pieces.into_values().flatten();
    edits.extend(
        pieces
            .filter(|(span, text)| json::text_at(data, *span) != text.as_str())
            .map(|(span, text)| (span, json::quoted(&text))),
    );
    (!edits.is_empty()).then(|| json::splice(data, edits))
}
