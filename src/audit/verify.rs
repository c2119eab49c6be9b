//! Checking a log that one does not trust, record by record.
//!
//! Promises: names the first bad record of every chain and what is wrong with it. Memory grows with chains and
//! checkpoints, never with records. Never says "whole" of records that no checkpoint from outside covers: who owns host
//! and key can rewrite those, so they are "consistent, unanchored". Cannot see: that the newest records, younger than the
//! last outside checkpoint, were dropped; that a whole newest chain was, unless a checkpoint from outside names it.
//!
//! Feed the checkpoints first, then the records, then [`Verifier::finish`].

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use super::{
    chain::{ChainId, Hash, Head, MAX_RECORD_BYTES, Position, record_hash},
    checkpoint::Checkpoint,
    note::{NoteError, VerifierKey},
    record::Genesis,
    tree::{Commitment, Frontier},
};

mod report;

pub use report::{Cause, ChainReport, Fault, Report, Verdict};

/// How records may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Exactly as written: a directory.
    Strict,
    /// Again, and across a re-sent stretch: a topic. A record that comes twice must be byte for byte the same.
    Resent,
}

/// Who held a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It lay beside the log.
    Inside,
    /// The person who verifies kept it.
    Outside,
}

/// Records of a chain that may arrive before their predecessor, and accepted ones a repeat can be compared with.
const WINDOW: usize = 65_536;
/// Faults reported in full; one per chain is looked for, more are counted.
const MAX_FAULTS: usize = 1_000;

#[derive(Clone, Copy, Debug)]
struct Expected {
    root: Hash,
    holder: Holder,
}

#[derive(Debug)]
struct Chain {
    head: Head,
    tree: Frontier,
    genesis: Option<Genesis>,
    expected: BTreeMap<u64, Vec<Expected>>,
    /// Sizes of the largest checkpoints that fit: any, and from outside.
    signed: u64,
    anchored: u64,
    state: State,
    /// `Order::Resent`: hashes of the last accepted records, and those that came before their predecessor.
    recent: VecDeque<Hash>,
    waiting: BTreeMap<u64, (Hash, Hash)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    /// A record was skipped: missing, or out of order if it still comes.
    Gap,
    /// A fault was reported; the rest of the chain proves nothing.
    Bad,
}

impl Chain {
    fn new(chain: ChainId) -> Self {
        Self {
            head: Head::empty(chain),
            tree: Frontier::default(),
            genesis: None,
            expected: BTreeMap::new(),
            signed: 0,
            anchored: 0,
            state: State::Sound,
            recent: VecDeque::new(),
            waiting: BTreeMap::new(),
        }
    }
}

/// Checks a log as it is read.
#[derive(Debug)]
pub struct Verifier {
    order: Order,
    trusted: Vec<VerifierKey>,
    chains: BTreeMap<ChainId, Chain>,
    report: Report,
}

impl Verifier {
    /// A verifier that believes checkpoints signed by `trusted`; with none given it does not look at signatures, and a
    /// checkpoint is worth as much as the way it was kept.
    #[must_use]
    pub fn new(order: Order, trusted: Vec<VerifierKey>) -> Self {
        let report = Report {
            chains: Vec::new(),
            faults: Vec::new(),
            more_faults: 0,
            repeats: 0,
            anchors: 0,
            checkpoints: 0,
            late_checkpoints: 0,
        };
        Self {
            order,
            trusted,
            chains: BTreeMap::new(),
            report,
        }
    }

    /// Takes a checkpoint, before the records it covers.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] where it is none, so that no chain can be named; who gave the file is told so. Any other
    /// fault of it is reported with its chain.
    pub fn checkpoint(&mut self, signed: &str, holder: Holder) -> Result<(), NoteError> {
        let claimed = Checkpoint::read_unchecked(signed)?;
        let (chain, size) = (claimed.chain, claimed.size);
        if !self.trusted.is_empty()
            && let Err(error) = Checkpoint::open(signed, &self.trusted)
        {
            self.fault(chain, size, Cause::Checkpoint { size, error });
            return Ok(());
        }
        let state = self
            .chains
            .entry(chain)
            .or_insert_with(|| Chain::new(chain));
        if size < state.head.size {
            self.report.late_checkpoints += 1;
            return Ok(());
        }
        let roots = state.expected.entry(size).or_default();
        if !roots
            .iter()
            .any(|known| known.root == claimed.root && known.holder == holder)
        {
            roots.push(Expected {
                root: claimed.root,
                holder,
            });
        }
        self.compare(chain);
        Ok(())
    }

    /// Goes on with a chain where an earlier verifier was, before anything else of it is fed: at `head`, with the tree over
    /// all records before it, and its genesis where that was read.
    pub fn resume(&mut self, head: Head, tree: Frontier, genesis: Option<Genesis>) {
        let chain = Chain {
            head,
            tree,
            genesis,
            ..Chain::new(head.chain)
        };
        self.chains.insert(head.chain, chain);
    }

    /// How far a chain was read and found sound: what [`resume`](Self::resume) takes.
    #[must_use]
    pub fn edge(&self, chain: ChainId) -> Option<(Head, &Frontier, Option<&Genesis>)> {
        let chain = self.chains.get(&chain)?;
        Some((chain.head, &chain.tree, chain.genesis.as_ref()))
    }

    /// What lay beside the chain as its checkpoint is none.
    pub fn bad_checkpoint(&mut self, chain: ChainId, error: NoteError) {
        self.fault(chain, 0, Cause::Checkpoint { size: 0, error });
    }

    /// Takes the next record: where it was found, its bytes, and the hash stored with it where one was.
    pub fn record(&mut self, chain: ChainId, seq: u64, bytes: &[u8], stored: Option<Hash>) {
        let state = self
            .chains
            .entry(chain)
            .or_insert_with(|| Chain::new(chain));
        if state.state == State::Bad {
            return;
        }
        let head = state.head;
        match self.order {
            Order::Strict if state.state == State::Gap => {
                if seq == head.size {
                    self.bad(chain, seq, Cause::OutOfOrder);
                }
                return;
            }
            Order::Strict if seq < head.size => return self.bad(chain, seq, Cause::Duplicated),
            Order::Strict if seq > head.size => {
                state.state = State::Gap;
                return;
            }
            _ => {}
        }
        let (previous, hash) = match examine(chain, seq, bytes, stored) {
            Ok(found) => found,
            Err(cause) => return self.bad(chain, seq, cause),
        };
        if seq < head.size {
            self.repeat(chain, seq, hash);
        } else if seq > head.size {
            self.wait(chain, seq, previous, hash);
        } else {
            if seq == 0 {
                match genesis(bytes) {
                    Some(genesis) => state.genesis = Some(genesis),
                    None => return self.bad(chain, 0, Cause::NotGenesis),
                }
            }
            self.accept(chain, previous, hash);
            self.accept_waiting(chain);
        }
    }

    /// What should have been the chain's next record could not be read where it is stored.
    pub fn damaged(&mut self, chain: ChainId, seq: u64, what: String) {
        let state = self
            .chains
            .entry(chain)
            .or_insert_with(|| Chain::new(chain));
        if state.state != State::Bad {
            self.bad(chain, seq, Cause::Damaged(what));
        }
    }

    /// Everything was fed: what is missing, how the chains link, and how far outside checkpoints reach.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let ids: Vec<ChainId> = self.chains.keys().copied().collect();
        for id in &ids {
            self.check_end(*id);
        }
        for id in &ids {
            self.check_link(*id);
        }
        self.spread_anchors();
        self.report.chains = self
            .chains
            .values()
            .filter(|chain| chain.head.size > 0)
            .map(chain_report)
            .collect();
        self.report
    }

    fn accept(&mut self, id: ChainId, previous: Hash, hash: Hash) {
        let resent = self.order == Order::Resent;
        let Some(chain) = self.chains.get_mut(&id) else {
            return;
        };
        if previous != chain.head.hash {
            // The record fits its own hash, so it is the one before that is not what was linked to.
            let (seq, cause) = match chain.head.size {
                0 => (0, Cause::Altered),
                size => (size - 1, Cause::Relinked(size)),
            };
            return self.bad(id, seq, cause);
        }
        let commitment = Commitment {
            chain: id,
            seq: chain.head.size,
            record_hash: hash,
            payload_hash: Hash::ZERO,
        };
        chain.tree.push(&commitment.bytes());
        chain.head = chain.head.after(hash);
        if resent {
            if chain.recent.len() == WINDOW {
                chain.recent.pop_front();
            }
            chain.recent.push_back(hash);
        }
        self.compare(id);
    }

    /// Compares the tree with the checkpoints of its present size.
    fn compare(&mut self, id: ChainId) {
        let Some(chain) = self.chains.get_mut(&id) else {
            return;
        };
        let size = chain.head.size;
        let Some(expected) = chain
            .expected
            .first_entry()
            .filter(|entry| *entry.key() == size)
        else {
            return;
        };
        let expected = expected.remove();
        let root = chain.tree.root();
        for Expected {
            root: signed,
            holder,
        } in expected
        {
            let Some(chain) = self.chains.get_mut(&id) else {
                return;
            };
            if signed != root {
                // Inside checkpoints could have been re-signed along with the records, so against an outside one only
                // earlier outside ones narrow down where the change is.
                let (from, holder) = match holder {
                    Holder::Inside => (chain.signed, "log's own"),
                    Holder::Outside => (chain.anchored, "outside"),
                };
                return self.bad(id, from, Cause::Rehashed { size, holder });
            }
            chain.signed = size;
            match holder {
                Holder::Inside => self.report.checkpoints += 1,
                Holder::Outside => {
                    chain.anchored = size;
                    self.report.anchors += 1;
                }
            }
        }
    }

    fn repeat(&mut self, id: ChainId, seq: u64, hash: Hash) {
        let Some(chain) = self.chains.get_mut(&id) else {
            return;
        };
        let back = chain.head.size - seq;
        let known = usize::try_from(back)
            .ok()
            .and_then(|back| chain.recent.len().checked_sub(back));
        match known.and_then(|index| chain.recent.get(index)) {
            Some(known) if *known == hash => self.report.repeats += 1,
            Some(_) => self.bad(id, seq, Cause::Duplicated),
            None => self.bad(id, seq, Cause::DuplicatedLate),
        }
    }

    fn wait(&mut self, id: ChainId, seq: u64, previous: Hash, hash: Hash) {
        let Some(chain) = self.chains.get_mut(&id) else {
            return;
        };
        let missing = chain.head.size;
        if let Some((_, known)) = chain.waiting.get(&seq) {
            if *known == hash {
                self.report.repeats += 1;
            } else {
                self.bad(id, seq, Cause::Duplicated);
            }
        } else if chain.waiting.len() < WINDOW {
            chain.waiting.insert(seq, (previous, hash));
        } else {
            self.bad(id, missing, Cause::Missing);
        }
    }

    fn accept_waiting(&mut self, id: ChainId) {
        while let Some(chain) = self.chains.get_mut(&id) {
            if chain.state == State::Bad {
                return;
            }
            let Some((previous, hash)) = chain.waiting.remove(&chain.head.size) else {
                return;
            };
            self.accept(id, previous, hash);
        }
    }

    fn check_end(&mut self, id: ChainId) {
        let Some(chain) = self.chains.get(&id) else {
            return;
        };
        let size = chain.head.size;
        if chain.state == State::Bad {
            return;
        }
        if chain.state == State::Gap || !chain.waiting.is_empty() {
            return self.bad(id, size, Cause::Missing);
        }
        let Some((attested, _)) = chain.expected.last_key_value() else {
            return;
        };
        let cause = match size {
            0 => Cause::ChainMissing("a checkpoint names it"),
            _ => Cause::Truncated { size: *attested },
        };
        self.bad(id, size, cause);
    }

    /// Compares what a chain's genesis says of its predecessor with what was found.
    fn check_link(&mut self, id: ChainId) {
        let Some(genesis) = self
            .chains
            .get(&id)
            .and_then(|chain| chain.genesis.as_ref())
        else {
            return;
        };
        if genesis.previous_chain.is_empty() {
            return;
        }
        let (Ok(previous), Some(hash)) = (
            genesis.previous_chain.parse::<ChainId>(),
            Hash::from_hex(&genesis.previous_head),
        ) else {
            return self.bad(id, 0, Cause::NotGenesis);
        };
        let size = genesis.previous_size;
        let found = self
            .chains
            .get(&previous)
            .filter(|chain| chain.head.size > 0 || chain.state == State::Bad);
        let Some(found) = found else {
            return self.bad_chain(previous, Cause::ChainMissing("a later chain continues it"));
        };
        if found.state == State::Bad {
            return;
        }
        let (seq, cause) = match found.head.size {
            shorter if shorter < size => (
                shorter,
                Cause::ShorterThanLinked {
                    successor: id,
                    size,
                },
            ),
            longer if longer > size => (size, Cause::LongerThanLinked { successor: id }),
            _ if found.head.hash != hash => {
                (size.saturating_sub(1), Cause::HeadDiffers { successor: id })
            }
            _ => return,
        };
        self.bad(previous, seq, cause);
    }

    /// A chain whose genesis is covered from outside covers all of its predecessor, whose head it names.
    fn spread_anchors(&mut self) {
        let mut covered: Vec<ChainId> = self
            .chains
            .iter()
            .filter(|(_, chain)| chain.anchored > 0)
            .map(|(id, _)| *id)
            .collect();
        while let Some(id) = covered.pop() {
            let Some(chain) = self
                .chains
                .get(&id)
                .filter(|chain| chain.state == State::Sound)
            else {
                continue;
            };
            let Some(previous) = chain
                .genesis
                .as_ref()
                .and_then(|genesis| genesis.previous_chain.parse().ok())
            else {
                continue;
            };
            if let Some(previous_chain) = self.chains.get_mut(&previous)
                && previous_chain.state == State::Sound
                && previous_chain.anchored < previous_chain.head.size
            {
                previous_chain.anchored = previous_chain.head.size;
                covered.push(previous);
            }
        }
    }

    fn bad(&mut self, id: ChainId, seq: u64, cause: Cause) {
        if let Some(chain) = self.chains.get_mut(&id) {
            chain.state = State::Bad;
            chain.waiting.clear();
            chain.recent.clear();
        }
        self.fault(id, seq, cause);
    }

    fn bad_chain(&mut self, id: ChainId, cause: Cause) {
        self.chains.entry(id).or_insert_with(|| Chain::new(id));
        if self
            .chains
            .get(&id)
            .is_some_and(|chain| chain.state != State::Bad)
        {
            self.bad(id, 0, cause);
        }
    }

    fn fault(&mut self, chain: ChainId, seq: u64, cause: Cause) {
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(Fault { chain, seq, cause });
        } else {
            self.report.more_faults += 1;
        }
    }
}

/// The predecessor a record names and its hash, if its bytes are what its place and its stored hash say.
fn examine(
    chain: ChainId,
    seq: u64,
    bytes: &[u8],
    stored: Option<Hash>,
) -> Result<(Hash, Hash), Cause> {
    let position = Position::read(bytes).ok_or(Cause::Altered)?;
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(Cause::Altered);
    }
    let hash = record_hash(position.chain, position.seq, position.previous, bytes);
    if stored.is_some_and(|stored| stored != hash) {
        return Err(Cause::Altered);
    }
    if (position.chain, position.seq) != (chain, seq) {
        return Err(Cause::Moved {
            chain: position.chain,
            seq: position.seq,
        });
    }
    Ok((position.previous, hash))
}

fn genesis(bytes: &[u8]) -> Option<Genesis> {
    #[derive(Deserialize)]
    struct First {
        genesis: Option<Genesis>,
    }
    serde_json::from_slice::<First>(bytes).ok()?.genesis
}

fn chain_report(chain: &Chain) -> ChainReport {
    ChainReport {
        chain: chain.head.chain,
        replica: chain
            .genesis
            .as_ref()
            .map(|genesis| genesis.replica.clone())
            .unwrap_or_default(),
        records: chain.head.size,
        whole: chain.anchored,
    }
}

#[cfg(test)]
mod tests;
