//! How risky a request is, as one number that conditions compare.
//!
//! Promises: more of anything never lowers the score, so nobody gets below a threshold by adding to a request; the score is the
//! same on every replica with the same weights.
//! Can miss: it knows what the detectors found and what the dialect read. It is a rule of thumb for asking a human, no proof.

use std::collections::BTreeMap;

use super::Call;
use crate::detect::Entity;

/// Findings of one entity beyond so many count no more: one long list must not outweigh everything else.
pub const MAX_COUNTED: u64 = 10;

/// What a request's score is made of. Without weights everything scores 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    /// Score of each finding of an entity, up to [`MAX_COUNTED`] of them.
    pub entities: BTreeMap<Entity, u32>,
    /// Score of the model: that of the first pattern that matches it, 0 where none does.
    pub models: Vec<(ModelPattern, u32)>,
    /// Score of each whole KiB of the request body.
    pub per_kib: u32,
    /// Score of offering tools to the model.
    pub tools: u32,
}

impl Risk {
    /// The score of `call` with these findings; 0 or more.
    #[must_use]
    pub fn score(&self, call: &Call, findings: &BTreeMap<Entity, u64>) -> i64 {
        let times = |weight: u32, count: u64| {
            i64::from(weight).saturating_mul(i64::try_from(count).unwrap_or(i64::MAX))
        };
        let found = self.entities.iter().map(|(entity, weight)| {
            let count = findings.get(entity).copied().unwrap_or_default();
            times(*weight, count.min(MAX_COUNTED))
        });
        let mut models = self.models.iter();
        let model = models.find(|(pattern, _)| pattern.matches(&call.model));
        let others = [
            model.map_or(0, |(_, weight)| i64::from(*weight)),
            times(self.per_kib, call.body_bytes / 1024),
            times(self.tools, call.tools.into()),
        ];
        found.chain(others).fold(0, i64::saturating_add)
    }
}

/// Names of models: `*` stands for any text, everything else for itself, the case of ASCII letters not regarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// The pattern `text`; `None` where it is not 1 to 200 characters without control characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let good = (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        good.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether `model` is one of them.
    #[must_use]
    pub fn matches(&self, model: &str) -> bool {
        let model = model.to_ascii_lowercase();
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| model.strip_prefix(first)) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            // No `*` at all.
            return rest.is_empty();
        };
        // The earliest place of each part leaves the most for those after it.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}
