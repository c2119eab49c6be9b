//! `cargo bench --bench mask`: how fast text is masked, beside a plain copy of the same bytes in the same run.
//!
//! Absolute figures mean nothing on a shared machine; the ratio to the copy does.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a benchmark reads the clock and may stop"
)]

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Instant};

use countersign::{
    detect::Catalog,
    mask::{Masker, Plan, mask},
};

const ROUNDS: usize = 5;
const BYTES: usize = 4 << 20;

fn main() {
    let catalog = Catalog::builtin().expect("the built-in detectors compile");
    let scanner = catalog
        .scanner(catalog.entities())
        .expect("they compile together");
    let plan = Arc::new(Plan::new(scanner, &BTreeMap::new()));
    let clean = text("The quarterly figures are in line with what was expected by the board. ");
    let dirty = text("Mail ada@example.com, card 4111 1111 1111 1111, call +1 212 555 0187 then. ");
    println!("{:<28} {:>10} {:>10}", "MB/s", "clean", "dense");
    row("copy", &clean, &dirty, |text| text.to_owned());
    row("whole", &clean, &dirty, |text| mask(&plan, text).0);
    for piece in [4096, 16, 4] {
        let name = format!("stream, {piece} bytes at a time");
        row(&name, &clean, &dirty, |text| stream(&plan, text, piece));
    }
}

fn text(sentence: &str) -> String {
    sentence.repeat(BYTES / sentence.len())
}

fn stream(plan: &Arc<Plan>, text: &str, piece: usize) -> String {
    let mut masker = Masker::new(plan.clone());
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        masker.push(now, &mut out);
        rest = later;
    }
    masker.finish(&mut out);
    out
}

fn row(name: &str, clean: &str, dirty: &str, run: impl Fn(&str) -> String) {
    let rate = |text: &str| {
        let fastest = (0..ROUNDS).map(|_| {
            let start = Instant::now();
            black_box(run(black_box(text)));
            start.elapsed().as_secs_f64()
        });
        let seconds = fastest.fold(f64::INFINITY, f64::min);
        text.len() as f64 / 1e6 / seconds
    };
    println!("{name:<28} {:>10.0} {:>10.0}", rate(clean), rate(dirty));
}
