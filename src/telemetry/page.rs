//! Metrics that are read when they are asked for, rather than counted as things happen.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode_registry,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// One scrape's worth of such metrics. What has no value is not there.
#[derive(Debug)]
pub struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix("countersign"))
    }
}

impl Page {
    /// A counter, with a value for each of `rows`; of those without labels there is one.
    pub fn counter<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in rows {
            if labels.is_empty() {
                let counter = Counter::<u64>::default();
                counter.inc_by(value);
                return self.0.register(name, help, counter);
            }
            family.get_or_create(&owned(labels)).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// A gauge without a unit, with a value for each of `rows`.
    pub fn gauge<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
    ) {
        match gauges(rows) {
            Gauges::One(gauge) => self.0.register(name, help, gauge),
            Gauges::Many(family) => self.0.register(name, help, family),
        }
    }

    /// A gauge in bytes, seconds or as a ratio: `name` without that, which is added.
    pub fn measure<'a>(
        &mut self,
        name: &'static str,
        unit: Unit,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>,
    ) {
        match gauges(rows) {
            Gauges::One(gauge) => self.0.register_with_unit(name, help, unit, gauge),
            Gauges::Many(family) => self.0.register_with_unit(name, help, unit, family),
        }
    }

    /// All of it in the OpenMetrics text format, without its end.
    pub(super) fn write(&self, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = encode_registry(text, &self.0);
    }
}

type Float = Gauge<f64, AtomicU64>;

enum Gauges {
    /// Without labels.
    One(Float),
    Many(Family<Labels, Float>),
}

fn gauges<'a>(rows: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, f64)>) -> Gauges {
    let family = Family::<Labels, Float>::default();
    for (labels, value) in rows {
        if labels.is_empty() {
            let gauge = Float::default();
            gauge.set(value);
            return Gauges::One(gauge);
        }
        family.get_or_create(&owned(labels)).set(value);
    }
    Gauges::Many(family)
}

fn owned(labels: Vec<(&'static str, &str)>) -> Labels {
    let labels = labels.into_iter();
    labels
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}
