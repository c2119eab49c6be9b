//! Alerts: what somebody must hear of now, rather than find in the log.
//!
//! Promises: an alert leaves in the moment that its cause is told; telling never waits. Never: carries text of a request. Can miss: values
//! masked just before and just after a window ends, which count in two; everything while the process is down.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    clock::Clock,
    notify::{Message, Notifier},
};
use crate::approval::{Approval, Given};

/// Callers whose masked values are counted apart; more are counted as if they were one.
const MAX_CALLERS: usize = 10_000;

/// More than `most` values masked for one caller within `within`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// So many are none.
    pub most: u64,
    /// Counted in windows of this length, which begin with a caller's first value.
    pub within: Duration,
}

/// What is told.
#[derive(Clone, Debug)]
pub enum Noticed {
    /// A request of a known caller was refused.
    Denied(Request, &'static str),
    /// Values of a request or its answer were masked, so many.
    Masked(Request, u64),
    /// An approval was decided.
    Decided(Arc<Approval>),
    /// An approval expired.
    Expired(Arc<Approval>),
    /// The audit log is in this trouble, or in none. May be told again and again.
    Audit(Option<String>),
    /// An event of the control log is signed by nobody who may, or not at all.
    BadControlEvent {
        /// Where it stands.
        offset: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Whose request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The session.
    pub session: String,
    /// The connection.
    pub connection: String,
    /// `iss` of the caller.
    pub issuer: String,
    /// `sub` of the caller.
    pub subject: String,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody should know.
    Low,
    /// Somebody should look.
    Medium,
    /// Somebody should look now.
    High,
    /// What the gateway promises is at stake.
    Critical,
}

/// An alert, as it goes to the topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alert {
    /// Its own; the same wherever it arrives.
    pub id: String,
    /// When.
    pub at: String,
    /// Which rule.
    pub rule: &'static str,
    /// How bad.
    pub severity: Severity,
    /// In words.
    pub summary: String,
    /// Whose and which, by name.
    pub data: Value,
}

/// Where alerts go beside the webhooks.
pub trait Sink: Send + Sync {
    /// Takes an alert as JSON, under its id, without waiting; false where it cannot.
    fn offer(&self, id: &str, alert: &str) -> bool;
}

/// What the rules must remember. Told of time, so pure but for ids.
#[derive(Debug)]
struct Memory {
    /// `None` where masked values are not counted.
    masked: Option<Masked>,
    windows: HashMap<(String, String), Window>,
    /// Of callers that there is no window for any more.
    others: Window,
    trouble: Option<String>,
    told: BTreeMap<&'static str, u64>,
    not_taken: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Duration,
    values: u64,
}

impl Window {
    /// Counts `values`; how many there are now, where that has just become more than there may be.
    fn count(&mut self, values: u64, masked: Masked, now: Duration) -> Option<u64> {
        if now.saturating_sub(self.since) >= masked.within {
            *self = Self {
                since: now,
                values: 0,
            };
        }
        let before = self.values;
        self.values = before.saturating_add(values);
        (before <= masked.most && self.values > masked.most).then_some(self.values)
    }
}

impl Memory {
    fn alert(&mut self, noticed: &Noticed, now: Timestamp, elapsed: Duration) -> Option<Alert> {
        let (rule, severity, summary, data) = match noticed {
            Noticed::Denied(request, code) => (
                "denied",
                Severity::Low,
                "a request was refused".to_owned(),
                json!({"code": code, "request": of(request)}),
            ),
            Noticed::Masked(request, values) => {
                let (most, counted) = self.count(request, *values, elapsed)?;
                (
                    "masked",
                    Severity::Medium,
                    format!(
                        "more than {} values were masked for one caller within {} s",
                        most.most,
                        most.within.as_secs()
                    ),
                    json!({"values": counted, "request": of(request)}),
                )
            }
            Noticed::Decided(approval) => decided(approval)?,
            Noticed::Expired(approval) => (
                "approval_expired",
                Severity::Low,
                "an approval has expired".to_owned(),
                about(approval),
            ),
            Noticed::Audit(trouble) => {
                if self.trouble == *trouble {
                    return None;
                }
                self.trouble.clone_from(trouble);
                let words = trouble.as_deref();
                let severity = match words {
                    Some(_) => Severity::Critical,
                    None => Severity::Low,
                };
                let summary = words.unwrap_or("the audit log is well again").to_owned();
                ("audit", severity, summary, json!({"trouble": trouble}))
            }
            Noticed::BadControlEvent { offset, why } => (
                "control_signature",
                Severity::Critical,
                "an event of the control log does not count: nobody who may has signed it"
                    .to_owned(),
                json!({"offset": offset, "why": why}),
            ),
        };
        *self.told.entry(rule).or_default() += 1;
        Some(Alert {
            id: Uuid::now_v7().to_string(),
            at: now.to_string(),
            rule,
            severity,
            summary,
            data,
        })
    }

    /// The rule, and what was counted, where it is more than may be.
    fn count(&mut self, request: &Request, values: u64, now: Duration) -> Option<(Masked, u64)> {
        let masked = self.masked?;
        let caller = (request.issuer.clone(), request.subject.clone());
        if self.windows.len() >= MAX_CALLERS && !self.windows.contains_key(&caller) {
            let live = |window: &Window| now.saturating_sub(window.since) < masked.within;
            self.windows.retain(|_, window| live(window));
        }
        let fresh = Window {
            since: now,
            values: 0,
        };
        let window = match self.windows.len() < MAX_CALLERS || self.windows.contains_key(&caller) {
            true => self.windows.entry(caller).or_insert(fresh),
            // Rather one alert too many than one too few.
            false => &mut self.others,
        };
        Some((masked, window.count(values, masked, now)?))
    }
}

fn decided(approval: &Approval) -> Option<(&'static str, Severity, String, Value)> {
    let vote = approval.votes.last()?;
    let (rule, severity, summary) = match vote.given {
        Given::BreakGlass => (
            "break_glass",
            Severity::High,
            "somebody approved a request alone, by breaking the glass",
        ),
        Given::Deny => (
            "approval_denied",
            Severity::Medium,
            "an approval was denied",
        ),
        Given::Approve => return None,
    };
    let mut data = about(approval);
    data["decided_by"] = json!({"issuer": vote.by.who.issuer, "subject": vote.by.who.subject});
    Some((rule, severity, summary.to_owned(), data))
}

fn of(request: &Request) -> Value {
    json!({
        "session": request.session,
        "connection": request.connection,
        "caller": {"issuer": request.issuer, "subject": request.subject},
    })
}

fn about(approval: &Approval) -> Value {
    let asked = &approval.asked;
    json!({
        "approval": asked.id,
        "state": approval.state.name(),
        "reasons": asked.requirement.reasons,
        "request": {
            "session": asked.session,
            "connection": asked.view.connection,
            "caller": {"issuer": asked.caller.issuer, "subject": asked.caller.subject},
        },
    })
}

/// What hears of everything and tells of what matters. Cheap to clone.
#[derive(Clone)]
pub struct Alerts(Arc<Inner>);

struct Inner {
    memory: Mutex<Memory>,
    notifier: Option<Notifier>,
    sink: Option<Arc<dyn Sink>>,
    clock: Clock,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").finish_non_exhaustive()
    }
}

impl Alerts {
    /// Alerts to the hooks of `notifier` and to `sink`; of masked values where there is a bound for them.
    #[must_use]
    pub fn new(
        masked: Option<Masked>,
        notifier: Option<Notifier>,
        sink: Option<Arc<dyn Sink>>,
        clock: Clock,
    ) -> Self {
        let memory = Memory {
            masked,
            windows: HashMap::new(),
            others: Window::default(),
            trouble: None,
            told: BTreeMap::new(),
            not_taken: 0,
        };
        Self(Arc::new(Inner {
            memory: Mutex::new(memory),
            notifier,
            sink,
            clock,
        }))
    }

    /// Puts another bound into force; what was counted so far stays counted.
    pub fn follow(&self, masked: Option<Masked>) {
        self.memory().masked = masked;
    }

    /// Hears of something, and tells of it where a rule says so. Never waits.
    pub fn notice(&self, noticed: &Noticed) {
        let (now, elapsed) = (self.0.clock.now(), self.0.clock.monotonic());
        let Some(alert) = self.memory().alert(noticed, now, elapsed) else {
            return;
        };
        if let Some(sink) = &self.0.sink {
            // It is made of strings and numbers, which always are JSON.
            let text = serde_json::to_string(&alert).unwrap_or_default();
            if !sink.offer(&alert.id, &text) {
                self.memory().not_taken += 1;
            }
        }
        if let Some(notifier) = &self.0.notifier {
            notifier.send(message(&alert, now));
        }
    }

    /// Alerts since the start, by rule.
    #[must_use]
    pub fn told(&self) -> BTreeMap<&'static str, u64> {
        self.memory().told.clone()
    }

    /// Alerts that the sink did not take.
    #[must_use]
    pub fn not_taken(&self) -> u64 {
        self.memory().not_taken
    }

    // Held for a look at a map, never across anything that waits.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(alert: &Alert, at: Timestamp) -> Message {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let request = &alert.data["request"];
    let facts = [
        ("Approval", text(&alert.data["approval"])),
        ("Connection", text(&request["connection"])),
        ("Caller", text(&request["caller"]["subject"])),
        ("Session", text(&request["session"])),
        ("Code", text(&alert.data["code"])),
        ("Decided by", text(&alert.data["decided_by"]["subject"])),
    ];
    let data = json!(alert);
    let title = format!("Alert ({}): {}", alert.rule, alert.summary);
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    Message::of_alert(&alert.id, at, data, title, facts.collect())
}

#[cfg(test)]
mod tests;
