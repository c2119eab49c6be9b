//! The bytes of a segment: a header, then frames. All integers are big-endian.
//!
//! ```text
//! segment header, 72 bytes             frame, 60 bytes and the record
//!  0  "CSGNWAL1"                        0  u32 length of the record
//!  8  u32 version (1)                   4  u32 CRC-32 of the record
//! 12  chain id                          8  u64 seq
//! 28  u64 seq of the first record      16  record hash
//! 36  hash of the record before it     48  u64 records known to be on disk when this one was written
//! 68  u32 CRC-32 of bytes 0..68        56  u32 CRC-32 of bytes 0..56
//!                                      60  the record
//! ```
//! The frame's own header has a checksum so that a changed length is never taken for a write that a crash cut short. The
//! count of records on disk tells, after a power cut, a page that had not been written yet from one that was changed.

use crate::audit::{
    ChainId, Hash,
    chain::{Head, MAX_RECORD_BYTES},
};

/// Length of a segment's header in bytes.
pub const SEGMENT_HEADER: usize = 72;
/// Length of a frame's header in bytes.
pub const FRAME_HEADER: usize = 60;
const MAGIC: &[u8; 8] = b"CSGNWAL1";
const VERSION: u32 = 1;

/// The header of a segment whose first record will follow `head`.
#[must_use]
pub fn segment_header(head: &Head) -> [u8; SEGMENT_HEADER] {
    let mut bytes = [0; SEGMENT_HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_be_bytes());
    bytes[12..28].copy_from_slice(&head.chain.0);
    bytes[28..36].copy_from_slice(&head.size.to_be_bytes());
    bytes[36..68].copy_from_slice(&head.hash.0);
    let crc = crc32fast::hash(&bytes[..68]);
    bytes[68..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads a segment's header: the head its first record follows.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn read_segment_header(bytes: &[u8; SEGMENT_HEADER]) -> Result<Head, &'static str> {
    if u32_at(bytes, 68) != crc32fast::hash(&bytes[..68]) {
        return Err("the segment's header does not match its checksum");
    }
    if &bytes[..8] != MAGIC || u32_at(bytes, 8) != VERSION {
        return Err("not a segment of a version this program knows");
    }
    let mut chain = [0; 16];
    chain.copy_from_slice(&bytes[12..28]);
    Ok(Head {
        chain: ChainId(chain),
        size: u64_at(bytes, 28),
        hash: hash_at(bytes, 36),
    })
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the record in bytes, 1 to [`MAX_RECORD_BYTES`].
    pub length: usize,
    /// CRC-32 of the record.
    pub crc: u32,
    /// The record's place in its chain.
    pub seq: u64,
    /// The record's hash.
    pub record_hash: Hash,
    /// Records of the chain that were known to be on disk when this one was written.
    pub synced: u64,
}

impl FrameHeader {
    /// Reads a header; `None` where its checksum or its length is wrong.
    #[must_use]
    pub fn read(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        let length = u32_at(bytes, 0) as usize;
        if length == 0
            || length > MAX_RECORD_BYTES
            || u32_at(bytes, 56) != crc32fast::hash(&bytes[..56])
        {
            return None;
        }
        Some(Self {
            length,
            crc: u32_at(bytes, 4),
            seq: u64_at(bytes, 8),
            record_hash: hash_at(bytes, 16),
            synced: u64_at(bytes, 48),
        })
    }
}

/// Appends a frame to `out`.
pub fn write_frame(out: &mut Vec<u8>, seq: u64, record_hash: Hash, synced: u64, record: &[u8]) {
    debug_assert!(
        !record.is_empty() && record.len() <= MAX_RECORD_BYTES,
        "the ledger refuses others"
    );
    let start = out.len();
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(record).to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&record_hash.0);
    out.extend_from_slice(&synced.to_be_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(record);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn hash_at(bytes: &[u8], at: usize) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    Hash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_and_one_flipped_bit_anywhere_is_seen() {
        let head = Head {
            chain: ChainId([3; 16]),
            size: 77,
            hash: Hash([4; 32]),
        };
        let segment = segment_header(&head);
        assert_eq!(read_segment_header(&segment), Ok(head));
        let mut frame = Vec::new();
        write_frame(&mut frame, 9, Hash([5; 32]), 4, b"record");
        let header: [u8; FRAME_HEADER] = frame[..FRAME_HEADER].try_into().unwrap();
        let read = FrameHeader::read(&header).unwrap();
        assert_eq!(
            (read.length, read.seq, read.record_hash, read.synced),
            (6, 9, Hash([5; 32]), 4)
        );
        for bit in 0..SEGMENT_HEADER * 8 {
            let mut flipped = segment;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_segment_header(&flipped).is_err(), "bit {bit}");
        }
        for bit in 0..FRAME_HEADER * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::read(&flipped), None, "bit {bit}");
        }
    }
}
