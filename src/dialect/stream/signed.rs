//! What someone has signed: held until it ends, and then let out whole or not at all.

use crate::dialect::{
    Channel,
    texts::{Slot, What},
};

/// The most that is held of what is signed, in bytes; more is dropped.
const MAX_SIGNED_BYTES: usize = 8 << 20;

/// What is signed and has not ended.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    pub(super) channel: Channel,
    pub(super) text: String,
    pub(super) events: Vec<u8>,
    /// It is too long, or has what must not leave whatever its text says: it will be dropped, and no more of it is held.
    pub(super) doomed: bool,
}

impl Quarantine {
    /// Takes the text of a piece.
    pub(super) fn take(&mut self, slot: &Slot, data: &str) {
        if let What::Piece(leaf) = &slot.what
            && !self.doomed
        {
            self.channel.clone_from(&slot.channel);
            self.text.push_str(leaf.text(data, slot.span));
        }
    }

    /// Takes an event as it came.
    pub(super) fn hold(&mut self, block: &[u8]) {
        if self.doomed || self.events.len() + block.len() > MAX_SIGNED_BYTES {
            self.doom();
            return;
        }
        self.events.extend_from_slice(block);
    }

    /// Lets go of it.
    pub(super) fn doom(&mut self) {
        *self = Self {
            doomed: true,
            ..Self::default()
        };
    }
}
