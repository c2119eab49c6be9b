//! The hash chain: what a record's bytes are, and how each commits to all before it.
//!
//! ```text
//! record_hash = SHA-256("countersign/record/v1\0" || chain id || u64be seq || prev_hash || u64be len || bytes)
//! ```

use std::{fmt, io::Write, str::FromStr};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// Domain separation of record hashes; its length is fixed, so no field can be taken for another.
const RECORD_DOMAIN: &[u8] = b"countersign/record/v1\0";

/// Largest record in bytes. Bodies are split by the caller to stay under 256 KiB; this is the hard stop, and keeps every
/// record, with its headers, below the 1,000,000 bytes a Kafka producer takes by default.
pub const MAX_RECORD_BYTES: usize = 960 << 10;

/// Room a record's position takes at most, before its entry, in bytes.
pub const MAX_POSITION_BYTES: usize = 1024;

/// A SHA-256 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first record of a chain names as its predecessor, and a leaf without a sealed payload as its payload.
    pub const ZERO: Self = Self([0; 32]);

    /// Reads 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        lower_hex(text).map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, &mut [0; 64], f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one chain: 128 random bits drawn at each start, so that a restored snapshot can never continue another's chain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub [u8; 16]);

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, &mut [0; 32], f)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chain id is 32 lower-case hexadecimal digits")]
pub struct NotAChainId;

impl FromStr for ChainId {
    type Err = NotAChainId;

    fn from_str(text: &str) -> Result<Self, NotAChainId> {
        lower_hex(text).map(Self).ok_or(NotAChainId)
    }
}

/// Writes `bytes` as digits by way of `digits`, which must be twice as long: every record has two such hashes, and no memory is
/// taken for them.
fn write_hex(bytes: &[u8], digits: &mut [u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    hex::encode_to_slice(bytes, digits).map_err(|_| fmt::Error)?;
    f.write_str(std::str::from_utf8(digits).map_err(|_| fmt::Error)?)
}

/// Hex in the one spelling we write: two spellings of one id would be two keys on the topic.
fn lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let (mut bytes, mut all) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        *byte = high << 4 | low;
        all |= high | low;
    }
    // Only what is no digit has a bit up there.
    (all & 0xf0 == 0).then_some(bytes)
}

/// The value of each lower-case hexadecimal digit, 0xff of any other byte. A table, since a verifier reads two hashes a record.
const DIGITS: [u8; 256] = {
    let (mut digits, mut value) = ([0xff; 256], 0);
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Where a durable record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The chain it is in.
    pub chain: ChainId,
    /// Its position, from 0 without gaps.
    pub seq: u64,
    /// Its hash, which commits to it and to all before it.
    pub record_hash: Hash,
}

/// The end of a chain: what the next record will link to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The chain.
    pub chain: ChainId,
    /// Records in it, which is the next record's `seq`.
    pub size: u64,
    /// Hash of the last record; [`Hash::ZERO`] while there is none.
    pub hash: Hash,
}

impl Head {
    /// The head of a chain without records.
    #[must_use]
    pub fn empty(chain: ChainId) -> Self {
        Self {
            chain,
            size: 0,
            hash: Hash::ZERO,
        }
    }

    /// The hash `bytes` would have as the next record.
    #[must_use]
    pub fn hash_next(&self, bytes: &[u8]) -> Hash {
        record_hash(self.chain, self.size, self.hash, bytes)
    }

    /// The head after a record of this hash.
    #[must_use]
    pub fn after(&self, hash: Hash) -> Self {
        Self {
            chain: self.chain,
            size: self.size + 1,
            hash,
        }
    }
}

/// The hash of a record, which commits to its place as well as to its bytes.
#[must_use]
pub fn record_hash(chain: ChainId, seq: u64, previous: Hash, bytes: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(RECORD_DOMAIN);
    hasher.update(chain.0);
    hasher.update(seq.to_be_bytes());
    hasher.update(previous.0);
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
    Hash(hasher.finalize().into())
}

/// When and by whom a record is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stamp<'a> {
    /// UTC.
    pub time: Timestamp,
    /// Nanoseconds since the chain was opened, on a clock that never steps.
    pub monotonic_ns: u64,
    /// Name of the replica.
    pub replica: &'a str,
}

/// The bytes of the record that puts `entry` (a JSON object, serialised once) at the end of `head`.
///
/// The position comes first and in a fixed order, so that [`Position::read`] needs no JSON parser, and so that a second
/// key of the same name further on could not be read in its stead.
#[must_use]
pub fn place(head: &Head, stamp: &Stamp<'_>, entry: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entry.len() + 320);
    place_into(&mut bytes, head, &stamp.written(), entry);
    bytes
}

impl Stamp<'_> {
    /// Its part of a record: many are written under one.
    pub(crate) fn written(&self) -> String {
        let replica = serde_json::Value::from(self.replica);
        let Self {
            time, monotonic_ns, ..
        } = self;
        format!(r#""time":"{time:.9}","monotonicNs":"{monotonic_ns}","replica":{replica}"#)
    }
}

/// As [`place`], at the end of `bytes` and with the stamp as it is written.
pub(crate) fn place_into(bytes: &mut Vec<u8>, head: &Head, stamp: &str, entry: &[u8]) {
    let written = write!(
        bytes,
        r#"{{"chain":"{}","seq":"{}","prevHash":"{}",{stamp}"#,
        head.chain, head.size, head.hash
    );
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    match entry.strip_prefix(b"{") {
        Some(rest) if rest != b"}" => {
            bytes.push(b',');
            bytes.extend_from_slice(rest);
        }
        _ => bytes.push(b'}'),
    }
}

/// The position a record says it has. A claim until its hash was recomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// The chain.
    pub chain: ChainId,
    /// The place in it.
    pub seq: u64,
    /// Hash of the record before it.
    pub previous: Hash,
    /// RFC 3339 time as written.
    pub time: &'a str,
}

impl<'a> Position<'a> {
    /// Reads the position at the start of a record's bytes; `None` where it is not exactly as [`place`] writes it.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(br#"{"chain":""#)?;
        let (chain, rest) = until_quote(rest)?;
        let (seq, rest) = until_quote(rest.strip_prefix(br#","seq":""#)?)?;
        let (previous, rest) = until_quote(rest.strip_prefix(br#","prevHash":""#)?)?;
        let (time, _) = until_quote(rest.strip_prefix(br#","time":""#)?)?;
        // One spelling per number: `07` or `+7` would be a second form of 7.
        if seq.starts_with('+') || (seq.len() > 1 && seq.starts_with('0')) {
            return None;
        }
        Some(Self {
            chain: chain.parse().ok()?,
            seq: seq.parse().ok()?,
            previous: Hash::from_hex(previous)?,
            time,
        })
    }
}

fn until_quote(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(80).position(|byte| *byte == b'"')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::{Entry, Event, Shutdown};

    const CHAIN: ChainId = ChainId([0xab; 16]);

    fn entry() -> Vec<u8> {
        let event = Event::Shutdown(Shutdown { cut_sessions: 7 });
        serde_json::to_vec(&Entry {
            session: "s-1".into(),
            event,
        })
        .unwrap()
    }

    fn stamp() -> Stamp<'static> {
        Stamp {
            time: "2026-11-22T05:27:41.1Z".parse().unwrap(),
            monotonic_ns: 12,
            replica: "a\"b",
        }
    }

    #[test]
    fn a_placed_record_is_one_json_object_that_starts_with_its_position() {
        let head = Head {
            chain: CHAIN,
            size: 41,
            hash: Hash([1; 32]),
        };
        let bytes = place(&head, &stamp(), &entry());
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(json["chain"], CHAIN.to_string());
        assert_eq!(json["seq"], "41");
        assert_eq!(json["time"], "2026-11-22T05:27:41.100000000Z");
        assert_eq!(json["replica"], "a\"b");
        assert_eq!(json["shutdown"]["cutSessions"], 7);
        let position = Position::read(&bytes).unwrap();
        assert_eq!(
            (position.chain, position.seq, position.previous),
            (CHAIN, 41, Hash([1; 32]))
        );
        let back: Entry = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(back.session, "s-1");
    }

    #[test]
    fn a_position_has_one_spelling() {
        let good = place(
            &Head {
                chain: CHAIN,
                size: 7,
                hash: Hash::ZERO,
            },
            &stamp(),
            &entry(),
        );
        let good = String::from_utf8(good).unwrap();
        assert!(Position::read(good.as_bytes()).is_some());
        for (from, to) in [
            (r#""seq":"7""#, r#""seq":"07""#),
            (r#""seq":"7""#, r#""seq":"+7""#),
            (r#""seq":"7""#, r#""seq":7"#),
            (r#""seq":"7""#, r#" "seq":"7""#),
            (r#""seq":"7""#, r#""seq":"-7""#),
            (r#""seq":"7""#, r#""seq":"18446744073709551616""#),
            ("abab", "ABAB"),
            ("abab", "ab"),
            ("abab", "abag"),
            ("abab", "ab b"),
            ("0000", "00\u{e4}"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(Position::read(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn every_input_of_the_hash_changes_it() {
        let base = record_hash(CHAIN, 5, Hash([2; 32]), b"bytes");
        let others = [
            record_hash(ChainId([0; 16]), 5, Hash([2; 32]), b"bytes"),
            record_hash(CHAIN, 6, Hash([2; 32]), b"bytes"),
            record_hash(CHAIN, 5, Hash([3; 32]), b"bytes"),
            record_hash(CHAIN, 5, Hash([2; 32]), b"byte"),
        ];
        assert!(others.iter().all(|other| *other != base));
        // The formula, written out once more from its parts.
        let mut all = b"countersign/record/v1\0".to_vec();
        all.extend([0xab; 16]);
        all.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        all.extend([2; 32]);
        all.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        all.extend(b"bytes");
        assert_eq!(base.0, <[u8; 32]>::from(Sha256::digest(&all)));
    }
}
