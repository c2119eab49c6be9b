//! One answer's text on its way out: what the traffic masks let through, and of that what the record may show.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    detect::Entity,
    dialect::{Channel, TextFilter},
    mask::{Masker, Operator, Plan},
};

/// Most text channels one answer may have; an answer with more is refused.
const CHANNELS: usize = 1024;

/// Maskers per channel: one for the traffic, one for the record where the traffic's does not already cover it.
#[derive(Debug)]
pub(super) struct Filter {
    traffic: Option<Arc<Plan>>,
    record: Record,
    operators: BTreeMap<Entity, Operator>,
    channels: BTreeMap<Channel, Lane>,
    shown: BTreeMap<Channel, String>,
    shown_bytes: usize,
    findings: BTreeMap<Entity, u64>,
    masked: BTreeMap<Entity, u64>,
    overflowed: bool,
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

#[derive(Debug, Default)]
struct Lane {
    traffic: Option<Masker>,
    record: Option<Masker>,
}

impl Filter {
    /// `traffic` masks what leaves, with `operators`; `record` says what is recorded of that.
    pub(super) fn new(
        traffic: Option<Arc<Plan>>,
        record: Record,
        operators: BTreeMap<Entity, Operator>,
    ) -> Self {
        Self {
            traffic,
            record,
            operators,
            channels: BTreeMap::new(),
            shown: BTreeMap::new(),
            shown_bytes: 0,
            findings: BTreeMap::new(),
            masked: BTreeMap::new(),
            overflowed: false,
        }
    }

    /// Whether the answer has more channels than are followed; what it then let out is not to be trusted.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Bytes held back in all channels.
    pub(super) fn held(&self) -> usize {
        let lanes = self.channels.values();
        lanes
            .map(|lane| {
                lane.traffic
                    .iter()
                    .chain(&lane.record)
                    .map(Masker::held)
                    .sum::<usize>()
            })
            .sum::<usize>()
            + self.shown_bytes
    }

    /// Takes the recordable text that left since the last call.
    pub(super) fn take_shown(&mut self) -> BTreeMap<Channel, String> {
        self.shown_bytes = 0;
        std::mem::take(&mut self.shown)
    }

    /// No more text will come: what the record's maskers still hold is settled.
    pub(super) fn settle(&mut self) {
        let channels: Vec<_> = self.channels.keys().cloned().collect();
        for channel in channels {
            let _ = self.finish(&channel);
        }
    }

    /// How often each entity was found.
    pub(super) fn findings(&self) -> &BTreeMap<Entity, u64> {
        &self.findings
    }

    /// How often each entity was masked in what left, and with which operator.
    pub(super) fn masked(&self) -> impl Iterator<Item = (&Entity, u64, Operator)> {
        self.masked.iter().map(|(entity, n)| {
            (
                entity,
                *n,
                self.operators.get(entity).copied().unwrap_or_default(),
            )
        })
    }

    fn lane(&mut self, channel: &Channel) -> Option<&mut Lane> {
        if !self.channels.contains_key(channel) {
            if self.channels.len() >= CHANNELS {
                self.overflowed = true;
                return None;
            }
            let lane = Lane {
                traffic: self.traffic.clone().map(Masker::new),
                record: match &self.record {
                    Record::Masked(plan) => Some(Masker::new(plan.clone())),
                    Record::Nothing | Record::AsItLeaves => None,
                },
            };
            self.channels.insert(channel.clone(), lane);
        }
        self.channels.get_mut(channel)
    }

    fn show(&mut self, channel: &Channel, text: &str) {
        if !matches!(self.record, Record::Nothing) && !text.is_empty() {
            self.shown_bytes += text.len();
            self.shown
                .entry(channel.clone())
                .or_default()
                .push_str(text);
        }
    }
}

impl TextFilter for Filter {
    fn push(&mut self, channel: &Channel, text: &str) -> String {
        let Some(lane) = self.lane(channel) else {
            return String::new();
        };
        let released = match &mut lane.traffic {
            Some(masker) => {
                let mut released = String::with_capacity(text.len());
                masker.push(text, &mut released);
                released
            }
            None => text.to_owned(),
        };
        match &mut lane.record {
            Some(masker) => {
                let mut shown = String::new();
                masker.push(&released, &mut shown);
                self.show(channel, &shown);
            }
            None => self.show(channel, &released),
        }
        released
    }

    fn finish(&mut self, channel: &Channel) -> String {
        let Some(lane) = self.channels.remove(channel) else {
            return String::new();
        };
        let mut released = String::new();
        if let Some(mut masker) = lane.traffic {
            masker.finish(&mut released);
            let counts = masker.counts();
            add(&mut self.masked, &counts);
            add(&mut self.findings, &counts);
        }
        if let Some(mut masker) = lane.record {
            let mut shown = String::new();
            masker.push(&released, &mut shown);
            masker.finish(&mut shown);
            add(&mut self.findings, &masker.counts());
            self.show(channel, &shown);
        } else {
            self.show(channel, &released);
        }
        released
    }

    /// True also where only a lent secret is looked for: `logprobs` could spell it out.
    fn masks(&self) -> bool {
        self.traffic.is_some()
    }
}

fn add(sum: &mut BTreeMap<Entity, u64>, counts: &BTreeMap<Entity, u64>) {
    for (entity, n) in counts {
        *sum.entry(entity.clone()).or_default() += n;
    }
}
