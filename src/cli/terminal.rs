//! What may stand on a terminal: text of others that cannot drive it, and colours only where somebody sees them.

use std::io::{self, IsTerminal};

use crate::runtime::notify::is_obeyed;

/// `text` on one line, with what a terminal would obey written out.
pub(super) fn one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// `text` over as many lines as it has.
pub(super) fn lines(text: &str) -> String {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// So many of them.
pub(super) fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn escaped(text: &str, lets_pass: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !lets_pass(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Colours, where somebody sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn of_stdout() -> Self {
        Self(io::stdout().is_terminal())
    }

    pub(super) fn of_stderr() -> Self {
        Self(io::stderr().is_terminal())
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(false)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        match self.0 {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// Whether an error only says that nobody reads any more, which is no fault: `… | head`.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
