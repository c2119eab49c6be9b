//! The register held against a model, and the rules of who may decide as a table.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

pub(crate) fn party(subject: &str) -> Party {
    Party {
        issuer: "https://issuer.example".into(),
        subject: subject.into(),
        also: BTreeSet::new(),
    }
}

fn also(subject: &str, names: &[&str]) -> Party {
    let also = names.iter().map(|name| (*name).to_owned()).collect();
    Party {
        also,
        ..party(subject)
    }
}

fn approver(who: Party, groups: &[&str]) -> Approver {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    Approver { who, groups }
}

fn requirement(slots: &[(&str, u8)]) -> Requirement {
    let slot = |&(group, distinct): &(&str, u8)| Slot {
        group: group.into(),
        distinct,
    };
    Requirement {
        slots: slots.iter().map(slot).collect(),
        reasons: vec!["an SSN in the prompt".into()],
        break_glass: BTreeSet::from(["incident".to_owned()]),
        expires_ms: 600_000,
    }
}

fn asked(id: &str, request: u8, caller: Party, slots: &[(&str, u8)]) -> Asked {
    Asked {
        id: Id::new(id).unwrap(),
        request: Digest([request; 32]),
        session: "s".into(),
        caller,
        requirement: requirement(slots),
        most_pending: 3,
        view: View::default(),
    }
}

/// A register with a clock.
struct World {
    register: Register,
    offset: u64,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        Self {
            register: Register::default(),
            offset: 0,
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
        }
    }

    fn after(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    fn tell(&mut self, event: &Event) -> Fate {
        self.offset += 1;
        let placed = Placed {
            offset: self.offset,
            at: self.now,
        };
        self.register.apply(placed, event)
    }

    fn ask(&mut self, id: &str, request: u8, slots: &[(&str, u8)]) -> Fate {
        let asked = asked(id, request, party("alice"), slots);
        self.tell(&Event::Asked(Box::new(asked)))
    }

    fn binding(&self, id: &str) -> Digest {
        let id = Id::new(id).unwrap();
        self.register
            .approval(&id)
            .map_or(Digest([0; 32]), |approval| approval.binding)
    }

    fn decide(&mut self, id: &str, by: Approver, given: Given) -> Fate {
        let decided = Decided {
            id: Id::new(id).unwrap(),
            binding: self.binding(id),
            given,
            by,
            reason: "looked at it".into(),
        };
        self.tell(&Event::Decided(Box::new(decided)))
    }

    fn approve(&mut self, id: &str, who: &str, groups: &[&str]) -> Fate {
        self.decide(id, approver(party(who), groups), Given::Approve)
    }

    fn claim(&mut self, id: &str) -> Fate {
        let claimed = Claimed {
            id: Id::new(id).unwrap(),
            binding: self.binding(id),
            session: "later".into(),
        };
        self.tell(&Event::Claimed(claimed))
    }

    fn stop(&mut self, id: &str, expired: bool) -> Fate {
        let stop = Stop {
            id: Id::new(id).unwrap(),
            by: None,
        };
        self.tell(&match expired {
            true => Event::Expired(stop),
            false => Event::Cancelled(stop),
        })
    }

    fn state(&self, id: &str) -> State {
        let id = Id::new(id).unwrap();
        self.register.approval(&id).unwrap().state_at(self.now)
    }
}

fn ignored(fate: Fate) -> Ignored {
    match fate {
        Fate::Ignored(why) => why,
        other => panic!("it counts: {other:?}"),
    }
}

fn counts(fate: Fate) -> State {
    match fate {
        Fate::Counts(approval) => approval.state,
        other => panic!("it does not count: {other:?}"),
    }
}

#[test]
fn an_approved_request_is_forwarded_once() {
    let mut world = World::new();
    assert_eq!(
        counts(world.ask("a", 1, &[("security", 1)])),
        State::Pending
    );
    assert_eq!(ignored(world.claim("a")), Ignored::NotApproved);
    assert_eq!(
        counts(world.approve("a", "bob", &["security"])),
        State::Approved
    );
    assert_eq!(counts(world.claim("a")), State::Consumed);
    assert_eq!(ignored(world.claim("a")), Ignored::Over(State::Consumed));
    // And asked anew, it is another approval.
    assert_eq!(
        counts(world.ask("b", 1, &[("security", 1)])),
        State::Pending
    );
    assert_eq!(ignored(world.claim("b")), Ignored::NotApproved);
}

#[test]
fn an_identical_request_joins_what_was_asked_and_another_does_not() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 1)]);
    let Fate::Joins(joined) = world.ask("b", 1, &[("security", 1)]) else {
        panic!("it was asked twice");
    };
    assert_eq!(joined.asked.id.as_str(), "a");
    assert_eq!(
        counts(world.ask("c", 2, &[("security", 1)])),
        State::Pending
    );
    // A no is a no for the same request again, as long as the question would have stood.
    world.decide("a", approver(party("bob"), &["security"]), Given::Deny);
    assert!(
        matches!(world.ask("d", 1, &[("security", 1)]), Fate::Joins(known) if known.state == State::Denied)
    );
    world.after(601);
    assert_eq!(
        counts(world.ask("e", 1, &[("security", 1)])),
        State::Pending
    );
}

#[test]
fn what_is_not_decided_in_time_is_a_no_by_the_logs_clock() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 1)]);
    assert_eq!(ignored(world.after(600).stop("a", true)), Ignored::Early);
    assert_eq!(
        ignored(world.after(1).approve("a", "bob", &["security"])),
        Ignored::Late
    );
    assert_eq!(world.state("a"), State::Expired);
    assert_eq!(counts(world.stop("a", true)), State::Expired);
    assert_eq!(
        ignored(world.stop("a", true)),
        Ignored::Over(State::Expired)
    );
    // At its last moment it counts; and what was approved must come in time too.
    world.ask("b", 2, &[("security", 1)]);
    assert_eq!(
        counts(world.after(600).approve("b", "bob", &["security"])),
        State::Approved
    );
    assert_eq!(ignored(world.after(601).claim("b")), Ignored::Late);
    // A broker's clock that steps back revives nothing.
    assert_eq!(ignored(world.after(-3600).claim("b")), Ignored::Late);
}

#[test]
fn a_decision_about_something_else_does_not_count() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 1)]);
    world.ask("b", 2, &[("security", 1)]);
    let decided = Decided {
        id: Id::new("a").unwrap(),
        binding: world.binding("b"),
        given: Given::Approve,
        by: approver(party("bob"), &["security"]),
        reason: String::new(),
    };
    assert_eq!(
        ignored(world.tell(&Event::Decided(Box::new(decided)))),
        Ignored::OtherBinding
    );
    world.approve("a", "bob", &["security"]);
    let claimed = Claimed {
        id: Id::new("a").unwrap(),
        binding: world.binding("b"),
        session: "s".into(),
    };
    assert_eq!(
        ignored(world.tell(&Event::Claimed(claimed))),
        Ignored::OtherBinding
    );
    assert_eq!(counts(world.claim("a")), State::Consumed);
}

#[test]
fn one_person_in_two_groups_fills_one_seat() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 1), ("legal", 1)]);
    assert_eq!(
        counts(world.approve("a", "bob", &["security", "legal"])),
        State::Pending
    );
    assert_eq!(
        ignored(world.approve("a", "bob", &["legal"])),
        Ignored::Cannot(Cannot::DecidedAlready)
    );
    // Bob, who could sit on either, moves over for Carol, who could not.
    assert_eq!(
        counts(world.approve("a", "carol", &["security"])),
        State::Approved
    );
}

#[test]
fn a_seat_that_is_filled_is_filled() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 2), ("legal", 1)]);
    world.approve("a", "bob", &["security"]);
    world.approve("a", "carol", &["security"]);
    assert_eq!(
        ignored(world.approve("a", "dan", &["security"])),
        Ignored::Cannot(Cannot::SeatsFilled)
    );
    // But anyone of them can still say no.
    assert_eq!(
        counts(world.decide("a", approver(party("dan"), &["security"]), Given::Deny)),
        State::Denied
    );
}

#[test]
fn nobody_decides_on_their_own_request_under_whatever_account() {
    let own = Ignored::Cannot(Cannot::OwnRequest);
    for (caller, decider) in [
        (party("alice"), party("alice")),
        // One human, two accounts, who both say so.
        (
            also("alice", &["mail:a@x"]),
            also("alice-admin", &["mail:a@x"]),
        ),
        // A service account and its owner.
        (
            also(
                "robot",
                &[&Party::account("https://issuer.example", "alice")],
            ),
            party("alice"),
        ),
        // Acting for somebody.
        (
            party("alice"),
            also(
                "robot",
                &[&Party::account("https://issuer.example", "alice")],
            ),
        ),
    ] {
        for given in [Given::Approve, Given::BreakGlass, Given::Deny] {
            let mut world = World::new();
            let asked = asked("a", 1, caller.clone(), &[("security", 1)]);
            world.tell(&Event::Asked(Box::new(asked)));
            let by = approver(decider.clone(), &["security", "incident"]);
            assert_eq!(
                ignored(world.decide("a", by, given)),
                own,
                "{caller:?} {decider:?}"
            );
        }
    }
    // The same subject at another issuer is somebody else.
    let mut elsewhere = party("alice");
    elsewhere.issuer = "https://other.example".into();
    assert!(!elsewhere.is_same_as(&party("alice")));
}

#[test]
fn an_administrator_has_no_silent_path() {
    let mut world = World::new();
    world.ask("a", 1, &[("security", 1)]);
    assert_eq!(
        ignored(world.approve("a", "root", &["admins"])),
        Ignored::Cannot(Cannot::NotAsked)
    );
    let admin = approver(party("root"), &["admins"]);
    assert_eq!(
        ignored(world.decide("a", admin, Given::BreakGlass)),
        Ignored::Cannot(Cannot::NoBreakGlass)
    );
    let rescuer = approver(party("eve"), &["incident"]);
    assert_eq!(
        counts(world.decide("a", rescuer, Given::BreakGlass)),
        State::Approved
    );
}

#[test]
fn a_caller_has_only_so_many_pending() {
    let mut world = World::new();
    for (id, request) in [("a", 1), ("b", 2), ("c", 3)] {
        counts(world.ask(id, request, &[("security", 1)]));
    }
    assert_eq!(
        ignored(world.ask("d", 4, &[("security", 1)])),
        Ignored::TooManyPending
    );
    world.stop("a", false);
    assert_eq!(
        counts(world.ask("d", 4, &[("security", 1)])),
        State::Pending
    );
}

#[test]
fn what_nobody_could_decide_is_not_asked() {
    let mut world = World::new();
    for slots in [&[][..], &[("security", 0)], &[("security", 17)]] {
        assert_eq!(ignored(world.ask("a", 1, slots)), Ignored::Impossible);
    }
    let mut forever = asked("a", 1, party("alice"), &[("security", 1)]);
    forever.requirement.expires_ms = u64::MAX;
    assert_eq!(
        ignored(world.tell(&Event::Asked(Box::new(forever)))),
        Ignored::Impossible
    );
}

#[test]
fn the_register_forgets_what_is_long_over_and_keeps_count() {
    let mut world = World::new();
    for n in 0..200u8 {
        let who = party(&format!("caller {n}"));
        let asked = asked(&format!("a{n}"), n, who, &[("security", 1)]);
        counts(world.tell(&Event::Asked(Box::new(asked))));
    }
    assert_eq!(world.register.pending(), 200);
    world.after(600 + 3601).ask("z", 255, &[("security", 1)]);
    assert_eq!(world.register.iter().count(), 1);
    assert_eq!(world.register.pending(), 1);
}

#[test]
fn a_proof_of_identity_is_fresh_or_it_is_not() {
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let ago = |seconds| Some(now - SignedDuration::from_secs(seconds));
    let strict = Freshness {
        within: std::time::Duration::from_secs(900),
        or_issued: false,
    };
    let lenient = Freshness {
        or_issued: true,
        ..strict
    };
    assert_eq!(strict.check(ago(900), None, now), Ok(()));
    assert_eq!(strict.check(ago(901), ago(1), now), Err(Cannot::Stale));
    assert_eq!(lenient.check(ago(901), ago(1), now), Err(Cannot::Stale));
    assert_eq!(strict.check(None, ago(1), now), Err(Cannot::NoAuthTime));
    assert_eq!(lenient.check(None, ago(1), now), Ok(()));
    assert_eq!(lenient.check(None, None, now), Err(Cannot::NoAuthTime));
    assert_eq!(strict.check(ago(-61), None, now), Err(Cannot::Stale));
}

#[test]
fn every_field_of_a_request_is_in_its_digest_and_none_runs_into_the_next() {
    let (alice, bob, shared) = (party("alice"), party("bob"), also("alice", &["person:x"]));
    let headers: &[(&str, &[u8])] = &[("accept", b"a"), ("x", b"b")];
    let base = RequestDigest {
        caller: &alice,
        connection: "c",
        method: "POST",
        authority: "h",
        target: "/v1",
        headers,
        model: "m",
        received: Digest([1; 32]),
        forwarded: Digest([2; 32]),
        credential: ("k", "h"),
        cluster: "c",
        chain: Digest([3; 32]),
    };
    let other = Digest([9; 32]);
    let shifted: &[(&str, &[u8])] = &[("accepta", b""), ("x", b"b")];
    let changed = [
        RequestDigest {
            caller: &bob,
            ..base
        },
        RequestDigest {
            connection: "d",
            ..base
        },
        RequestDigest {
            method: "PUT",
            ..base
        },
        RequestDigest {
            authority: "h:1",
            ..base
        },
        RequestDigest {
            target: "/v1?",
            ..base
        },
        RequestDigest {
            headers: shifted,
            ..base
        },
        RequestDigest {
            headers: &headers[..1],
            ..base
        },
        RequestDigest { model: "n", ..base },
        RequestDigest {
            received: other,
            ..base
        },
        RequestDigest {
            forwarded: other,
            ..base
        },
        RequestDigest {
            credential: ("l", "h"),
            ..base
        },
        RequestDigest {
            credential: ("k", "i"),
            ..base
        },
        RequestDigest {
            cluster: "d",
            ..base
        },
        RequestDigest {
            caller: &shared,
            ..base
        },
        RequestDigest {
            chain: other,
            ..base
        },
        // The same letters, cut elsewhere.
        RequestDigest {
            method: "POS",
            authority: "Th",
            ..base
        },
    ];
    let mut seen = BTreeSet::from([base.digest()]);
    for request in changed {
        assert!(seen.insert(request.digest()), "{request:?}");
    }
}

#[test]
fn a_binding_changes_with_all_an_approver_sees() {
    let base = asked("a", 1, party("alice"), &[("security", 1)]);
    let mut seen = BTreeSet::from([Binding(&base).digest()]);
    let mut differs = |change: &dyn Fn(&mut Asked)| {
        let mut other = base.clone();
        change(&mut other);
        assert!(seen.insert(Binding(&other).digest()));
    };
    differs(&|asked| asked.id = Id::new("b").unwrap());
    differs(&|asked| asked.request = Digest([2; 32]));
    differs(&|asked| asked.requirement.expires_ms += 1);
    differs(&|asked| asked.requirement.reasons.push("another".into()));
    differs(&|asked| asked.requirement.slots[0].distinct = 2);
    differs(&|asked| asked.requirement.slots[0].group = "legal".into());
    differs(&|asked| asked.requirement.break_glass.clear());
    differs(&|asked| asked.view.model = "other".into());
    differs(&|asked| asked.view.excerpt = vec!["text".into()]);
}

/// What may happen next, drawn by chance.
#[derive(Clone, Debug)]
enum Act {
    Ask(u8, u8, u8),
    Decide(u8, u8, bool, Given),
    Claim(u8, bool),
    Cancel(u8),
    Expire(u8),
    Wait(i64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let given = prop_oneof![
        4 => Just(Given::Approve),
        1 => Just(Given::Deny),
        1 => Just(Given::BreakGlass),
    ];
    let one = prop_oneof![
        (0..4u8, 0..3u8, 0..3u8).prop_map(|(id, request, caller)| Act::Ask(id, request, caller)),
        (0..4u8, 0..6u8, prop::bool::weighted(0.9), given)
            .prop_map(|(id, who, right, given)| Act::Decide(id, who, right, given)),
        (0..4u8, prop::bool::weighted(0.9)).prop_map(|(id, right)| Act::Claim(id, right)),
        (0..4u8).prop_map(Act::Cancel),
        (0..4u8).prop_map(Act::Expire),
        (-5i64..400).prop_map(Act::Wait),
    ];
    prop::collection::vec(one, 1..60)
}

/// Callers 0 to 2 and deciders 0 to 5; caller 2 and decider 5 are one human.
fn person(n: u8) -> Party {
    match n {
        2 | 5 => also(&format!("p{n}"), &["human"]),
        n => party(&format!("p{n}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// For every order of events: one consumption at most per approval, none without the yes of enough others than the caller,
    /// none late; what is over stays over; and a second fold of the same events comes to the same.
    #[test]
    fn whatever_is_told_in_whatever_order(acts in acts()) {
        let mut world = World::new();
        let mut again = Register::default();
        let groups: [&[&str]; 6] = [
            &["security"], &["legal"], &["security", "legal"], &["other"], &["incident"], &["security"],
        ];
        let mut consumed = BTreeSet::new();
        let mut over = std::collections::BTreeMap::new();
        for act in acts {
            let name = |id: u8| Id::new(&format!("a{id}")).unwrap();
            let binding = |id: u8, right: bool| match right {
                true => world.binding(&format!("a{id}")),
                false => Digest([77; 32]),
            };
            let event = match act {
                Act::Wait(seconds) => { world.after(seconds); continue }
                Act::Ask(id, request, caller) => Event::Asked(Box::new(Asked {
                    id: name(id),
                    ..asked("x", request, person(caller), &[("security", 1), ("legal", 1)])
                })),
                Act::Decide(id, who, right, given) => Event::Decided(Box::new(Decided {
                    id: name(id),
                    binding: binding(id, right),
                    given,
                    by: approver(person(who), groups[usize::from(who)]),
                    reason: "because".into(),
                })),
                Act::Claim(id, right) => Event::Claimed(Claimed {
                    id: name(id), binding: binding(id, right), session: "s".into(),
                }),
                Act::Cancel(id) => Event::Cancelled(Stop { id: name(id), by: None }),
                Act::Expire(id) => Event::Expired(Stop { id: name(id), by: None }),
            };
            let fate = world.tell(&event);
            let placed = Placed { offset: world.offset, at: world.now };
            prop_assert_eq!(&again.apply(placed, &event), &fate);
            if let (Event::Claimed(claim), Fate::Counts(approval)) = (&event, &fate) {
                prop_assert!(consumed.insert(claim.id.clone()), "consumed twice");
                prop_assert_eq!(claim.binding, approval.binding);
                let yes: Vec<_> = approval.votes.iter().filter(|vote| vote.given != Given::Deny).collect();
                let alone = yes.iter().any(|vote| vote.given == Given::BreakGlass);
                prop_assert!(alone || yes.len() == 2, "{:?}", approval.votes);
                for (n, vote) in yes.iter().enumerate() {
                    prop_assert!(!vote.by.who.is_same_as(&approval.asked.caller), "approved by the caller");
                    prop_assert!(yes[..n].iter().all(|other| !other.by.who.is_same_as(&vote.by.who)));
                }
                prop_assert!(approval.votes.iter().all(|vote| vote.given != Given::Deny));
            }
            for approval in world.register.iter() {
                let id = approval.asked.id.clone();
                let ended = !matches!(approval.state, State::Pending | State::Approved);
                if let Some(before) = over.insert(id, approval.state).filter(|_| ended)
                    && !matches!(before, State::Pending | State::Approved)
                {
                    prop_assert_eq!(before, approval.state, "what was over came back");
                }
            }
            let pending = world.register.iter().filter(|a| a.state == State::Pending).count();
            prop_assert_eq!(world.register.pending() as usize, pending);
        }
    }
}

#[test]
fn a_caller_is_known_by_every_name_their_token_gives() {
    use crate::identity::{Principal, testing};
    let principal = |issuer: &str, subject: &str, also: &[&str]| Principal {
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        also: also.iter().map(|name| (*name).to_owned()).collect(),
        ..testing::principal()
    };
    let (here, there) = ("https://here.example", "https://there.example");
    let same =
        |one: &Principal, other: &Principal| Party::from(one).is_same_as(&Party::from(other));
    let alice = principal(here, "1", &["person:alice@x"]);
    assert!(same(&alice, &principal(there, "9", &["person:alice@x"])));
    assert!(same(
        &alice,
        &principal(there, "robot", &[&Party::account(here, "1")])
    ));
    assert!(!same(&alice, &principal(there, "1", &["person:bob@x"])));
}
