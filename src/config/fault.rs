//! What is wrong with a file, and where: one line each, all at once.

use std::fmt;

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Fault {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in that line in characters, from 1, where it is known exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// Where in the structure, such as `connections[0].policies[2]`; empty for the whole file.
    pub path: String,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl Fault {
    pub(super) fn new(line: usize, path: &str, message: impl Into<String>) -> Self {
        Self {
            line,
            column: None,
            path: path.to_owned(),
            message: one_line(&message.into()),
            suggestion: None,
        }
    }

    pub(super) fn column(self, column: usize) -> Self {
        Self {
            column: Some(column),
            ..self
        }
    }

    pub(super) fn suggest(self, suggestion: Option<String>) -> Self {
        Self { suggestion, ..self }
    }
}

/// The file's text may carry line breaks and terminal controls into a message; a fault stays one harmless line.
fn one_line(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl fmt::Display for Fault {
    /// `12:5: connections[0].dialect: unknown dialect (did you mean `openai`?)`, to go behind a file name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", one_line(&self.path))?;
        }
        write!(f, " {}", self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{}`?)", one_line(suggestion)),
            None => Ok(()),
        }
    }
}

/// Faults in the order of the file, each once.
pub(super) fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort();
    faults.dedup();
    faults
}
