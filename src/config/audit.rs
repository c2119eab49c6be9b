//! The ledger, and Kafka behind it.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use super::{
    Audit, CheckpointWebhook, Kafka, Retention, raw,
    understand::{At, GIB, MIB, NAME_RULE, Notes, TIB, is_name, secret, size},
    units,
};
use crate::audit::{AUDIT_TOPIC, CHECKPOINT_TOPIC};

pub(super) fn audit(raw: raw::Audit, at: &At, notes: &mut Notes<'_>) -> Option<Audit> {
    let dir = notes.path(&raw.dir, &at.key("dir"));
    let deployment = raw.deployment.unwrap_or_else(|| "default".to_owned());
    if !is_name(&deployment) {
        notes.fault(&at.key("deployment"), NAME_RULE);
    }
    if raw
        .replica
        .as_deref()
        .is_some_and(|replica| !is_name(replica))
    {
        notes.fault(&at.key("replica"), NAME_RULE);
    }
    let segment = size(
        raw.segment.as_ref(),
        64 * MIB,
        MIB,
        4 * GIB,
        &at.key("segment"),
        notes,
    );
    let spool_cap = size(
        raw.spool_cap.as_ref(),
        10 * GIB,
        2 * MIB,
        1024 * TIB,
        &at.key("spool_cap"),
        notes,
    );
    let kafka = raw.kafka.map(|raw| kafka(raw, &at.key("kafka"), notes));
    let signing_key = raw
        .signing_key
        .map(|path| notes.existing(&path, &at.key("signing_key")));
    let checkpoint_file = raw
        .checkpoint_file
        .map(|path| notes.path(&path, &at.key("checkpoint_file")));
    let webhooks = raw.checkpoint_webhooks.into_iter().enumerate();
    let at_webhooks = at.key("checkpoint_webhooks");
    let checkpoint_webhooks = webhooks
        .filter_map(|(i, raw)| webhook(raw, &at_webhooks.index(i), notes))
        .collect();
    let retention = raw
        .retention
        .map(|raw| retention(&raw, &at.key("retention"), notes));
    let (segment, spool_cap) = (segment?, spool_cap?);
    if spool_cap < 2 * segment {
        let least = units::spelled(2 * segment);
        notes.fault(
            &at.key("spool_cap"),
            format!("must hold at least two segments: {least} or more"),
        );
    }
    Some(Audit {
        dir,
        deployment,
        replica: raw.replica,
        signing_key,
        segment,
        spool_cap,
        kafka,
        checkpoint_file,
        checkpoint_webhooks,
        retention: retention.flatten(),
    })
}

fn webhook(
    raw: raw::CheckpointWebhook,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<CheckpointWebhook> {
    let token = raw.token.and_then(|source| {
        let at = at.key("token");
        secret(source.file.as_deref(), source.env.as_deref(), &at, notes)
    });
    let at = at.key("url");
    let url = Url::parse(&raw.url)
        .ok()
        .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    let Some(url) = url else {
        notes.fault(&at, "not a URL; write `https://HOST/PATH`");
        return None;
    };
    if !url.username().is_empty() || url.password().is_some() {
        notes.fault(&at, "a URL shows in logs; put what is secret under `token`");
    }
    if url.scheme() == "http" && token.is_some() {
        notes.fault(&at, "a token must not go over `http://`");
    }
    Some(CheckpointWebhook { url, token })
}

/// The least age at which records may be deleted, unless the file says otherwise.
const AT_LEAST: Duration = Duration::from_secs(24 * 60 * 60);

fn retention(raw: &raw::Retention, at: &At, notes: &mut Notes<'_>) -> Option<Retention> {
    let archive = raw.archive.as_deref();
    let archive = archive.map(|path| notes.path(path, &at.key("archive")));
    let mut duration = |text: Option<&str>, key: &str| {
        let parsed = text.map(units::duration).transpose();
        parsed.map_err(|message| notes.fault(&at.key(key), message))
    };
    let age = duration(raw.age.as_deref(), "age");
    let at_least = duration(raw.at_least.as_deref(), "at_least");
    let size = raw.size.as_ref().map(|raw| {
        let at = at.key("size");
        size(Some(raw), 0, MIB, 1024 * TIB, &at, notes)
    });
    let (age, at_least) = (age.ok()?, at_least.ok()?.unwrap_or(AT_LEAST));
    if age.is_some_and(|age| age < at_least) {
        notes.fault(&at.key("age"), "must not be shorter than `at_least`");
    }
    Some(Retention {
        age,
        size: match size {
            Some(size) => Some(size?),
            None => None,
        },
        at_least,
        archive,
    })
}

/// Settings that the promise of delivery rests on, or that are set elsewhere.
const RESERVED: [&str; 17] = [
    "acks",
    "bootstrap.servers",
    "client.id",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transactional.id",
];
const SECRET: [&str; 5] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
];

fn kafka(raw: raw::Kafka, at: &At, notes: &mut Notes<'_>) -> Kafka {
    for (i, broker) in raw.brokers.iter().enumerate() {
        let good = broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', ',', ' '])
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !good {
            notes.fault(
                &at.key("brokers").index(i),
                "not a broker; write `host:port`",
            );
        }
    }
    let topic = topic(raw.topic, AUDIT_TOPIC, &at.key("topic"), notes);
    let at_checkpoints = at.key("checkpoint_topic");
    let checkpoint_topic = self::topic(
        raw.checkpoint_topic,
        CHECKPOINT_TOPIC,
        &at_checkpoints,
        notes,
    );
    if topic == checkpoint_topic {
        notes.fault(&at_checkpoints, "records and checkpoints need a topic each");
    }
    let mut options = BTreeMap::new();
    for (name, value) in raw.options {
        let at = at.key("options").key(&name);
        if RESERVED.contains(&name.as_str()) {
            notes.fault(
                &at,
                format!("`{name}` is set by the program, because delivery rests on it"),
            );
        } else if SECRET.contains(&name.as_str()) {
            notes.fault(&at, format!("`{name}` is a secret; put it under `secrets`, from a `file` or an `env` variable"));
        }
        let value = match value {
            raw::OptionValue::Bool(value) => value.to_string(),
            raw::OptionValue::Number(value) => value.to_string(),
            raw::OptionValue::Text(value) => value,
        };
        options.insert(name, value);
    }
    let mut secrets = BTreeMap::new();
    for (name, source) in raw.secrets {
        let at = at.key("secrets").key(&name);
        if RESERVED.contains(&name.as_str()) {
            notes.fault(
                &at,
                format!("`{name}` is set by the program, because delivery rests on it"),
            );
        }
        if options.contains_key(&name) {
            notes.fault(&at, format!("`{name}` is also set under `options`"));
        }
        if let Some(source) = secret(source.file.as_deref(), source.env.as_deref(), &at, notes) {
            secrets.insert(name, source);
        }
    }
    Kafka {
        brokers: raw.brokers,
        topic,
        checkpoint_topic,
        take_over: raw.take_over,
        options,
        secrets,
    }
}

pub(super) fn topic(raw: Option<String>, default: &str, at: &At, notes: &mut Notes<'_>) -> String {
    let topic = raw.unwrap_or_else(|| default.to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || topic.len() > 249
        || topic == "."
        || topic == ".."
        || !topic.chars().all(legal)
    {
        notes.fault(
            at,
            "not a topic: letters, digits, `.`, `_`, `-`, at most 249",
        );
    }
    topic
}
