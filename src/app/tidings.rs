//! Who is told of what happens: webhooks of approvals, and alerts. As the configuration said when the program started.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{kafka_options, live::Live};
use crate::{
    approval::{Event, State},
    config::{self, Config, WebhookFormat},
    exchange::{Refusal, Summary},
    kafka::alerts::AlertTopic,
    runtime::{
        alerts::{Alerts, Masked, Noticed, Request, Sink},
        clock::Clock,
        control::Happened,
        notify::{Form, Hook, Message, Notifier, SigningSecret},
    },
};

/// How often it is looked whether the logs are in trouble: alerts of it come within a second.
const LOOK: Duration = Duration::from_millis(250);

/// Whoever is to be told.
#[derive(Debug)]
pub(super) struct Tidings {
    approvals: Option<Notifier>,
    alerts: Alerts,
    public_url: Option<Url>,
}

impl Sink for AlertTopic {
    fn offer(&self, id: &str, alert: &str) -> bool {
        AlertTopic::offer(self, id, alert)
    }
}

impl Tidings {
    /// # Errors
    /// Where a secret cannot be read, or Kafka's options are not understood.
    pub(super) fn start(config: &Config, clock: &Clock) -> anyhow::Result<Self> {
        let letters = |name: &str| config.audit.dir.join(format!("{name}.dead-letters"));
        let notifier =
            |hooks: &[config::Webhook], name: &str| -> anyhow::Result<Option<Notifier>> {
                if hooks.is_empty() {
                    return Ok(None);
                }
                let hooks = hooks.iter().enumerate();
                let hooks = hooks.map(|(n, from)| hook(from, format!("{name}.webhooks[{n}]")));
                let hooks = hooks.collect::<anyhow::Result<Vec<_>>>()?;
                let started = Notifier::start(hooks, Some(letters(name)), clock.clone());
                Ok(Some(started.with_context(|| format!("{name}.webhooks"))?))
            };
        let (mut approvals, mut public_url) = (None, None);
        if let Some(from) = &config.approvals {
            approvals = notifier(&from.webhooks, "approvals")?;
            public_url.clone_from(&from.public_url);
        }
        let (mut hooks, mut sink, mut masked) = (None, None, None);
        if let Some(from) = &config.alerts {
            hooks = notifier(&from.webhooks, "alerts")?;
            masked = from.masked_per_principal.map(|bound| Masked {
                most: u64::from(bound.count) - 1,
                within: bound.window,
            });
            if let (Some(topic), Some(kafka)) = (&from.topic, &config.audit.kafka) {
                let topic = AlertTopic::new(&kafka_options(kafka)?, topic)?;
                sink = Some(Arc::new(topic) as Arc<dyn Sink>);
            }
        }
        Ok(Self {
            approvals,
            alerts: Alerts::new(masked, hooks, sink, clock.clone()),
            public_url,
        })
    }

    /// Something happened to an approval, and is on record.
    pub(super) fn happened(&self, happened: &Happened) {
        let Some(approval) = &happened.approval else {
            return;
        };
        let at = happened.placed.at;
        let base = self.public_url.as_ref();
        let message = match (&happened.event, approval.state) {
            (Event::Asked(_), _) => Some(Message::asked(approval, at, base)),
            (Event::Decided(_), State::Approved | State::Denied) => {
                self.alerts.notice(&Noticed::Decided(approval.clone()));
                Some(Message::decided(approval, at, base))
            }
            (Event::Expired(_), _) => {
                self.alerts.notice(&Noticed::Expired(approval.clone()));
                Some(Message::expired(approval, at, base))
            }
            _ => None,
        };
        if let (Some(notifier), Some(message)) = (&self.approvals, message) {
            notifier.send(message);
        }
    }

    /// An exchange is over.
    pub(super) fn ended(&self, session: &str, summary: &Summary) {
        let Some((issuer, subject)) = &summary.caller else {
            return;
        };
        let request = || Request {
            session: session.to_owned(),
            connection: summary.connection.clone(),
            issuer: issuer.clone(),
            subject: subject.clone(),
        };
        // A ticket is no refusal: whether it becomes one is decided later, and told then.
        let asked = summary.code == Refusal::ApprovalRequired.code();
        if summary.outcome == "refused" && summary.status == 403 && !asked {
            self.alerts
                .notice(&Noticed::Denied(request(), summary.code));
        }
        let masked = summary
            .masked_request
            .values()
            .chain(summary.masked_response.values());
        let masked: u64 = masked.sum();
        if masked > 0 {
            self.alerts.notice(&Noticed::Masked(request(), masked));
        }
    }
}

fn hook(from: &config::Webhook, name: String) -> anyhow::Result<Hook> {
    let form = match &from.format {
        WebhookFormat::Slack => Form::Slack,
        WebhookFormat::Standard(secret) => {
            let secret = secret.read().with_context(|| format!("{name}.secret"))?;
            let secret = SigningSecret::new(secret.expose_secret());
            Form::Standard(secret.with_context(|| format!("{name}.secret"))?)
        }
    };
    Ok(Hook {
        name,
        url: from.url.clone(),
        form,
    })
}

/// Looks after the logs until told to stop.
pub(super) async fn look_after(live: Arc<Live>, stop: CancellationToken) {
    let mut due = tokio::time::interval(LOOK);
    let mut forged = 0;
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = stop.cancelled() => return,
        }
        let alerts = &live.tidings().alerts;
        let trouble = live.ledger().health().trouble;
        alerts.notice(&Noticed::Audit(trouble.map(|trouble| trouble.to_string())));
        if let Some(control) = live.control() {
            let now = control.forged();
            if now.count > forged {
                forged = now.count;
                alerts.notice(&Noticed::BadControlEvent {
                    offset: now.last,
                    why: "not signed by a certified key",
                });
            }
        }
    }
}
