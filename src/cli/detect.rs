//! `countersign detect`: what the detectors find in texts, line by line.

use std::{
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    num::NonZero,
    process::ExitCode,
    thread,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::scan::{self, DetectorArgs};
use crate::detect::Scanner;

/// Lines looked at together by one thread, in bytes.
const BATCH: usize = 1 << 20;
/// The longest line in bytes.
const MAX_LINE: usize = 64 << 20;

/// Find sensitive values in texts: JSON lines `{"id", "text"}` on standard input, `{"id", "findings"}` on standard output.
///
/// Each finding is `{"entity", "start", "end"}`; offsets count Unicode scalar values, so that they mean the same in every
/// language. Lines come out in the order they came in, as many at a time as there are processors; memory stays flat.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example:\n  echo '{\"id\": 1, \"text\": \"Mail ada@example.com\"}' | countersign detect"
)]
pub struct DetectCommand {
    #[command(flatten)]
    detectors: DetectorArgs,
}

#[derive(Deserialize)]
struct Line {
    id: Box<RawValue>,
    text: String,
}

#[derive(Serialize)]
struct Found<'a> {
    id: &'a RawValue,
    findings: Vec<FoundAt>,
}

#[derive(Serialize)]
struct FoundAt {
    entity: String,
    start: usize,
    end: usize,
}

/// Runs the subcommand.
///
/// # Errors
/// Where a line is not as it should be (its number is named; what was found before it is written), or reading or
/// writing fails.
pub fn run(args: &DetectCommand) -> anyhow::Result<ExitCode> {
    let config = args.detectors.load()?;
    let scanner = args.detectors.scanner(config.as_ref())?;
    let (input, bar) = scan::input("detecting");
    let mut out = BufWriter::new(io::stdout().lock());
    lines(
        &scanner,
        &mut BufReader::with_capacity(BATCH, input),
        &mut out,
    )?;
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

/// Reads batches of lines, one for each processor, and writes what was found in them in order.
fn lines(scanner: &Scanner, input: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut number = 0;
    loop {
        let mut batches = Vec::with_capacity(threads);
        let mut unreadable = None;
        while batches.len() < threads && unreadable.is_none() {
            let batch;
            (batch, unreadable) = self::batch(input, number)?;
            if batch.is_empty() {
                break;
            }
            let first = number + 1;
            number += batch.lines().count();
            batches.push((first, batch));
        }
        if batches.is_empty() && unreadable.is_none() {
            return Ok(out.flush()?);
        }
        let done: Vec<_> = thread::scope(|scope| {
            let work = |(first, batch): &(usize, String)| found(scanner, *first, batch);
            let workers: Vec<_> = batches
                .iter()
                .map(|batch| scope.spawn(move || work(batch)))
                .collect();
            workers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for done in done {
            let Ok((found, fault)) = done else {
                bail!("a worker stopped: this is a defect, please report it");
            };
            out.write_all(&found).context("cannot write")?;
            if let Some(fault) = fault {
                out.flush()?;
                return Err(fault);
            }
        }
        if let Some(unreadable) = unreadable {
            out.flush()?;
            return Err(unreadable);
        }
    }
}

/// Whole lines of about [`BATCH`] bytes, none at the input's end, and what is wrong with the line behind them; `read` lines
/// came before.
fn batch(input: &mut dyn BufRead, read: usize) -> anyhow::Result<(String, Option<anyhow::Error>)> {
    let mut batch = String::new();
    let mut line = Vec::new();
    while batch.len() < BATCH {
        line.clear();
        let mut limited = input.take(MAX_LINE as u64 + 1);
        limited
            .read_until(b'\n', &mut line)
            .context("cannot read")?;
        let fault = match std::str::from_utf8(&line) {
            Ok("") => break,
            Ok(_) if line.len() > MAX_LINE => {
                format!("longer than {MAX_LINE} bytes: split the text")
            }
            Ok(text) => {
                batch.push_str(text);
                continue;
            }
            Err(_) => "not UTF-8".to_owned(),
        };
        let number = read + batch.lines().count() + 1;
        return Ok((batch, Some(anyhow::anyhow!("line {number}: {fault}"))));
    }
    Ok((batch, None))
}

/// What was found in the lines before the first that cannot be read, and what is wrong with that.
fn found(scanner: &Scanner, first: usize, batch: &str) -> (Vec<u8>, Option<anyhow::Error>) {
    let mut out = Vec::new();
    for (number, line) in batch.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let done = serde_json::from_str::<Line>(line)
            .and_then(|line| serde_json::to_writer(&mut out, &look(scanner, &line)));
        if let Err(error) = done {
            // The parser's own words may show a piece of the line.
            let fault = anyhow::anyhow!(
                "line {}, column {}: not an object with `id` and a string `text`",
                first + number,
                error.column()
            );
            return (out, Some(fault));
        }
        out.push(b'\n');
    }
    (out, None)
}

fn look<'a>(scanner: &Scanner, line: &'a Line) -> Found<'a> {
    let (mut bytes, mut characters) = (0, 0);
    // Findings come in order: each character is counted once.
    let mut position = |at: usize| {
        characters += line.text[bytes..at].chars().count();
        bytes = at;
        characters
    };
    let findings = scanner.find(&line.text).into_iter().map(|finding| FoundAt {
        entity: finding.entity.to_string(),
        start: position(finding.start),
        end: position(finding.end),
    });
    Found {
        findings: findings.collect(),
        id: &line.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Catalog;

    fn run(text: &str) -> (String, Result<(), String>) {
        let catalog = Catalog::builtin().unwrap();
        let scanner = catalog.scanner(catalog.entities()).unwrap();
        let mut out = Vec::new();
        let done = lines(&scanner, &mut text.as_bytes(), &mut out);
        (
            String::from_utf8(out).unwrap(),
            done.map_err(|error| error.to_string()),
        )
    }

    #[test]
    fn offsets_count_characters_and_ids_come_back_as_they_came() {
        let (out, done) = run(
            "{\"id\": 7.0, \"text\": \"\\u00e9\\ud83d\\ude00 ada@example.com, \u{e9} bob@example.com\"}\n\n{\"text\":\"nothing\",\"id\":\"x\",\"more\":1}",
        );
        assert_eq!(done, Ok(()));
        assert_eq!(
            out,
            "{\"id\":7.0,\"findings\":[{\"entity\":\"EMAIL_ADDRESS\",\"start\":3,\"end\":18},{\"entity\":\"EMAIL_ADDRESS\",\"start\":22,\"end\":37}]}\n\
             {\"id\":\"x\",\"findings\":[]}\n"
        );
    }

    #[test]
    fn many_lines_stay_in_order() {
        let text: String = (0..60_000)
            .map(|n| format!("{{\"id\":{n},\"text\":\"{}\"}}\n", "word ".repeat(20)))
            .collect();
        let (out, done) = run(&text);
        assert_eq!(done, Ok(()));
        let ids = out.lines().map(|line| {
            line.split([':', ','])
                .nth(1)
                .unwrap()
                .parse::<usize>()
                .unwrap()
        });
        assert!(ids.eq(0..60_000));
    }

    #[test]
    fn a_faulty_line_is_named_and_not_shown() {
        let (out, done) = run("{\"id\":1,\"text\":\"a\"}\n{\"id\":2,\"text\":\"536-22-8714\"\n");
        assert_eq!(out.lines().count(), 1);
        let fault = done.unwrap_err();
        assert!(
            fault.starts_with("line 2, ") && !fault.contains("536"),
            "{fault}"
        );
        assert!(run("{\"id\":1,\"text\":7}").1.is_err());
        let catalog = Catalog::builtin().unwrap();
        let scanner = catalog.scanner(catalog.entities()).unwrap();
        let mut out = Vec::new();
        let mut torn = &b"{\"id\":1,\"text\":\"a\"}\n\xff\n"[..];
        let fault = lines(&scanner, &mut torn, &mut out).unwrap_err();
        assert_eq!(fault.to_string(), "line 2: not UTF-8");
        assert_eq!(out, b"{\"id\":1,\"findings\":[]}\n");
        assert!(run("{\"text\":\"a\"}").1.is_err());
    }
}
