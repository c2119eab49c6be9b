//! An exchange driven by bytes: any message in any phase, any size and cut, any answer of ledger, identity and approvals in
//! any order, jumps of both clocks. What the bench checks must hold after every step.
//!
//! One reading of the bytes for everything that makes them: the property tests, `./dev fuzz exchanges` and libFuzzer.

use std::{fmt, time::Duration};

use super::bench::*;
use crate::{
    approval::Given,
    exchange::{Headers, Input, NotAsked, NotClaimed, NotUsed},
    identity::TokenError,
};

/// The most steps of one script: what is longer is not read further.
const STEPS: usize = 120;

/// Plays `bytes` and ends the exchange.
///
/// # Panics
/// Where a promise of the exchange does not hold; what was played is printed.
#[allow(unreachable_pub, reason = "the fuzz target reaches it")]
pub fn play(bytes: &[u8]) {
    let (tight, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let memory = if tight % 4 == 0 { 20_000 } else { 200_000 };
    let mut script = Script {
        bytes,
        bench: Bench::with(4096, 40_000, memory, 10),
        told: Told::default(),
    };
    script.open();
    for _ in 0..STEPS {
        if script.bytes.is_empty() {
            break;
        }
        script.step();
        script.masked();
    }
    end(&mut script.bench);
}

/// What was played, printed where it fails: libFuzzer and proptest show bytes only.
#[derive(Default)]
struct Told(Vec<String>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.join("\n"));
        }
    }
}

struct Script<'b> {
    bytes: &'b [u8],
    bench: Bench,
    told: Told,
}

/// Connections that mask and lend alike; the last masks nothing.
const HOSTS: [&str; 6] = [
    "api.example",
    "api.example",
    "held.example",
    "sealed.example",
    "both.example",
    "deferred.example",
];

const CALLERS: [&str; 8] = [
    "alice",
    "alice",
    "alice",
    "ian",
    "nobody",
    "mallory",
    "once-openai",
    "late",
];

/// Text with and without what must be masked, whole and in parts.
const WORDS: [&str; 12] = [
    "hello",
    SSN,
    "",
    CARD,
    "4111 1111",
    "bob@example.com",
    LENT,
    "sk-lent-",
    "-",
    "536-22",
    "\u{e9}",
    "\\u0035",
];

const KINDS: [&str; 5] = [
    "text/event-stream",
    "text/event-stream",
    "application/json",
    "application/json",
    "text/html",
];

const DELAYS: [Duration; 5] = [
    Duration::from_millis(249),
    Duration::from_secs(44),
    Duration::from_secs(61),
    Duration::from_secs(3600),
    Duration::from_secs(60 * 60 * 24 * 365),
];

impl Script<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        usize::from(*first)
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.byte() % of.len()].clone()
    }

    /// True once in `n` times.
    fn seldom(&mut self, n: usize) -> bool {
        self.byte() % n == 1
    }

    fn tell(&mut self, what: impl fmt::Display) {
        self.told.0.push(what.to_string());
    }

    /// Begins in some phase: chance alone seldom gets far.
    fn open(&mut self) {
        let way = self.byte() % 7;
        self.tell(format!("begins as {way}"));
        let bench = &mut self.bench;
        match way {
            0 => {}
            1 => _ = bench.ask("alice", &streamed("hi")).answer_stream(),
            2 => _ = bench.ask("alice", &prompt("hi")).answer_json(),
            3 => {
                let host = [(":authority", "held.example")];
                bench.head(head_with("alice", &host));
                bench.body(prompt(&format!("it is {SSN} .")).as_bytes(), true);
            }
            4 => {
                bench.slow_control = true;
                bench.ask("once-openai", &streamed("hi"));
            }
            5 => {
                bench.ledger = Ledger::Slow;
                bench.ask("alice", &streamed("hi"));
            }
            _ => _ = bench.head(head("alice")),
        }
    }

    fn step(&mut self) {
        match self.byte() % 32 {
            0 => self.head(),
            1 | 2 => self.body(),
            3 => self.say(Input::RequestTrailers),
            4 | 5 => {
                let fields = [("content-type", self.one(&KINDS))];
                let status = self.one(&[200, 200, 200, 429, 504]);
                let end = self.seldom(10);
                self.say(Input::ResponseHeaders(answer_head(status, &fields), end));
            }
            6..=14 => self.answer(),
            15 => {
                let trailers: Headers = [("x-t", LENT)].into_iter().collect();
                self.say(Input::ResponseTrailers(trailers));
            }
            16 => self.mood(),
            17 | 18 if self.bench.is_recording() => {
                self.tell("durable");
                self.bench.durable();
            }
            19 if self.bench.is_recording() => {
                self.tell("lost");
                self.bench.lost("audit_unavailable");
            }
            20 if self.bench.is_authenticating() => {
                self.tell("authenticated");
                self.bench.authenticated();
            }
            21 | 22 => {
                self.tell("the control log says");
                self.bench.controlled();
            }
            23 => self.decide(),
            24 | 25 if self.bench.holding.is_some() => {
                self.tell("looked at");
                self.bench.look();
            }
            26 => self.unasked(),
            27 => self.jump(),
            28 if self.bench.wants_tick() => self.say(Input::Tick),
            29 => self.say(Input::Tick),
            30 if self.seldom(4) => self.say(Input::Gone),
            31 if self.seldom(4) => self.say(Input::Shutdown),
            _ => {}
        }
    }

    /// What goes upstream is masked too, but on the one connection that masks nothing.
    fn masked(&self) {
        let upstream = &self.bench.seen.upstream;
        for hidden in &self.bench.hidden {
            assert!(!contains(upstream, hidden), "{hidden} went upstream");
        }
    }

    fn say(&mut self, input: Input) {
        self.tell(format!("{input:?}"));
        self.bench.handle(input);
    }

    fn head(&mut self) {
        let (caller, host) = (self.one(&CALLERS), self.one(&HOSTS));
        let (route, end) = (self.one(&["model", "other"]), self.seldom(10));
        self.tell(format!("{caller} calls {host} on {route}, {end}"));
        if host == "deferred.example" && !self.bench.has_begun() {
            self.bench.hidden.clear();
        }
        let headers = head_with(caller, &[(":authority", host)]);
        self.bench.head_on(headers, route, end);
    }

    fn text(&mut self) -> String {
        // Each word for itself: what follows a value on its heels may make it something else.
        (0..self.byte() % 6)
            .map(|_| format!(" {} .", self.one(&WORDS)))
            .collect()
    }

    fn body(&mut self) {
        let whole = match self.byte() % 8 {
            0 => self.noise(),
            1 => vec![b' '; 5000],
            2 => Vec::new(),
            3 => streamed(&self.text()).into_bytes(),
            _ => prompt(&self.text()).into_bytes(),
        };
        let end = !self.seldom(3);
        let cut = (self.byte() * 7).min(whole.len());
        let (first, rest) = whole.split_at(cut);
        self.said_of_a_body("body", &whole, end);
        self.bench.body(first, false);
        if self.seldom(12) {
            self.say(Input::RequestTrailers);
        }
        self.bench.body(rest, end);
    }

    fn answer(&mut self) {
        let bytes = match self.byte() % 16 {
            0..=4 => chunk(&self.text()).into_bytes(),
            5..=7 => {
                let text = self.text();
                let at = text.floor_char_boundary(self.byte().min(text.len()));
                (chunk(&text[..at]) + &chunk(&text[at..])).into_bytes()
            }
            8 => chunk("many words ")
                .repeat(10 * (1 + self.byte() % 30))
                .into_bytes(),
            9 => stop().into_bytes(),
            10 => DONE.as_bytes().to_vec(),
            11 | 12 => completion(&self.text()).into_bytes(),
            13 => b"data: {\"odd\":true}\n\n".to_vec(),
            14 => self.noise(),
            _ => Vec::new(),
        };
        let end = self.seldom(10);
        let cut = (self.byte() * 3).min(bytes.len());
        let (first, rest) = bytes.split_at(cut);
        self.said_of_a_body("answer", &bytes, end);
        self.bench
            .handle(Input::ResponseBody(first.to_vec().into(), false));
        self.bench
            .handle(Input::ResponseBody(rest.to_vec().into(), end));
    }

    fn said_of_a_body(&mut self, what: &str, bytes: &[u8], end: bool) {
        let text: String = String::from_utf8_lossy(bytes).chars().take(400).collect();
        self.tell(format!("{what} {text:?}, {end}"));
    }

    fn noise(&mut self) -> Vec<u8> {
        let (taken, rest) = self.bytes.split_at(self.bytes.len().min(40));
        self.bytes = rest;
        taken.to_vec()
    }

    fn mood(&mut self) {
        self.bench.ledger = self.one(&[
            Ledger::Durable,
            Ledger::Slow,
            Ledger::Slow,
            Ledger::Fails("audit_full"),
        ]);
        self.bench.slow_authenticator = self.seldom(2);
        self.bench.slow_control = self.seldom(2);
        let reachable = !self.seldom(4);
        self.bench.office.lock().unwrap().reachable = reachable;
        self.tell(format!(
            "the ledger is {:?}, control {reachable}",
            self.bench.ledger
        ));
    }

    /// Somebody decides, who may or may not.
    fn decide(&mut self) {
        let given = self.one(&[
            Given::Approve,
            Given::Approve,
            Given::Deny,
            Given::BreakGlass,
        ]);
        let who = self.one(&["bob", "eve", "alice"]);
        let group = self.one(&["security", "legal", "staff", "incident"]);
        self.tell(format!("{who} of {group} says {}", given.name()));
        let mut office = self.bench.office.lock().unwrap();
        if office.register.iter().count() == 1 {
            office.decide(who, group, given);
        }
    }

    /// An answer that nobody waits for, or another one than is due.
    fn unasked(&mut self) {
        let input = match self.byte() % 9 {
            0 => Input::Authenticated(super::rules::principal("token-of-alice")),
            1 => Input::Authenticated(Err(TokenError::IssuerUnavailable)),
            2 => Input::Asked(Err(NotAsked::TooMany)),
            3 => Input::Used(Ok(1)),
            4 => Input::Used(Err(NotUsed::Unavailable)),
            5 => Input::Claimed(Err(NotClaimed::Unavailable("approvals_unavailable"))),
            6 => Input::Held(crate::exchange::Held::Unavailable("approvals_unavailable")),
            // That a record is durable which is not would be a lie of the ledger's.
            _ if self.bench.is_recording() => return,
            7 => Input::Recorded(Ok(())),
            _ => Input::Recorded(Err("audit_unavailable")),
        };
        self.bench.forget_asked(&input);
        self.say(input);
    }

    /// Time passes: the exchange's own only ever on, the control log's also back.
    fn jump(&mut self) {
        let (delay, back) = (self.one(&DELAYS), self.seldom(2));
        self.tell(format!("{delay:?} pass, back {back}"));
        self.bench.pass(delay);
        let mut office = self.bench.office.lock().unwrap();
        let moved = match back {
            true => office.now.checked_sub(delay),
            false => office.now.checked_add(delay),
        };
        office.now = moved.unwrap_or(office.now);
    }
}

/// Whatever was said, a hang-up ends it, and all that was opened is closed.
fn end(bench: &mut Bench) {
    bench.ledger = Ledger::Durable;
    bench.slow_control = false;
    bench.handle(Input::Gone);
    while bench.is_recording() {
        bench.durable();
    }
    bench.controlled();
    while bench.is_recording() {
        bench.durable();
    }
    assert!(bench.seen.end.is_some(), "it hangs");
    let kinds = bench.kinds();
    let of = |wanted: &str| kinds.iter().filter(|kind| **kind == wanted).count();
    assert!(of("closed") == of("opened") || bench.has_failed() && of("closed") < of("opened"));
    assert_eq!(
        bench.rules.admission.inside(),
        0,
        "a place is not given back"
    );
}
