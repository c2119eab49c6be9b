//! `countersign sessions`: who asked what of which model, and what became of it.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use jiff::{Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};

use super::{
    index::IndexedDir,
    terminal::{Paint, is_closed_pipe, one_line},
};
use crate::{
    index::{Filter, Row},
    runtime::clock::Clock,
};

/// Find sessions in the audit log, newest first.
///
/// All conditions must hold; one that is given several times holds where any of its values does. A `*` at a value's end stands for
/// anything.
///
/// What the log's own hashes and checkpoints do not vouch for is not shown: exit code 1 says so. Exit code 0: all of the log
/// verifies; 2: it cannot be read. Checkpoints kept outside are for `countersign verify`.
///
/// Who may read the directory may look without a trace: this command is not recorded. Looking is recorded only when it is done
/// through the gateway.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  countersign sessions --dir /var/lib/countersign --principal alice --since 7d\n  \
                  countersign sessions --dir /var/lib/countersign --verdict deny --json | jq .code\n  \
                  countersign sessions --dir /var/lib/countersign --entity US_SSN --text '\"credit limit\" raise*'"
)]
pub struct SessionsArgs {
    #[command(flatten)]
    at: IndexedDir,
    /// The caller (`sub`).
    #[arg(long, value_name = "SUBJECT")]
    principal: Vec<String>,
    /// A group of the caller.
    #[arg(long)]
    group: Vec<String>,
    /// The connection.
    #[arg(long)]
    connection: Vec<String>,
    /// The model asked for, or the one that answered.
    #[arg(long)]
    model: Vec<String>,
    /// What policy decided.
    #[arg(long, value_enum)]
    verdict: Vec<Verdict>,
    /// How it ended: an outcome such as `completed`, or a code such as `policy_denied`.
    #[arg(long)]
    outcome: Vec<String>,
    /// An entity that was found in the prompt or the answer.
    #[arg(long)]
    entity: Vec<String>,
    /// Not before this: RFC 3339, a date (UTC), or how long ago, such as `90m` or `7d`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Before this.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Words that all stand in the recorded prompt or answer; side by side in double quotes; beginnings with `*`. Only the first
    /// 4 MiB of a prompt and of an answer are looked at.
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// At most so many, the newest.
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    limit: u32,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    /// Show what does not verify too, marked.
    #[arg(long)]
    unverified: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    Allow,
    Deny,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the log cannot be read, the index not be written or the output not be written.
pub fn run(args: &SessionsArgs) -> anyhow::Result<ExitCode> {
    let index = args.at.open(false)?;
    let mut out = Out {
        to: BufWriter::new(io::stdout().lock()),
        json: args.json,
        paint: Paint::of_stdout(),
        shown: 0,
    };
    let (mut withheld, mut failed) = (0, None);
    index.find(&args.filter(), |row| {
        if !row.verified && !args.unverified {
            withheld += 1;
            return true;
        }
        failed = out.print(&row).err();
        failed.is_none()
    })?;
    let done = match failed {
        Some(error) => Err(error.into()),
        None => Ok(out.to.flush()?),
    };
    match done {
        Err(error) if is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS),
        done => done.context("cannot write")?,
    }
    if out.shown + withheld == 0 {
        eprintln!("no session is like that");
    } else if out.shown + withheld == args.limit {
        eprintln!(
            "the newest {} are looked at; --limit takes more",
            args.limit
        );
    }
    for fault in index.faults() {
        eprintln!("countersign sessions: {fault}");
    }
    let refused = !index.faults().is_empty() && !args.unverified;
    if refused {
        eprintln!(
            "countersign sessions: not all of the log verifies; {withheld} sessions are not shown for it, --unverified shows what can be read"
        );
    }
    Ok(ExitCode::from(u8::from(refused)))
}

impl SessionsArgs {
    fn filter(&self) -> Filter {
        let time = |time: &Timestamp| format!("{time:.9}");
        let verdict = |verdict: &Verdict| match verdict {
            Verdict::Allow => "allow".to_owned(),
            Verdict::Deny => "deny".to_owned(),
        };
        Filter {
            principal: self.principal.clone(),
            group: self.group.clone(),
            connection: self.connection.clone(),
            model: self.model.clone(),
            verdict: self.verdict.iter().map(verdict).collect(),
            outcome: self.outcome.clone(),
            entity: self.entity.clone(),
            since: self.since.as_ref().map(time),
            until: self.until.as_ref().map(time),
            text: self.text.clone(),
            limit: self.limit,
        }
    }
}

/// A time as a person says it.
fn time(text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Ok(date) = text.parse::<Date>() {
        return Ok(date.to_zoned(TimeZone::UTC)?.timestamp());
    }
    let Ok(span) = text.parse::<Span>() else {
        bail!("not a time: write RFC 3339, a date or how long ago, such as `2026-11-22` or `7d`");
    };
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours())?.abs();
    Ok(Clock::system().now().checked_sub(ago)?)
}

struct Out<W> {
    to: W,
    json: bool,
    paint: Paint,
    shown: u32,
}

/// Widths of the columns between the session and the entities, in characters.
const WIDTHS: [usize; 4] = [20, 16, 24, 24];

impl<W: Write> Out<W> {
    fn print(&mut self, row: &Row) -> io::Result<()> {
        self.shown += 1;
        if self.json {
            serde_json::to_writer(&mut self.to, row)?;
            return writeln!(self.to);
        }
        if self.shown == 1 {
            let [principal, connection, model, end] = [
                ("principal", 0),
                ("connection", 1),
                ("model", 2),
                ("decision", 3),
            ]
            .map(|(name, column)| cell(name, WIDTHS[column]));
            let head = format!(
                "{:19}  {:36}  {principal}  {connection}  {model}  {end}  found",
                "time (UTC)", "session"
            );
            writeln!(self.to, "{}", self.paint.dim(&head))?;
        }
        let time = one_line(row.time.get(..19).unwrap_or(&row.time)).replace('T', " ");
        let model = match row.model_answered.as_str() {
            "" => &row.model,
            answered => answered,
        };
        let (text, good) = decision(row);
        let text = cell(&text, WIDTHS[3]);
        let text = if good {
            self.paint.good(&text)
        } else {
            self.paint.bad(&text)
        };
        let mut found: Vec<&str> = row
            .found_in_prompt
            .keys()
            .chain(row.found_in_answer.keys())
            .map(String::as_str)
            .collect();
        found.sort_unstable();
        found.dedup();
        write!(
            self.to,
            "{time}  {:36}  {}  {}  {}  {text}  {}",
            one_line(&row.session),
            cell(&row.principal, WIDTHS[0]),
            cell(&row.connection, WIDTHS[1]),
            cell(model, WIDTHS[2]),
            one_line(&found.join(" ")),
        )?;
        if row.erased {
            write!(self.to, "  {}", self.paint.dim("erased"))?;
        }
        if !row.verified {
            write!(self.to, "  {}", self.paint.bad("NOT VERIFIED"))?;
        }
        writeln!(self.to)
    }
}

/// What was decided and what came of it, and whether that is as it should be.
fn decision(row: &Row) -> (String, bool) {
    match (row.outcome.as_str(), row.code.as_str()) {
        ("", _) => (format!("{} (open)", row.verdict), true),
        ("refused", code) => (format!("deny {code}"), false),
        (outcome, _) => (format!("{} {outcome}", row.verdict), outcome == "completed"),
    }
}

/// `text` in a column of this width.
fn cell(text: &str, width: usize) -> String {
    let text = one_line(text);
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let kept: String = text.chars().take(width - 1).collect();
    format!("{kept}\u{2026}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_three_ways() {
        let exact: Timestamp = "2026-11-22T05:27:41Z".parse().unwrap();
        assert_eq!(time("2026-11-22T05:27:41Z").unwrap(), exact);
        assert_eq!(time("2026-11-22T06:27:41+01:00").unwrap(), exact);
        assert_eq!(
            time("2026-11-22").unwrap().to_string(),
            "2026-11-22T00:00:00Z"
        );
        let now = Clock::system().now();
        for (text, seconds) in [("90m", 5_400), ("7d", 604_800), ("1 week", 604_800)] {
            let ago = now.duration_since(time(text).unwrap()).as_secs();
            assert!((seconds - 5..=seconds + 5).contains(&ago), "{text}: {ago}");
        }
        assert!(time("yesterday").is_err());
    }

    #[test]
    fn a_cell_has_its_width_and_nothing_a_terminal_obeys() {
        assert_eq!(cell("ab", 4), "ab  ");
        assert_eq!(cell("abcdef", 4), "abc\u{2026}");
        assert_eq!(cell("a\u{1b}[2J", 20).trim_end(), "a\\u{1b}[2J");
    }
}
