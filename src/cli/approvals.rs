//! `countersign approvals`: what waits for a human, and a human's answer.

pub(super) mod gateway;
mod login;
mod show;
pub(super) mod token;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum, ValueHint, builder::RangedU64ValueParser};
use serde::Serialize;
use url::Url;

use self::gateway::Gateway;
use super::terminal::{Paint, one_line};
use crate::{
    approval::{Asked, Binding, Digest, Given, Id, Party},
    http::wire::{Decide, Full, Shown, Status},
    runtime::clock::Clock,
};

/// Look at approvals and decide on them, through the gateway's API.
///
/// The token that says who you are comes from --token-file, else from COUNTERSIGN_TOKEN, else from `countersign approvals login`.
/// It is sent over https, or to this machine.
///
/// Exit code 0: done. 1: the gateway refused, or you did not confirm. 2: it could not be carried out. 3: sign in (again).
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  countersign approvals login --issuer https://login.example --client-id countersign-cli\n  \
                  countersign approvals list\n  \
                  countersign approvals approve 0197c2e4-… --reason 'known customer, one export'\n  \
                  countersign approvals list --json | jq -r .id"
)]
pub struct ApprovalsArgs {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    at: At,
}

/// Where the gateway is, and who asks.
#[derive(Args, Debug)]
struct At {
    /// The gateway's address.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "COUNTERSIGN_URL",
        default_value = "http://127.0.0.1:8480"
    )]
    url: Url,
    /// A file with the token.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List approvals, newest first; pending ones unless --state says otherwise.
    List(ListArgs),
    /// Show one approval. The gateway puts on record that you have seen it.
    Show {
        /// The approval.
        #[arg(value_parser = id)]
        id: Id,
    },
    /// Approve a request, after you have seen it. What is approved is exactly what was shown.
    Approve {
        #[command(flatten)]
        decide: DecideArgs,
        /// Why; needed with --break-glass.
        #[arg(long, default_value = "", required_if_eq("break_glass", "true"))]
        reason: String,
        /// Approve alone, where one of your groups may. It is told loudly.
        #[arg(long)]
        break_glass: bool,
    },
    /// Deny a request.
    Deny {
        #[command(flatten)]
        decide: DecideArgs,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Sign in on another device or in a browser (RFC 8628), and keep the token in the state directory, for you alone.
    Login(login::LoginArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Those in this state.
    #[arg(long, value_enum, default_value = "pending")]
    state: WhichState,
    /// Those of this connection.
    #[arg(long)]
    connection: Option<String>,
    /// Those of the caller with this subject (`sub`).
    #[arg(long, value_name = "SUBJECT")]
    caller: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    limit: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhichState {
    Any,
    Pending,
    Approved,
    Denied,
    Expired,
    Cancelled,
    Consumed,
}

#[derive(Args, Debug)]
struct DecideArgs {
    /// The approval.
    #[arg(value_parser = id)]
    id: Id,
    /// Do not ask whether it is meant.
    #[arg(long)]
    yes: bool,
}

fn id(text: &str) -> Result<Id, String> {
    Id::new(text).ok_or_else(|| "an approval's id has letters, digits and `-` only".to_owned())
}

/// Why it was not done.
#[derive(Debug)]
enum Stop {
    /// The gateway, or the user, said no.
    Refused(String),
    /// Who asks has to sign in.
    SignIn(String),
    /// It could not be carried out.
    Fault(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Runs the subcommand.
///
/// # Errors
/// Where it could not be carried out.
pub fn run(args: &ApprovalsArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (code, told) = match runtime.block_on(act(args)) {
        Ok(()) => return Ok(ExitCode::SUCCESS),
        Err(Stop::Refused(told)) => (1, told),
        Err(Stop::SignIn(told)) => (
            3,
            format!("{told} (sign in with `countersign approvals login`, or give another token)"),
        ),
        Err(Stop::Fault(error)) => return Err(error),
    };
    eprintln!("countersign approvals: {}", one_line(&told));
    Ok(ExitCode::from(code))
}

async fn act(args: &ApprovalsArgs) -> Result<(), Stop> {
    let at = &args.at;
    if let What::Login(login) = &args.what {
        return Ok(login::run(login, &at.url).await?);
    }
    let token = token::find(at.token_file.as_deref(), &at.url)?;
    let token = token.ok_or_else(|| Stop::SignIn("there is no token".to_owned()))?;
    let gateway = Gateway::new(&at.url, token)?;
    match &args.what {
        What::List(wanted) => list(&gateway, wanted, at.json).await,
        What::Show { id } => {
            match gateway.approval(id).await? {
                shown if at.json => print_json(&shown)?,
                Shown::Full(full) => {
                    checked(&full)?;
                    print(&show::full(
                        &full,
                        Paint::of_stdout(),
                        Clock::system().now(),
                    ))?;
                }
                Shown::Status(status) => print(&show::status(&status))?,
            }
            Ok(())
        }
        What::Approve {
            decide: asked,
            reason,
            break_glass,
        } => {
            let given = match break_glass {
                true => Given::BreakGlass,
                false => Given::Approve,
            };
            decide(&gateway, asked, given, reason, at.json).await
        }
        What::Deny {
            decide: asked,
            reason,
        } => decide(&gateway, asked, Given::Deny, reason, at.json).await,
        What::Login(_) => Ok(()),
    }
}

async fn list(gateway: &Gateway, wanted: &ListArgs, json: bool) -> Result<(), Stop> {
    let mut left = wanted.limit as usize;
    let mut query = vec![];
    let state = wanted.state.to_possible_value();
    if let (Some(state), false) = (&state, matches!(wanted.state, WhichState::Any)) {
        query.push(("state", state.get_name().to_owned()));
    }
    query.extend(wanted.connection.clone().map(|name| ("connection", name)));
    query.extend(wanted.caller.clone().map(|name| ("caller", name)));
    let mut cursor = None;
    let mut shown = 0;
    while left > 0 {
        let page = gateway.list(&query, left.min(1_000), cursor).await?;
        left = left.saturating_sub(page.approvals.len());
        for approval in &page.approvals {
            match json {
                true => print_json(approval)?,
                false => print(&show::listed(approval, shown == 0))?,
            }
            shown += 1;
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if shown == 0 && !json {
        eprintln!("there are none");
    } else if cursor.is_some() {
        eprintln!("there are more: --limit shows them");
    }
    Ok(())
}

async fn decide(
    gateway: &Gateway,
    asked: &DecideArgs,
    given: Given,
    reason: &str,
    json: bool,
) -> Result<(), Stop> {
    let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !asked.yes && !interactive {
        return Err(anyhow!("nobody can be asked whether it is meant: say --yes").into());
    }
    let Shown::Full(full) = gateway.approval(&asked.id).await? else {
        return Err(Stop::Refused(
            "you may see where it stands, but not decide: it is your own request".to_owned(),
        ));
    };
    let binding = checked(&full)?;
    if !asked.yes {
        // To where the question goes, so that a redirected output separates neither from the other.
        let seen = show::full(&full, Paint::of_stderr(), Clock::system().now());
        io::stderr().write_all(seen.as_bytes())?;
        if !confirmed(given, binding)? {
            return Err(Stop::Refused("nothing was decided".to_owned()));
        }
    }
    let body = Decide {
        decision: given,
        binding,
        reason: reason.to_owned(),
    };
    let status: Status = gateway.decide(&asked.id, &body).await?;
    match json {
        true => print_json(&status)?,
        false => print(&show::status(&status))?,
    }
    Ok(())
}

/// The binding of what is shown, computed here: a gateway that shows one thing and binds another is caught.
fn checked(full: &Full) -> anyhow::Result<Digest> {
    let asked = Asked {
        id: full.id.clone(),
        request: full.request,
        session: String::new(),
        caller: Party::default(),
        requirement: full.requirement.clone(),
        most_pending: 0,
        view: full.view.clone(),
    };
    let binding = Binding(&asked).digest();
    anyhow::ensure!(
        binding == full.binding,
        "what the gateway shows is not what its binding covers: decide on nothing, and tell its operator; or this program is \
         not of the gateway's version"
    );
    Ok(binding)
}

fn confirmed(given: Given, binding: Digest) -> anyhow::Result<bool> {
    let what = match given {
        Given::Approve => "approve",
        Given::BreakGlass => "approve alone, by breaking the glass,",
        Given::Deny => "deny",
    };
    eprint!("\nYou {what} exactly this, binding {binding}. Type `yes` to go on: ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("no answer could be read")?;
    Ok(line.trim() == "yes")
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    // Control characters are escaped in JSON; the others that a terminal obeys are written out too.
    let text = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match crate::runtime::notify::is_obeyed(c) {
            true => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    safe.push_str(&format!("\\u{unit:04x}"));
                }
            }
            false => safe.push(c),
        }
    }
    safe.push('\n');
    print(&safe)
}

#[cfg(test)]
mod tests;
