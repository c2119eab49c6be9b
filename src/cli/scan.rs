//! What `detect`, `mask` and `unmask` share: which detectors, which key, and how far along.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    config::{self, Config},
    detect::{Catalog, Entity, Scanner},
    dialect::Selection,
    keys::secret::SecretSource,
    mask::{Keys, MaskingKey, Operator, Plan, Scope},
    runtime::snapshot,
};

/// Which detectors look.
#[derive(Args, Clone, Debug)]
pub(super) struct DetectorArgs {
    /// A configuration whose own detectors look too.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG", value_hint = ValueHint::FilePath)]
    pub(super) config: Option<PathBuf>,
    /// An entity to look for, such as `US_SSN`; may be repeated. Default: all that are on by default, and all of the configuration.
    #[arg(long = "entity", value_name = "ENTITY")]
    pub(super) entities: Vec<String>,
}

/// Which key keyed operators use.
#[derive(Args, Clone, Debug)]
pub(super) struct KeyArgs {
    /// The masking key; default: the one the configuration names.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) key_file: Option<PathBuf>,
    /// `iss` of the principal whose stand-ins these are; without it, those of the whole deployment.
    #[arg(long, value_name = "ISS", requires = "subject")]
    pub(super) issuer: Option<String>,
    /// `sub` of that principal.
    #[arg(long, value_name = "SUB", requires = "issuer")]
    pub(super) subject: Option<String>,
}

impl DetectorArgs {
    /// The configuration, where one was named.
    ///
    /// # Errors
    /// Where it cannot be read or is faulty.
    pub(super) fn load(&self) -> anyhow::Result<Option<Config>> {
        let load = |path: &PathBuf| config::load_with_builtins(path);
        Ok(self.config.as_ref().map(load).transpose()?)
    }

    /// A scanner for what was asked for.
    ///
    /// # Errors
    /// For an entity that no detector finds.
    pub(super) fn scanner(&self, config: Option<&Config>) -> anyhow::Result<Arc<Scanner>> {
        let catalog = match config {
            Some(config) => snapshot::catalog(config)?,
            None => Catalog::builtin()?,
        };
        let entities: BTreeSet<Entity> = if self.entities.is_empty() {
            catalog.defaults().clone()
        } else {
            let named =
                |name: &String| config.is_some_and(|c| c.named.iter().any(|(e, _)| **e == **name));
            let looked_for = self.entities.iter().filter(|name| !named(name));
            looked_for.map(|name| name.as_str().into()).collect()
        };
        Ok(catalog.scanner(&entities)?)
    }

    /// The fields of documents that are values of what was asked for.
    pub(super) fn fields(&self, config: Option<&Config>) -> Selection {
        let asked = |entity: &Entity| {
            self.entities.is_empty() || self.entities.iter().any(|name| **name == **entity)
        };
        let named = config
            .map(|config| config.named.clone())
            .unwrap_or_default();
        Selection {
            named: named
                .into_iter()
                .filter(|(entity, _)| asked(entity))
                .collect(),
            ..Selection::default()
        }
    }
}

impl KeyArgs {
    /// The keys for whom these stand-ins are.
    ///
    /// # Errors
    /// Where no key was named or it cannot be read.
    pub(super) fn keys(&self, config: Option<&Config>) -> anyhow::Result<Keys> {
        let configured = config.and_then(|config| config.masking.as_ref());
        let source = match (&self.key_file, configured) {
            (Some(file), _) => SecretSource::File(file.clone()),
            (None, Some(masking)) => masking.source.clone(),
            (None, None) => bail!(
                "there is no masking key: name one with --key-file, or a --config that has `masking`"
            ),
        };
        let key = MaskingKey::new(source.read()?)?;
        let scope = match (&self.issuer, &self.subject) {
            (Some(issuer), Some(subject)) => Scope::Principal { issuer, subject },
            _ if self.key_file.is_none()
                && configured.is_some_and(|masking| masking.per_principal) =>
            {
                bail!(
                    "the configuration's stand-ins differ by principal: say whose with --issuer and --subject"
                )
            }
            _ => Scope::Deployment,
        };
        key.keys(scope).context("the key cannot be used")
    }
}

/// A plan that puts `operator` in the place of all that `scanner` finds and of all that stands in one of `fields`.
#[must_use]
pub(super) fn plan(
    scanner: Arc<Scanner>,
    fields: &Selection,
    operator: Operator,
    keys: Option<Keys>,
) -> Arc<Plan> {
    let named = fields.named.iter().map(|(entity, _)| entity);
    let operators: BTreeMap<_, _> = scanner
        .entities()
        .iter()
        .chain(named)
        .map(|entity| (entity.clone(), operator))
        .collect();
    let plan = Plan::new(scanner, &operators);
    Arc::new(match keys {
        Some(keys) => plan.with_keys(Arc::new(keys)),
        None => plan,
    })
}

/// Standard input, with a bar on a terminal: by its length where it is a file, else by what has come.
#[must_use]
pub(super) fn input(doing: &'static str) -> (impl Read, ProgressBar) {
    let length = std::fs::metadata(Path::new("/dev/stdin"))
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|stdin| stdin.len());
    let shown = std::io::stderr().is_terminal() && !std::io::stdin().is_terminal();
    let bar = match length {
        _ if !shown => ProgressBar::hidden(),
        Some(length) => ProgressBar::new(length).with_style(style(&format!(
            "{doing} {{bar:30}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{eta}}"
        ))),
        None => ProgressBar::new_spinner()
            .with_style(style(&format!("{doing} {{bytes}} {{bytes_per_sec}}"))),
    };
    (bar.wrap_read(std::io::stdin().lock()), bar)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
