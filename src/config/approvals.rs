//! Approvals: what asks for them, where they are kept, and who is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use jiff::tz::{self, TimeZone};
use url::Url;

use super::{
    Access, Alerts, Approvals, Audit, ControlKafka, Issuer, MaskedAlert, Sealing, Webhook,
    WebhookFormat,
    audit::topic,
    issuers::web,
    raw,
    understand::{At, Notes, secret},
    units,
};
use crate::{
    approval::{Freshness, Requirement, Slot, Wait},
    detect::Entity,
    policy::{ApprovalRule, ModelPattern, Risk},
};

/// The topic of the control log, unless the file says otherwise.
pub const CONTROL_TOPIC: &str = "countersign.control.v1";
/// The topic of alerts, unless the file says otherwise.
pub const ALERTS_TOPIC: &str = "countersign.alerts.v1";

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest that a request is held.
pub(crate) const LONGEST_HOLD: Duration = Duration::from_secs(600);
/// Most that any part of the score weighs.
const MAX_WEIGHT: u32 = 1_000_000;
/// Longest name of a group in a token, in bytes.
const MAX_GROUP_BYTES: usize = 256;

/// What the policy `name` asks for.
pub(super) fn rule(
    raw: raw::RequireApproval,
    name: &str,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<ApprovalRule> {
    let mut slots: Vec<Slot> = Vec::with_capacity(raw.approvers.len());
    for (i, approvers) in raw.approvers.into_iter().enumerate() {
        let at = at.key("approvers").index(i).key("group");
        group(&approvers.group, &at, notes);
        if slots.iter().any(|slot| slot.group == approvers.group) {
            notes.fault(&at, "the group is listed already; raise its `distinct`");
        }
        slots.push(Slot {
            group: approvers.group,
            distinct: approvers.distinct.unwrap_or(1),
        });
    }
    for (i, reason) in raw.reasons.iter().enumerate() {
        one_line(reason, &at.key("reasons").index(i), notes);
    }
    let reasons: Vec<String> = match raw.reasons.as_slice() {
        [] => vec![name.to_owned()],
        reasons => reasons.iter().map(|text| text.trim().to_owned()).collect(),
    };
    let expires = Bounds(10 * 60, SECOND, DAY).read(raw.expires.as_deref(), at, "expires", notes);
    let max_hold =
        Bounds(45, SECOND, LONGEST_HOLD).read(raw.max_hold.as_deref(), at, "max_hold", notes);
    let break_glass = groups(raw.break_glass, &at.key("break_glass"), notes);
    Some(ApprovalRule {
        requirement: Requirement {
            slots,
            reasons,
            break_glass,
            // At most a day.
            expires_ms: u64::try_from(expires?.as_millis()).unwrap_or(u64::MAX),
        },
        wait: match raw.wait {
            None | Some(raw::Wait::Hold) => Wait::Hold,
            Some(raw::Wait::Defer) => Wait::Defer,
            Some(raw::Wait::Caller) => Wait::Caller,
        },
        max_hold: max_hold?,
        mutable: matches!(raw.mutable, Some(raw::Mutable::Allow)),
    })
}

/// Whether `text` is one line for people; a fault where it is not.
pub(super) fn one_line(text: &str, at: &At, notes: &mut Notes<'_>) {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
        notes.fault(at, "a reason is one line of 1 to 200 characters");
    }
}

fn group(name: &str, at: &At, notes: &mut Notes<'_>) {
    if name.is_empty() || name.len() > MAX_GROUP_BYTES {
        notes.fault(
            at,
            format!("a group's name has 1 to {MAX_GROUP_BYTES} bytes"),
        );
    }
}

fn groups(raw: Vec<String>, at: &At, notes: &mut Notes<'_>) -> BTreeSet<String> {
    for (i, name) in raw.iter().enumerate() {
        group(name, &at.index(i), notes);
    }
    raw.into_iter().collect()
}

/// A default in seconds, the shortest and the longest.
pub(super) struct Bounds(pub(super) u64, pub(super) Duration, pub(super) Duration);

impl Bounds {
    pub(super) fn read(
        self,
        raw: Option<&str>,
        at: &At,
        key: &str,
        notes: &mut Notes<'_>,
    ) -> Option<Duration> {
        let Self(default, least, most) = self;
        let Some(text) = raw else {
            return Some(Duration::from_secs(default));
        };
        let message = match units::duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => return Some(duration),
            Ok(_) => {
                let (least, most) = (spelled(least), spelled(most));
                format!("must be between {least} and {most}")
            }
            Err(message) => message,
        };
        notes.fault(&at.key(key), message);
        None
    }
}

/// A bound as it would be written.
fn spelled(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// What a request's risk is made of.
pub(super) fn risk(
    raw: raw::Risk,
    known: &BTreeSet<Entity>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Risk {
    let mut risk = Risk {
        per_kib: raw.per_kib.unwrap_or_default(),
        tools: raw.tools.unwrap_or_default(),
        ..Risk::default()
    };
    for (name, weight) in raw.entities {
        let at = at.key("entities").key(&name);
        if weight > MAX_WEIGHT {
            notes.fault(&at, format!("must be at most {MAX_WEIGHT}"));
        }
        match known.get(name.as_str()) {
            Some(entity) => {
                risk.entities.insert(entity.clone(), weight);
            }
            None => {
                let message = format!("unknown entity `{name}`: no detector finds it");
                notes.unknown(&at, message, &name, known.iter().map(|entity| &**entity));
            }
        }
    }
    let mut all_before: Option<usize> = None;
    for (i, entry) in raw.models.into_iter().enumerate() {
        let at = at.key("models").index(i).key("model");
        if let Some(first) = all_before {
            let message = format!("never reached: models[{first}] takes every model");
            notes.fault(&at, message);
        }
        match ModelPattern::new(&entry.model) {
            Some(pattern) => risk.models.push((pattern, entry.score)),
            None => notes.fault(&at, "a model's name has 1 to 200 characters on one line"),
        }
        if entry.model.chars().all(|c| c == '*') {
            all_before.get_or_insert(i);
        }
    }
    risk
}

/// Where conditions take their time from.
pub(super) fn time_zone(raw: Option<&str>, at: &At, notes: &mut Notes<'_>) -> TimeZone {
    let Some(name) = raw else {
        return TimeZone::UTC;
    };
    TimeZone::get(name).unwrap_or_else(|_| {
        let known: Vec<String> = tz::db().available().map(|name| name.to_string()).collect();
        let message = match known.is_empty() {
            false => "unknown time zone; write an IANA name such as `Europe/Berlin`",
            true => "this machine knows no time zones: install its tzdata",
        };
        notes.unknown(at, message, name, known.iter().map(String::as_str));
        TimeZone::UTC
    })
}

pub(super) fn approvals(
    raw: raw::Approvals,
    audit: Option<&Audit>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Approvals> {
    let beside = audit.map_or(Path::new(""), |audit| &audit.dir);
    let dir = match &raw.dir {
        Some(dir) => notes.path(dir, &at.key("dir")),
        None => beside.join("control"),
    };
    let max_holds = raw.max_holds.unwrap_or(2000);
    let max_holds_per_principal = match raw.max_holds_per_principal {
        Some(written) if written > max_holds => {
            notes.fault(
                &at.key("max_holds_per_principal"),
                format!("must be at most `max_holds`, which is {max_holds}"),
            );
            written
        }
        Some(written) => written,
        None => max_holds.min(50),
    };
    let within = Bounds(15 * 60, SECOND, DAY).read(raw.fresh.as_deref(), at, "fresh", notes);
    let or_issued = matches!(raw.fresh_from, Some(raw::FreshFrom::Issued));
    if or_issued {
        let message = "a token can be issued long after its holder signed in; prefer an issuer with `auth_time`";
        notes.warn(&at.key("fresh_from"), message);
    }
    let public_url = raw.public_url.map(|text| {
        let at = at.key("public_url");
        web(&text, false, &at, notes)
    });
    let has_kafka = audit.is_none_or(|audit| audit.kafka.is_some());
    let kafka = raw.kafka.map(|raw| {
        let at = at.key("kafka");
        if !has_kafka {
            let message = "`kafka` needs brokers: say where they are under `audit.kafka`";
            notes.fault(&at, message);
        }
        kafka(raw, &at, notes)
    });
    let webhooks = webhooks(raw.webhooks, &at.key("webhooks"), notes);
    Some(Approvals {
        dir,
        max_holds,
        max_holds_per_principal,
        max_pending_per_principal: raw.max_pending_per_principal.unwrap_or(100),
        freshness: Freshness {
            within: within?,
            or_issued,
        },
        public_url: written(public_url)?,
        kafka: written(kafka)?,
        webhooks,
    })
}

/// What may be absent, but not faulty.
pub(super) fn written<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn kafka(raw: raw::ControlKafka, at: &At, notes: &mut Notes<'_>) -> Option<ControlKafka> {
    let topic = topic(raw.topic, CONTROL_TOPIC, &at.key("topic"), notes);
    let key = notes.existing(&raw.key, &at.key("key"));
    let certificate = notes.existing(&raw.certificate, &at.key("certificate"));
    if raw.dev {
        let message =
            "dev: a broker's loss may lose decisions, and bring back approvals that were used";
        notes.warn(&at.key("dev"), message);
    }
    match raw.root.parse() {
        Ok(root) => Some(ControlKafka {
            topic,
            root,
            key,
            certificate,
            dev: raw.dev,
        }),
        Err(_) => {
            let message =
                "not a verifier key; write the line `NAME+HASH+KEY` that belongs to the root's key";
            notes.fault(&at.key("root"), message);
            None
        }
    }
}

fn webhooks(raw: Vec<raw::Webhook>, at: &At, notes: &mut Notes<'_>) -> Vec<Webhook> {
    let webhooks = raw.into_iter().enumerate();
    webhooks
        .filter_map(|(i, raw)| webhook(raw, &at.index(i), notes))
        .collect()
}

fn webhook(raw: raw::Webhook, at: &At, notes: &mut Notes<'_>) -> Option<Webhook> {
    let url: Option<Url> = web(&raw.url, true, &at.key("url"), notes);
    let slack = matches!(raw.format, Some(raw::WebhookFormat::Slack));
    let at_secret = at.key("secret");
    let format = match (raw.secret, slack) {
        (Some(source), false) => {
            let (file, env) = (source.file.as_deref(), source.env.as_deref());
            secret(file, env, &at_secret, notes).map(WebhookFormat::Standard)
        }
        (None, true) => Some(WebhookFormat::Slack),
        (Some(_), true) => {
            let message = "`slack` has no signature; leave `secret` out";
            notes.fault(&at_secret, message);
            None
        }
        (None, false) => {
            let message =
                "a message that nobody can check is worth nothing: say where its `secret` is";
            notes.fault(at, message);
            None
        }
    };
    Some(Webhook {
        url: url?,
        format: format?,
    })
}

pub(super) fn alerts(
    raw: raw::Alerts,
    audit: Option<&Audit>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Alerts> {
    let at_topic = at.key("topic");
    let kafka = audit.is_none_or(|audit| audit.kafka.is_some());
    if raw.topic.is_some() && !kafka {
        let message = "`topic` needs brokers: say where they are under `audit.kafka`";
        notes.fault(&at_topic, message);
    }
    let topic = kafka.then(|| topic(raw.topic, ALERTS_TOPIC, &at_topic, notes));
    let webhooks = webhooks(raw.webhooks, &at.key("webhooks"), notes);
    let masked = raw.masked_per_principal.map(|raw| {
        let at = at.key("masked_per_principal");
        let window = Bounds(5 * 60, SECOND, DAY).read(raw.window.as_deref(), &at, "window", notes);
        Some(MaskedAlert {
            count: raw.count,
            window: window?,
        })
    });
    if topic.is_none() && webhooks.is_empty() {
        notes.warn(
            at,
            "nobody is told: there is neither `audit.kafka` nor a webhook",
        );
    }
    Some(Alerts {
        topic,
        webhooks,
        masked_per_principal: written(masked)?,
    })
}

/// Lets every issuer's tokens for `audience` in at our API, and no others.
pub(super) fn api_audience(
    audience: Option<String>,
    issuers: &mut [Issuer],
    at: &At,
    notes: &mut Notes<'_>,
) {
    let Some(audience) = audience else { return };
    for issuer in issuers {
        if issuer.rules.audiences.contains(&audience) {
            let name = &issuer.rules.issuer;
            let message = format!(
                "tokens of `{name}` that call models are for `{audience}` too; choose one that they are not for"
            );
            notes.fault(&at.key("audience"), message);
        }
        issuer.rules.api_audience = Some(audience.clone());
    }
}

pub(super) fn access(raw: raw::Access, at: &At, notes: &mut Notes<'_>) -> Access {
    Access {
        auditor: groups(raw.auditor, &at.key("auditor"), notes),
        approver: groups(raw.approver, &at.key("approver"), notes),
        admin: groups(raw.admin, &at.key("admin"), notes),
        issuers: raw.issuers.into_iter().collect(),
    }
}

/// Every topic is for one thing: another's messages would be taken for damage.
pub(super) fn topics_differ(
    audit: &Audit,
    sealing: Option<&Sealing>,
    approvals: Option<&Approvals>,
    alerts: Option<&Alerts>,
    root: &At,
    notes: &mut Notes<'_>,
) {
    let Some(kafka) = &audit.kafka else { return };
    let mut taken = BTreeMap::from([
        (kafka.topic.as_str(), "audit.kafka.topic"),
        (
            kafka.checkpoint_topic.as_str(),
            "audit.kafka.checkpoint_topic",
        ),
    ]);
    if let Some(sealing) = sealing {
        taken.insert(&sealing.topic, "sealing.topic");
    }
    let control = approvals.and_then(|approvals| approvals.kafka.as_ref());
    if let Some(control) = control
        && let Some(other) = taken.insert(&control.topic, "approvals.kafka.topic")
    {
        let at = root.key("approvals").key("kafka").key("topic");
        notes.fault(&at, format!("the topic is already `{other}`"));
    }
    if let Some(topic) = alerts.and_then(|alerts| alerts.topic.as_deref())
        && let Some(other) = taken.get(topic)
    {
        let at = root.key("alerts").key("topic");
        notes.fault(&at, format!("the topic is already `{other}`"));
    }
}
