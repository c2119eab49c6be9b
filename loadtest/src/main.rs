//! The parts of the load test that must cost little themselves: the yardstick, the model server and the callers.
//!
//! ```text
//! loadtest noop SOCKET              an ext_proc service that lets everything through unchanged
//! loadtest upstream                 a model server that answers at once
//! loadtest drive ADDRESS FILE ...   callers, each with one request at a time; prints what they saw as JSON
//! ```
//!
//! Each runs on one thread. `load.py` starts them and says what is measured.

#![allow(
    clippy::disallowed_methods,
    reason = "time is what is measured here"
)]

mod drive;
mod noop;
mod upstream;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match words.as_slice() {
                ["noop", socket] => noop::serve(socket).await,
                ["upstream"] => upstream::serve().await,
                ["drive", address, request, options @ ..] => {
                    drive::run(address, request, options).await
                }
                _ => Err(std::io::Error::other(
                    "usage: loadtest noop SOCKET | upstream | drive ADDRESS FILE [name=value]...",
                )),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
