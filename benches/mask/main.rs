//! `./dev bench masking`: how fast text is masked, beside other ways to pass over the same bytes in the same run.
//!
//! Absolute figures mean nothing on a shared machine; ratios between rows of one run do. Rows take
//! turns at each document, and each counts by its fastest turn at it, so that what disturbs the machine disturbs none.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a benchmark reads the clock and may stop"
)]

mod corpus;
mod frozen;
mod stream;

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Instant};

use countersign::{
    detect::{Catalog, Entity, Scanner},
    mask::{Masker, Plan, mask},
};
use regex_automata::{meta, util::syntax};

use frozen::FROZEN;

const BYTES: usize = 2 << 20;
/// The text is gone through in documents of this size, as bodies are: short enough that a turn is seldom interrupted.
const DOCUMENT: usize = 16 << 10;
/// What is copied for comparison: more than fits in a processor's caches.
const COPIED: usize = 64 << 20;

type Row<'a> = (String, Box<dyn Fn(&str) -> usize + 'a>);

fn main() {
    let (rounds, only): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .partition(|arg| arg.parse::<usize>().is_ok());
    let rounds = rounds.first().and_then(|rounds| rounds.parse().ok());
    let catalog = Catalog::builtin().expect("the built-in detectors compile");
    let frozen = FROZEN.iter().map(|&name| name.into()).collect();
    let frozen = plan(&catalog, &frozen);
    let all = plan(&catalog, catalog.entities());
    let yardstick = together(frozen.scanner());
    let rows: Vec<Row<'_>> = vec![
        (
            "meta::new_many".into(),
            Box::new(|text| yardstick.find_iter(text).count()),
        ),
        row("whole", &frozen, None),
        row("4 KiB", &frozen, Some(4096)),
        row("16 B", &frozen, Some(16)),
        row("4 B", &frozen, Some(4)),
        row("whole, all detectors", &all, None),
        row("4 KiB, all detectors", &all, Some(4096)),
        row("4 B, all detectors", &all, Some(4)),
    ];
    // Names behind the command leave out the other rows, for a profiler to look at one; the yardstick always runs.
    let rows: Vec<Row<'_>> = rows
        .into_iter()
        .enumerate()
        .filter(|(i, (name, _))| *i == 0 || only.is_empty() || only.contains(name))
        .map(|(_, row)| row)
        .collect();
    for (name, share) in [("clean", 0.0), ("1 % values", 0.01)] {
        let text = corpus::chats(1, BYTES, share);
        let copy = copy_rate(rounds.unwrap_or(7));
        let found = frozen.scanner().find(&text);
        let masked: usize = found.iter().map(|f| f.end - f.start).sum();
        println!(
            "{name}: {} bytes, {} values found in {:.2} % of them",
            text.len(),
            found.len(),
            100.0 * masked as f64 / text.len() as f64
        );
        measure(&rows, &text, copy, rounds.unwrap_or(7));
    }
    if only.is_empty() {
        streams(&frozen, &all, rounds.unwrap_or(7));
    }
    let held = [("15", &frozen), ("all", &all)];
    for (name, plan) in held.into_iter().filter(|_| only.is_empty()) {
        hold_back(name, plan);
    }
}

fn plan(catalog: &Catalog, entities: &std::collections::BTreeSet<Entity>) -> Arc<Plan> {
    let scanner = catalog.scanner(entities).expect("they compile together");
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
}

/// The same shapes in the regex crate's best engine for many of them.
fn together(scanner: &Scanner) -> meta::Regex {
    meta::Builder::new()
        .syntax(syntax::Config::new().utf8(false))
        .configure(meta::Config::new().hybrid_cache_capacity(8 << 20))
        .build_many(&scanner.shapes())
        .expect("what the scanner compiles, this does too")
}

fn row<'a>(name: &str, plan: &'a Arc<Plan>, piece: Option<usize>) -> Row<'a> {
    let run: Box<dyn Fn(&str) -> usize + 'a> = match piece {
        None => Box::new(|text| mask(plan, text).0.len()),
        Some(piece) => Box::new(move |text| stream(plan, text, piece).len()),
    };
    (name.to_owned(), run)
}

fn stream(plan: &Arc<Plan>, text: &str, piece: usize) -> String {
    let mut masker = Masker::new(plan.clone());
    let mut out = String::with_capacity(text.len());
    pieces(text, piece).for_each(|piece| masker.push(piece, &mut out));
    masker.finish(&mut out);
    out
}

/// The text in pieces of so many bytes, or a few more where a character goes on.
fn pieces(text: &str, len: usize) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        at = (at + len).min(text.len());
        while !text.is_char_boundary(at) {
            at += 1;
        }
        (start < at).then(|| &text[start..at])
    })
}

/// Bytes a second of a plain copy from memory to memory.
fn copy_rate(rounds: usize) -> f64 {
    let (from, mut to) = (vec![1u8; COPIED], vec![2u8; COPIED]);
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&to);
        start.elapsed().as_secs_f64()
    });
    COPIED as f64 / times.fold(f64::INFINITY, f64::min)
}

fn measure(rows: &[Row<'_>], text: &str, copy: f64, rounds: usize) {
    let mut fastest = vec![0.0; rows.len()];
    for document in pieces(text, DOCUMENT) {
        let mut best = vec![f64::INFINITY; rows.len()];
        for _ in 0..rounds {
            for ((_, run), best) in rows.iter().zip(&mut best) {
                let start = Instant::now();
                black_box(run(black_box(document)));
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        fastest
            .iter_mut()
            .zip(best)
            .for_each(|(all, one)| *all += one);
    }
    println!(
        "{:<26} {:>8} {:>9} {:>12}",
        "", "MB/s", "of copy", "of new_many"
    );
    println!("{:<26} {:>8.0} {:>9.3}", "copy", copy / 1e6, 1.0);
    for ((name, _), seconds) in rows.iter().zip(&fastest) {
        let rate = text.len() as f64 / seconds;
        let (of_copy, of_new_many) = (rate / copy, fastest[0] / seconds);
        println!(
            "{name:<26} {:>8.0} {of_copy:>9.3} {of_new_many:>12.2}",
            rate / 1e6
        );
    }
    println!();
}

/// The whole way of an answer, by bytes on the wire.
fn streams(frozen: &Arc<Plan>, all: &Arc<Plan>, rounds: usize) {
    let text = corpus::chats(4, BYTES / 16, 0.0);
    let events = stream::wire(&text);
    let wire = events.concat();
    println!(
        "a chat stream: {} bytes in {} events of {:.1} bytes of text each",
        wire.len(),
        events.len(),
        text.len() as f64 / events.len() as f64
    );
    let none = Catalog::builtin().expect("they compile");
    let none = plan(&none, &std::collections::BTreeSet::new());
    let pieces: Vec<(&str, Vec<&[u8]>)> = vec![
        (
            "16 KiB at a time",
            wire.as_bytes().chunks(16 << 10).collect(),
        ),
        (
            "an event at a time",
            events.iter().map(String::as_bytes).collect(),
        ),
    ];
    let copy = copy_rate(rounds);
    println!("{:<36} {:>8} {:>9}", "", "MB/s", "of copy");
    println!("{:<36} {:>8.0} {:>9.3}", "copy", copy / 1e6, 1.0);
    for (how, pieces) in &pieces {
        for (name, plan) in [
            ("no detector", &none),
            ("15", frozen),
            ("all detectors", all),
        ] {
            let times = (0..rounds).map(|_| {
                let start = Instant::now();
                black_box(stream::read(plan, black_box(pieces).iter().copied()));
                start.elapsed().as_secs_f64()
            });
            let rate = wire.len() as f64 / times.fold(f64::INFINITY, f64::min);
            println!(
                "{:<36} {:>8.0} {:>9.3}",
                format!("{how}, {name}"),
                rate / 1e6,
                rate / copy
            );
        }
    }
    println!();
}

/// How much is held after each piece of prose.
fn hold_back(name: &str, plan: &Arc<Plan>) {
    let text = corpus::chats(2, BYTES / 2, 0.0);
    for len in [1, 4, 16] {
        let mut masker = Masker::new(plan.clone());
        let mut out = String::new();
        let (mut sum, mut most, mut count) = (0, 0, 0);
        for piece in pieces(&text, len) {
            masker.push(piece, &mut out);
            sum += masker.held();
            most = most.max(masker.held());
            count += 1;
        }
        println!(
            "held with {name} detectors after each {len} B: mean {:.2} B, most {most} B",
            sum as f64 / f64::from(count)
        );
    }
}
