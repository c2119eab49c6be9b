//! One answer's text on its way out: what the traffic masks let through, and of that what the record may show.
//!
//! ```text
//! text -> traffic's masker -> values of the prompt put back -> it leaves
//!                          `-> the same with placeholders -> (once it left) -> record's masker -> shown
//! ```
//!
//! Promises: nothing is shown that has not left; what is shown holds nothing a detector knows.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{
    Mutation,
    tail::{TAIL, Tail},
};
use crate::{
    detect::Entity,
    dialect::{Channel, Dialect, TextFilter, Trailer},
    mask::{self, Masker, Operator, Owed, Plan, Restorer, Vault},
};

/// Most text channels one answer may have; an answer with more is refused.
const CHANNELS: usize = 1024;

/// How an answer's text is treated.
pub(super) struct Treatment {
    /// Masks the text that leaves.
    pub(super) traffic: Option<Arc<Plan>>,
    /// Looks for the lent credential alone: all that is masked in words of the protocol.
    pub(super) lent: Option<Arc<Plan>>,
    /// The operators of `traffic`.
    pub(super) operators: Owed,
    /// What was taken out of the prompt and is put back.
    pub(super) vault: Option<Arc<Vault>>,
    /// What is recorded of the text.
    pub(super) record: Record,
}

/// One masker per channel for the traffic, and one for the record where the traffic's does not already cover it.
pub(super) struct Filter {
    plan: Option<Arc<Plan>>,
    lent: Option<Arc<Plan>>,
    vault: Option<Arc<Vault>>,
    operators: Owed,
    lanes: BTreeMap<Channel, Lane>,
    /// The ends of what channels of whole messages said.
    tails: BTreeMap<Channel, Tail>,
    /// The keys the next text stands under.
    label: String,
    /// What is read now stands in a field that is shown by its name only.
    unshown: bool,
    masked: BTreeMap<Entity, u64>,
    released: Released,
    overflowed: bool,
    shown: Shown,
}

/// One channel's text on its way.
struct Lane {
    /// The keys it stands under.
    label: String,
    masker: Option<Masker>,
    restorer: Option<Restorer>,
}

/// What is recorded of an answer's text.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Nothing.
    Nothing,
    /// What leaves, as it leaves: the traffic's masks already hide all that records may not show.
    AsItLeaves,
    /// What leaves, masked once more.
    Masked(Arc<Plan>),
}

/// Text that may leave, in order.
#[derive(Default)]
pub(super) struct Released(Vec<Release>);

/// A piece of a channel's text.
struct Release {
    channel: Channel,
    /// The keys the text stands under.
    label: String,
    text: String,
    how: Piece,
}

/// What a piece is of its channel's text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// The text goes on.
    Open,
    /// It ends the text.
    Last,
    /// A text by itself: another that is open in the channel goes on behind it.
    Whole,
}

impl Released {
    /// Length of the text in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|release| release.text.len()).sum()
    }

    fn push(&mut self, channel: &Channel, label: &str, text: &str, how: Piece) {
        match self.0.last_mut() {
            Some(before)
                if before.channel == *channel
                    && before.how == Piece::Open
                    && how != Piece::Whole =>
            {
                before.text.push_str(text);
                before.how = how;
            }
            _ if text.is_empty() && how == Piece::Open => {}
            _ => self.0.push(Release {
                channel: channel.clone(),
                label: label.to_owned(),
                text: text.to_owned(),
                how,
            }),
        }
    }
}

/// Text that left, as the record may show it.
struct Shown {
    how: Record,
    lanes: BTreeMap<Channel, Masker>,
    text: BTreeMap<Channel, String>,
    bytes: usize,
    /// Bytes added since they were last asked for.
    fresh: usize,
    found: BTreeMap<Entity, u64>,
}

impl Filter {
    pub(super) fn new(how: Treatment) -> Self {
        let Treatment {
            traffic,
            lent,
            operators,
            vault,
            record,
        } = how;
        Self {
            plan: traffic,
            lent,
            vault: vault.filter(|vault| !vault.is_empty()),
            operators,
            lanes: BTreeMap::new(),
            tails: BTreeMap::new(),
            label: String::new(),
            unshown: false,
            masked: BTreeMap::new(),
            released: Released::default(),
            overflowed: false,
            shown: Shown {
                how: record,
                lanes: BTreeMap::new(),
                text: BTreeMap::new(),
                bytes: 0,
                fresh: 0,
                found: BTreeMap::new(),
            },
        }
    }

    /// Whether the answer has more channels than are followed; what it then let out is not to be trusted.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Bytes in memory, maskers with all they may look back at.
    pub(super) fn memory(&self) -> usize {
        let lanes = self.lanes.len().max(self.shown.lanes.len());
        let records = matches!(self.shown.how, Record::Masked(_));
        let maskers = usize::from(self.plan.is_some()) + usize::from(records);
        let vault = self.vault.as_ref().map_or(0, |vault| vault.memory());
        let tails = self.tails.len() * Tail::BYTES;
        lanes * maskers * Masker::BUFFER_BYTES + tails + vault + self.shown.bytes
    }

    /// `text` as the traffic's masks leave it, by itself and behind what its channel said before; `None` where they find
    /// something that begins in what has left, or that goes on from there.
    fn message_masked(&mut self, channel: &Channel, label: &str, text: &str) -> Option<String> {
        let Some(plan) = &self.plan else {
            return Some(text.to_owned());
        };
        if !self.tails.contains_key(channel) && self.tails.len() >= CHANNELS {
            // Nothing of it leaves: what was read is refused for that.
            self.overflowed = true;
            return Some(mask::mask_under(plan, label, text).0);
        }
        let (mut masked, counts) = mask::mask_under(plan, label, text);
        add(&mut self.masked, &counts);
        let said = self.tails.entry(channel.clone()).or_default();
        if said.goes_on(plan, label, text) {
            return None;
        }
        let tail = &said.masked;
        if !tail.is_empty() {
            let (before, counted) = mask::mask_under(plan, label, tail);
            let behind = |text: &str| mask::mask_under(plan, label, &format!("{tail}{text}"));
            // What begins in the tail ends, and what the tail tells the meaning of begins, in the beginning of a long text.
            let beginning = &masked[..masked.floor_char_boundary(4 * TAIL)];
            if behind(beginning).0.strip_prefix(&before) != Some(beginning) {
                let (joined, found) = behind(&masked);
                masked = joined.strip_prefix(&before)?.to_owned();
                let new = found.into_iter().map(|(entity, n)| {
                    let known = counted.get(&entity).copied().unwrap_or_default();
                    (entity, n.saturating_sub(known))
                });
                add(&mut self.masked, &new.filter(|(_, n)| *n > 0).collect());
            }
        }
        said.say(plan, label, text, &masked);
        Some(masked)
    }

    /// What leaves of a text that is known whole, masked already.
    fn release_whole(
        &mut self,
        channel: &Channel,
        label: &str,
        masked: String,
        how: Piece,
    ) -> String {
        let vault = self.vault.clone();
        let restorer = vault.map(|vault| Restorer::new(vault, !channel.is_prose()));
        let mut shown = String::new();
        let left = restorer.map(|restorer| restored_to_the_end(restorer, &masked, &mut shown));
        if self.shows() {
            let shown = if left.is_some() { &shown } else { &masked };
            self.released.push(channel, label, shown, how);
        }
        left.unwrap_or(masked)
    }

    /// Whether what is read now is recorded.
    fn shows(&self) -> bool {
        !self.unshown && !matches!(self.shown.how, Record::Nothing)
    }

    /// Takes the text that was released since the last call: whoever lets it out says so with [`left`](Self::left).
    pub(super) fn take_released(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    /// The text has left; how many bytes of recordable text became known with it.
    pub(super) fn left(&mut self, text: Released) -> usize {
        for release in text.0 {
            self.shown.push(release);
        }
        std::mem::take(&mut self.shown.fresh)
    }

    /// What becomes of `trailers` in `dialect`.
    pub(super) fn trailers<'h>(
        &mut self,
        dialect: &dyn Dialect,
        trailers: impl Iterator<Item = (&'h str, &'h [u8])>,
    ) -> Mutation {
        let mut mutation = Mutation::default();
        for (name, value) in trailers {
            match dialect.trailer(name, value, self) {
                Trailer::Kept => {}
                Trailer::Dropped => mutation.remove.push(name.to_owned()),
                Trailer::Changed(value) => mutation.set.push((name.to_owned(), value.into())),
            }
        }
        mutation
    }

    /// Takes the recordable text that left since the last call.
    pub(super) fn take_shown(&mut self) -> BTreeMap<Channel, String> {
        self.shown.bytes = 0;
        std::mem::take(&mut self.shown.text)
    }

    /// No more text will leave: what the record's maskers hold of what left is settled, and all is counted.
    pub(super) fn settle(&mut self) {
        for lane in std::mem::take(&mut self.lanes).into_values() {
            if let Some(masker) = lane.masker {
                add(&mut self.masked, &masker.counts());
            }
        }
        let open: Vec<_> = self.shown.lanes.keys().cloned().collect();
        for channel in open {
            let (label, text) = Default::default();
            self.shown.push(Release {
                channel,
                label,
                text,
                how: Piece::Last,
            });
        }
    }

    /// How often each entity was found: what was masked, and what left and is masked in the record only.
    pub(super) fn findings(&self) -> BTreeMap<Entity, u64> {
        let mut all = self.masked.clone();
        add(&mut all, &self.shown.found);
        all
    }

    /// How often each entity was masked, and with which operator.
    pub(super) fn masked(&self) -> impl Iterator<Item = (&Entity, u64, Operator)> {
        self.masked.iter().map(|(entity, n)| {
            let operator = self.operators.get(entity).copied().unwrap_or_default();
            (entity, *n, operator)
        })
    }
}

impl TextFilter for Filter {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        if !self.lanes.contains_key(channel) {
            if self.lanes.len() >= CHANNELS {
                self.overflowed = true;
                return;
            }
            let restorer = |vault| Restorer::new(vault, !channel.is_prose());
            let label = std::mem::take(&mut self.label);
            let masker = |plan| Masker::under(plan, &label);
            let lane = Lane {
                masker: self.plan.clone().map(masker),
                restorer: self.vault.clone().map(restorer),
                label,
            };
            self.lanes.insert(channel.clone(), lane);
        }
        let shows = self.shows();
        let Some(lane) = self.lanes.get_mut(channel) else {
            return;
        };
        let before = out.len();
        let mut shown = String::new();
        match (&mut lane.masker, &mut lane.restorer) {
            (None, None) => out.push_str(text),
            (Some(masker), None) => masker.push(text, out),
            (None, Some(restorer)) => restorer.push(text, out, &mut shown),
            (Some(masker), Some(restorer)) => {
                let mut masked = String::with_capacity(text.len());
                masker.push(text, &mut masked);
                restorer.push(&masked, out, &mut shown);
            }
        }
        if shows {
            let restores = lane.restorer.is_some();
            let shown = if restores { &shown } else { &out[before..] };
            self.released.push(channel, &lane.label, shown, Piece::Open);
        }
    }

    fn finish(&mut self, channel: &Channel, out: &mut String) {
        let Some(lane) = self.lanes.remove(channel) else {
            return;
        };
        let mut released = String::new();
        if let Some(mut masker) = lane.masker {
            masker.finish(&mut released);
            add(&mut self.masked, &masker.counts());
        }
        let restored = lane.restorer.map(|restorer| {
            let text = std::mem::take(&mut released);
            restored_to_the_end(restorer, &text, &mut released)
        });
        if self.shows() {
            self.released
                .push(channel, &lane.label, &released, Piece::Last);
        }
        out.push_str(&restored.unwrap_or(released));
    }

    /// Nothing of it has to be held back: it is masked in one go. What is open of the channel goes on behind it.
    fn whole(&mut self, channel: &Channel, text: &str) -> String {
        let label = std::mem::take(&mut self.label);
        let masked = match &self.plan {
            Some(plan) => {
                let (masked, counts) = mask::mask_under(plan, &label, text);
                add(&mut self.masked, &counts);
                masked
            }
            None => text.to_owned(),
        };
        self.release_whole(channel, &label, masked, Piece::Whole)
    }

    fn message(&mut self, channel: &Channel, text: &str) -> Option<String> {
        let label = std::mem::take(&mut self.label);
        let masked = self.message_masked(channel, &label, text)?;
        Some(self.release_whole(channel, &label, masked, Piece::Open))
    }

    fn label(&mut self, _: &Channel, label: &str) {
        label.clone_into(&mut self.label);
    }

    /// Whatever becomes of the field, the record does not show it.
    fn named(&mut self, entity: &str, channel: &Channel, text: &str) -> Option<String> {
        let masked = self.plan.as_ref().and_then(|plan| plan.named(entity, text));
        let shown = match (&masked, &self.shown.how) {
            (_, Record::Nothing) => None,
            (Some((_, masked)), Record::AsItLeaves) => Some(masked.clone()),
            _ => Some(format!("[{entity}]")),
        };
        if let Some(shown) = shown {
            self.released.push(channel, "", &shown, Piece::Whole);
        }
        let Some((entity, masked)) = masked else {
            self.unshown = true;
            *self.shown.found.entry(entity.into()).or_default() += 1;
            return None;
        };
        *self.masked.entry(entity).or_default() += 1;
        Some(masked)
    }

    fn named_over(&mut self) {
        self.unshown = false;
    }

    fn part(&mut self, text: &str) -> String {
        let Some(plan) = &self.plan else {
            return text.to_owned();
        };
        let (masked, counts) = mask::mask(plan, text);
        add(&mut self.masked, &counts);
        masked
    }

    fn again(&mut self, channel: &Channel, text: &str) -> String {
        let label = std::mem::take(&mut self.label);
        let masked = match &self.plan {
            Some(plan) => mask::mask_under(plan, &label, text).0,
            None => text.to_owned(),
        };
        let Some(vault) = &self.vault else {
            return masked;
        };
        let restorer = Restorer::new(vault.clone(), !channel.is_prose());
        restored_to_the_end(restorer, &masked, &mut String::new())
    }

    fn word(&mut self, word: &str) -> Option<String> {
        let (masked, counts) = mask::mask(self.lent.as_ref()?, word);
        add(&mut self.masked, &counts);
        (masked != word).then_some(masked)
    }

    /// True also where only a lent secret is looked for: `logprobs` could spell it out.
    fn masks(&self) -> bool {
        self.plan.is_some() || self.vault.is_some()
    }
}

impl Shown {
    fn push(&mut self, release: Release) {
        let Release {
            channel,
            label,
            text,
            how,
        } = release;
        let plan = match &self.how {
            Record::Nothing => return,
            Record::AsItLeaves => return self.add(channel, text),
            Record::Masked(plan) => plan,
        };
        let at_once = how == Piece::Last && !self.lanes.contains_key(&channel);
        if how == Piece::Whole || at_once {
            let (shown, counts) = mask::find_under(plan, &label, &text);
            add(&mut self.found, &counts);
            return self.add(channel, shown.unwrap_or(text));
        }
        let mut shown = String::new();
        let masker = self
            .lanes
            .entry(channel.clone())
            .or_insert_with(|| Masker::under(plan.clone(), &label));
        masker.push(&text, &mut shown);
        if how == Piece::Last {
            masker.finish(&mut shown);
            add(&mut self.found, &masker.counts());
            self.lanes.remove(&channel);
        }
        self.add(channel, shown);
    }

    fn add(&mut self, channel: Channel, text: String) {
        if text.is_empty() {
            return;
        }
        self.bytes += text.len();
        self.fresh += text.len();
        match self.text.entry(channel) {
            Entry::Vacant(place) => {
                place.insert(text);
            }
            Entry::Occupied(mut before) => before.get_mut().push_str(&text),
        }
    }
}

/// What comes of the last piece of a text, and what of it may be shown.
fn restored_to_the_end(mut restorer: Restorer, text: &str, shown: &mut String) -> String {
    let mut restored = String::new();
    restorer.push(text, &mut restored, shown);
    restorer.finish(&mut restored, shown);
    restored
}

fn add(sum: &mut BTreeMap<Entity, u64>, counts: &BTreeMap<Entity, u64>) {
    for (entity, n) in counts {
        *sum.entry(entity.clone()).or_default() += n;
    }
}
