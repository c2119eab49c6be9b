//! Keys that follow one another: how a key that one trusts introduces the next.
//!
//! Promises: a key is believed through a statement that a believed key has signed, and through nothing else. Cannot show:
//! that the old key was not stolen before it signed.

use super::note::{self, SigningKey, VerifierKey};

/// The first line of a statement.
const FORMAT: &str = "countersign/key/v1";

/// The statement by which `old` introduces `new`: a signed note.
#[must_use]
pub fn introduce(old: &SigningKey, new: &VerifierKey) -> String {
    old.sign(&format!("{FORMAT}\n{new}\n"))
}

/// The key that a statement introduces, whoever signed it.
#[must_use]
pub fn introduced(statement: &str) -> Option<VerifierKey> {
    parse(note::text(statement).ok()?)
}

fn parse(text: &str) -> Option<VerifierKey> {
    let (format, key) = text.split_once('\n')?;
    let key = key.strip_suffix('\n')?;
    (format == FORMAT && !key.contains('\n')).then(|| key.parse().ok())?
}

/// All keys that follow from `trusted` by `statements`, which may come in any order.
#[must_use]
pub fn successors<'a>(
    mut trusted: Vec<VerifierKey>,
    statements: impl IntoIterator<Item = &'a str>,
) -> Vec<VerifierKey> {
    let mut left: Vec<&str> = statements.into_iter().collect();
    loop {
        let before = trusted.len();
        left.retain(|statement| {
            let Some(key) = note::open(statement, &trusted).ok().and_then(parse) else {
                return true;
            };
            if !trusted.contains(&key) {
                trusted.push(key);
            }
            false
        });
        if trusted.len() == before {
            return trusted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::fixture::key;

    #[test]
    fn trust_follows_statements_from_the_key_one_has_and_no_other_way() {
        let statement = |old, new| introduce(&key(old), key(new).verifier());
        let (ab, bc, xd) = (statement(1, 2), statement(2, 3), statement(9, 4));
        let trusting = |first: u8, statements: &[&str]| {
            let keys = successors(
                vec![key(first).verifier().clone()],
                statements.iter().copied(),
            );
            [1, 2, 3, 4].map(|n| keys.contains(key(n).verifier()))
        };
        assert_eq!(trusting(1, &[&ab, &bc]), [true, true, true, false]);
        assert_eq!(trusting(1, &[&bc, &ab]), [true, true, true, false]);
        assert_eq!(trusting(1, &[&bc, &xd]), [true, false, false, false]);
        assert_eq!(trusting(2, &[&ab, &bc]), [false, true, true, false]);
        // What the old key signed is a checkpoint, or another's key with a line too many.
        for text in [
            "countersign/demo/00\n1\nAAAA\n",
            &format!("{FORMAT}\n{}\nx\n", key(4).verifier()),
        ] {
            assert_eq!(
                trusting(1, &[&key(1).sign(text)]),
                [true, false, false, false]
            );
        }
        let changed = ab.replacen(
            &key(2).verifier().to_string(),
            &key(4).verifier().to_string(),
            1,
        );
        assert_eq!(trusting(1, &[&changed]), [true, false, false, false]);
        assert_eq!(introduced(&ab).as_ref(), Some(key(2).verifier()));
    }
}
