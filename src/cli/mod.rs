//! The command line: one file per subcommand, all work done below.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config;

pub mod approvals;
pub mod archive;
pub mod check;
pub mod detect;
pub mod erase;
pub mod index;
pub mod keygen;
pub mod lint_envoy;
pub mod mask;
pub mod proof;
pub mod replay;
pub mod republish;
mod scan;
pub mod serve;
pub mod sessions;
pub mod source;
pub mod tail;
mod terminal;
pub mod token;
pub mod unseal;
pub mod verify;

/// Govern AI inference traffic from inside Envoy: identity, policy, masking, approvals, and a record that can be verified.
#[derive(Debug, Parser)]
#[command(
    name = "countersign",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Detect(detect::DetectCommand),
    Mask(mask::MaskCommand),
    Unmask(mask::UnmaskCommand),
    Verify(verify::VerifyArgs),
    Proof(proof::ProofCommand),
    Tail(tail::TailArgs),
    Approvals(approvals::ApprovalsArgs),
    Token(token::TokenArgs),
    Archive(archive::ArchiveArgs),
    Republish(republish::RepublishArgs),
    Sessions(sessions::SessionsArgs),
    Replay(replay::ReplayArgs),
    Index(index::IndexArgs),
    Unseal(unseal::UnsealArgs),
    Erase(erase::EraseArgs),
    Keygen(keygen::KeygenArgs),
    LintEnvoy(lint_envoy::LintEnvoyArgs),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: CompletionShell,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompletionShell {
    Bash,
    Elvish,
    Fish,
    Zsh,
}

/// Runs the program on its arguments.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            let mark = if io::stderr().is_terminal() {
                "\u{1b}[31merror:\u{1b}[0m"
            } else {
                "error:"
            };
            eprintln!("{mark} {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => {
            let valid = config::with_builtins(|known| {
                check::run(&args, known, &mut io::stdout(), &mut io::stderr())
            })?;
            Ok(if valid {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Detect(args) => detect::run(&args),
        Command::Mask(args) => mask::run(&args),
        Command::Unmask(args) => mask::run_unmask(&args),
        Command::Verify(args) => verify::run(args),
        Command::Proof(args) => proof::run(&args),
        Command::Tail(args) => tail::run(args),
        Command::Approvals(args) => approvals::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Archive(args) => archive::run(&args),
        Command::Republish(args) => republish::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Index(args) => index::run(&args),
        Command::Unseal(args) => unseal::run(&args),
        Command::Erase(args) => erase::run(&args),
        Command::Keygen(args) => keygen::run(args),
        Command::LintEnvoy(args) => lint_envoy::run(&args),
        Command::Schema => {
            writeln!(io::stdout(), "{:#}", config::json_schema())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let shell = match shell {
                CompletionShell::Bash => Shell::Bash,
                CompletionShell::Elvish => Shell::Elvish,
                CompletionShell::Fish => Shell::Fish,
                CompletionShell::Zsh => Shell::Zsh,
            };
            clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_put_together_right() {
        Cli::command().debug_assert();
    }
}
