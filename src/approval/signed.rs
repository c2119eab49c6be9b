//! An event as it travels between replicas: signed by the replica that wrote it, whose key a root has certified.
//!
//! Every replica pins the root's public half, and judges by it, by what stands in the message and by the log's own time: so all
//! of them take the same events for good, also while some run with other keys or configurations than others.
//!
//! What a replica signs is bytes; how bytes are signed is passed in, so that this stays apart from any key format.

use jiff::Timestamp;

use super::Envelope;

/// First line of what a replica signs.
pub const EVENT: &str = "countersign/control/v1";
/// First line of what the root signs.
pub const CERTIFICATE: &str = "countersign/replica/v1";

/// What a root says of a replica's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The replica.
    pub replica: String,
    /// Its key, as its textual form.
    pub key: String,
    /// After this, by the log's clock, what the key signs counts for nothing.
    pub until: Timestamp,
}

impl Certificate {
    /// The text that the root signs.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            replica,
            key,
            until,
        } = self;
        format!("{CERTIFICATE}\n{replica}\n{key}\n{until}\n")
    }

    /// Reads the text that a root has signed; `None` where it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let right = lines.next() == Some(CERTIFICATE);
        let certificate = Self {
            replica: lines.next()?.to_owned(),
            key: lines.next()?.to_owned(),
            until: lines.next()?.parse().ok()?,
        };
        (right && lines.next().is_none() && certificate.text() == text).then_some(certificate)
    }
}

/// The text that a replica signs for an event: which log it is for, and one line of JSON.
#[must_use]
pub fn text_of(log: &str, envelope: &Envelope) -> String {
    let json = envelope.to_bytes();
    format!("{EVENT}\n{log}\n{}\n", String::from_utf8_lossy(&json))
}

/// The event's bytes in a text that a replica has signed for this log; `None` where it is none.
#[must_use]
pub fn event_in<'t>(log: &str, text: &'t str) -> Option<&'t [u8]> {
    let mut lines = text.lines();
    let right = lines.next() == Some(EVENT) && lines.next() == Some(log);
    let event = lines.next()?;
    (right && lines.next().is_none()).then_some(event.as_bytes())
}
