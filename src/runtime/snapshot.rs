//! From a configuration to the rules exchanges run under: secrets read, detectors compiled, authenticator started.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "saml")]
use super::assertions::Assertions;
use super::{
    authenticator::{Authenticator, AuthenticatorError},
    control::Control,
    grants::Grants,
    lending::{self, Sources},
};
use crate::{
    audit::seal::{AuditorKey, KeyError, MAX_AUDITORS},
    config::{self, Config},
    detect::{Catalog, Custom, DetectorError, Entity, MAX_TERM_BYTES, Terms},
    exchange::{
        Admission, Approvals, Budget, Connection, Guard, Hidden, Lender, Lending, Limits, Masking,
        Plans, Rules,
    },
    grant::{GrantKey, KeyRing},
    keys::secret::SecretError,
    mask::{MaskingKey, Operator, ShortKey},
    policy::{Effect, Policy},
    store::keyfile,
};

/// Why a valid configuration cannot be put into force.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// An upstream credential cannot be read.
    #[error("connection `{connection}`: {cause}")]
    Secret {
        /// The connection.
        connection: String,
        /// Why.
        cause: SecretError,
    },
    /// The masking key cannot be read.
    #[error("masking: {0}")]
    MaskingKey(SecretError),
    /// The masking key is no key.
    #[error("masking: {0}")]
    ShortKey(#[from] ShortKey),
    /// An auditor's key cannot be read.
    #[error("sealing: `{path}`: {cause}")]
    Auditor {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A dictionary's file cannot be read.
    #[error("dictionary `{entity}`: cannot read `{path}`: {cause}")]
    Dictionary {
        /// What it finds.
        entity: Entity,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// What messages look like cannot be read, or is not what it was.
    #[error("connection `{connection}`: schema: {cause}")]
    Schema {
        /// The connection.
        connection: String,
        /// Why.
        cause: String,
    },
    /// A key for grants cannot be used.
    #[error("grants: the key `{path}` cannot be used: {cause}")]
    GrantKey {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The same key is listed twice for grants, or there are more than a key set may have.
    #[error("grants: a key is listed twice, or there are too many")]
    GrantKeyTwice,
    /// The detectors do not compile.
    #[error("the detectors cannot be used: {0}")]
    Detectors(#[from] DetectorError),
    /// An issuer cannot be used.
    #[error(transparent)]
    Issuer(#[from] AuthenticatorError),
}

impl SnapshotError {
    fn schema(connection: &str, faults: &[config::Fault]) -> Self {
        let causes: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
        Self::Schema {
            connection: connection.to_owned(),
            cause: causes.join("; "),
        }
    }
}

/// The bounds of waiting for approvals; who is held stays counted.
fn approvals(config: &Config, before: Option<&Rules>) -> Approvals {
    let (mut holds, mut each, mut most_pending, mut public_url) = (0, 0, 0, String::new());
    if let Some(approvals) = &config.approvals {
        holds = approvals.max_holds as usize;
        each = approvals.max_holds_per_principal as usize;
        most_pending = approvals.max_pending_per_principal;
        public_url = approvals
            .public_url
            .as_ref()
            .map_or_else(String::new, |url| {
                url.as_str().trim_end_matches('/').to_owned()
            });
    }
    let memory = usize::try_from(config.limits.memory).unwrap_or(usize::MAX);
    Approvals {
        holds: before.map_or_else(
            || Admission::new(holds, each),
            |rules| rules.approvals.holds.with_caps(holds, each),
        ),
        // A quarter of the memory for all that one caller may have held, each twice.
        largest_held: memory / (8 * each.max(1)),
        held_bytes: before.map_or_else(
            || Budget::new(memory / 2),
            |rules| rules.approvals.held_bytes.with_cap(memory / 2),
        ),
        most_pending,
        public_url,
    }
}

/// The rules for `config`; the byte budget and the places go on counting what `before` counted. Must be called inside a tokio
/// runtime: `sources` are kept current there.
///
/// # Errors
/// [`SnapshotError`]; blocks on the disk for secrets.
pub fn rules(
    config: &Config,
    before: Option<&Rules>,
    sources: &Sources,
) -> Result<Rules, SnapshotError> {
    let catalog = Arc::new(catalog(config)?);
    let looked_for = looked_for(config, &catalog);
    let everything = catalog.scanner(&looked_for)?;
    // What stands in a field of a name is not on record either.
    let named = config.named.iter();
    let named = named.map(|(entity, _)| (entity.clone(), Operator::Replace));
    let named: BTreeMap<Entity, Operator> = named.collect();
    let hidden = Hidden {
        catalog: catalog.clone(),
        looked_for,
        named,
    };
    let nothing = Lending::nothing(Arc::new(Guard::new(Vec::new(), &hidden)?));
    let nothing: Arc<dyn Lender> = Arc::new(nothing);
    let masking = config.masking.as_ref().map(masking).transpose()?;
    let auditors = config
        .sealing
        .as_ref()
        .map(auditors)
        .transpose()?
        .unwrap_or_default();
    let connection = |from: &config::Connection| -> Result<Arc<Connection>, SnapshotError> {
        let lender = match &from.credential {
            Some(credential) => lending::lender(&from.name, credential, sources, &hidden)?,
            None => nothing.clone(),
        };
        Ok(Arc::new(Connection {
            name: from.name.clone(),
            route: from.route.clone(),
            token_header: from.token.name(),
            certificate_alone: from.certificate_alone,
            dialect: from
                .spoken()
                .map_err(|faults| SnapshotError::schema(&from.name, &faults))?,
            lender,
            chain: from.chain.clone(),
            record_text: from.payload.shows_text(),
            auditors: if from.payload.seals() {
                auditors.clone()
            } else {
                Arc::default()
            },
            durability: from.durability,
            unscanned: from.unscanned,
            signed: from.signed,
            fields: from.fields.clone(),
            catalog: catalog.clone(),
            everything: everything.clone(),
            masking: masking.clone().filter(|_| from.chain.needs_key()),
            plans: Plans::default(),
        }))
    };
    let connections = config
        .connections
        .iter()
        .map(connection)
        .collect::<Result<_, _>>()?;
    let limits = &config.limits;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let (memory, all, each) = (
        size(limits.memory),
        limits.streams as usize,
        limits.streams_per_principal as usize,
    );
    // One of them at least must be able to send a whole body.
    let strangers = (memory / 8).max(size(limits.request_body));
    Ok(Rules {
        connections,
        digest: hex::encode(config.digest),
        limits: Limits {
            request_body: size(limits.request_body),
            response_body: size(limits.response_body),
            memory_per_principal: size(limits.memory_per_principal),
        },
        budget: before.map_or_else(
            || Budget::new(memory),
            |rules| rules.budget.with_cap(memory),
        ),
        strangers: before.map_or_else(
            || Budget::new(strangers),
            |rules| rules.strangers.with_cap(strangers),
        ),
        admission: before.map_or_else(
            || Admission::new(all, each),
            |rules| rules.admission.with_caps(all, each),
        ),
        approvals: approvals(config, before),
        risk: Arc::new(config.risk.clone()),
        time_zone: config.time_zone.clone(),
    })
}

/// Whoever is named twice is sealed to once.
fn auditors(from: &config::Sealing) -> Result<Arc<[AuditorKey]>, SnapshotError> {
    let mut keys: Vec<AuditorKey> = Vec::new();
    for path in &from.auditors {
        let fault = |cause: String| SnapshotError::Auditor {
            path: path.clone(),
            cause,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let before = keys.len();
        for line in lines {
            let key = line
                .parse()
                .map_err(|error: KeyError| fault(error.to_string()))?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if before == keys.len() && before == 0 {
            return Err(fault("it holds no key".to_owned()));
        }
    }
    if keys.len() > MAX_AUDITORS {
        let cause = format!("there are more than {MAX_AUDITORS} auditors' keys");
        let path = from.auditors.last().cloned().unwrap_or_default();
        return Err(SnapshotError::Auditor { path, cause });
    }
    Ok(keys.into())
}

fn masking(from: &config::Masking) -> Result<Arc<Masking>, SnapshotError> {
    let secret = from.source.read().map_err(SnapshotError::MaskingKey)?;
    Ok(Arc::new(Masking {
        key: MaskingKey::new(secret)?,
        per_principal: from.per_principal,
    }))
}

/// Whether a condition may ask for `entity` in `findings`: by its name, or in a way that does not show which it asks for.
/// May say yes where it does not; never no where it does.
fn may_ask_for(condition: &str, entity: &str) -> bool {
    // A name could be put together, or spelled by an escape.
    if condition.contains(entity) || condition.contains(['\\', '+']) {
        return true;
    }
    condition.match_indices("findings").any(|(at, word)| {
        let behind = condition[at + word.len()..].trim_start();
        let field = behind.strip_prefix('.').map(str::trim_start);
        let named = field.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
            || behind.starts_with("[\"")
            || behind.starts_with("['");
        let before = condition[..at]
            .trim_end()
            .strip_suffix("in")
            .map(str::trim_end);
        !named && !before.is_some_and(|before| before.ends_with(['"', '\'']))
    })
}

/// What policy is told of and records never show: what is looked for by itself, and whatever else a policy or the risk names.
fn looked_for(config: &Config, catalog: &Catalog) -> BTreeSet<Entity> {
    let policies = || config.connections.iter().flat_map(|c| c.chain.policies());
    let names = |policy: &Policy, entity: &Entity| {
        let masks = match &policy.then {
            Effect::Mask(masking) => {
                masking.request.contains_key(entity) || masking.response.contains_key(entity)
            }
            Effect::Allow | Effect::AllowUpgrade | Effect::Deny(_) | Effect::RequireApproval(_) => {
                false
            }
        };
        masks || may_ask_for(policy.when.text(), entity)
    };
    let mut looked_for = catalog.defaults().clone();
    let others = catalog.entities().difference(catalog.defaults());
    // A weight counts only where a condition asks for the score, but it is cheap to be wrong on that side.
    let weighs = |entity: &Entity| config.risk.entities.contains_key(entity);
    looked_for.extend(
        others
            .filter(|entity| weighs(entity) || policies().any(|policy| names(policy, entity)))
            .cloned(),
    );
    looked_for
}

/// The authenticator for `config`'s issuers. Must be called inside a tokio runtime.
///
/// # Errors
/// [`SnapshotError`] where an issuer cannot be used at all; one that is only out of reach is tried again.
pub fn authenticator(
    config: &Config,
    grants: Option<Arc<Grants>>,
) -> Result<Authenticator, SnapshotError> {
    let issuers = config.issuers.iter();
    let issuers = issuers.map(|issuer| (issuer.rules.clone(), issuer.keys.clone()));
    let mut authenticator = Authenticator::new(issuers.collect(), config.digest)?;
    for issuer in &config.issuers {
        if let Some(source) = &issuer.introspection {
            authenticator =
                authenticator.with_opaque_tokens(&issuer.rules.issuer, source.clone())?;
        }
    }
    let authenticator = authenticator
        .knowing(config.certificates.clone())
        .with_grants(grants);
    #[cfg(feature = "saml")]
    let authenticator = authenticator.with_assertions(assertions(config)?);
    Ok(authenticator)
}

/// What grants are made of, where the configuration has them made; `control` is where their uses are counted.
///
/// # Errors
/// [`SnapshotError::GrantKey`]; blocks on the disk for keys.
pub fn grants(
    config: &Config,
    control: Option<&Control>,
) -> Result<Option<Arc<Grants>>, SnapshotError> {
    let (Some(from), Some(control)) = (&config.grants, control) else {
        return Ok(None);
    };
    let key = |path: &PathBuf| {
        let fault = |cause: String| SnapshotError::GrantKey {
            path: path.clone(),
            cause,
        };
        let pem = keyfile::read_private(path).map_err(|error| fault(error.to_string()))?;
        GrantKey::from_pem(&pem).map_err(|error| fault(error.to_string()))
    };
    let keys = from.keys.iter().map(key).collect::<Result<_, _>>()?;
    let keys = KeyRing::new(keys).ok_or(SnapshotError::GrantKeyTwice)?;
    let issuers = config.issuers.iter();
    let vouching = issuers.map(|issuer| issuer.rules.issuer.clone());
    #[cfg(feature = "saml")]
    let vouching = vouching.chain(config.saml.iter().map(|idp| idp.rules.entity_id.clone()));
    let grants = Grants::new(
        from.rules.issuer.clone(),
        keys,
        vouching.collect(),
        control.clone(),
    );
    Ok(Some(Arc::new(grants)))
}

#[cfg(feature = "saml")]
fn assertions(config: &Config) -> Result<Assertions, SnapshotError> {
    let providers = config.saml.iter();
    let providers = providers.map(|provider| (provider.rules.clone(), provider.keys.clone()));
    Ok(Assertions::new(providers.collect())?)
}

/// The built-in detectors and those of `config`.
///
/// # Errors
/// [`SnapshotError::Detectors`] where one does not compile, [`SnapshotError::Dictionary`]; blocks on the disk.
pub fn catalog(config: &Config) -> Result<Catalog, SnapshotError> {
    let lists: Vec<_> = config
        .dictionaries
        .iter()
        .map(terms)
        .collect::<Result<_, _>>()?;
    Ok(with_custom(config)?.with_terms(&lists)?)
}

fn terms(from: &config::Dictionary) -> Result<Terms, SnapshotError> {
    let terms = match &from.terms {
        config::TermSource::Here(terms) => terms.clone(),
        config::TermSource::File(path) => {
            let text = read_text(path).map_err(|cause| SnapshotError::Dictionary {
                entity: from.entity.clone(),
                path: path.clone(),
                cause,
            })?;
            let terms = text.lines().map(str::trim).filter(|term| !term.is_empty());
            terms.map(str::to_owned).collect()
        }
    };
    Ok(Terms {
        entity: from.entity.to_string(),
        terms,
        fold_case: !from.match_case,
        whole_word: !from.inside_words,
    })
}

/// A file's text, as far as a dictionary may be long and one byte more, so that a longer one is refused rather than cut.
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_TERM_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > MAX_TERM_BYTES {
        return Err(std::io::Error::other("it has more than 64 MiB"));
    }
    Ok(text)
}

fn with_custom(config: &Config) -> Result<Catalog, DetectorError> {
    let custom = |detector: &config::CustomDetector| Custom {
        entity: detector.entity.to_string(),
        regex: detector.regex.clone(),
        context: detector.context.clone(),
    };
    let custom: Vec<_> = config.detectors.iter().map(custom).collect();
    Catalog::with_custom(&custom).map_err(|faults| match faults.into_iter().next() {
        Some((_, fault)) => fault,
        None => DetectorError::MatchesNothing,
    })
}

/// The files that terms, and what messages look like, are read from.
pub fn files_read(config: &Config) -> impl Iterator<Item = &Path> {
    let lists = config.dictionaries.iter();
    let lists = lists.filter_map(|list| match &list.terms {
        config::TermSource::File(path) => Some(path.as_path()),
        config::TermSource::Here(_) => None,
    });
    let schemas = config.connections.iter();
    let schemas = schemas.filter_map(|connection| connection.schema.as_ref());
    lists.chain(schemas.map(|schema| schema.file.as_path()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_optional_detector_is_used_where_a_policy_masks_it_or_asks_for_it_and_nowhere_else() {
        let text = include_str!("../../examples/countersign.yaml");
        for (from, to, expected) in [
            ("", "", false),
            ("audit:", "risk: { entities: { URL: 5 } }\naudit:", true),
            ("audit:", "risk: { entities: { US_SSN: 5 } }\naudit:", false),
            ("[personal]", "[personal, URL]", true),
            ("personal: [", "personal: [URL, ", true),
            (r#"'"interns""#, r#"'findings.URL > 0 && "interns""#, true),
            (
                r#"'"interns""#,
                r#"'findings.US_SSN > 0 && "interns""#,
                false,
            ),
            (
                r#"'"interns""#,
                r#"'"US_SSN" in findings && "interns""#,
                false,
            ),
            (
                r#"'"interns""#,
                r#"'("U" + "RL") in findings && "interns""#,
                true,
            ),
            (
                r#"'"interns""#,
                r#"'findings.exists(e, e.startsWith("UR")) && "interns""#,
                true,
            ),
            (r#"'"interns""#, r#"'size(findings) > 0 && "interns""#, true),
            (
                r#"'"interns""#,
                r#"'findings["\x55RL"] > 0 && "interns""#,
                true,
            ),
            (
                r#"'"interns""#,
                r#"'findings.US_SSN > 0 && "interns""#,
                false,
            ),
        ] {
            let text = text.replacen(from, to, 1);
            let config =
                config::with_builtins(|known| Config::parse(&text, "test", known)).unwrap();
            let catalog = catalog(&config).unwrap();
            let looked_for = looked_for(&config, &catalog);
            assert_eq!(looked_for.contains("URL"), expected, "{to}");
            assert!(looked_for.is_superset(catalog.defaults()));
        }
    }
}
