//! `countersign tail`: the records as they come, without checking them.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{
    source::{Source, SourceArgs},
    terminal::{is_closed_pipe, one_line},
};
use crate::{
    audit::{
        chain::Position,
        record::{Entry, Event},
    },
    kafka::{KafkaOptions, reader::TopicReader},
    store::{
        layout,
        reader::{ChainReader, Step},
    },
};

/// Prints the records of the audit log, oldest first. It does not verify them.
#[derive(Args, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Go on with records as they are written.
    #[arg(long, short)]
    follow: bool,
    /// How to print a record.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How to print a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for a person.
    Text,
    /// The record as stored, one a line.
    Json,
}

/// How often a directory is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// Runs the subcommand, with `--follow` until it is interrupted or nobody reads any more.
///
/// # Errors
/// Where the log cannot be read or the output not be written.
pub fn run(args: TailArgs) -> anyhow::Result<ExitCode> {
    let mut out = Out {
        to: BufWriter::new(io::stdout().lock()),
        format: args.format,
    };
    let done = match args.source.source()? {
        Source::Dir(dir) => tail_dir(&dir, args.follow, &mut out),
        Source::Topic(options) => tail_topic(&options, args.follow, &mut out),
    };
    match done.and_then(|()| Ok(out.to.flush()?)) {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

struct Out<W> {
    to: W,
    format: Format,
}

fn tail_dir(dir: &Path, follow: bool, out: &mut Out<impl Write>) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let chains =
            layout::chains(dir).with_context(|| format!("`{}` cannot be read", dir.display()))?;
        let newer: Vec<_> = chains
            .into_iter()
            .filter(|chain| chain.ordinal > after)
            .collect();
        let last = newer.last().map_or(after, |chain| chain.ordinal);
        for chain in newer {
            after = chain.ordinal;
            let mut reader = if follow {
                ChainReader::new(chain)
            } else {
                ChainReader::until_now(chain)?
            };
            loop {
                match reader.step()? {
                    Step::Record(stored) => out.print(&stored.bytes)?,
                    Step::End(_) if follow && after == last && !has_newer(dir, after)? => {
                        out.to.flush()?;
                        pause();
                    }
                    Step::End(_) => break,
                    Step::Damaged(damage) => {
                        out.to.flush()?;
                        eprintln!("countersign tail: {damage}");
                        break;
                    }
                }
            }
        }
        if !follow {
            return Ok(());
        }
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file system that tells of changes is not everywhere, and nobody waits for this thread"
)]
fn pause() {
    thread::sleep(POLL);
}

fn has_newer(dir: &Path, ordinal: u64) -> io::Result<bool> {
    Ok(layout::chains(dir)?
        .iter()
        .any(|chain| chain.ordinal > ordinal))
}

fn tail_topic(
    options: &KafkaOptions,
    follow: bool,
    out: &mut Out<impl Write>,
) -> anyhow::Result<()> {
    let mut reader = TopicReader::open(options, &options.topic)?;
    while let Some(message) = reader.next_until_end()? {
        out.print(&message.bytes)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        out.to.flush()?;
        if let Some(message) = reader.next_within(POLL)? {
            out.print(&message.bytes)?;
        }
    }
}

impl<W: Write> Out<W> {
    fn print(&mut self, record: &[u8]) -> io::Result<()> {
        match self.format {
            Format::Json => {
                self.to.write_all(record)?;
                self.to.write_all(b"\n")
            }
            Format::Text => writeln!(self.to, "{}", line(record)),
        }
    }
}

/// A record in one line. What callers wrote is escaped: a terminal must not obey it.
fn line(record: &[u8]) -> String {
    let (Some(position), Ok(entry)) = (
        Position::read(record),
        serde_json::from_slice::<Entry>(record),
    ) else {
        return format!("(not a record: {} bytes)", record.len());
    };
    let chain = position.chain.to_string();
    let what = describe(&entry.event);
    let session = if entry.session.is_empty() {
        "-"
    } else {
        entry.session.as_str()
    };
    let text = format!(
        "{} {}/{} {session} {what}",
        position.time,
        &chain[..8],
        position.seq
    );
    one_line(&text)
}

fn describe(event: &Event) -> String {
    match event {
        Event::Genesis(genesis) => format!(
            "genesis of {}/{}, build {}",
            genesis.deployment, genesis.replica, genesis.build
        ),
        Event::Opened(opened) => format!(
            "opened {} {} {} by {} ({})",
            opened.endpoint.connection,
            opened.endpoint.endpoint,
            opened.request.model,
            opened.identity.subject,
            opened.decision.policies.join(", ")
        ),
        Event::Delivered(delivered) => {
            format!(
                "delivered part {}, {} bytes",
                delivered.part,
                delivered
                    .timing
                    .iter()
                    .map(|at| u64::from(at.bytes))
                    .sum::<u64>()
            )
        }
        Event::Closed(closed) => format!(
            "closed {} {} after {} ms",
            closed.outcome, closed.status, closed.duration_ms
        ),
        Event::Refused(refused) => format!(
            "refused {} {} to {}: {}",
            refused.status,
            refused.decision.code,
            refused.identity.subject,
            refused.endpoint.connection
        ),
        Event::Unauthenticated(counted) => {
            format!(
                "unauthenticated: {} refused",
                counted
                    .by_code
                    .values()
                    .map(|count| u64::from(*count))
                    .sum::<u64>()
            )
        }
        Event::Config(config) => {
            format!(
                "config {} {}",
                if config.accepted {
                    "loaded"
                } else {
                    "rejected"
                },
                config.digest
            )
        }
        Event::Erased(erased) => {
            format!(
                "erased what was sealed, asked by {}: {}",
                erased.asked_by, erased.reason
            )
        }
        Event::Shutdown(shutdown) => format!("shutdown, {} sessions cut", shutdown.cut_sessions),
        Event::Pruned(pruned) => format!(
            "pruned chain {} up to record {} ({})",
            pruned.chain, pruned.records, pruned.rule
        ),
        Event::Discarded(gone) => format!(
            "discarded what was sealed until {}, files {} to {} ({})",
            gone.until, gone.first, gone.last, gone.rule
        ),
        Event::Rotated(rotated) => format!("rotated to key {}", rotated.key),
        Event::Approval(event) => {
            let by = match event.subject.as_str() {
                "" => String::new(),
                subject => format!(" by {subject} at {}", event.issuer),
            };
            let code = match event.code.as_str() {
                "" => String::new(),
                code => format!(" ({code})"),
            };
            format!("approval {} {}{by}{code}", event.approval.id, event.action)
        }
        Event::Grant(event) => {
            let whose = event.identity.as_ref().map_or(String::new(), |holder| {
                format!(" of {} at {}", holder.subject, holder.issuer)
            });
            let code = match event.code.as_str() {
                "" => String::new(),
                code => format!(" ({code})"),
            };
            format!("grant {} {}{whose}{code}", event.id, event.action)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        chain::{ChainId, Head, Stamp, place},
        record::Opened,
    };

    #[test]
    fn a_record_is_one_line_and_what_a_caller_wrote_cannot_drive_the_terminal() {
        let mut opened = Opened::default();
        opened.identity.subject = "eve\x1b[2J\n\u{9b}\u{202e}admin".into();
        let entry = Entry {
            session: "s-1".into(),
            event: Event::Opened(Box::new(opened)),
        };
        let stamp = Stamp {
            time: "2026-11-22T00:00:00Z".parse().unwrap(),
            monotonic_ns: 1,
            replica: "a",
        };
        let record = place(
            &Head::empty(ChainId([1; 16])),
            &stamp,
            &serde_json::to_vec(&entry).unwrap(),
        );
        let line = line(&record);
        assert!(
            line.starts_with("2026-11-22T00:00:00.000000000Z 01010101/0 s-1 opened"),
            "{line}"
        );
        assert!(
            line.contains("eve\\u{1b}[2J\\n\\u{9b}\\u{202e}admin"),
            "{line}"
        );
        assert!(!line.contains(|c: char| c.is_control()));
    }
}
