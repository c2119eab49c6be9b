//! `countersign token`: a grant, from a shell.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use reqwest::header;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::{
    approvals::{gateway, token},
    terminal::one_line,
};
use crate::{
    grant::{GRANT_TYPES, TOKEN_TYPE},
    runtime::clock::Clock,
};

/// Longest that an approval is waited for: as long as one can be pending.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Get a grant: a short token for so many calls of so much, from the gateway's token endpoint.
///
/// Who you are is said by the token in --token-file, else in COUNTERSIGN_TOKEN, else by `countersign approvals login`; it is sent over
/// https, or to this machine. Where somebody must approve the grant, this waits until they have.
///
/// The grant is printed; or, with a command behind `--`, that command is run in this program's place with the grant in OPENAI_API_KEY
/// (or the variables that --env names), so that it stands in no file, no history and no list of processes.
///
/// Exit code 0: done. 1: the gateway refused. 2: it could not be carried out. 3: sign in (again). With a command: that command's.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  countersign token --connection openai --max-uses 1\n  \
                  countersign token --connection openai --expires-in 10m -- python report.py\n  \
                  countersign token --connection claude --env ANTHROPIC_API_KEY -- ./agent\n  \
                  countersign token --connection openai --json | jq .expires_in"
)]
pub struct TokenArgs {
    /// The gateway's address.
    #[arg(
        long,
        value_name = "URL",
        env = "COUNTERSIGN_URL",
        default_value = "http://127.0.0.1:8480"
    )]
    url: Url,
    /// A file with the token that says who you are.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// The connection it is for.
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// A model it is for, `*` standing for any text; may be given several times. All that the gateway's rule gives where none is.
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// An endpoint it is for, as `chat_completions`; may be given several times. All that the gateway's rule gives where none is.
    #[arg(long = "method", value_name = "ENDPOINT")]
    methods: Vec<String>,
    /// How often it can be used.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_uses: Option<u32>,
    /// How long it lasts, as 90s, 10m or 1h.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    expires_in: Option<u32>,
    /// Why; for whoever must approve it, and on record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do not wait for an approval: say that one is needed, and end with 1.
    #[arg(long)]
    no_wait: bool,
    /// Print the token endpoint's answer as JSON.
    #[arg(long, conflicts_with = "command")]
    json: bool,
    /// The variable that a command finds the grant in; may be given several times.
    #[arg(long, value_name = "NAME", requires = "command", default_values_t = ["OPENAI_API_KEY".to_owned()])]
    env: Vec<String>,
    /// The command to run with it.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn seconds(text: &str) -> Result<u32, String> {
    let time = crate::config::duration(text)?;
    match u32::try_from(time.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("at least a second".to_owned()),
    }
}

/// What the endpoint says where it makes no grant.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    approval: String,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// Runs the subcommand.
///
/// # Errors
/// Where it could not be carried out.
pub fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let Some(mine) = token::find(args.token_file.as_deref(), &args.url)? else {
        eprintln!(
            "countersign token: there is no token that says who you are (sign in with `countersign approvals login`, or give one)"
        );
        return Ok(ExitCode::from(3));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = match runtime.block_on(ask(args, &mine))? {
        Ok(answer) => answer,
        Err(refusal) => {
            let Refusal {
                error_description,
                code,
                ..
            } = refusal;
            eprintln!(
                "countersign token: {} ({})",
                one_line(&error_description),
                one_line(&code)
            );
            return Ok(ExitCode::from(match refusal.error.as_str() {
                "invalid_grant" => 3,
                _ => 1,
            }));
        }
    };
    if args.json {
        let answer: Value = serde_json::from_slice(&answer)?;
        return print(&format!("{answer:#}"));
    }
    let granted: Granted = serde_json::from_slice(&answer)
        .map_err(|_| anyhow::anyhow!("the gateway's answer has no token in it"))?;
    let granted = SecretString::from(granted.access_token);
    match args.command.split_first() {
        None => print(granted.expose_secret()),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            // It gets the grant in place of who runs it, not beside.
            command.env_remove("COUNTERSIGN_TOKEN");
            for name in &args.env {
                command.env(name, granted.expose_secret());
            }
            // Comes back only where it could not be run.
            let error = command.exec();
            Err(error).with_context(|| format!("cannot run `{program}`"))
        }
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// The endpoint's answer, once there is a grant in it or a refusal that stands.
async fn ask(args: &TokenArgs, mine: &SecretString) -> anyhow::Result<Result<Vec<u8>, Refusal>> {
    let client = gateway::client(&args.url)?;
    let endpoint = args.url.join("/oauth2/token")?;
    let details = json!([{
        "type": "inference", "connection": args.connection, "models": args.models, "methods": args.methods,
        "max_uses": args.max_uses, "expires_in": args.expires_in, "reason": args.reason,
    }]);
    let form: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", GRANT_TYPES[0])
        .append_pair("subject_token", mine.expose_secret())
        .append_pair("subject_token_type", TOKEN_TYPE)
        .append_pair("authorization_details", &details.to_string())
        .finish();
    let clock = Clock::system();
    let until = clock.monotonic() + LONGEST;
    let mut told = String::new();
    loop {
        let request = client
            .post(endpoint.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.clone());
        let (status, body) = gateway::answer(request)
            .await
            .with_context(|| format!("the gateway at {} does not answer", args.url))?;
        if status == 200 {
            return Ok(Ok(body));
        }
        let Ok(refusal) = serde_json::from_slice::<Refusal>(&body) else {
            match status {
                404 => bail!("the gateway at {} makes no grants", args.url),
                _ => bail!("the gateway answered {status}, and not as a token endpoint does"),
            }
        };
        if refusal.error != "authorization_pending" || args.no_wait {
            return Ok(Err(refusal));
        }
        if !told.is_empty() && told != refusal.approval {
            // The same request asks anew where nobody said yes in time: that is for its user to do.
            let error_description = "nobody approved it in time".to_owned();
            return Ok(Err(Refusal {
                error_description,
                code: "approval_expired".to_owned(),
                ..refusal
            }));
        }
        if told.is_empty() {
            eprintln!(
                "waiting for somebody to approve it: `countersign approvals show {}` (Ctrl-C to stop)",
                one_line(&refusal.approval)
            );
            told.clone_from(&refusal.approval);
        }
        let next =
            clock.monotonic() + Duration::from_secs(refusal.interval.unwrap_or(5).clamp(1, 60));
        if next > until {
            return Ok(Err(refusal));
        }
        clock.sleep_until(next).await;
    }
}
