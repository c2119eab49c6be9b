use std::collections::BTreeSet;

use jiff::Timestamp;

use super::*;
use crate::approval::{
    Approver, Asked, Claimed, Decided, Given, Ignored, Party, Requirement, Slot, View,
};

fn party(subject: &str) -> Party {
    Party {
        issuer: "https://issuer.example".into(),
        subject: subject.into(),
        also: BTreeSet::new(),
    }
}

pub(crate) fn asked(id: &str, request: u8) -> Event {
    Event::Asked(Box::new(Asked {
        id: Id::new(id).unwrap(),
        request: Digest([request; 32]),
        session: "s".into(),
        caller: party("alice"),
        requirement: Requirement {
            slots: vec![Slot {
                group: "security".into(),
                distinct: 1,
            }],
            reasons: vec!["a reason".into()],
            break_glass: BTreeSet::new(),
            expires_ms: 60_000,
        },
        most_pending: 1_000,
        view: View::default(),
    }))
}

fn decided(approval: &Approval, who: &str, given: Given) -> Event {
    Event::Decided(Box::new(Decided {
        id: approval.asked.id.clone(),
        binding: approval.binding,
        given,
        by: Approver {
            who: party(who),
            groups: BTreeSet::from(["security".to_owned()]),
        },
        reason: String::new(),
    }))
}

fn claimed(approval: &Approval, session: &str) -> Event {
    Event::Claimed(Claimed {
        id: approval.asked.id.clone(),
        binding: approval.binding,
        session: session.into(),
    })
}

fn clock() -> (Clock, crate::runtime::clock::Hand) {
    Clock::manual("2026-03-01T12:00:00Z".parse().unwrap())
}

async fn ask(control: &Control, id: &str, request: u8) -> Arc<Approval> {
    match control.append(asked(id, request)).await.unwrap() {
        Fate::Counts(approval) => approval,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn of_a_thousand_decisions_on_one_approval_one_counts_and_one_claim_of_many() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    let approval = ask(&control, "x", 1).await;
    let votes = (0..1_000).map(|n| {
        let given = if n % 2 == 0 {
            Given::Approve
        } else {
            Given::Deny
        };
        control.append(decided(&approval, &format!("person {n}"), given))
    });
    let fates = futures::future::join_all(votes).await;
    let counted = fates
        .iter()
        .filter(|fate| matches!(fate, Ok(Fate::Counts(_))));
    assert_eq!(counted.count(), 1);
    let over = Ok(Fate::Ignored(Ignored::Over(State::Approved)));
    assert_eq!(fates.iter().filter(|fate| **fate == over).count(), 999);
    let claims = (0..100).map(|n| control.append(claimed(&approval, &format!("session {n}"))));
    let fates = futures::future::join_all(claims).await;
    assert_eq!(
        fates
            .iter()
            .filter(|fate| matches!(fate, Ok(Fate::Counts(_))))
            .count(),
        1
    );
}

#[tokio::test]
async fn whoever_waits_is_told_and_whoever_does_not_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    let approval = ask(&control, "x", 1).await;
    let mut waiting = control.watch(&approval.asked.id).unwrap();
    assert_eq!(waiting.borrow_and_update().state, State::Pending);
    control
        .append(decided(&approval, "bob", Given::Approve))
        .await
        .unwrap();
    waiting.changed().await.unwrap();
    assert_eq!(waiting.borrow_and_update().state, State::Approved);
    drop(waiting);
    drop(control.watch(&ask(&control, "y", 2).await.asked.id));
    let kept = control.watch(&approval.asked.id).unwrap();
    assert_eq!(control.0.folded().watched.len(), 1);
    drop(kept);
}

#[tokio::test]
async fn a_restart_knows_what_was_decided_and_what_is_not_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    let approval = ask(&control, "x", 1).await;
    assert_eq!(control.happened(10).await.len(), 1);
    control.recorded(&control.happened(1).await);
    control
        .append(decided(&approval, "bob", Given::Approve))
        .await
        .unwrap();
    control.append(claimed(&approval, "s1")).await.unwrap();
    control.close().await;
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    assert_eq!(
        control.approval(&approval.asked.id).unwrap().state,
        State::Consumed
    );
    let again = control.happened(10).await;
    assert!(
        matches!(
            again[..],
            [
                Happened {
                    event: Event::Decided(_),
                    ..
                },
                Happened {
                    event: Event::Claimed(_),
                    ..
                },
            ]
        ),
        "{again:?}"
    );
    let twice = control.append(claimed(&approval, "s2")).await.unwrap();
    assert_eq!(twice, Fate::Ignored(Ignored::Over(State::Consumed)));
    // Events of another replica are for that one to record.
    control.recorded(&control.happened(2).await);
    control.close().await;
    let other = Control::open(dir.path(), "b", clock().0).unwrap();
    assert_eq!(other.unrecorded(), 0);
}

#[tokio::test]
async fn what_was_recorded_of_another_log_says_nothing_of_this_one() {
    let record_one = async |dir: &Path, before: u8| {
        let control = Control::open(dir, "a", clock().0).unwrap();
        for n in 0..before {
            ask(&control, &format!("x{n}"), n).await;
        }
        control.recorded(&control.happened(10).await);
        assert_eq!(control.unrecorded(), 0);
        control.close().await;
    };
    let unrecorded = async |dir: &Path| {
        let control = Control::open(dir, "a", clock().0).unwrap();
        let unrecorded = control.unrecorded();
        control.close().await;
        unrecorded
    };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    record_one(here.path(), 3).await;
    assert_eq!(unrecorded(here.path()).await, 0);
    // Of a log that is longer, has other events where these stood, or another name.
    record_one(there.path(), 5).await;
    let written = std::fs::read_to_string(here.path().join("recorded")).unwrap();
    std::fs::write(there.path().join("recorded"), &written).unwrap();
    assert_eq!(unrecorded(there.path()).await, 5);
    let named = written.replace(FILES, "deployment topic");
    assert_ne!(named, written);
    std::fs::write(here.path().join("recorded"), named).unwrap();
    assert_eq!(unrecorded(here.path()).await, 3);
}

#[test]
fn a_topic_made_anew_and_longer_than_what_was_recorded_is_read_anew() {
    let (clock, _hand) = clock();
    let at = clock.now();
    let shared = Arc::new(Shared {
        folded: Mutex::new(Folded {
            recorded: Recorded {
                log: "d t".into(),
                to: 2,
                last: "n1".into(),
            },
            shared: true,
            ..Folded::default()
        }),
        backend: Backend::Topic(Box::default()),
        replica: "a".into(),
        clock,
        happened: Notify::new(),
        log: "d t".into(),
        recorded: PathBuf::new(),
    });
    let followed = Followed(Arc::downgrade(&shared));
    let take = |offset: u64, nonce: &str| {
        let envelope = Envelope {
            nonce: nonce.into(),
            replica: "a".into(),
            at,
            event: asked(&format!("x{offset}"), offset as u8),
        };
        followed.take(Placed { offset, at }, &envelope.to_bytes())
    };
    assert!(take(0, "n0") && take(1, "n1") && take(2, "n2"));
    assert_eq!(shared.folded().unrecorded.len(), 1);
    followed.reset(5);
    assert!(take(0, "m0"));
    assert!(!take(1, "m1"), "the follower is told to begin again");
    followed.reset(5);
    assert!((0..3).all(|n| take(n, &format!("m{n}"))));
    assert_eq!(shared.folded().unrecorded.len(), 3);
}

#[tokio::test]
async fn what_has_run_out_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, hand) = clock();
    let control = Control::open(dir.path(), "a", clock).unwrap();
    let approval = ask(&control, "x", 1).await;
    hand.advance(Duration::from_secs(60));
    assert_eq!(control.expire().await, Ok(0));
    hand.advance(Duration::from_secs(1));
    assert_eq!(control.expire().await, Ok(1));
    assert_eq!(control.expire().await, Ok(0));
    assert_eq!(
        control.approval(&approval.asked.id).unwrap().state,
        State::Expired
    );
}

#[tokio::test]
async fn after_an_event_of_a_newer_version_nothing_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = ControlLog::open(dir.path(), |_, _| {}).unwrap();
    let newer =
        br#"{"v":1,"nonce":"n","replica":"b","at":"1970-01-01T00:00:00Z","event":{"granted":{}}}"#;
    log.append(Timestamp::UNIX_EPOCH, [&newer[..]]).unwrap();
    drop(log);
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    assert_eq!(control.usable(), Err(ControlError::Newer));
    assert_eq!(
        control.append(asked("x", 1)).await,
        Err(ControlError::Newer)
    );
}

#[tokio::test]
async fn what_cannot_be_read_at_all_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = ControlLog::open(dir.path(), |_, _| {}).unwrap();
    log.append(Timestamp::UNIX_EPOCH, [&b"noise"[..]]).unwrap();
    drop(log);
    let control = Control::open(dir.path(), "a", clock().0).unwrap();
    assert_eq!(ask(&control, "x", 1).await.state, State::Pending);
}

#[test]
fn an_event_written_again_later_counts_for_nothing_in_a_log_that_others_write_to() {
    let noon: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let mut folded = Folded {
        shared: true,
        ..Folded::default()
    };
    let written = |event, minute: i64| {
        let at = noon + jiff::SignedDuration::from_mins(minute);
        let envelope = Envelope {
            nonce: format!("n{minute}"),
            replica: "a".into(),
            at,
            event,
        };
        envelope.to_bytes()
    };
    let mut offset = 0;
    let mut take = |bytes: &[u8], minute: i64| {
        offset += 1;
        let at = noon + jiff::SignedDuration::from_mins(minute);
        folded.take(Placed { offset, at }, bytes, "b").unwrap().1
    };
    let ask = written(asked("x", 1), 0);
    let Fate::Counts(approval) = take(&ask, 0) else {
        panic!("it is of its time");
    };
    let yes = written(decided(&approval, "bob", Given::Approve), 0);
    let claim = written(claimed(&approval, "s1"), 0);
    for event in [&yes, &claim] {
        assert!(matches!(take(event, 1), Fate::Counts(_)));
    }
    // Known as long as a copy would be of its time, and forgotten only later.
    for minute in [3, 6, 300] {
        for event in [&ask, &yes, &claim] {
            assert!(matches!(take(event, minute), Fate::Ignored(_)), "{minute}");
        }
    }
}
