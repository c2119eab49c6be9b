//! The rules as stories, and the way to a hook with a clock that stands still: an alert waits for nothing.

use jiff::SignedDuration;

use super::*;
use crate::runtime::{
    clock::Hand,
    notify::{
        Form, Hook,
        tests::{Server, start, story, until},
    },
};

#[derive(Debug, Default)]
struct Topic(Mutex<Vec<Value>>);

impl Sink for Topic {
    fn offer(&self, id: &str, alert: &str) -> bool {
        let alert: Value = serde_json::from_str(alert).unwrap();
        assert_eq!(alert["id"], id);
        let mut topic = self.0.lock().unwrap();
        topic.push(alert);
        topic.len() < 100
    }
}

struct World {
    alerts: Alerts,
    topic: Arc<Topic>,
    hand: Hand,
}

fn world(masked: Option<Masked>) -> World {
    let topic = Arc::new(Topic::default());
    let (clock, hand) = Clock::manual(start());
    World {
        alerts: Alerts::new(masked, None, Some(topic.clone()), clock),
        topic,
        hand,
    }
}

fn ten() -> Option<Masked> {
    Some(Masked {
        most: 10,
        within: Duration::from_secs(60),
    })
}

fn by(subject: &str) -> Request {
    Request {
        session: "s1".into(),
        connection: "openai".into(),
        issuer: "https://issuer.example".into(),
        subject: subject.into(),
    }
}

impl World {
    /// The rules of what is told with `noticed`.
    fn told(&self, noticed: &Noticed) -> Vec<(String, String)> {
        let before = self.topic.0.lock().unwrap().len();
        self.alerts.notice(noticed);
        let topic = self.topic.0.lock().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        topic[before..]
            .iter()
            .map(|alert| (text(&alert["rule"]), text(&alert["severity"])))
            .collect()
    }
}

fn one(rule: &str, severity: &str) -> Vec<(String, String)> {
    vec![(rule.to_owned(), severity.to_owned())]
}

#[test]
fn each_rule() {
    let decided = |given| Noticed::Decided(Arc::new(story(Some(given))));
    let expired = Noticed::Expired(Arc::new(story(None)));
    let denied = Noticed::Denied(by("alice"), "model_denied");
    let forged = Noticed::BadControlEvent {
        offset: 7,
        why: "an unknown key",
    };
    let on = world(ten());
    assert_eq!(on.told(&denied), one("denied", "low"));
    assert_eq!(
        on.told(&decided(Given::Deny)),
        one("approval_denied", "medium")
    );
    assert_eq!(
        on.told(&decided(Given::BreakGlass)),
        one("break_glass", "high")
    );
    assert_eq!(on.told(&decided(Given::Approve)), []);
    assert_eq!(on.told(&expired), one("approval_expired", "low"));
    assert_eq!(on.told(&forged), one("control_signature", "critical"));
    let topic = on.topic.0.lock().unwrap();
    assert_eq!(topic[1]["data"]["decided_by"]["subject"], "bob");
    let text = Value::from(topic.clone()).to_string();
    assert!(!text.contains("the excerpt") && !text.contains("a secret reason"));

    let off = world(None);
    assert_eq!(off.told(&Noticed::Masked(by("alice"), 1_000)), []);
    off.alerts.follow(ten());
    assert_eq!(
        off.told(&Noticed::Masked(by("alice"), 1_000)),
        one("masked", "medium")
    );
}

#[test]
fn the_log_in_trouble_is_told_of_once_and_so_is_that_it_is_well() {
    let world = world(None);
    let full = Noticed::Audit(Some("the audit log is full".to_owned()));
    assert_eq!(world.told(&Noticed::Audit(None)), []);
    assert_eq!(world.told(&full), one("audit", "critical"));
    assert_eq!(world.told(&full), []);
    let other = Noticed::Audit(Some("the disk fails".to_owned()));
    assert_eq!(world.told(&other), one("audit", "critical"));
    assert_eq!(world.told(&Noticed::Audit(None)), one("audit", "low"));
}

#[test]
fn many_masked_values_of_one_caller_within_a_window() {
    let world = world(ten());
    let masked = |subject: &str, values| world.told(&Noticed::Masked(by(subject), values));
    assert_eq!(masked("alice", 10), []);
    // Bob's are his own.
    assert_eq!(masked("bob", 10), []);
    assert_eq!(masked("alice", 1), one("masked", "medium"));
    // Told once for a window, which does not grow with what falls into it.
    assert_eq!(masked("alice", 50), []);
    world.hand.advance(Duration::from_secs(60));
    // The wall clock has no say.
    world.hand.jump(SignedDuration::from_hours(-5));
    assert_eq!(masked("alice", 10), []);
    assert_eq!(masked("alice", 1), one("masked", "medium"));
}

#[test]
fn the_table_of_callers_is_bounded_and_those_beyond_it_are_not_unseen() {
    let world = world(ten());
    for n in 0..MAX_CALLERS {
        world
            .alerts
            .notice(&Noticed::Masked(by(&format!("caller {n}")), 1));
    }
    let masked = |subject: &str, values| world.told(&Noticed::Masked(by(subject), values));
    assert_eq!(masked("one more", 8), []);
    assert_eq!(masked("and another", 3), one("masked", "medium"));
    assert_eq!(world.alerts.memory().windows.len(), MAX_CALLERS);
    // Windows that are over make room.
    world.hand.advance(Duration::from_secs(60));
    assert_eq!(masked("one more", 10), []);
    assert_eq!(masked("and another", 10), []);
    assert_eq!(world.alerts.memory().windows.len(), 2);
}

#[test]
fn what_the_topic_does_not_take_is_counted() {
    let world = world(ten());
    for _ in 0..101 {
        world.alerts.notice(&Noticed::Denied(by("alice"), "denied"));
    }
    assert_eq!(world.alerts.not_taken(), 2);
    assert_eq!(world.alerts.told(), BTreeMap::from([("denied", 101)]));
}

#[tokio::test]
async fn an_alert_reaches_its_hook_without_any_time_passing() {
    let server = Server::start(&[]).await;
    let (clock, _hand) = Clock::manual(start());
    let hook = Hook {
        name: "duty".into(),
        url: server.url.clone(),
        form: Form::Slack,
    };
    let notifier = Notifier::start(vec![hook], None, clock.clone()).unwrap();
    let alerts = Alerts::new(None, Some(notifier), None, clock);
    alerts.notice(&Noticed::Decided(Arc::new(story(Some(Given::BreakGlass)))));
    until("the alert is there", || !server.got().is_empty()).await;
    let text = server.got()[0].1["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("Alert (break\u{5f}\u{200b}glass): somebody approved"),
        "{text}"
    );
    assert!(text.contains("\nDecided by: bob"), "{text}");
}
