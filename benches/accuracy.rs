//! `./dev accuracy`: what the detectors find and miss in labelled texts, and what they find where nothing is.
//!
//! Score: each finding takes the first label of its entity, not yet taken, that it overlaps by at least half
//! (characters in both over characters in either), in the order of the findings. Summed over all texts.
//!
//! Noise: values found per million characters of prose and of source code. Some of them are real (an author's address
//! in a comment), so the figure bounds the false ones from above. Then the share of random numbers of each length that
//! are taken for something, alone in a text, and the share of rows of such numbers with something in them.

#![allow(
    clippy::disallowed_methods,
    reason = "a report finds the sources of the crates by the environment"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use countersign::detect::{Catalog, Finding, Scanner};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What Presidio 2.2.366's patterns do on the shared set, by the same score: precision and recall.
const PRESIDIO: [(&str, f64, f64); 7] = [
    ("CREDIT_CARD", 1.0, 1.0),
    ("EMAIL_ADDRESS", 1.0, 1.0),
    ("IBAN_CODE", 1.0, 1.0),
    ("IP_ADDRESS", 1.0, 1.0),
    ("PHONE_NUMBER", 0.735, 0.610),
    ("URL", 0.310, 1.0),
    ("US_SSN", 0.978, 1.0),
];
/// What the labels of presidio-research call differently.
const RENAMED: [(&str, &str); 1] = [("DOMAIN_NAME", "URL")];
/// Files of source code, by their endings.
const SOURCES: [&str; 6] = ["rs", "py", "js", "go", "java", "c"];
/// The most text read of one kind, in bytes.
const CORPUS_BYTES: usize = 40 << 20;

#[derive(Parser)]
#[command(about = "What the detectors find and miss")]
struct Arguments {
    /// Labelled texts, in the form of presidio-research.
    #[arg(long, default_value = "../shared/data/pii/generated_large.json")]
    set: PathBuf,
    /// Prose without values: a file, or a directory of `.txt` and `.md` files. Of a JSON file every `prose` is read.
    #[arg(
        long,
        default_value = "../shared/data/oscal/NIST_SP-800-53_rev5_HIGH-baseline-resolved-profile_catalog.json"
    )]
    prose: PathBuf,
    /// Source code: a directory of `.rs`, `.py`, `.js`, `.go`, `.java` and `.c` files. Default: the sources of the
    /// crates.
    #[arg(long)]
    code: Option<PathBuf>,
    /// Random numbers of each length.
    #[arg(long, default_value_t = 100_000)]
    numbers: u32,
    /// Rows of random numbers.
    #[arg(long, default_value_t = 10_000)]
    rows: u32,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Show what was missed and what was wrong in the labelled texts, and some of what was found in prose and code.
    #[arg(long)]
    show: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let catalog = Catalog::builtin()?;
    let all = catalog.scanner(catalog.entities())?;
    let defaults = catalog.scanner(catalog.defaults())?;
    let show = arguments.show;
    let code = arguments.code.clone().unwrap_or_else(crates);
    let code = noise(&defaults, &code, &SOURCES, show)?;
    let prose = noise(&defaults, &arguments.prose, &["md", "txt"], show)?;
    let report = Report {
        scores: score(&all, &arguments)?,
        noise: BTreeMap::from([("code", code), ("prose", prose)]),
        numbers: numbers(&defaults, &arguments),
        rows: rows(&defaults, &arguments),
    };
    if arguments.json {
        println!("{}", json!(report));
    } else {
        report.print();
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    scores: BTreeMap<String, Score>,
    noise: BTreeMap<&'static str, Noise>,
    /// By length, by entity: how many of a million.
    numbers: BTreeMap<usize, BTreeMap<String, f64>>,
    /// By kind of row, by entity: in how many rows of a million.
    rows: BTreeMap<&'static str, BTreeMap<String, f64>>,
}

#[derive(Default, Serialize)]
struct Score {
    labels: u32,
    found: u32,
    right: u32,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
}

#[derive(Serialize)]
struct Noise {
    characters: usize,
    /// By entity: how many of a million characters begin one.
    found: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Text {
    full_text: String,
    spans: Vec<Span>,
}

/// Offsets count characters.
#[derive(Deserialize)]
struct Span {
    entity_type: String,
    start_position: usize,
    end_position: usize,
}

fn score(scanner: &Scanner, arguments: &Arguments) -> anyhow::Result<BTreeMap<String, Score>> {
    let name = arguments.set.display();
    let text = fs::read_to_string(&arguments.set).with_context(|| format!("{name}"))?;
    let texts: Vec<Text> = serde_json::from_str(&text).with_context(|| format!("{name}"))?;
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    for text in &texts {
        score_text(scanner, text, &mut scores, arguments.show);
    }
    for score in scores.values_mut() {
        // Where an entity is never labelled, what is found of it may well be right.
        let share =
            |of: u32| (of > 0 && score.labels > 0).then(|| f64::from(score.right) / f64::from(of));
        (score.precision, score.recall) = (share(score.found), share(score.labels));
        score.f1 = share(score.found + score.labels).map(|share| 2.0 * share);
    }
    scores.retain(|entity, score| score.found > 0 || detects(scanner, entity));
    Ok(scores)
}

fn score_text(scanner: &Scanner, text: &Text, scores: &mut BTreeMap<String, Score>, show: bool) {
    let characters = |byte: usize| text.full_text[..byte].chars().count();
    let named = |name: &str| {
        let renamed = RENAMED.iter().find(|(theirs, _)| *theirs == name);
        renamed.map_or(name, |(_, ours)| ours).to_owned()
    };
    let mut labels: Vec<(String, &Span, bool)> = text
        .spans
        .iter()
        .map(|span| (named(&span.entity_type), span, false))
        .collect();
    for finding in scanner.find(&text.full_text) {
        let (start, end) = (characters(finding.start), characters(finding.end));
        let fits = |(entity, span, taken): &&mut (String, &Span, bool)| {
            !*taken
                && **entity == *finding.entity
                && overlaps(start..end, span.start_position..span.end_position)
        };
        let hit = labels.iter_mut().find(fits).map(|label| label.2 = true);
        let score = scores.entry(finding.entity.to_string()).or_default();
        score.found += 1;
        score.right += u32::from(hit.is_some());
        if show && hit.is_none() {
            eprintln!("wrong  {}", shown(&text.full_text, &finding));
        }
    }
    for (entity, span, taken) in labels {
        scores.entry(entity.clone()).or_default().labels += 1;
        if show && !taken && detects(scanner, &entity) {
            let byte = |at: usize| {
                let mut places = text.full_text.char_indices().map(|(i, _)| i);
                places.nth(at).unwrap_or(text.full_text.len())
            };
            let missed = Finding {
                entity: entity.as_str().into(),
                start: byte(span.start_position),
                end: byte(span.end_position),
            };
            eprintln!("missed {}", shown(&text.full_text, &missed));
        }
    }
}

fn detects(scanner: &Scanner, entity: &str) -> bool {
    scanner.entities().iter().any(|known| &**known == entity)
}

/// At least half of what either covers is covered by both.
fn overlaps(a: std::ops::Range<usize>, b: std::ops::Range<usize>) -> bool {
    let both = a.end.min(b.end).saturating_sub(a.start.max(b.start));
    let either = a.len() + b.len() - both;
    2 * both >= either
}

/// A value and the words around it.
fn shown(text: &str, finding: &Finding) -> String {
    let from = text[..finding.start]
        .char_indices()
        .rev()
        .nth(40)
        .map_or(0, |(i, _)| i);
    let rest = &text[finding.end..];
    let to = rest.char_indices().nth(20).map_or(rest.len(), |(i, _)| i);
    format!(
        "{:<20} {:?} «{}» {:?}",
        finding.entity,
        &text[from..finding.start],
        &text[finding.start..finding.end],
        &rest[..to]
    )
}

fn noise(scanner: &Scanner, path: &Path, kinds: &[&str], show: bool) -> anyhow::Result<Noise> {
    let mut texts = Vec::new();
    let mut room = CORPUS_BYTES;
    read(path, kinds, &mut room, &mut texts)?;
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    let mut characters = 0;
    for text in &texts {
        characters += text.chars().count();
        for finding in scanner.find(text) {
            let count = found.entry(finding.entity.to_string()).or_default();
            *count += 1.0;
            if show && *count <= 25.0 {
                eprintln!("noise  {}", shown(text, &finding));
            }
        }
    }
    for count in found.values_mut() {
        *count = *count * 1e6 / characters.max(1) as f64;
    }
    Ok(Noise { characters, found })
}

/// The texts of these kinds under `path`, in the order of their names, until there is no room.
fn read(
    path: &Path,
    kinds: &[&str],
    room: &mut usize,
    texts: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = path.display();
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("{name}"))?;
        let paths: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        for path in paths {
            let kind = path.extension().and_then(|kind| kind.to_str());
            let wanted = path.is_dir() || kind.is_some_and(|kind| kinds.contains(&kind));
            if wanted && *room > 0 {
                read(&path, kinds, room, texts)?;
            }
        }
        return Ok(());
    }
    let bytes = fs::read(path).with_context(|| format!("{name}"))?;
    // What is not text is none of this report's business.
    let Ok(mut text) = String::from_utf8(bytes) else {
        return Ok(());
    };
    if path.extension().is_some_and(|kind| kind == "json") {
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{name}"))?;
        text.clear();
        collect(&value, &mut text);
    }
    *room = room.saturating_sub(text.len());
    texts.push(text);
    Ok(())
}

/// Every string named `prose`, a line each.
fn collect(value: &Value, prose: &mut String) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, prose)),
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str() {
                    Some(text) if name == "prose" => {
                        prose.push_str(text);
                        prose.push('\n');
                    }
                    _ => collect(value, prose),
                }
            }
        }
        _ => {}
    }
}

/// Where cargo keeps the sources of the crates this is built from.
fn crates() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    home.unwrap_or_default().join("registry/src")
}

fn numbers(scanner: &Scanner, arguments: &Arguments) -> BTreeMap<usize, BTreeMap<String, f64>> {
    let mut random = Random(arguments.seed);
    let mut hits = BTreeMap::new();
    for length in 6..=19 {
        let mut found: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..arguments.numbers {
            let text: String = (0..length).map(|_| random.digit()).collect();
            for finding in scanner.find(&text) {
                *found.entry(finding.entity.to_string()).or_default() += 1.0;
            }
        }
        found
            .values_mut()
            .for_each(|count| *count *= 1e6 / f64::from(arguments.numbers));
        hits.insert(length, found);
    }
    hits
}

/// The rows: a name, how many numbers, and of how many digits at least and at most.
const ROWS: [(&str, usize, u64, u64); 3] = [
    ("14 of 1 to 5 digits", 14, 1, 5),
    ("14 of 4 digits", 14, 4, 4),
    ("3 of 2 to 4 digits", 3, 2, 4),
];

fn rows(scanner: &Scanner, arguments: &Arguments) -> BTreeMap<&'static str, BTreeMap<String, f64>> {
    let mut random = Random(arguments.seed);
    let mut hits = BTreeMap::new();
    for (name, count, least, most) in ROWS {
        let mut found: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..arguments.rows {
            let row: Vec<String> = (0..count)
                .map(|_| {
                    let length = least + random.next() % (most - least + 1);
                    let first = char::from(b'1' + (random.next() % 9) as u8);
                    let others = (1..length).map(|_| random.digit());
                    [first].into_iter().chain(others).collect()
                })
                .collect();
            let findings = scanner.find(&row.join(" "));
            let entities: BTreeSet<&str> = findings.iter().map(|f| &*f.entity).collect();
            for entity in entities {
                *found.entry(entity.to_owned()).or_default() += 1e6 / f64::from(arguments.rows);
            }
        }
        hits.insert(name, found);
    }
    hits
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
struct Random(u64);

impl Random {
    fn digit(&mut self) -> char {
        char::from(b'0' + (self.next() % 10) as u8)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Report {
    fn print(&self) {
        println!(
            "{:<20} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}   Presidio P/R",
            "entity", "labels", "found", "right", "P", "R", "F1"
        );
        for (entity, score) in &self.scores {
            let theirs = PRESIDIO.iter().find(|(name, ..)| name == entity);
            let theirs = theirs.map(|(_, p, r)| format!("   {p:.3}/{r:.3}"));
            println!(
                "{entity:<20} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}{}",
                score.labels,
                score.found,
                score.right,
                shown_share(score.precision),
                shown_share(score.recall),
                shown_share(score.f1),
                theirs.unwrap_or_default()
            );
        }
        for (kind, noise) in &self.noise {
            println!(
                "\nfound per million characters of {kind} ({} characters)",
                noise.characters
            );
            for (entity, rate) in &noise.found {
                println!("{entity:<20} {rate:>10.2}");
            }
        }
        println!("\nshare of random numbers taken for something, by length");
        for (length, found) in &self.numbers {
            let found: Vec<_> = found
                .iter()
                .map(|(entity, n)| format!("{entity} {:.4} %", n / 1e4))
                .collect();
            println!("{length:>4}  {}", found.join(", "));
        }
        println!("\nshare of rows of random numbers with something in them");
        for (name, found) in &self.rows {
            let found: Vec<_> = found
                .iter()
                .map(|(entity, n)| format!("{entity} {:.3} %", n / 1e4))
                .collect();
            println!("{name:<20}  {}", found.join(", "));
        }
    }
}

fn shown_share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"))
}
