//! Checking a log that one does not trust, record by record.
//!
//! Promises: names the first bad record of every chain and what is wrong with it. Memory grows with chains and
//! checkpoints, never with records. Never says "whole" of records that no checkpoint from outside covers: who owns host
//! and key can rewrite those, so they are "consistent, unanchored". Records that a chain no longer has are "pruned" where
//! a record of the log names the stump that is kept of them, and "missing" otherwise. Cannot see: that the newest records,
//! younger than the last outside checkpoint, were dropped; that a whole newest chain was, unless a checkpoint from outside
//! names it; whether the operator's rule for pruning was a good one.
//!
//! Feed the checkpoints and stumps first, then the records, then [`Verifier::finish`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use memchr::memmem;
use serde::Deserialize;

use super::{
    chain::{ChainId, Hash, Head, MAX_RECORD_BYTES, Position, record_hash},
    checkpoint::Checkpoint,
    note::{NoteError, VerifierKey},
    record::{Discarded, Genesis, Pruned, Rotated},
    stump::Stump,
    tree::{Commitment, Frontier},
};

mod ends;
mod late;
mod report;
mod resent;
mod stretch;

pub use late::{Late, partition_of};
pub use report::{Cause, ChainReport, Expired, Fault, Report, Verdict};
pub use stretch::Stretch;

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
/// Statements of each kind that are kept: no log of this program has as many.
const MAX_TOLD: usize = 100_000;
/// Checkpoints kept until their keys are introduced; more are faults at once.
const MAX_UNTRUSTED: usize = 1_000_000;
/// The largest record that says something of the log itself.
const MAX_TELLING: usize = 64 << 10;

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
    /// Records that are not there, and the hash of the stump that stands for them.
    pruned: Option<(u64, Hash)>,
    /// Records before the first that a topic still had. What a checkpoint says of the tree over them cannot be compared.
    expired: u64,
    expected: BTreeMap<u64, Vec<Expected>>,
    /// Sizes of the largest checkpoints that fit: any, and from outside.
    signed: u64,
    anchored: u64,
    state: State,
    /// `Order::Resent`: hashes of the last accepted records, and those that came before their predecessor.
    recent: VecDeque<Hash>,
    waiting: BTreeMap<u64, (Hash, Hash)>,
    /// And a run of repeats from further back.
    again: Option<Again>,
}

/// Records that came again, too late to be compared one by one. Where they lead without a gap to one that can be compared,
/// their links prove all of them.
#[derive(Clone, Copy, Debug)]
struct Again {
    first: u64,
    next: u64,
    hash: Hash,
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
            pruned: None,
            expired: 0,
            expected: BTreeMap::new(),
            signed: 0,
            anchored: 0,
            state: State::Sound,
            recent: VecDeque::new(),
            waiting: BTreeMap::new(),
            again: None,
        }
    }

    /// A checkpoint of this size is of what was found.
    fn fits(&mut self, size: u64, holder: Holder, report: &mut Report) {
        self.signed = size;
        match holder {
            Holder::Inside => report.checkpoints += 1,
            Holder::Outside => {
                self.anchored = size;
                report.anchors += 1;
            }
        }
    }
}

/// Checks a log as it is read.
#[derive(Debug)]
pub struct Verifier {
    order: Order,
    trusted: Vec<VerifierKey>,
    /// Where a topic begins later than it was written from.
    late: Late,
    /// Records `discarded`, and where they are.
    discarded: VecDeque<((ChainId, u64), Discarded)>,
    chains: BTreeMap<ChainId, Chain>,
    /// Stumps that records name: the chain whose record does, the pruned chain, its records that are gone, the stump's hash.
    announced: BTreeSet<((ChainId, u64), ChainId, u64, Hash)>,
    /// Statements by which keys introduce others.
    introductions: BTreeSet<String>,
    /// Checkpoints by keys that nothing has introduced yet.
    untrusted: Vec<(ChainId, u64, String)>,
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
            late_repeats: 0,
            discarded: None,
            begins_late: false,
            expired: Vec::new(),
            keys: Vec::new(),
        };
        Self {
            order,
            trusted,
            late: Late::Nowhere,
            discarded: VecDeque::new(),
            chains: BTreeMap::new(),
            announced: BTreeSet::new(),
            introductions: BTreeSet::new(),
            untrusted: Vec::new(),
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
        match Checkpoint::open(signed, &self.trusted) {
            _ if self.trusted.is_empty() => {}
            Ok(_) => {}
            // Its key may be introduced by a record that is still to come.
            Err(NoteError::Untrusted) if self.untrusted.len() < MAX_UNTRUSTED => {
                self.untrusted.push((chain, size, signed.to_owned()));
            }
            Err(error) => {
                self.fault(chain, size, Cause::Checkpoint { size, error });
                return Ok(());
            }
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

    /// Begins a chain behind what `stump`, the file with hash `digest`, stands for. Checkpoints of fewer records cannot be
    /// compared with anything any more.
    pub fn pruned(&mut self, stump: &Stump, digest: Hash) {
        let id = stump.head.chain;
        let mut expected = self
            .chains
            .remove(&id)
            .map(|chain| chain.expected)
            .unwrap_or_default();
        let comparable = expected.split_off(&stump.head.size);
        self.report.late_checkpoints += expected.values().map(Vec::len).sum::<usize>() as u64;
        self.resume(
            stump.head,
            stump.tree.clone(),
            Some(stump.first.genesis().clone()),
        );
        if let Some(chain) = self.chains.get_mut(&id) {
            chain.pruned = Some((stump.head.size, digest));
            chain.expected = comparable;
        }
        self.compare(id);
    }

    /// A topic begins later than it was written from. Chains that are not there at all and may have gone that way are then not provable
    /// rather than missing, and the verdict is at best "not provable".
    pub fn begins_late(&mut self, late: Late) {
        self.late = late;
    }

    /// Begins a chain of such a topic at `head`, behind which the first record follows that there is. Its links still hold the
    /// rest together, and a later chain's genesis still names its end; its checkpoints cannot be compared any more.
    pub fn begins_at(&mut self, head: Head) {
        let chain = self.chains.entry(head.chain);
        let chain = chain.or_insert_with(|| Chain::new(head.chain));
        if chain.head.size == 0 && chain.waiting.is_empty() && chain.state == State::Sound {
            (chain.head, chain.expired) = (head, head.size);
            let beyond = chain.expected.split_off(&(head.size + 1));
            let before = std::mem::replace(&mut chain.expected, beyond);
            self.report.late_checkpoints += before.len() as u64;
        }
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
        if may_tell(bytes) {
            self.note(chain, seq, bytes);
        }
        let Some(state) = self.chains.get_mut(&chain) else {
            return;
        };
        if seq < head.size {
            self.repeat(chain, seq, previous, hash);
        } else if seq > head.size {
            self.wait(chain, seq, previous, hash);
        } else {
            if seq == 0 {
                match Genesis::read(bytes) {
                    Some(genesis) => state.genesis = Some(genesis),
                    None => return self.bad(chain, 0, Cause::NotGenesis),
                }
            }
            self.accept(chain, previous, hash);
            self.accept_waiting(chain);
        }
    }

    /// The sizes of a chain that checkpoints are of, in order: what a [`Stretch`] must remember.
    #[must_use]
    pub fn marks(&self, chain: ChainId) -> Vec<u64> {
        let chain = self.chains.get(&chain);
        chain.map_or_else(Vec::new, |chain| chain.expected.keys().copied().collect())
    }

    /// Takes the chain's next records in one go. Where they do not follow, or a checkpoint is of something else, nothing was
    /// taken and the answer is `false`: feed them one by one to learn what is wrong.
    pub fn stretch(&mut self, stretch: Stretch) -> bool {
        let id = stretch.head.chain;
        let chain = self.chains.entry(id).or_insert_with(|| Chain::new(id));
        if self.order != Order::Strict || chain.state != State::Sound || chain.head != stretch.start
        {
            return false;
        }
        // What is expected of sizes up to the start was compared when the chain had them.
        for (size, expected) in chain.expected.range(..=stretch.head.size) {
            let Some(span) = stretch.marks.get(size) else {
                return false;
            };
            let mut tree = chain.tree.clone();
            tree.append(span);
            if expected.iter().any(|expected| expected.root != tree.root()) {
                return false;
            }
        }
        let beyond = chain.expected.split_off(&(stretch.head.size + 1));
        for (size, expected) in std::mem::replace(&mut chain.expected, beyond) {
            for expected in expected {
                chain.fits(size, expected.holder, &mut self.report);
            }
        }
        chain.tree.append(&stretch.tree);
        chain.head = stretch.head;
        if stretch.genesis.is_some() {
            chain.genesis = stretch.genesis;
        }
        for (seq, record) in &stretch.telling {
            self.note(id, *seq, record);
        }
        true
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
        self.check_signers();
        for id in &ids {
            self.check_end(*id);
        }
        for id in &ids {
            self.check_pruned(*id);
        }
        for id in &ids {
            self.check_link(*id);
        }
        self.spread_anchors();
        for id in &ids {
            self.check_expired(*id);
        }
        self.check_unseen();
        self.check_discarded();
        self.report.begins_late = self.late.is_any();
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
        if chain.expired > 0 {
            self.report.late_checkpoints += expected.len() as u64;
            return;
        }
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
            chain.fits(size, holder, &mut self.report);
        }
    }

    /// Takes note of what a record says of the log itself.
    fn note(&mut self, id: ChainId, seq: u64, bytes: &[u8]) {
        #[derive(Deserialize)]
        struct Told {
            pruned: Option<Pruned>,
            rotated: Option<Rotated>,
            discarded: Option<Discarded>,
        }
        let Ok(told) = serde_json::from_slice::<Told>(bytes) else {
            return;
        };
        if let Some(pruned) = told.pruned
            && let (Ok(chain), Some(stump)) =
                (pruned.chain.parse(), Hash::from_hex(&pruned.stump_sha256))
            && self.announced.len() < MAX_TOLD
        {
            self.announced
                .insert(((id, seq), chain, pruned.records, stump));
        }
        if let Some(told) = told.discarded {
            if self.discarded.len() == MAX_TOLD {
                // The oldest says least.
                self.discarded.pop_front();
            }
            self.discarded.push_back(((id, seq), told));
        }
        for statement in told.rotated.into_iter().flat_map(|told| told.introductions) {
            if self.introductions.len() < MAX_TOLD {
                self.introductions.insert(statement);
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

/// Whether a record may say something of the log itself: most do not, and parsing them all would cost more than hashing.
fn may_tell(bytes: &[u8]) -> bool {
    // Made once: making one takes as long as looking through a short record.
    static TELLING: LazyLock<[memmem::Finder<'static>; 3]> = LazyLock::new(|| {
        [r#","pruned":{"#, r#","rotated":{"#, r#","discarded":{"#].map(memmem::Finder::new)
    });
    bytes.len() <= MAX_TELLING && TELLING.iter().any(|name| name.find(bytes).is_some())
}

fn chain_report(chain: &Chain) -> ChainReport {
    let pruned = chain.pruned.map_or(chain.expired, |(records, _)| records);
    ChainReport {
        chain: chain.head.chain,
        replica: chain
            .genesis
            .as_ref()
            .map(|genesis| genesis.replica.clone())
            .unwrap_or_default(),
        records: chain.head.size - pruned,
        pruned,
        whole: chain.anchored,
    }
}

#[cfg(test)]
mod tests;
