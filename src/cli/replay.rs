//! `countersign replay`: one session as it went.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{
    index::IndexedDir,
    terminal::{Paint, is_closed_pipe, lines, one_line},
};
use crate::{
    audit::{
        chain::Position,
        record::{Closed, Decision, Endpoint, Entry, Erased, Event, Identity, RequestRecord},
        replay::{Piece, Prompt, Timeline},
    },
    index::{Index, Session},
};

/// Show a session again: the prompt as recorded, what was decided, and the answer at its original pace.
///
/// Every record is checked against the log's hashes first; what does not verify is not shown. Exit code 0: shown; 1: it does not
/// verify; 2: it is not there or cannot be read; 130: interrupted.
///
/// Who may read the directory may look without a trace: this command is not recorded. Looking is recorded only when it is done
/// through the gateway.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  countersign replay 0192f3a1-… --dir /var/lib/countersign --speed 10"
)]
pub struct ReplayArgs {
    /// The session's id, as in the header `countersign-session`.
    session: String,
    #[command(flatten)]
    at: IndexedDir,
    /// How fast the answer comes: 1 as it was, 10 ten times as fast, 0 at once. Default: 1 on a terminal, else 0.
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
    /// Print a JSON object a line: the session, its beginning, each piece of the answer, its end.
    #[arg(long)]
    json: bool,
    /// Show it even where it does not verify.
    #[arg(long)]
    unverified: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed >= 0.0 && speed.is_finite() => Ok(speed),
        _ => Err("a speed is a number from 0".to_owned()),
    }
}

/// Runs the subcommand.
///
/// # Errors
/// Where the session is not there, or the log or the output fails.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let index = args.at.open(false)?;
    let found = index.session(&args.session)?;
    let unsound = !index.faults().is_empty();
    let session = match found {
        Some(session) if session.verified || args.unverified => session,
        // It may stand where nothing can be read.
        None if !unsound => {
            bail!(
                "session `{}` is not in `{}`",
                args.session,
                args.at.dir.display()
            )
        }
        found => {
            for fault in index.faults() {
                eprintln!("countersign replay: {fault}");
            }
            let what = match found {
                Some(_) => "does not verify and is not shown; --unverified shows what can be read",
                None => "is not in what can be read of the log, which does not verify",
            };
            eprintln!("countersign replay: session `{}` {what}", args.session);
            return Ok(ExitCode::FAILURE);
        }
    };
    let on_terminal = io::stdout().is_terminal() && !args.json;
    let player = Player {
        index: &index,
        session: &session,
        name: &args.session,
        unverified: args.unverified,
        speed: args.speed.unwrap_or(if on_terminal { 1.0 } else { 0.0 }),
        stage: Stage::new(args.json),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let played = runtime.block_on(async {
        tokio::select! {
            played = player.play() => played,
            _ = tokio::signal::ctrl_c() => Ok(Played::Interrupted),
        }
    });
    match played {
        Ok(Played::Whole) => Ok(ExitCode::SUCCESS),
        Ok(Played::Changed(what)) => {
            eprintln!(
                "countersign replay: {what}; run `countersign verify --dir {}`",
                args.at.dir.display()
            );
            Ok(ExitCode::FAILURE)
        }
        Ok(Played::Interrupted) => {
            // A line that was begun ends, and so does its colour.
            println!("{}", if on_terminal { "\u{1b}[0m" } else { "" });
            Ok(ExitCode::from(130))
        }
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

enum Played {
    Whole,
    /// A record is not as it was verified.
    Changed(String),
    Interrupted,
}

struct Player<'a> {
    index: &'a Index,
    session: &'a Session,
    name: &'a str,
    unverified: bool,
    speed: f64,
    stage: Stage,
}

/// The first record, until all of its prompt was read.
struct Beginning {
    time: String,
    entry: Entry,
    prompt: Prompt,
}

impl Player<'_> {
    async fn play(mut self) -> anyhow::Result<Played> {
        self.stage.session(self.name, self.session)?;
        let (mut timeline, mut beginning, mut clock) = (Timeline::default(), None, 0);
        for at in &self.session.records {
            let Some(bytes) = self.index.read(at)? else {
                let what = format!(
                    "record {} of chain {} is not as it was indexed",
                    at.seq, at.chain
                );
                if !self.unverified {
                    return Ok(Played::Changed(what));
                }
                eprintln!("countersign replay: {what}");
                continue;
            };
            let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else {
                eprintln!(
                    "record {} of chain {} is of no kind this program knows",
                    at.seq, at.chain
                );
                continue;
            };
            let time = Position::read(&bytes).map_or("", |position| position.time);
            match &entry.event {
                Event::Opened(_) | Event::Refused(_) => {
                    let mut prompt = Prompt::default();
                    if let Some(first) = First::of(&entry.event) {
                        prompt.begin(first.request);
                    }
                    let time = time.to_owned();
                    beginning = Some(Beginning {
                        time,
                        entry,
                        prompt,
                    });
                }
                Event::Delivered(delivered) if delivered.of_request => {
                    if let Some(beginning) = &mut beginning {
                        beginning.prompt.go_on(delivered);
                    }
                }
                Event::Delivered(delivered) => {
                    self.begin(&mut beginning)?;
                    for piece in timeline.pieces(delivered) {
                        self.wait(piece.at_ms, &mut clock).await;
                        self.stage.piece(&piece)?;
                    }
                }
                Event::Closed(closed) => {
                    self.begin(&mut beginning)?;
                    self.wait(closed.duration_ms, &mut clock).await;
                    self.stage.closed(closed)?;
                }
                Event::Erased(erased) => {
                    self.begin(&mut beginning)?;
                    self.stage.erased(time, erased)?;
                }
                _ => {}
            }
        }
        self.begin(&mut beginning)?;
        self.stage.end()?;
        Ok(Played::Whole)
    }

    fn begin(&mut self, beginning: &mut Option<Beginning>) -> io::Result<()> {
        match beginning.take() {
            Some(beginning) => self.stage.begin(&beginning),
            None => Ok(()),
        }
    }

    /// Waits from `clock` until `at_ms`, at the speed asked for.
    async fn wait(&mut self, at_ms: u32, clock: &mut u32) {
        let pause = at_ms.saturating_sub(*clock);
        *clock = (*clock).max(at_ms);
        if self.speed > 0.0 && pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause.into()).div_f64(self.speed)).await;
        }
    }
}

/// What `opened` and `refused` have in common.
struct First<'a> {
    kind: &'static str,
    identity: &'a Identity,
    endpoint: &'a Endpoint,
    request: &'a RequestRecord,
    decision: &'a Decision,
    lent: &'a str,
    status: u32,
}

impl<'a> First<'a> {
    fn of(event: &'a Event) -> Option<Self> {
        Some(match event {
            Event::Opened(opened) => Self {
                kind: "opened",
                identity: &opened.identity,
                endpoint: &opened.endpoint,
                request: &opened.request,
                decision: &opened.decision,
                lent: &opened.lent,
                status: 0,
            },
            Event::Refused(refused) => Self {
                kind: "refused",
                identity: &refused.identity,
                endpoint: &refused.endpoint,
                request: &refused.request,
                decision: &refused.decision,
                lent: "",
                status: refused.status,
            },
            _ => return None,
        })
    }
}

/// Where it is shown.
struct Stage {
    json: bool,
    paint: Paint,
    /// The channel whose text is being shown.
    channel: Option<String>,
}

impl Stage {
    fn new(json: bool) -> Self {
        Self {
            json,
            paint: Paint::of_stdout(),
            channel: None,
        }
    }

    /// Written out at once: a piece is to be seen when it comes.
    fn say(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn object(&self, value: &serde_json::Value) -> io::Result<()> {
        self.say(&format!("{value}\n"))
    }

    fn session(&self, name: &str, session: &Session) -> io::Result<()> {
        if self.json {
            let place =
                |at: &crate::index::Located| json!({"chain": at.chain.to_string(), "seq": at.seq});
            let records: Vec<_> = session.records.iter().map(place).collect();
            return self.object(&json!({
                "kind": "session", "session": name, "verified": session.verified, "records": records,
            }));
        }
        let state = match session.verified {
            true => self.paint.good("verified"),
            false => self.paint.bad("NOT VERIFIED"),
        };
        self.say(&format!(
            "{} {}, {} records, {state}\n",
            self.paint.dim("session"),
            self.paint.bold(&one_line(name)),
            session.records.len()
        ))
    }

    fn begin(&self, beginning: &Beginning) -> io::Result<()> {
        let Some(first) = First::of(&beginning.entry.event) else {
            return Ok(());
        };
        let (body, cut) = beginning.prompt.body();
        if self.json {
            let mut request = json!(first.request);
            request["body"] = body.into();
            return self.object(&json!({
                "kind": first.kind, "time": beginning.time, "identity": first.identity, "endpoint": first.endpoint,
                "request": request, "prompt_cut": cut, "decision": first.decision, "lent": first.lent, "status": first.status,
            }));
        }
        let Identity {
            subject,
            issuer,
            groups,
            ..
        } = first.identity;
        let Endpoint {
            connection,
            method,
            path,
            ..
        } = first.endpoint;
        let dim = |text: &str| self.paint.dim(text);
        let mut text = format!("{}  {}\n", dim("at"), one_line(&beginning.time));
        text += &format!(
            "{}  {} ({})",
            dim("by"),
            one_line(subject),
            one_line(issuer)
        );
        if !groups.is_empty() {
            text += &format!(" of {}", one_line(&groups.join(", ")));
        }
        text += &format!(
            "\n{}  {} {} {}, model {}\n",
            dim("to"),
            one_line(connection),
            one_line(method),
            one_line(path),
            one_line(&first.request.model)
        );
        text += &format!(
            "\n{} ({}, {} bytes as received)\n",
            self.paint.bold("prompt"),
            first.request.payload,
            first.request.bytes
        );
        for (at, value) in beginning.prompt.values() {
            let value = lines(&value).replace('\n', "\n    ");
            match at.as_str() {
                "" => text += &format!("  {value}\n"),
                at => text += &format!("  {} {value}\n", dim(&format!("{}:", one_line(at)))),
            }
        }
        if let Some(sealed) = &first.request.sealed {
            let keys = one_line(&sealed.keys.join(", "));
            text += &format!(
                "  sealed to {keys}: `countersign unseal` reads it with one of these keys\n"
            );
        }
        if cut {
            text += "  (and more: only the beginning is shown)\n";
        }
        text += &self.decision(&first);
        self.say(&text)
    }

    fn decision(&self, first: &First<'_>) -> String {
        let Decision {
            verdict,
            policies,
            policy_digest,
            code,
            reason,
            exempt_from,
            faults,
            approval,
            grant_use,
        } = first.decision;
        let verdict = match verdict.as_str() {
            "allow" => self.paint.good("allow"),
            other => self.paint.bad(&one_line(other)),
        };
        let mut text = format!("\n{} {verdict}", self.paint.bold("decision"));
        if !policies.is_empty() {
            text += &format!(" by {}", one_line(&policies.join(", ")));
        }
        text += &format!("\n  configuration {}\n", one_line(policy_digest));
        if first.kind == "refused" {
            text += &format!(
                "  refused with {} {}: {}\n",
                first.status,
                one_line(code),
                one_line(reason)
            );
        }
        for (entity, n) in &first.request.findings {
            let how = first.request.masked.get(entity);
            let how = how.map_or("not masked upstream".to_owned(), |by| {
                format!("masked by {by}")
            });
            text += &format!(
                "  found {} {n} times, {}\n",
                one_line(entity),
                one_line(&how)
            );
        }
        if !exempt_from.is_empty() {
            text += &format!("  exempt from {}\n", one_line(&exempt_from.join(", ")));
        }
        for fault in faults {
            text += &format!("  {}\n", one_line(fault));
        }
        if !first.lent.is_empty() {
            text += &format!("  credential {}\n", one_line(first.lent));
        }
        if let Some(grant) = &first.identity.grant {
            let which = match (grant_use, grant.max_uses) {
                (0, _) => String::new(),
                (n, of) => format!(", use {n} of {of}"),
            };
            text += &format!("  grant {}{which}\n", one_line(&grant.id));
        }
        if let Some(approval) = approval {
            text += &format!(
                "  approval {} {}\n",
                one_line(&approval.id),
                one_line(&approval.state)
            );
            for vote in &approval.votes {
                let (who, at) = (one_line(&vote.subject), one_line(&vote.issuer));
                let (given, time) = (one_line(&vote.given), one_line(&vote.time));
                text += &format!(
                    "    {given} by {who} at {at}, {time}: {}\n",
                    one_line(&vote.reason)
                );
            }
        }
        text
    }

    fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        if self.json {
            return self.object(&json!({
                "kind": "piece", "at_ms": piece.at_ms, "channel": piece.channel, "text": piece.text,
            }));
        }
        let mut text = String::new();
        if self.channel.as_ref() != Some(&piece.channel) {
            text += &format!(
                "{}\n{} ({}, after {} ms)\n",
                if self.channel.is_some() { "\n" } else { "" },
                self.paint.bold("answer"),
                one_line(&piece.channel),
                piece.at_ms
            );
            self.channel = Some(piece.channel.clone());
        }
        text += &lines(&piece.text);
        self.say(&text)
    }

    fn closed(&mut self, closed: &Closed) -> io::Result<()> {
        if self.json {
            return self.object(&json!({"kind": "closed", "closed": closed}));
        }
        let outcome = match closed.outcome.as_str() {
            "completed" => self.paint.good("completed"),
            other => self.paint.bad(&one_line(other)),
        };
        let mut text = self.end_of_text();
        text += &format!(
            "\n{} {outcome} {} after {} ms, {} bytes from model {}\n",
            self.paint.bold("closed"),
            closed.status,
            closed.duration_ms,
            closed.bytes,
            one_line(&closed.model)
        );
        if !closed.code.is_empty() {
            text += &format!(
                "  {}: {}\n",
                one_line(&closed.code),
                one_line(&closed.reason)
            );
        }
        for (entity, n) in &closed.findings {
            text += &format!("  found {} {n} times\n", one_line(entity));
        }
        if !closed.transaction_sha256.is_empty() {
            text += &format!("  transaction {}\n", one_line(&closed.transaction_sha256));
        }
        self.say(&text)
    }

    fn erased(&mut self, time: &str, erased: &Erased) -> io::Result<()> {
        if self.json {
            return self.object(&json!({"kind": "erased", "time": time, "erased": erased}));
        }
        let mut text = self.end_of_text();
        text += &format!(
            "\n{} what was sealed, at {}, asked for by {}\n  {}\n",
            self.paint.bad("erased"),
            one_line(time),
            one_line(&erased.asked_by),
            one_line(&erased.reason)
        );
        self.say(&text)
    }

    fn end(&mut self) -> io::Result<()> {
        let text = self.end_of_text();
        self.say(&text)
    }

    fn end_of_text(&mut self) -> String {
        match self.channel.take() {
            Some(_) => "\n".to_owned(),
            None => String::new(),
        }
    }
}
