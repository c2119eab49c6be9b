//! What masking a stream costs in memory: how often it asks for some, and how much it keeps; and what deciding costs.

#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be had without; it hands everything on to the system's"
)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use countersign::{
    approval::{Requirement, Slot, Wait},
    detect::Catalog,
    dialect::{self, Channel, Passed, TextFilter},
    identity::{AuthMethod, Principal},
    mask::{Masker, Plan},
    policy::{
        ApprovalRule, Call, Chain, Effect, Expression, LocalTime, Policy, Request, Vocabulary,
    },
};

/// Counts what the thread asks for.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: i64) {
    CALLS.set(CALLS.get() + calls);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every method hands its arguments on as they are, and gives back what it is given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let catalog = Catalog::builtin().unwrap();
    let scanner = catalog.scanner(catalog.entities()).unwrap();
    Arc::new(Plan::new(scanner, &BTreeMap::new()))
});

/// Without numbers: what a detector's own rule asks for when it is shown one is its business.
const PROSE: &str = concat!(
    "The figures are in line with what the board expected: revenue rose by half, and “costs” — as ever — rose too. ",
    "See https://example.org/report (appendix), or ask naïve questions.\n\nThe well-known self-service; then the ",
    "rest\u{200B}…\u{A0}日本語の文章。",
);

/// In pieces of so many characters.
fn pieces(text: &str, len: usize) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters
        .chunks(len)
        .map(|piece| piece.iter().collect())
        .collect()
}

#[test]
fn a_delta_of_prose_is_masked_without_asking_for_memory() {
    for len in [1, 2, 4, 16, 200] {
        let pieces = pieces(PROSE, len);
        let mut masker = Masker::new(PLAN.clone());
        let mut out = String::with_capacity(1 << 16);
        let mut turn = |masker: &mut Masker| {
            out.clear();
            pieces.iter().for_each(|piece| masker.push(piece, &mut out));
        };
        // The first turns build the automata that a thread keeps, and make what the stream itself needs.
        (0..20).for_each(|_| turn(&mut masker));
        let before = CALLS.get();
        (0..20).for_each(|_| turn(&mut masker));
        assert_eq!(CALLS.get() - before, 0, "in pieces of {len}");
    }
}

#[test]
fn a_stream_keeps_four_kib_and_what_it_holds() {
    let unseen = "1\u{200B}".repeat(2000);
    let wide = "１".repeat(2000);
    let texts = [
        PROSE.repeat(50),
        "a".repeat(20_000),
        format!("a@{}", "b.".repeat(3000)),
        format!("eyJ{}", "a".repeat(900)),
        format!("eyJ{}", "a".repeat(9000)),
        format!("eyJ{wide}.{unseen}"),
        format!("+{unseen}"),
        format!("eyJ{}", "\u{1D7CE}\u{200B}".repeat(800)),
        format!("eyJ{} {}", wide, PROSE.repeat(20)),
    ];
    let mut most_held = 0;
    for text in &texts {
        for len in [1, 7, 100, 5000] {
            let pieces = pieces(text, len);
            let mut out = String::with_capacity(1 << 20);
            // What a thread keeps is not what a stream keeps: it is there after the first of two streams.
            for measured in [false, true] {
                out.clear();
                let before = BYTES.get();
                let mut masker = Masker::new(PLAN.clone());
                for piece in &pieces {
                    masker.push(piece, &mut out);
                    let kept = BYTES.get() - before + size_of::<Masker>() as i64;
                    let held = masker.held() as i64;
                    assert!(
                        !measured || kept <= 4096 + held,
                        "{kept} bytes while {held} are held, in pieces of {len}: {:.40}",
                        text
                    );
                    most_held = most_held.max(held);
                }
            }
        }
    }
    assert!(
        most_held > 4096,
        "some of the texts make it hold much: {most_held}"
    );
}

/// One masker: each of the streams below has one text.
struct Lane(Masker);

impl TextFilter for Lane {
    fn push(&mut self, _: &Channel, text: &str, out: &mut String) {
        self.0.push(text, out);
    }
    fn finish(&mut self, _: &Channel, out: &mut String) {
        self.0.finish(out);
    }
    fn part(&mut self, text: &str) -> String {
        text.to_owned()
    }
    fn again(&mut self, _: &Channel, text: &str) -> String {
        text.to_owned()
    }
}

/// An event that goes on with a text, the `n`th of its stream.
type Event = fn(n: usize, text: &str) -> String;

/// A dialect, an endpoint, the type of its streams, and what their events are like.
const STREAMS: [(&str, &str, &str, Event); 5] = [
    (
        "openai",
        "chat_completions",
        "text/event-stream",
        |n, text| {
            let padding = "p".repeat(n % 9);
            format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}],\"obfuscation\":\"{padding}\"}}\n\n",
                1_700_000_000 + n
            )
        },
    ),
    ("openai", "responses", "text/event-stream", |n, text| {
        let padding = "p".repeat(n % 9);
        format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{n},\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"{text}\",\"logprobs\":[],\"obfuscation\":\"{padding}\"}}\n\n"
        )
    }),
    ("openai", "responses", "text/event-stream", |n, text| {
        format!(
            "data: {{\"type\":\"response.function_call_arguments.delta\",\"sequence_number\":{n},\"item_id\":\"i\",\"output_index\":0,\"delta\":\"{}{text}\"}}\n\n",
            if n == 0 { "[\\\"" } else { "" }
        )
    }),
    ("anthropic", "messages", "text/event-stream", |_, text| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
        )
    }),
    ("ollama", "chat", "application/x-ndjson", |n, text| {
        format!(
            "{{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00.{n}Z\",\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"done\":false}}\n"
        )
    }),
];

#[test]
fn an_event_of_prose_is_read_masked_and_written_without_asking_for_memory() {
    for (which, (dialect, endpoint, kind, event)) in STREAMS.into_iter().enumerate() {
        let dialect = dialect::by_name(dialect).unwrap();
        let mut endpoints = dialect.endpoints().iter();
        let endpoint = endpoints.find(|known| known.name == endpoint).unwrap();
        let mut reader = dialect.read_response(endpoint, 200, Some(kind)).unwrap();
        let mut lane = Lane(Masker::new(PLAN.clone()));
        let mut passed = Passed::default();
        passed.now.reserve(1 << 20);
        let prose = PROSE.repeat(40).replace('\n', "\\n");
        let prose = prose.replace(|c: char| c.is_ascii_digit(), "");
        let events: Vec<String> = pieces(&prose, 8)
            .iter()
            .enumerate()
            // An escape is not cut: `\\` and `n` are two characters here.
            .map(|(n, text)| event(n, &text.replace('\\', "")))
            .collect();
        let (first, rest) = events.split_at(events.len() / 2);
        let mut read = |events: &[String]| {
            for event in events {
                passed.now.clear();
                reader
                    .read(event.as_bytes(), &mut lane, &mut passed)
                    .unwrap();
            }
        };
        read(first);
        let before = CALLS.get();
        read(rest);
        assert_eq!(CALLS.get() - before, 0, "stream {which}");
    }
}

fn principal(groups: usize) -> Principal {
    Principal {
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
        audiences: Vec::new(),
        groups: (0..groups).map(|n| format!("group {n}")).collect(),
        claims: BTreeMap::new(),
        auth_method: AuthMethod::OidcJwt,
        token_hash: [0; 32],
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        authenticated_at: None,
        issued_at: None,
        also: BTreeSet::new(),
        person_missing: false,
        grant: None,
        bound: countersign::identity::Bound::default(),
    }
}

/// How often deciding on one request asks for memory, under policies with these conditions and effects.
fn asked_to_decide(policies: &[(&str, Effect)], found: usize) -> u64 {
    let vocabulary = Vocabulary::default();
    let policy = |(when, then): &(&str, Effect)| {
        Arc::new(Policy {
            name: "policy".to_owned(),
            when: Expression::compile(when, &vocabulary).unwrap(),
            then: then.clone(),
        })
    };
    let chain = Chain::new(policies.iter().map(policy).collect());
    let (principal, call) = (principal(found), Call::default());
    let findings = (0..found)
        .map(|n| (format!("E{n}").as_str().into(), 1))
        .collect();
    let request = Request {
        principal: &principal,
        call: &call,
        findings: &findings,
        connection: "openai",
        dialect: "openai",
        risk: 7,
        time: Some(LocalTime::default()),
    };
    let decide = || drop(chain.evaluate(&request));
    // The first turn makes what the thread keeps.
    decide();
    let before = CALLS.get();
    decide();
    CALLS.get() - before
}

#[test]
fn a_decision_pays_for_what_its_conditions_name_and_no_more() {
    let allow = ("!request.stream", Effect::Allow);
    let approval = Effect::RequireApproval(ApprovalRule {
        requirement: Requirement {
            slots: vec![Slot {
                group: "security".to_owned(),
                distinct: 1,
            }],
            ..Requirement::default()
        },
        wait: Wait::Hold,
        max_hold: std::time::Duration::from_secs(1),
        mutable: false,
    });
    let plain = asked_to_decide(std::slice::from_ref(&allow), 0);
    // Neither what was found nor who asks, the score nor the time, where no condition names them.
    assert_eq!(asked_to_decide(std::slice::from_ref(&allow), 100), plain);
    // An approval that is not asked for costs what its condition does.
    let deny = Effect::Deny("no streams".to_owned());
    let unasked = |then| asked_to_decide(&[("request.stream", then), allow.clone()], 100);
    assert_eq!(unasked(approval.clone()), unasked(deny));
    // And one that is costs something, or this could not tell.
    let asked = [("!request.stream", approval), allow];
    assert!(asked_to_decide(&asked, 0) > plain);
}
