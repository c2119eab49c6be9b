//! Small logs for tests, made by the same functions as real ones.

use super::{
    chain::{ChainId, Hash, Head, Stamp, place},
    checkpoint::Checkpoint,
    note::SigningKey,
    record::{Closed, Entry, Event, Genesis, Opened},
    tree::{Commitment, Frontier},
};

/// A chain in memory.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) head: Head,
    pub(crate) tree: Frontier,
    pub(crate) records: Vec<(Vec<u8>, Hash)>,
}

impl Log {
    /// A chain of `size` records, the first a genesis that continues `previous`.
    pub(crate) fn new(chain: u8, size: u64, previous: Option<&Log>) -> Self {
        let mut log = Self {
            head: Head::empty(ChainId([chain; 16])),
            tree: Frontier::default(),
            records: Vec::new(),
        };
        let mut genesis = Genesis {
            replica: "a".into(),
            ..Genesis::default()
        };
        if let Some(previous) = previous {
            genesis.previous_chain = previous.head.chain.to_string();
            genesis.previous_size = previous.head.size;
            genesis.previous_head = previous.head.hash.to_string();
            genesis.previous_root = previous.tree.root().to_string();
        }
        log.push(&Entry {
            session: String::new(),
            event: Event::Genesis(genesis),
        });
        while log.head.size < size {
            let session = format!("s-{}", (log.head.size - 1) / 2);
            let event = match log.head.size % 2 {
                1 => Event::Opened(Box::<Opened>::default()),
                _ => Event::Closed(Box::new(Closed {
                    outcome: "completed".into(),
                    ..Closed::default()
                })),
            };
            log.push(&Entry { session, event });
        }
        log
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        let stamp = Stamp {
            time: "2026-11-22T05:27:41Z".parse().unwrap(),
            monotonic_ns: self.head.size,
            replica: "a",
        };
        self.push_bytes(place(
            &self.head,
            &stamp,
            &serde_json::to_vec(entry).unwrap(),
        ));
    }

    pub(crate) fn push_bytes(&mut self, bytes: Vec<u8>) {
        let record_hash = self.head.hash_next(&bytes);
        let Head {
            chain, size: seq, ..
        } = self.head;
        let leaf = Commitment {
            chain,
            seq,
            record_hash,
            payload_hash: Hash::ZERO,
        };
        self.tree.push(&leaf.bytes());
        self.head = self.head.after(record_hash);
        self.records.push((bytes, record_hash));
    }

    /// What an insider with every key would make of it: record `at` changed by `change`, and it and all after it hashed
    /// again, with the links inside the records brought in line.
    pub(crate) fn rewritten(&self, at: u64, change: impl Fn(&str) -> String) -> Self {
        let mut log = Self {
            head: Head::empty(self.head.chain),
            tree: Frontier::default(),
            records: Vec::new(),
        };
        for (seq, (bytes, _)) in self.records.iter().enumerate() {
            let mut text = String::from_utf8(bytes.clone()).unwrap();
            if seq > 0 {
                let old = self.records[seq - 1].1.to_string();
                text = text.replacen(&old, &log.head.hash.to_string(), 1);
            }
            if seq as u64 == at {
                let changed = change(&text);
                assert_ne!(changed, text);
                text = changed;
            }
            log.push_bytes(text.into_bytes());
        }
        log
    }

    /// The checkpoint of the first `size` records.
    pub(crate) fn checkpoint(&self, size: u64, key: &SigningKey) -> String {
        let mut tree = Frontier::default();
        for (seq, (_, record_hash)) in self
            .records
            .iter()
            .enumerate()
            .take(usize::try_from(size).unwrap())
        {
            let leaf = Commitment {
                chain: self.head.chain,
                seq: seq as u64,
                record_hash: *record_hash,
                payload_hash: Hash::ZERO,
            };
            tree.push(&leaf.bytes());
        }
        let (deployment, chain, root) = ("demo".to_owned(), self.head.chain, tree.root());
        Checkpoint {
            deployment,
            chain,
            size,
            root,
        }
        .sign(key)
    }
}

/// A signing key; different `n`, different key.
pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_seed("countersign/demo/a", &[n; 32]).unwrap()
}
