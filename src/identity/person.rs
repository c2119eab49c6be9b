//! Who else a caller is: the human behind an account, and those who act through it.

use std::collections::BTreeSet;

use icu_normalizer::uts46::Uts46MapperBorrowed;
use serde_json::Value;

use super::{
    TokenError,
    claims::{MAX_SUBJECT_BYTES, plain},
};

/// Longest name that a claim gives a person, and longest issuer of an actor, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Most names that one claim gives.
pub const MAX_NAMES: usize = 16;
/// Most actors of a token, the one who acts now and those before.
const MAX_ACTORS: usize = 8;

/// An account as one name: its issuer and its subject.
#[must_use]
pub fn account(issuer: &str, subject: &str) -> String {
    // A control character separates: no issuer, no subject and no name of a person has one.
    format!("{issuer}\u{1f}{subject}")
}

/// Adds the persons that a claim names. Blanks around a name, the case of its letters, how they are composed, their width and what nobody sees
/// do not count (the mapping of UTS #46): where in doubt, two names are one human.
pub(super) fn names(value: &Value, also: &mut BTreeSet<String>) -> Result<(), TokenError> {
    let several = match value {
        Value::Array(several) if several.len() <= MAX_NAMES => several.as_slice(),
        Value::Array(_) => return Err(TokenError::PersonInvalid),
        _ => std::slice::from_ref(value),
    };
    for value in several {
        let name = match value {
            // A fraction has several spellings, so it names nobody.
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => {
                let name = plain(value, MAX_NAME_BYTES).ok_or(TokenError::PersonInvalid)?;
                let name: String = Uts46MapperBorrowed::new()
                    .map_normalize(name.chars())
                    .collect();
                name.trim().to_owned()
            }
        };
        if name.is_empty() {
            return Err(TokenError::PersonInvalid);
        }
        also.insert(format!("person:{name}"));
    }
    Ok(())
}

/// Adds the account of each actor. One without an `iss` is an account of the token's own issuer.
pub(super) fn actors(
    outermost: &Value,
    issuer: &str,
    also: &mut BTreeSet<String>,
) -> Result<(), TokenError> {
    let mut next = Some(outermost);
    for _ in 0..MAX_ACTORS {
        let Some(actor) = next else { return Ok(()) };
        let subject = actor
            .get("sub")
            .and_then(|subject| plain(subject, MAX_SUBJECT_BYTES));
        let issuer = match actor.get("iss") {
            None => Some(issuer),
            Some(named) => plain(named, MAX_NAME_BYTES),
        };
        let (Some(subject), Some(issuer)) = (subject, issuer) else {
            return Err(TokenError::ActorInvalid);
        };
        also.insert(account(issuer, subject));
        next = actor.get("act");
    }
    match next {
        None => Ok(()),
        Some(_) => Err(TokenError::ActorInvalid),
    }
}
