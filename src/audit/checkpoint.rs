//! Checkpoints (<https://c2sp.org/tlog-checkpoint>): the size and root of a chain's tree, signed as a note.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use super::{
    chain::{ChainId, Hash},
    note::{self, NoteError, SigningKey, VerifierKey},
};

/// A chain's tree at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the deployment.
    pub deployment: String,
    /// The chain.
    pub chain: ChainId,
    /// Leaves in the tree, which is the number of records.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
}

impl Checkpoint {
    /// The origin line: `countersign/<deployment>/<chain hex>`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("countersign/{}/{}", self.deployment, self.chain)
    }

    /// The signed note.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> String {
        key.sign(&self.body())
    }

    /// The signed note, with when it was signed as an extension line: whoever holds it knows that the log had no more
    /// records then.
    #[must_use]
    pub fn sign_at(&self, now: Timestamp, key: &SigningKey) -> String {
        key.sign(&format!("{}time {now:.0}\n", self.body()))
    }

    fn body(&self) -> String {
        let (origin, root) = (self.origin(), STANDARD.encode(self.root.0));
        format!("{origin}\n{}\n{root}\n", self.size)
    }

    /// Reads a note that one of `trusted` has signed.
    ///
    /// # Errors
    /// As [`note::open`]; [`NoteError::Malformed`] where the text is no checkpoint of ours.
    pub fn open(signed: &str, trusted: &[VerifierKey]) -> Result<Self, NoteError> {
        Self::parse(note::open(signed, trusted)?).ok_or(NoteError::Malformed)
    }

    /// Reads a note without looking at who signed it.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn read_unchecked(signed: &str) -> Result<Self, NoteError> {
        Self::parse(note::text(signed)?).ok_or(NoteError::Malformed)
    }

    fn parse(text: &str) -> Option<Self> {
        // Lines after the third are extensions that a reader must let pass.
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let (deployment, chain) = origin.strip_prefix("countersign/")?.rsplit_once('/')?;
        let number: u64 = size.parse().ok()?;
        if number.to_string() != size || deployment.is_empty() {
            return None;
        }
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        Some(Self {
            deployment: deployment.to_owned(),
            chain: chain.parse().ok()?,
            size: number,
            root: Hash(root),
        })
    }
}

/// The notes of a file that holds one after the other, with or without empty lines between them.
///
/// A last note that a crash has torn (no signature line, or one without its newline) is left out.
pub fn notes(file: &str) -> impl Iterator<Item = &str> {
    let mut rest = file;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('\n');
        let signatures = rest.find("\n\n")? + 2;
        let mut end = signatures;
        while let Some(line) = rest[end..].find('\n') {
            if !rest[end..].starts_with('\u{2014}') {
                break;
            }
            end += line + 1;
        }
        let note = &rest[..end];
        rest = &rest[end..];
        (end > signatures).then_some(note)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed("countersign/demo/a", &[9; 32]).unwrap()
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint {
            deployment: "demo".into(),
            chain: ChainId([1; 16]),
            size,
            root: Hash([2; 32]),
        }
    }

    #[test]
    fn a_checkpoint_has_the_bytes_of_the_specification_and_reads_back() {
        let signed = checkpoint(12).sign(&key());
        let body = format!(
            "countersign/demo/{}\n12\n{}=\n\n\u{2014} countersign/demo/a ",
            "01".repeat(16),
            "AgIC".repeat(10) + "AgI"
        );
        assert!(signed.starts_with(&body), "{signed}");
        assert_eq!(
            Checkpoint::open(&signed, &[key().verifier().clone()]).unwrap(),
            checkpoint(12)
        );
        assert_eq!(Checkpoint::open(&signed, &[]), Err(NoteError::Untrusted));
        assert_eq!(Checkpoint::read_unchecked(&signed).unwrap(), checkpoint(12));
    }

    #[test]
    fn the_same_checkpoint_at_another_time_says_the_same_of_the_log() {
        let signed = checkpoint(12).sign_at("2026-11-22T05:27:41.9Z".parse().unwrap(), &key());
        assert!(
            signed.contains("=\ntime 2026-11-22T05:27:41Z\n\n\u{2014} "),
            "{signed}"
        );
        let trusted = [key().verifier().clone()];
        assert_eq!(Checkpoint::open(&signed, &trusted).unwrap(), checkpoint(12));
        let later = signed.replace("05:27:41", "06:27:41");
        assert!(
            Checkpoint::open(&later, &trusted).is_err(),
            "the time is signed too"
        );
    }

    #[test]
    fn what_is_signed_but_no_checkpoint_of_ours_is_refused() {
        let trusted = [key().verifier().clone()];
        let good = format!(
            "countersign/d/{}\n3\n{}\n",
            ChainId([1; 16]),
            STANDARD.encode([0; 32])
        );
        assert!(Checkpoint::open(&key().sign(&good), &trusted).is_ok());
        assert!(Checkpoint::open(&key().sign(&format!("{good}an extension\n")), &trusted).is_ok());
        for (from, to) in [
            ("\n3\n", "\n03\n"),
            ("\n3\n", "\n-3\n"),
            ("countersign/d", "other/d"),
            ("AAA=", "AA=="),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(
                Checkpoint::open(&key().sign(&bad), &trusted),
                Err(NoteError::Malformed),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_file_of_notes_is_read_up_to_where_a_crash_has_torn_it() {
        let (one, two) = (checkpoint(1).sign(&key()), checkpoint(2).sign(&key()));
        for file in [format!("{one}{two}"), format!("{one}\n{two}\n")] {
            assert_eq!(notes(&file).collect::<Vec<_>>(), [&one, &two]);
        }
        for cut in 1..two.len() {
            let file = format!("{one}\n{}", two.get(..cut).unwrap_or(""));
            assert_eq!(notes(&file).collect::<Vec<_>>(), [&one], "{file:?}");
        }
    }
}
