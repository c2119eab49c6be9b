//! The texts of an answer while it arrives: which are open, what is held of them, and which are over.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{MAX_CHANNELS, too_many_channels, unknown_shape, waiting::Pieces};
use crate::dialect::{Channel, ShapeError, TextFilter, arguments::Arguments, texts::Said};

/// Texts that are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dialect) enum Ends {
    /// All of the answer's.
    All,
    /// Those of one choice.
    Choice(u32),
    /// Those of one choice at a field or in it.
    Field(u32, String),
}

impl Ends {
    pub(super) fn channel(&self, channel: &Channel) -> bool {
        match self {
            Self::All => true,
            Self::Choice(choice) => channel.choice == *choice,
            Self::Field(choice, field) => {
                let inside = channel.field.strip_prefix(field.as_str());
                channel.choice == *choice
                    && inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
        }
    }
}

/// Every text of an answer.
#[derive(Debug)]
pub(super) struct Channels {
    open: BTreeMap<Channel, Open>,
    /// Texts that have ended: one that goes on would have been released too early.
    ended: BTreeSet<Channel>,
    /// Choices whose text changed.
    changed: BTreeSet<u32>,
    pub(super) said: Said,
}

/// A text that has begun.
#[derive(Debug, Default)]
struct Open {
    arguments: Option<Arguments>,
    /// What was pushed and has not come back: the filter may still change it.
    pending: String,
    /// Something that came back was not what had been pushed.
    changed: bool,
    /// What was pushed, where the protocol will repeat it.
    said: Option<Sha256>,
}

impl Channels {
    /// None yet; `repeats` where the protocol says whole what it said bit by bit.
    pub(super) fn new(repeats: bool) -> Self {
        Self {
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            changed: BTreeSet::new(),
            said: Said::new(repeats),
        }
    }

    /// How many texts are open.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Bytes in memory.
    pub(super) fn held(&self) -> usize {
        let open = self.open.iter();
        let open = open.map(|(channel, open)| channel.field.len() + open.pending.len());
        let ended = self.ended.iter().map(|channel| channel.field.len() + 64);
        open.chain(ended).sum::<usize>() + self.said.held()
    }

    /// The choices whose text is not what it was, or may yet not be.
    pub(super) fn doubtful(&mut self) -> Vec<u32> {
        let changed = self.open.iter().filter(|(_, open)| open.changed);
        self.changed
            .extend(changed.map(|(channel, _)| channel.choice));
        let pending = self
            .open
            .iter()
            .filter(|(_, open)| !open.pending.is_empty());
        let pending = pending.map(|(channel, _)| channel.choice);
        self.changed.iter().copied().chain(pending).collect()
    }

    /// The next piece of a text: appends what may leave in its place.
    pub(super) fn say(
        &mut self,
        channel: &Channel,
        text: &str,
        json: bool,
        filter: &mut dyn TextFilter,
        out: &mut String,
    ) -> Result<(), ShapeError> {
        let (remembers, texts) = (self.said.remembers(), self.open.len());
        let open = match self.open.get_mut(channel) {
            Some(open) => open,
            None if self.ended.contains(channel) => {
                return match text {
                    "" => Ok(()),
                    _ => Err(unknown_shape("a text goes on behind its end")),
                };
            }
            None if texts >= MAX_CHANNELS => {
                return Err(too_many_channels("the stream has too many texts at once"));
            }
            None => self.open.entry(channel.clone()).or_default(),
        };
        if remembers {
            open.said.get_or_insert_default().update(text);
        }
        if json {
            let arguments = open.arguments.get_or_insert_default();
            return arguments.push(text, channel, filter, out);
        }
        filter.push(channel, text, out);
        open.compare(text, out);
        Ok(())
    }

    /// A number stands in a field that no dialect knows, where a piece of a text may: it leaves as a text of its own. A client that strings
    /// together what stands there would read it with the text before and behind, so there may be none.
    pub(super) fn number(&mut self, channel: &Channel) -> Result<(), ShapeError> {
        if self.open.contains_key(channel) {
            return Err(unknown_shape("a number stands where a text goes on"));
        }
        if !self.ended.contains(channel) {
            self.ended.insert(channel.clone());
        }
        Ok(())
    }

    /// Ends texts, but for those that go on. What was held goes to the end of its text in this document; what has no
    /// place there is returned with its channel.
    pub(super) fn end(
        &mut self,
        ends: &[Ends],
        goes_on: &dyn Fn(&Channel) -> bool,
        filter: &mut dyn TextFilter,
        pieces: &mut Pieces,
    ) -> Vec<(Channel, String)> {
        if ends.is_empty() {
            return Vec::new();
        }
        let over =
            |channel: &&Channel| ends.iter().any(|ends| ends.channel(channel)) && !goes_on(channel);
        let over: Vec<Channel> = self.open.keys().filter(over).cloned().collect();
        let mut left = Vec::new();
        for channel in over {
            let rest = self.end_one(&channel, filter);
            let here = pieces
                .get_mut(&channel)
                .and_then(|pieces| pieces.last_mut());
            match here {
                Some((_, text)) => text.push_str(&rest),
                None if rest.is_empty() => {}
                None => left.push((channel, rest)),
            }
        }
        left
    }

    /// Whether something is held of a text that may end.
    pub(super) fn waits_for(&self, ends: &[Ends]) -> bool {
        let held = |open: &Open| open.changed || !open.pending.is_empty();
        let mut held = self.open.iter().filter(|(_, open)| held(open));
        held.any(|(channel, _)| ends.iter().any(|ends| ends.channel(channel)))
    }

    fn end_one(&mut self, channel: &Channel, filter: &mut dyn TextFilter) -> String {
        let Some(open) = self.open.remove(channel) else {
            return String::new();
        };
        self.ended.insert(channel.clone());
        if let Some(said) = open.said {
            self.said.note(said);
        }
        let mut rest = String::new();
        let changed = match open.arguments {
            Some(mut arguments) => {
                arguments.finish(channel, filter, &mut rest);
                false
            }
            None => {
                filter.finish(channel, &mut rest);
                open.changed || rest != open.pending
            }
        };
        if changed {
            self.changed.insert(channel.choice);
        }
        rest
    }
}

impl Open {
    /// Notes what came back for what went in. Bounded by what the filter holds: the two run apart only where it does.
    fn compare(&mut self, pushed: &str, released: &str) {
        if self.changed {
            return;
        }
        self.pending.push_str(pushed);
        if self.pending.starts_with(released) {
            self.pending.drain(..released.len());
        } else {
            self.changed = true;
            self.pending = String::new();
        }
    }
}
