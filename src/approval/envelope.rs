//! An event as it travels: who wrote it, and a nonce by which its writer knows it again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Event;

/// The version written.
const VERSION: u32 = 1;

/// An event with its writer.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Drawn at random for this one event: the same event written again is another one.
    pub nonce: String,
    /// The replica that wrote it.
    pub replica: String,
    /// When, by that replica's clock.
    pub at: Timestamp,
    /// The event.
    pub event: Event,
}

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Nothing that any version would have written.
    #[error("not an event of the control log")]
    Garbage,
    /// Of a version or a kind this program does not know: a newer one wrote it, and whoever goes on without it would come to
    /// another state than those who understand it.
    #[error("an event of a newer version, of {0}: upgrade this replica")]
    Newer(Timestamp),
}

#[derive(Serialize, Deserialize)]
struct Written<E> {
    v: u32,
    nonce: String,
    replica: String,
    at: String,
    event: E,
}

/// How long an event may be on its way, the difference of clocks included. Shorter than any approval is remembered, so that an
/// event that somebody writes again, signature and all, is known or comes too late.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_mins(5);

/// Whether an event that was written at `written` came into a shared log, at `placed`, when it should have: judged by what stands
/// in the log alone.
#[must_use]
pub fn is_timely(written: Timestamp, placed: Timestamp) -> bool {
    placed.duration_since(written).abs() <= ON_ITS_WAY
}

impl Envelope {
    /// As it is written.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let written = Written {
            v: VERSION,
            nonce: self.nonce.clone(),
            replica: self.replica.clone(),
            at: self.at.to_string(),
            event: &self.event,
        };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let written: Written<serde_json::Value> =
            serde_json::from_slice(bytes).map_err(|_| Unreadable::Garbage)?;
        // What has the frame of an event was written by one of us.
        let at = written.at.parse().map_err(|_| Unreadable::Garbage)?;
        let event = match written.v {
            VERSION => serde_json::from_value(written.event).map_err(|_| Unreadable::Newer(at))?,
            _ => return Err(Unreadable::Newer(at)),
        };
        Ok(Self {
            nonce: written.nonce,
            replica: written.replica,
            at,
            event,
        })
    }
}
