//! What can be said of chains once all of them were read: what is missing, how they link, and how far trust reaches.

use std::collections::BTreeMap;

use super::{Cause, Expired, State, Verifier};
use crate::audit::{
    chain::{ChainId, Hash},
    checkpoint::Checkpoint,
    succession,
};

impl Verifier {
    /// Checkpoints by keys that no trusted key has introduced, directly or through others.
    pub(super) fn check_signers(&mut self) {
        let statements = self.introductions.iter().map(String::as_str);
        let trusted = succession::successors(self.trusted.clone(), statements);
        for (chain, size, note) in std::mem::take(&mut self.untrusted) {
            if let Err(error) = Checkpoint::open(&note, &trusted) {
                self.fault(chain, size, Cause::Checkpoint { size, error });
            }
        }
        self.report.keys = trusted;
    }

    /// A stump is worth what the record is that names it: one that a checkpoint of its own chain covers, as anybody can append
    /// others, and the next start would go on behind them.
    pub(super) fn check_pruned(&mut self, id: ChainId) {
        let Some((records, stump)) = self.chains.get(&id).and_then(|chain| chain.pruned) else {
            return;
        };
        let announced = self.announced.iter().any(|(teller, chain, n, hash)| {
            (*chain, *n, *hash) == (id, records, stump) && self.is_covered(teller)
        });
        if !announced {
            self.bad(id, 0, Cause::NotAnnounced { records });
        }
    }

    fn is_covered(&self, (teller, seq): &(ChainId, u64)) -> bool {
        let teller = self.chains.get(teller);
        teller.is_some_and(|chain| chain.state != State::Bad && *seq < chain.signed)
    }

    /// What a topic no longer had of a chain. Nobody can tell the broker's retention from somebody's hand.
    pub(super) fn check_expired(&mut self, id: ChainId) {
        let found = self.chains.get(&id);
        let lacking = found.filter(|chain| chain.expired > 0 && chain.state != State::Bad);
        if let Some(chain) = lacking {
            self.expire(id, chain.expired);
        }
    }

    /// A record that says that the disk's copy was pruned excuses nothing here: that one may go because the topic has the other.
    fn expire(&mut self, id: ChainId, records: u64) {
        let pruned = self
            .announced
            .iter()
            .any(|(teller, chain, n, _)| *chain == id && *n >= records && self.is_covered(teller));
        if self.report.expired.iter().all(|known| known.chain != id) {
            self.report.expired.push(Expired {
                chain: id,
                records,
                pruned,
            });
        }
    }

    /// A chain that only a record of another names, in a topic that begins late.
    pub(super) fn check_unseen(&mut self) {
        let named = self
            .announced
            .iter()
            .filter(|(teller, chain, ..)| {
                let seen = self.chains.get(chain);
                let nothing =
                    seen.is_none_or(|seen| seen.head.size == 0 && seen.state != State::Bad);
                nothing && self.late.may_lack(*chain) && self.is_covered(teller)
            })
            .map(|(_, chain, records, _)| (*chain, *records));
        for (chain, records) in named.collect::<BTreeMap<_, _>>() {
            self.expire(chain, records);
        }
    }

    /// The newest record `discarded` that a checkpoint of its own chain covers: anybody can append others.
    pub(super) fn check_discarded(&mut self) {
        let mut told = std::mem::take(&mut self.discarded);
        told.retain(|(teller, _)| self.is_covered(teller));
        let told = told.into_iter().map(|(_, told)| told);
        self.report.discarded = told.max_by(|a, b| a.until.cmp(&b.until));
    }

    /// A chain of which there is nothing.
    fn absent(&mut self, id: ChainId, records: u64, why: &'static str) {
        if self.late.may_lack(id) {
            self.expire(id, records);
        } else {
            self.bad_chain(id, Cause::ChainMissing(why));
        }
    }

    pub(super) fn check_end(&mut self, id: ChainId) {
        let Some(chain) = self.chains.get(&id) else {
            return;
        };
        let size = chain.head.size;
        if chain.state == State::Bad {
            return;
        }
        if let Some(run) = chain.again {
            self.report.late_repeats += run.next - run.first;
        }
        if chain.state == State::Gap || !chain.waiting.is_empty() {
            return self.bad(id, size, Cause::Missing);
        }
        let Some((attested, _)) = chain.expected.last_key_value() else {
            return;
        };
        let attested = *attested;
        match size {
            0 => self.absent(id, attested, "a checkpoint names it"),
            _ => self.bad(id, size, Cause::Truncated { size: attested }),
        }
    }

    /// Compares what a chain's genesis says of its predecessor with what was found.
    pub(super) fn check_link(&mut self, id: ChainId) {
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
        let root = Some(genesis.previous_root.as_str()).filter(|root| !root.is_empty());
        let (size, root) = match root.map(Hash::from_hex) {
            Some(None) => return self.bad(id, 0, Cause::NotGenesis),
            Some(root) => (genesis.previous_size, root),
            None => (genesis.previous_size, None),
        };
        let found = self
            .chains
            .get(&previous)
            .filter(|chain| chain.head.size > 0 || chain.state == State::Bad);
        let Some(found) = found else {
            return self.absent(previous, size, "a later chain continues it");
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
            _ if found.expired == 0 && root.is_some_and(|root| found.tree.root() != root) => {
                (0, Cause::RootDiffers { successor: id })
            }
            _ => return,
        };
        self.bad(previous, seq, cause);
    }

    /// A chain whose genesis is covered from outside covers all of its predecessor, whose head it names.
    pub(super) fn spread_anchors(&mut self) {
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
}
