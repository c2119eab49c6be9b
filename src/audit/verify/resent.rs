//! Records of a topic, which may come again and across a stretch that was sent again.

use super::{Again, Cause, State, Verifier, WINDOW};
use crate::audit::chain::{ChainId, Hash};

impl Verifier {
    pub(super) fn repeat(&mut self, id: ChainId, seq: u64, previous: Hash, hash: Hash) {
        let Some(chain) = self.chains.get_mut(&id) else {
            return;
        };
        let back = chain.head.size - seq;
        let known = usize::try_from(back)
            .ok()
            .and_then(|back| chain.recent.len().checked_sub(back));
        let run = chain.again.filter(|run| run.next == seq);
        match known.and_then(|index| chain.recent.get(index)) {
            Some(known) if *known != hash => self.bad(id, seq, Cause::Duplicated),
            Some(_) => {
                self.report.repeats += 1;
                let Some(run) = run else { return };
                chain.again = None;
                if run.hash == previous {
                    self.report.repeats += run.next - run.first;
                } else {
                    self.bad(id, seq - 1, Cause::Duplicated);
                }
            }
            None => {
                let follows = run.filter(|run| run.hash == previous);
                let first = follows.map_or(seq, |run| run.first);
                if let (None, Some(broken)) = (follows, chain.again) {
                    self.report.late_repeats += broken.next - broken.first;
                }
                chain.again = Some(Again {
                    first,
                    next: seq + 1,
                    hash,
                });
            }
        }
    }

    pub(super) fn wait(&mut self, id: ChainId, seq: u64, previous: Hash, hash: Hash) {
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

    pub(super) fn accept_waiting(&mut self, id: ChainId) {
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
}
