//! Patterns of `matches`, compiled once under a size limit and looked up by their text.

use std::collections::BTreeMap;

use regex_automata::meta::{self, Regex};

/// Patterns by their text.
pub(super) type Patterns = BTreeMap<String, Regex>;

/// Longest pattern of `matches`, in characters.
const MAX_PATTERN_CHARS: usize = 512;
/// Largest automaton of one pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Compiles `pattern`; the error is worded for the file's author.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.chars().count() > MAX_PATTERN_CHARS {
        return Err(format!(
            "the pattern is longer than {MAX_PATTERN_CHARS} characters"
        ));
    }
    let config = meta::Config::new()
        .nfa_size_limit(Some(MAX_PATTERN_BYTES))
        .hybrid_cache_capacity(MAX_PATTERN_BYTES)
        .onepass_size_limit(Some(MAX_PATTERN_BYTES));
    let syntax = regex_automata::util::syntax::Config::new().nest_limit(32);
    meta::Builder::new()
        .configure(config)
        .syntax(syntax)
        .build(pattern)
        .map_err(|error| {
            if error.size_limit().is_some() {
                return "the pattern is too big once compiled; use smaller repetition counts"
                    .to_owned();
            }
            match error.syntax_error() {
                // The parser draws a picture over several lines; its last line says what is wrong.
                Some(syntax) => {
                    let picture = syntax.to_string();
                    let reason = picture.lines().last().unwrap_or_default();
                    format!(
                        "not a valid pattern: {}",
                        reason.strip_prefix("error: ").unwrap_or(reason)
                    )
                }
                None => "the pattern cannot be compiled".to_owned(),
            }
        })
}
