//! What a replica left on the topic when its disk died with it.
//!
//! Promises: reads all of the topic before it says anything; a chain with a gap or a record that does not link is an error, never
//! taken for shorter than it was. Cannot see: records that Kafka never acknowledged, for which nobody was given anything; and that
//! the other process is still alive, which whoever starts two of one name must rule out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    KafkaOptions,
    reader::{ReadError, TopicReader},
};
use crate::{
    audit::{
        ChainId, Hash,
        chain::{Head, Position},
        checkpoint::Checkpoint,
        record::Genesis,
        tree::{Commitment, Frontier},
    },
    store::recover::Previous,
};

/// What was left.
#[derive(Debug, Default)]
pub struct Estate {
    /// The newest chain of the replica; `None` where it has none on the topic.
    pub previous: Option<Previous>,
    /// Sessions that its chains open and none of them closes.
    pub orphans: Vec<String>,
}

/// Why it cannot be told what was left.
#[derive(Debug, thiserror::Error)]
pub enum HeirError {
    /// The topic cannot be read.
    #[error("{0}; taking over needs READ on both topics")]
    Read(#[from] ReadError),
    /// Records are not there.
    #[error(
        "the topic lacks record {seq} of chain {chain}, which has later ones: run `countersign verify --brokers …` to see the \
         extent, then either refill it from a copy of the log with `countersign republish`, or start without `take_over`"
    )]
    Gap {
        /// The chain.
        chain: ChainId,
        /// The first record that is missing.
        seq: u64,
    },
    /// A record does not follow the one before it.
    #[error(
        "record {seq} of chain {chain} on the topic does not follow the one before it: run `countersign verify --brokers …`"
    )]
    Broken {
        /// The chain.
        chain: ChainId,
        /// The record.
        seq: u64,
    },
}

struct Chain {
    head: Head,
    /// The tree over its records, where the first is there.
    tree: Option<Frontier>,
    clean: bool,
    /// When its last record was written.
    time: String,
    open: BTreeSet<String>,
    checkpoint: (u64, String),
}

#[derive(Deserialize)]
struct Peek {
    replica: String,
    #[serde(default)]
    session: String,
    genesis: Option<Genesis>,
    opened: Option<IgnoredAny>,
    closed: Option<IgnoredAny>,
    shutdown: Option<IgnoredAny>,
}

/// Reads the topics for what `replica` left. Blocks on the network.
///
/// # Errors
/// [`HeirError`].
pub fn estate(options: &KafkaOptions, replica: &str) -> Result<Estate, HeirError> {
    let mut found = Reading::default();
    let mut reader = TopicReader::open(options, &options.topic)?;
    while let Some(message) = reader.next_until_end()? {
        found.record(&message.bytes, replica)?;
    }
    let mut reader = TopicReader::open(options, &options.checkpoint_topic)?;
    while let Some(message) = reader.next_until_end()? {
        found.checkpoint(&String::from_utf8_lossy(&message.bytes));
    }
    Ok(found.finish())
}

#[derive(Default)]
struct Reading {
    chains: BTreeMap<ChainId, Chain>,
    /// Sessions closed in another chain than the one that opens them.
    closed_elsewhere: BTreeSet<String>,
    continued: BTreeSet<String>,
}

impl Reading {
    fn record(&mut self, bytes: &[u8], replica: &str) -> Result<(), HeirError> {
        let (Some(at), Ok(told)) = (Position::read(bytes), serde_json::from_slice::<Peek>(bytes))
        else {
            return Ok(());
        };
        if told.replica != replica {
            return Ok(());
        }
        // What the broker's retention took from the beginning is not ours to miss.
        let chain = self.chains.entry(at.chain).or_insert_with(|| Chain {
            head: Head {
                chain: at.chain,
                size: at.seq,
                hash: at.previous,
            },
            tree: (at.seq == 0).then(Frontier::default),
            clean: false,
            time: String::new(),
            open: BTreeSet::new(),
            checkpoint: (0, String::new()),
        });
        if at.seq < chain.head.size {
            return Ok(());
        }
        let (chain_id, seq) = (at.chain, at.seq);
        if seq > chain.head.size {
            return Err(HeirError::Gap {
                chain: chain_id,
                seq: chain.head.size,
            });
        }
        if at.previous != chain.head.hash {
            return Err(HeirError::Broken {
                chain: chain_id,
                seq,
            });
        }
        let record_hash = chain.head.hash_next(bytes);
        if let Some(tree) = &mut chain.tree {
            let leaf = Commitment {
                chain: chain_id,
                seq,
                record_hash,
                payload_hash: Hash::ZERO,
            };
            tree.push(&leaf.bytes());
        }
        chain.head = chain.head.after(record_hash);
        chain.clean = told.shutdown.is_some();
        at.time.clone_into(&mut chain.time);
        if told.opened.is_some() {
            chain.open.insert(told.session);
        } else if told.closed.is_some() && !chain.open.remove(&told.session) {
            self.closed_elsewhere.insert(told.session);
        }
        if let Some(genesis) = told.genesis {
            self.continued.insert(genesis.previous_chain);
        }
        Ok(())
    }

    fn checkpoint(&mut self, note: &str) {
        if let Ok(checkpoint) = Checkpoint::read_unchecked(note)
            && let Some(chain) = self.chains.get_mut(&checkpoint.chain)
            && checkpoint.size >= chain.checkpoint.0
            && checkpoint.size <= chain.head.size
        {
            chain.checkpoint = (checkpoint.size, note.to_owned());
        }
    }

    fn finish(self) -> Estate {
        let newest = self
            .chains
            .values()
            .filter(|chain| !self.continued.contains(&chain.head.chain.to_string()))
            .max_by(|a, b| a.time.cmp(&b.time));
        let previous = newest.map(|chain| Previous {
            head: chain.head,
            root: chain.tree.as_ref().map(Frontier::root),
            checkpoint: chain.checkpoint.1.clone(),
            clean: chain.clean,
            torn_bytes: 0,
        });
        let open = self.chains.values().flat_map(|chain| &chain.open);
        let orphans: BTreeSet<String> = open
            .filter(|session| !self.closed_elsewhere.contains(*session))
            .cloned()
            .collect();
        Estate {
            previous,
            orphans: orphans.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        fixture::{Log, key},
        record::{Entry, Event},
    };

    #[test]
    fn the_newest_chain_is_continued_and_what_no_chain_closes_is_closed() {
        let entry = |session: &str, event| Entry {
            session: session.into(),
            event,
        };
        // Genesis, opened and closed s-0, opened s-1.
        let first = Log::new(0xa, 4, None);
        let mut second = Log::new(0xb, 3, Some(&first));
        second.push(&entry("s-1", Event::Closed(Box::default())));
        second.push(&entry("s-9", Event::Opened(Box::default())));
        let mut found = Reading::default();
        let feed = |found: &mut Reading, log: &Log, seqs: &[usize]| {
            seqs.iter()
                .try_for_each(|seq| found.record(&log.records[*seq].0, "a"))
        };
        // Partitions come in any order, and a stretch may come again.
        feed(&mut found, &second, &[0, 1, 2, 3]).unwrap();
        feed(&mut found, &first, &[0, 1, 2, 0, 1, 2, 3]).unwrap();
        feed(&mut found, &second, &[2, 3, 4]).unwrap();
        for size in [3, 5, 4] {
            found.checkpoint(&second.checkpoint(size, &key(1)));
        }
        let estate = found.finish();
        let previous = estate.previous.unwrap();
        assert_eq!(previous.head, second.head);
        assert_eq!(previous.root, Some(second.tree.root()));
        assert_eq!(previous.checkpoint, second.checkpoint(5, &key(1)));
        assert_eq!(
            estate.orphans,
            ["s-9"],
            "the other was closed by the next chain"
        );
    }

    #[test]
    fn a_gap_or_a_broken_link_is_no_shorter_chain() {
        let log = Log::new(0xa, 6, None);
        let other = log.rewritten(2, |text| text.replacen("05:27", "06:27", 1));
        let mut found = Reading::default();
        // The broker's retention took the first two.
        found.record(&log.records[2].0, "a").unwrap();
        let gap = found.record(&log.records[4].0, "a");
        assert!(matches!(gap, Err(HeirError::Gap { seq: 3, .. })), "{gap:?}");
        assert_eq!(
            found.chains[&log.head.chain].tree, None,
            "nobody knows its root"
        );
        let broken = found.record(&other.records[3].0, "a");
        assert!(matches!(broken, Err(HeirError::Broken { seq: 3, .. })));
        let mut found = Reading::default();
        found.record(&log.records[0].0, "another").unwrap();
        assert!(
            found.finish().previous.is_none(),
            "another's chain is not ours"
        );
    }
}
