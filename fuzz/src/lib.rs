//! What the targets share: a plan that looks for everything, and an input read as choices and a rest.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use countersign::{
    detect::Catalog,
    dialect::{Channel, Dialect, Endpoint, TextFilter, all},
    mask::{Masker, Plan, mask},
};

/// Looks for every entity.
pub static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let catalog = Catalog::builtin().expect("the built-in detectors compile");
    let scanner = catalog
        .scanner(catalog.entities())
        .expect("they compile together");
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

/// The first byte of an input, and the rest.
pub fn choice(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first), rest))
}

/// A dialect and one of its endpoints, chosen by the input.
pub fn endpoint(data: &[u8]) -> Option<(&'static dyn Dialect, &'static Endpoint, &[u8])> {
    let (which, data) = choice(data)?;
    let dialect = *all().get(which % all().len())?;
    let (which, data) = choice(data)?;
    let endpoints = dialect.endpoints();
    // One has none but by a schema.
    let which = which.checked_rem(endpoints.len())?;
    Some((dialect, endpoints.get(which)?, data))
}

/// One masker per channel, as the exchange has them.
#[derive(Default)]
pub struct Lanes(BTreeMap<Channel, Masker>);

impl TextFilter for Lanes {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        self.0
            .entry(channel.clone())
            .or_insert_with(|| Masker::new(PLAN.clone()))
            .push(text, out);
    }

    fn finish(&mut self, channel: &Channel, out: &mut String) {
        if let Some(mut masker) = self.0.remove(channel) {
            masker.finish(out);
        }
    }

    fn part(&mut self, text: &str) -> String {
        mask(&PLAN, text).0
    }

    fn again(&mut self, _: &Channel, text: &str) -> String {
        mask(&PLAN, text).0
    }
}
