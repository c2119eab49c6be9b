//! The detectors that policies can name.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    DetectorError, Entity, Scanner, builtin, context,
    dictionary::{Dictionary, Likeness},
    fold::seen,
    pattern::{Check, Pattern},
};

/// The name under which a credential lent to the upstream is found.
pub const UPSTREAM_CREDENTIAL: &str = "UPSTREAM_CREDENTIAL";
/// Compiled scanners kept; the one used longest ago makes room.
const SCANNERS: usize = 32;
/// The longest credential, in bytes.
const CREDENTIAL_BYTES: usize = 16 << 10;
/// Characters of an entity's name.
const NAME_LEN: usize = 64;

type Dictionaries = Vec<(Entity, Arc<Dictionary>)>;

/// A detector as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custom {
    /// Its name, `[A-Z][A-Z0-9_]*`. Several detectors may share one.
    pub entity: String,
    /// A regular expression in the syntax of the `regex` crate, with Unicode classes and ASCII word boundaries.
    pub regex: String,
    /// Words or phrases; where there are any, one must stand among the last five words before a match.
    pub context: Vec<String>,
}

/// A list of terms, such as the names of projects, each found as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its name, `[A-Z][A-Z0-9_]*`.
    pub entity: String,
    /// The terms, 1 to 1,000,000, at most 64 MiB in all, each at most 1,024 bytes.
    pub terms: Vec<String>,
    /// Whether capital and small letters are the same (Unicode's simple case folding).
    pub fold_case: bool,
    /// Whether only whole words count.
    pub whole_word: bool,
}

/// All detectors in priority order: a lent credential first, custom ones next, built-in ones last. Every one of them
/// compiles.
pub struct Catalog {
    patterns: Vec<Pattern>,
    dictionaries: Dictionaries,
    entities: BTreeSet<Entity>,
    defaults: BTreeSet<Entity>,
    /// Scanners by what they look for, the latest used last. A lock, as building one takes milliseconds and happens
    /// seldom; reading it is a few comparisons.
    scanners: Mutex<VecDeque<(BTreeSet<Entity>, Arc<Scanner>)>>,
}

impl fmt::Debug for Catalog {
    /// The names only: a shape may be a lent credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("entities", &self.entities)
            .finish_non_exhaustive()
    }
}

impl Catalog {
    /// The built-in detectors.
    ///
    /// # Errors
    /// Never in a build whose tests pass: the table is part of the program.
    pub fn builtin() -> Result<Self, DetectorError> {
        Ok(Self::of(builtin::patterns()?, Vec::new()))
    }

    /// The built-in detectors behind custom ones, which win where both match at the same place.
    ///
    /// # Errors
    /// Every fault of every custom detector, with its index.
    pub fn with_custom(custom: &[Custom]) -> Result<Self, Vec<(usize, DetectorError)>> {
        let builtin = builtin::patterns().map_err(|fault| vec![(0, fault)])?;
        let mut patterns = Vec::new();
        let mut faults = Vec::new();
        for (i, custom) in custom.iter().enumerate() {
            match parse(custom, &builtin) {
                Ok(pattern) => patterns.push(pattern),
                Err(found) => faults.extend(found.into_iter().map(|fault| (i, fault))),
            }
        }
        patterns.extend(builtin);
        if faults.is_empty() {
            Ok(Self::of(patterns, Vec::new()))
        } else {
            Err(faults)
        }
    }

    /// The same detectors behind some that find exactly these credentials, as [`UPSTREAM_CREDENTIAL`]. Every scanner of the
    /// new catalog looks for them. Where one begins another, the first in order is found.
    ///
    /// # Errors
    /// [`DetectorError::Credential`] if one is empty or too long.
    pub fn with_credentials<'c>(
        &self,
        credentials: impl IntoIterator<Item = &'c str>,
    ) -> Result<Self, DetectorError> {
        let mut patterns = Vec::new();
        for credential in credentials {
            if credential.is_empty() || credential.len() > CREDENTIAL_BYTES {
                return Err(DetectorError::Credential);
            }
            patterns.push(Pattern::literal(UPSTREAM_CREDENTIAL, credential)?);
        }
        patterns.extend(
            self.patterns
                .iter()
                .filter(|p| &*p.entity != UPSTREAM_CREDENTIAL)
                .cloned(),
        );
        Ok(Self::of(patterns, self.dictionaries.clone()))
    }

    /// The same detectors before lists of terms, which win only where nothing else is found at the same place.
    ///
    /// # Errors
    /// The fault of the first list that has one.
    pub fn with_terms(self, lists: &[Terms]) -> Result<Self, DetectorError> {
        let mut dictionaries = Vec::with_capacity(lists.len());
        for list in lists {
            if !is_name(&list.entity) {
                return Err(DetectorError::Name(list.entity.clone()));
            }
            if self.contains(&list.entity) {
                return Err(DetectorError::Taken(list.entity.clone()));
            }
            let likeness = Likeness {
                fold_case: list.fold_case,
                whole_word: list.whole_word,
            };
            // Text is looked at as it is seen, and so are they.
            let terms: Vec<String> = list.terms.iter().map(|term| seen(term)).collect();
            let terms = Dictionary::new(terms.iter().map(String::as_str), likeness)?;
            dictionaries.push((Entity::from(list.entity.as_str()), Arc::new(terms)));
        }
        Ok(Self::of(self.patterns, dictionaries))
    }

    fn of(patterns: Vec<Pattern>, dictionaries: Dictionaries) -> Self {
        let entities: BTreeSet<Entity> = patterns
            .iter()
            .map(|pattern| &pattern.entity)
            .chain(dictionaries.iter().map(|(entity, _)| entity))
            .cloned()
            .collect();
        let optional = |entity: &&Entity| builtin::OPTIONAL.contains(&&***entity);
        Self {
            patterns,
            defaults: entities
                .iter()
                .filter(|entity| !optional(entity))
                .cloned()
                .collect(),
            entities,
            dictionaries,
            scanners: Mutex::default(),
        }
    }

    /// Every name a policy may use.
    #[must_use]
    pub fn entities(&self) -> &BTreeSet<Entity> {
        &self.entities
    }

    /// What is looked for where nobody says what: every name but the optional ones. A policy may name those too; they
    /// are optional because what they find is mostly nobody's, and hides other values inside it.
    #[must_use]
    pub fn defaults(&self) -> &BTreeSet<Entity> {
        &self.defaults
    }

    /// Whether a detector has this name.
    #[must_use]
    pub fn contains(&self, entity: &str) -> bool {
        self.entities.contains(entity)
    }

    /// A scanner for these entities, built once and kept. A lent credential is always looked for.
    ///
    /// # Errors
    /// [`DetectorError::Unknown`] for a name that no detector has; [`DetectorError::TooLarge`] if the detectors do not
    /// compile together.
    pub fn scanner(&self, entities: &BTreeSet<Entity>) -> Result<Arc<Scanner>, DetectorError> {
        if let Some(unknown) = entities.iter().find(|entity| !self.contains(entity)) {
            return Err(DetectorError::Unknown(unknown.to_string()));
        }
        // Nothing here can leave the list half changed, so a poisoned lock is as good as another.
        let mut scanners = self.scanners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = scanners.iter().position(|(key, _)| key == entities)
            && let Some(entry) = scanners.remove(at)
        {
            let scanner = entry.1.clone();
            scanners.push_back(entry);
            return Ok(scanner);
        }
        let wanted =
            |p: &&Pattern| entities.contains(&p.entity) || &*p.entity == UPSTREAM_CREDENTIAL;
        let dictionaries = self.dictionaries.iter();
        let dictionaries = dictionaries.filter(|(entity, _)| entities.contains(entity));
        let scanner = Arc::new(Scanner::new(
            self.patterns.iter().filter(wanted).cloned().collect(),
            dictionaries.cloned().collect(),
        )?);
        if scanners.len() == SCANNERS {
            scanners.pop_front();
        }
        scanners.push_back((entities.clone(), scanner.clone()));
        Ok(scanner)
    }
}

/// The detector, or all that is wrong with it.
fn parse(custom: &Custom, builtin: &[Pattern]) -> Result<Pattern, Vec<DetectorError>> {
    let mut faults = Vec::new();
    if !is_name(&custom.entity) {
        faults.push(DetectorError::Name(custom.entity.clone()));
    } else if custom.entity == UPSTREAM_CREDENTIAL
        || builtin.iter().any(|p| *p.entity == *custom.entity)
    {
        faults.push(DetectorError::Taken(custom.entity.clone()));
    }
    let mut phrases = Vec::new();
    for text in &custom.context {
        match context::phrase(text) {
            Some(phrase) => phrases.push(phrase),
            None => faults.push(DetectorError::Context(text.clone())),
        }
    }
    let check = if phrases.is_empty() {
        Check::Always
    } else {
        Check::Context(phrases.into())
    };
    match Pattern::custom(&custom.entity, &custom.regex, check) {
        Ok(pattern) if faults.is_empty() => Ok(pattern),
        Ok(_) => Err(faults),
        Err(fault) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_LEN
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}
