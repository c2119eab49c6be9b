//! Which of 64 bytes are of a kind, as the bits of one number: the step in which text is passed over.

/// How many bytes are looked at in one step.
pub(crate) const BLOCK: usize = 64;

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    pub(crate) const DIGITS: Self = Self([0x3FF << b'0', 0, 0, 0]);

    pub(crate) fn complement(self) -> Self {
        Self(self.0.map(|bits| !bits))
    }

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |&byte| self.contains(byte))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.union(other) == other
    }

    pub(crate) fn is_apart(self, other: Self) -> bool {
        (0..4).all(|i| self.0[i] & other.0[i] == 0)
    }
}

impl FromIterator<u8> for ByteSet {
    fn from_iter<T: IntoIterator<Item = u8>>(bytes: T) -> Self {
        let mut set = Self::default();
        bytes.into_iter().for_each(|byte| set.insert(byte));
        set
    }
}

/// Looks for the bytes of a set.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    /// First byte and how many more, each range.
    ranges: Vec<(u8, u8)>,
    /// Whether the processor has vectors as long as a block.
    wide: bool,
}

impl Finder {
    pub(crate) fn new(set: ByteSet) -> Self {
        let mut ranges: Vec<(u8, u8)> = Vec::new();
        for byte in set.bytes() {
            match ranges.last_mut() {
                Some((first, more))
                    if u32::from(*first) + u32::from(*more) + 1 == u32::from(byte) =>
                {
                    *more += 1;
                }
                _ => ranges.push((byte, 0)),
            }
        }
        Self {
            ranges,
            wide: has_wide(),
        }
    }

    /// Bit `i` is set if the byte at `i` is in the set.
    #[inline]
    pub(crate) fn find(&self, block: &Block) -> u64 {
        find(block, &self.ranges, self.wide)
    }
}

/// 64 bytes of text.
pub(crate) type Block = [u8; BLOCK];

/// The block of a text that begins at `at`, put together in `room` where the text is too short. Behind the end of the text are bytes that a finder does not look for.
#[inline]
pub(crate) fn block<'t>(text: &'t [u8], at: usize, room: &'t mut Block) -> &'t Block {
    let rest = text.get(at..).unwrap_or_default();
    rest.first_chunk().unwrap_or_else(|| {
        room[..rest.len()].copy_from_slice(rest);
        room[rest.len()..].fill(NOTHING);
        room
    })
}

/// A byte that is never looked for: no text has it (RFC 3629 section 1).
const NOTHING: u8 = 0xFF;

#[cfg(target_arch = "x86_64")]
#[inline]
fn find(block: &Block, ranges: &[(u8, u8)], wide: bool) -> u64 {
    #[allow(
        unsafe_code,
        reason = "the plain loop costs five times as much, and half of all the time that clean text takes"
    )]
    // SAFETY: `wide` is what the processor says of itself.
    if wide {
        return unsafe { with_wide_vectors(block, ranges) };
    }
    #[allow(unsafe_code, reason = "as above")]
    // SAFETY: every x86-64 has SSE2.
    unsafe {
        // Not a `match`: a jump by their number is guessed wrong by the processor whenever finders take turns.
        if let [a] = *ranges {
            with_vectors(block, [a])
        } else if let [a, b] = *ranges {
            with_vectors(block, [a, b])
        } else if let [a, b, c] = *ranges {
            with_vectors(block, [a, b, c])
        } else if let [a, b, c, d] = *ranges {
            with_vectors(block, [a, b, c, d])
        } else {
            ranges
                .iter()
                .fold(0, |bits, &range| bits | with_vectors(block, [range]))
        }
    }
}

/// What [`plainly`] does, 16 bytes at a time.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn with_vectors<const N: usize>(block: &Block, ranges: [(u8, u8); N]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8, _mm_setzero_si128, _mm_sub_epi8,
    };
    let (halves, _) = block.as_chunks::<8>();
    let half = |i: usize| i64::from_le_bytes(halves[i]);
    let vector = |i: usize| -> __m128i { _mm_set_epi64x(half(2 * i + 1), half(2 * i)) };
    let vectors = [vector(0), vector(1), vector(2), vector(3)];
    let mut found = [_mm_setzero_si128(); 4];
    for (first, more) in ranges {
        let (first, more) = (_mm_set1_epi8(first as i8), _mm_set1_epi8(more as i8));
        for (found, vector) in found.iter_mut().zip(vectors) {
            let above = _mm_sub_epi8(vector, first);
            let within = _mm_cmpeq_epi8(_mm_min_epu8(above, more), above);
            *found = _mm_or_si128(*found, within);
        }
    }
    let bits = |i: usize| u64::from(_mm_movemask_epi8(found[i]) as u16) << (16 * i);
    bits(0) | bits(1) | bits(2) | bits(3)
}

#[cfg(target_arch = "x86_64")]
fn has_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx512bw")
}

/// What [`plainly`] does, all at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw")]
fn with_wide_vectors(block: &Block, ranges: &[(u8, u8)]) -> u64 {
    use std::arch::x86_64::{
        _mm512_cmple_epu8_mask, _mm512_set_epi64, _mm512_set1_epi8, _mm512_sub_epi8,
    };
    let (eighths, _) = block.as_chunks::<8>();
    let eighth = |i: usize| i64::from_le_bytes(eighths[i]);
    let block = _mm512_set_epi64(
        eighth(7),
        eighth(6),
        eighth(5),
        eighth(4),
        eighth(3),
        eighth(2),
        eighth(1),
        eighth(0),
    );
    ranges.iter().fold(0, |bits, &(first, more)| {
        let above = _mm512_sub_epi8(block, _mm512_set1_epi8(first as i8));
        bits | _mm512_cmple_epu8_mask(above, _mm512_set1_epi8(more as i8))
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn find(block: &Block, ranges: &[(u8, u8)], _wide: bool) -> u64 {
    plainly(block, ranges)
}

/// One byte at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn plainly(block: &Block, ranges: &[(u8, u8)]) -> u64 {
    block.iter().enumerate().fold(0, |bits, (i, byte)| {
        let within = |&(first, more): &(u8, u8)| byte.wrapping_sub(first) <= more;
        bits | u64::from(ranges.iter().any(within)) << i
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_read_as_its_bytes_are_one_by_one() {
        let sets: [ByteSet; 5] = [
            ByteSet::default(),
            (b'0'..=b'9').collect(),
            b"@".iter().copied().collect(),
            b"(+0123456789".iter().copied().collect(),
            (0x80..=0xFE).chain([0, b'a', b'z']).collect(),
        ];
        let text: Vec<u8> = (0..1000u32).map(|i| (i * i % 255 + i / 3) as u8).collect();
        for set in sets {
            let finder = Finder::new(set);
            for at in 0..text.len() + 70 {
                let rest = text.get(at..).unwrap_or_default();
                let expected = rest.iter().take(64).enumerate();
                let expected = expected.fold(0, |bits, (i, &byte)| {
                    bits | u64::from(set.contains(byte)) << i
                });
                let mut room = [0; BLOCK];
                let block = block(&text, at, &mut room);
                assert_eq!(finder.find(block), expected, "{set:?} at {at}");
                assert_eq!(find(block, &finder.ranges, false), expected);
                assert_eq!(plainly(block, &finder.ranges), expected);
            }
        }
    }
}
