//! Which chains a topic may lack that begins later than it was written from.

use std::collections::BTreeSet;

use crate::audit::ChainId;

/// Where a topic no longer begins where it was written from: its retention, or whoever may delete there, took what was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// Nowhere.
    #[default]
    Nowhere,
    /// In these of so many partitions. A chain of another one cannot have gone that way.
    In {
        /// How many partitions there are.
        partitions: u32,
        /// Those that begin late.
        late: BTreeSet<u32>,
    },
    /// Somewhere, and which chain was where cannot be told.
    Somewhere,
}

impl Late {
    /// Whether the topic begins late anywhere.
    #[must_use]
    pub fn is_any(&self) -> bool {
        match self {
            Self::Nowhere => false,
            Self::In { late, .. } => !late.is_empty(),
            Self::Somewhere => true,
        }
    }

    /// Whether a chain of which nothing is there may have gone with what was before.
    pub(super) fn may_lack(&self, chain: ChainId) -> bool {
        match self {
            Self::Nowhere => false,
            Self::In { partitions, late } => late.contains(&partition_of(chain, *partitions)),
            Self::Somewhere => true,
        }
    }
}

/// The partition of so many that a chain's records are in: Kafka's default for a message with a key, which is the chain's id in hex.
#[must_use]
pub fn partition_of(chain: ChainId, partitions: u32) -> u32 {
    let hash = murmur2(chain.to_string().as_bytes());
    (hash & 0x7FFF_FFFF).checked_rem(partitions).unwrap_or(0)
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5BD1_E995;
    // As many bytes as a key has are few.
    let mut hash = 0x9747_B28C ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        let low = rest
            .iter()
            .rev()
            .fold(0, |low, byte| low << 8 | u32::from(*byte));
        hash = (hash ^ low).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn keys_hash_as_kafkas_partitioner_hashes_them() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_chain_of_a_partition_that_begins_where_it_was_written_from_has_not_gone_that_way() {
        let chain: ChainId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let here = partition_of(chain, 7);
        let late = |which: u32| Late::In {
            partitions: 7,
            late: [which].into(),
        };
        assert!(late(here).may_lack(chain) && late(here).is_any());
        assert!(!late((here + 1) % 7).may_lack(chain));
        assert!(Late::Somewhere.may_lack(chain) && !Late::Nowhere.may_lack(chain));
        assert_eq!(partition_of(chain, 0), 0);
    }
}
