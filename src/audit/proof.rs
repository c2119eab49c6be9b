//! Proof that records stand in a chain, small enough to hand over by itself.
//!
//! A proof carries the records byte for byte, the path of each to the root of its chain's tree, and the signed checkpoint
//! with that root. Whoever trusts the checkpoint's key needs nothing else, and sees no other record.
//!
//! Promises: [`Proof::check`] recomputes everything from the records' bytes; a path is at most 64 hashes long. Cannot
//! show: that the session has no other records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    chain::{ChainId, Hash, MAX_RECORD_BYTES, Position, record_hash},
    checkpoint::Checkpoint,
    note::{NoteError, VerifierKey},
    succession,
    tree::{Commitment, Frontier, root_of_leaf},
};

/// What the first member of a proof says it is.
pub const FORMAT: &str = "countersign/proof/v1";
/// Records in one proof: one more is refused.
pub const MAX_RECORDS: usize = 65_536;

/// A proof as it is written to a file: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// [`FORMAT`].
    pub format: String,
    /// The session the records are of.
    pub session: String,
    /// A signed checkpoint for each chain that has records of it.
    pub checkpoints: Vec<String>,
    /// The records, in the order of their chains.
    pub records: Vec<Proven>,
    /// Statements by which keys introduced one another, for who trusts an older one; left out where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub introductions: Vec<String>,
}

/// One record and its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proven {
    /// The record, byte for byte.
    pub record: String,
    /// Hash of the sealed payload's ciphertext, hex; left out where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload_hash: String,
    /// Hashes from the leaf's sibling to the root's child (RFC 6962, section 2.1.1), hex.
    pub path: Vec<String>,
}

/// What a proof shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The checkpoints it rests on.
    pub checkpoints: Vec<Checkpoint>,
    /// Chain and place of each record, in the proof's order.
    pub records: Vec<(ChainId, u64)>,
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// Not a proof of this version, or none of anything.
    #[error("it is no proof of the form `{FORMAT}` with 1 to {MAX_RECORDS} records")]
    Form,
    /// A checkpoint is none, or is not signed by a trusted key.
    #[error("checkpoint {0}: {1}")]
    Checkpoint(usize, NoteError),
    /// Two checkpoints of one chain.
    #[error("it has two checkpoints of chain {0}")]
    TwoCheckpoints(ChainId),
    /// A record does not begin with its position, or is too large.
    #[error("record {0} does not begin with its position in a chain")]
    Position(usize),
    /// A record is of another session.
    #[error("record {0} is not of the session")]
    Session(usize),
    /// A record's chain has no checkpoint.
    #[error("record {0} is in a chain without a checkpoint")]
    NoCheckpoint(usize),
    /// A record is not below the checkpoint's root.
    #[error(
        "record {0} is not what the checkpoint covers: it was altered, or the proof is of another log"
    )]
    NotCovered(usize),
    /// A record comes twice or before an earlier one.
    #[error("record {0} is out of order")]
    Order(usize),
}

impl Proof {
    /// Recomputes the proof. With no `trusted` keys signatures are not looked at, and the checkpoints are worth as much
    /// as the way they came.
    ///
    /// # Errors
    /// [`ProofFault`]: the first thing wrong.
    pub fn check(&self, trusted: &[VerifierKey]) -> Result<Shown, ProofFault> {
        if self.format != FORMAT || self.records.is_empty() || self.records.len() > MAX_RECORDS {
            return Err(ProofFault::Form);
        }
        let statements = self.introductions.iter().map(String::as_str);
        let trusted = match trusted {
            [] => Vec::new(),
            trusted => succession::successors(trusted.to_vec(), statements),
        };
        let mut by_chain = BTreeMap::new();
        for (n, note) in self.checkpoints.iter().enumerate() {
            let checkpoint = match trusted.as_slice() {
                [] => Checkpoint::read_unchecked(note),
                trusted => Checkpoint::open(note, trusted),
            }
            .map_err(|error| ProofFault::Checkpoint(n, error))?;
            let chain = checkpoint.chain;
            if by_chain.insert(chain, checkpoint).is_some() {
                return Err(ProofFault::TwoCheckpoints(chain));
            }
        }
        let mut places: Vec<(ChainId, u64)> = Vec::with_capacity(self.records.len());
        for (n, proven) in self.records.iter().enumerate() {
            let position = Position::read(proven.record.as_bytes())
                .filter(|_| proven.record.len() <= MAX_RECORD_BYTES)
                .ok_or(ProofFault::Position(n))?;
            if session(proven.record.as_bytes()).as_deref() != Some(&self.session) {
                return Err(ProofFault::Session(n));
            }
            let place = (position.chain, position.seq);
            if places
                .iter()
                .rev()
                .find(|(chain, _)| *chain == place.0)
                .is_some_and(|(_, seq)| *seq >= place.1)
            {
                return Err(ProofFault::Order(n));
            }
            let checkpoint = by_chain
                .get(&position.chain)
                .ok_or(ProofFault::NoCheckpoint(n))?;
            if proven.root(&position, checkpoint.size) != Some(checkpoint.root) {
                return Err(ProofFault::NotCovered(n));
            }
            places.push(place);
        }
        Ok(Shown {
            checkpoints: by_chain.into_values().collect(),
            records: places,
        })
    }
}

impl Proven {
    /// The root that the record and its path lead to in a tree of `size` leaves.
    fn root(&self, position: &Position<'_>, size: u64) -> Option<Hash> {
        let payload_hash = match self.payload_hash.as_str() {
            "" => Hash::ZERO,
            hex => Hash::from_hex(hex)?,
        };
        let record_hash = record_hash(
            position.chain,
            position.seq,
            position.previous,
            self.record.as_bytes(),
        );
        let leaf = Commitment {
            chain: position.chain,
            seq: position.seq,
            record_hash,
            payload_hash,
        };
        let path: Option<Vec<Hash>> = self.path.iter().map(|hex| Hash::from_hex(hex)).collect();
        root_of_leaf(&leaf.bytes(), position.seq, size, &path?)
    }
}

/// The session a record is of.
#[must_use]
pub fn session(record: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct OfSession {
        #[serde(default)]
        session: String,
    }
    let of: OfSession = serde_json::from_slice(record).ok()?;
    Some(of.session)
}

/// Collects the paths of some leaves of a tree of known size while all its leaves go by. Memory: the square of the tree's
/// height, for each leaf wanted.
#[derive(Debug)]
pub struct Prover {
    wanted: Vec<Wanted>,
    next: u64,
}

#[derive(Debug)]
struct Wanted {
    leaf: u64,
    /// The path, from the leaf up: ranges of leaves and what of them went by.
    siblings: Vec<(std::ops::Range<u64>, Frontier)>,
}

impl Prover {
    /// For the paths of `leaves` in a tree of `size`; those beyond it have none.
    #[must_use]
    pub fn new(size: u64, leaves: impl IntoIterator<Item = u64>) -> Self {
        Self::after(&Frontier::default(), size, leaves)
    }

    /// The same where the first leaves, those of `before`, will not go by; those have no path either.
    #[must_use]
    pub fn after(before: &Frontier, size: u64, leaves: impl IntoIterator<Item = u64>) -> Self {
        let wanted = |leaf| Wanted {
            leaf,
            siblings: siblings(leaf, size)
                .into_iter()
                .map(|range| (range.clone(), before.behind(range.start, range.end)))
                .collect(),
        };
        Self {
            wanted: leaves
                .into_iter()
                .filter(|leaf| (before.size()..size).contains(leaf))
                .map(wanted)
                .collect(),
            next: before.size(),
        }
    }

    /// Takes the next leaf.
    pub fn push(&mut self, leaf: &Commitment) {
        let place = self.next;
        self.next += 1;
        for wanted in &mut self.wanted {
            let sibling = wanted
                .siblings
                .iter_mut()
                .find(|(range, _)| range.contains(&place));
            if let Some((_, frontier)) = sibling {
                frontier.push(&leaf.bytes());
            }
        }
    }

    /// The paths by leaf, once all leaves went by.
    #[must_use]
    pub fn paths(self) -> BTreeMap<u64, Vec<String>> {
        let path = |wanted: Wanted| {
            let hashes = wanted.siblings.iter();
            let hashes = hashes.map(|(_, frontier)| frontier.root().to_string());
            (wanted.leaf, hashes.collect())
        };
        self.wanted.into_iter().map(path).collect()
    }
}

/// The leaves below each hash of the path of `leaf` in a tree of `size`, from the leaf up (RFC 6962, section 2.1.1).
fn siblings(leaf: u64, size: u64) -> Vec<std::ops::Range<u64>> {
    let (mut from, mut to) = (0, size);
    let mut down = Vec::new();
    while to - from > 1 {
        let split = from + (to - from).next_power_of_two() / 2;
        if leaf < split {
            down.push(split..to);
            to = split;
        } else {
            down.push(from..split);
            from = split;
        }
    }
    down.reverse();
    down
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        fixture::{self, Log},
        record::{Closed, Entry, Event},
    };

    fn log(records: u64) -> Log {
        let mut log = Log::new(7, 0, None);
        for n in 0..records {
            log.push(&Entry {
                session: format!("s-{}", n % 5),
                event: Event::Closed(Box::new(Closed {
                    outcome: "completed".into(),
                    ..Closed::default()
                })),
            });
        }
        log
    }

    fn proof(log: &Log, size: u64, session_id: &str) -> Proof {
        let mine: Vec<u64> = (0..size)
            .filter(|n| session(&log.records[*n as usize].0).as_deref() == Some(session_id))
            .collect();
        let mut prover = Prover::new(size, mine.iter().copied());
        for n in 0..size {
            prover.push(&Commitment {
                chain: log.head.chain,
                seq: n,
                record_hash: log.records[n as usize].1,
                payload_hash: Hash::ZERO,
            });
        }
        let paths = prover.paths();
        let proven = |n: &u64| Proven {
            record: String::from_utf8(log.records[*n as usize].0.clone()).unwrap(),
            payload_hash: String::new(),
            path: paths[n].clone(),
        };
        Proof {
            format: FORMAT.into(),
            session: session_id.into(),
            checkpoints: vec![log.checkpoint(size, &fixture::key(1))],
            records: mine.iter().map(proven).collect(),
            introductions: Vec::new(),
        }
    }

    #[test]
    fn every_record_is_proven_at_every_size() {
        let log = log(40);
        let trusted = [fixture::key(1).verifier().clone()];
        for size in 3..=log.head.size {
            let proof = proof(&log, size, "s-1");
            let shown = proof
                .check(&trusted)
                .unwrap_or_else(|fault| panic!("size {size}: {fault}"));
            assert_eq!(shown.records.len(), proof.records.len());
            let json = serde_json::to_string(&proof).unwrap();
            assert_eq!(serde_json::from_str::<Proof>(&json).unwrap(), proof);
        }
    }

    #[test]
    fn what_is_left_of_a_pruned_chain_is_proven_as_before() {
        let log = log(40);
        let size = log.head.size;
        let leaf = |n: u64| Commitment {
            chain: log.head.chain,
            seq: n,
            record_hash: log.records[n as usize].1,
            payload_hash: Hash::ZERO,
        };
        let mut all = Prover::new(size, 0..size);
        (0..size).for_each(|n| all.push(&leaf(n)));
        let all = all.paths();
        let mut gone = Frontier::default();
        for pruned in 0..size {
            let mut rest = Prover::after(&gone, size, 0..size);
            (pruned..size).for_each(|n| rest.push(&leaf(n)));
            let rest = rest.paths();
            assert_eq!(rest.len() as u64, size - pruned);
            assert!(rest.iter().all(|(n, path)| all[n] == *path), "{pruned}");
            gone.push(&leaf(pruned).bytes());
        }
    }

    #[test]
    fn whatever_is_changed_in_a_proof_it_proves_nothing() {
        let log = log(23);
        let trusted = [fixture::key(1).verifier().clone()];
        let good = proof(&log, log.head.size, "s-1");
        assert!(good.check(&trusted).is_ok());
        let stranger = [fixture::key(2).verifier().clone()];
        assert!(matches!(
            good.check(&stranger),
            Err(ProofFault::Checkpoint(0, _))
        ));
        assert!(
            good.check(&[]).is_ok(),
            "without keys the checkpoint is taken as it came"
        );

        type Change = fn(&mut Proof);
        let changes: [(&str, Change); 12] = [
            ("form", |p| p.format.push('2')),
            ("nothing", |p| p.records.clear()),
            ("a byte of a record", |p| {
                p.records[0].record = p.records[0].record.replace("completed", "completes")
            }),
            ("a space behind it", |p| p.records[0].record.push(' ')),
            ("its place", |p| {
                p.records[0].record =
                    p.records[0]
                        .record
                        .replacen("\"seq\":\"2\"", "\"seq\":\"3\"", 1)
            }),
            ("another's path", |p| {
                p.records[0].path = p.records[1].path.clone()
            }),
            ("a shorter path", |p| _ = p.records[0].path.pop()),
            ("a longer path", |p| p.records[0].path.push("00".repeat(32))),
            ("a payload", |p| p.records[0].payload_hash = "11".repeat(32)),
            ("the session", |p| p.session = "s-2".into()),
            ("the order", |p| p.records.swap(0, 1)),
            ("no checkpoint", |p| p.checkpoints.clear()),
        ];
        for (name, change) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert_ne!(bad, good, "{name}");
            assert!(bad.check(&trusted).is_err(), "{name}");
        }
        let mut bad = good.clone();
        bad.checkpoints.push(good.checkpoints[0].clone());
        assert!(matches!(
            bad.check(&trusted),
            Err(ProofFault::TwoCheckpoints(_))
        ));
        // A key that the trusted one introduced.
        bad = good.clone();
        bad.checkpoints = vec![log.checkpoint(log.head.size, &fixture::key(2))];
        assert!(bad.check(&trusted).is_err());
        bad.introductions = vec![succession::introduce(
            &fixture::key(1),
            fixture::key(2).verifier(),
        )];
        assert!(bad.check(&trusted).is_ok());
        // A checkpoint of an earlier size, rightly signed, has another root.
        bad = good.clone();
        bad.checkpoints = vec![log.checkpoint(20, &fixture::key(1))];
        assert_eq!(bad.check(&trusted), Err(ProofFault::NotCovered(0)));
    }

    #[test]
    fn a_path_of_a_large_log_is_under_a_kilobyte() {
        for leaf in [0, 1, 40_000_000, 79_999_999] {
            assert!(siblings(leaf, 80_000_000).len() * 32 <= 1024);
        }
    }

    /// `ct-merkle` shares no code with this: roots, paths and what is accepted of them.
    #[test]
    fn another_implementation_makes_the_same_roots_and_paths() {
        use ct_merkle::{InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
        use sha2::{Sha256, digest::Output};

        let log = log(70);
        let (mut theirs, mut ours) = (
            MemoryBackedTree::<Sha256, Vec<u8>>::new(),
            Frontier::default(),
        );
        let leaf = |n: usize| Commitment {
            chain: log.head.chain,
            seq: n as u64,
            record_hash: log.records[n].1,
            payload_hash: Hash([n as u8; 32]),
        };
        for size in 1..=log.records.len() {
            let newest = leaf(size - 1);
            theirs.push(newest.bytes().to_vec());
            ours.push(&newest.bytes());
            assert_eq!(theirs.root().as_bytes().as_slice(), ours.root().0);
            let mut prover = Prover::new(size as u64, 0..size as u64);
            (0..size).for_each(|n| prover.push(&leaf(n)));
            let root = RootHash::<Sha256>::new(Output::<Sha256>::from(ours.root().0), size as u64);
            for (n, path) in prover.paths() {
                let bytes: Vec<u8> = path.iter().flat_map(|h| hex::decode(h).unwrap()).collect();
                let index = usize::try_from(n).unwrap();
                assert_eq!(theirs.prove_inclusion(index).as_bytes(), bytes);
                let proof = InclusionProof::<Sha256>::from_bytes(bytes);
                let bytes = leaf(index).bytes();
                root.verify_inclusion(&bytes.to_vec(), n, &proof).unwrap();
                let hashes: Vec<Hash> = path.iter().map(|h| Hash::from_hex(h).unwrap()).collect();
                let found = root_of_leaf(&bytes, n, size as u64, &hashes);
                assert_eq!(found, Some(ours.root()));
            }
        }
    }

    #[test]
    fn the_paths_of_the_rfc() {
        // RFC 6962, section 2.1.3: the tree with seven leaves.
        assert_eq!(siblings(0, 7), [1..2, 2..4, 4..7]);
        assert_eq!(siblings(3, 7), [2..3, 0..2, 4..7]);
        assert_eq!(siblings(4, 7), [5..6, 6..7, 0..4]);
        assert_eq!(siblings(6, 7), [4..6, 0..4]);
        assert_eq!(siblings(0, 1), [0..0; 0]);
    }
}
