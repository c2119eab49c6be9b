use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use super::*;
use crate::{
    audit::{
        Durability,
        record::{
            Closed, Decision, Delivered, Endpoint, Entry, Event, Identity, Opened, Refused,
            RequestRecord, Timing,
        },
    },
    runtime::ledger::{Ledger, LedgerOptions},
    store::{
        layout,
        testing::{self},
    },
};

/// A ledger directory that a test writes to in between.
struct Log {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    ledger: Option<Ledger>,
}

impl Log {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            dir: testing::dir(),
            runtime,
            ledger: None,
        }
    }

    fn open(&mut self) {
        let mut options = LedgerOptions::new(self.dir.path(), "demo", "a");
        options.segment_bytes = 6_000;
        let _inside = self.runtime.enter();
        self.ledger = Some(Ledger::open(options).unwrap());
    }

    fn write(&mut self, session: &str, event: Event) {
        if self.ledger.is_none() {
            self.open();
        }
        let session = session.to_owned();
        let ledger = self.ledger.as_ref().unwrap();
        self.runtime
            .block_on(ledger.append(Entry { session, event }, Durability::Disk))
            .unwrap();
    }

    fn close(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            self.runtime.block_on(ledger.shutdown(0)).unwrap();
        }
    }

    /// Without a last word, as a killed process would.
    fn die(&mut self) {
        self.ledger = None;
        // The writer's thread lets go of the directory when it has noticed.
        while store_lock_is_held(self.dir.path()) {
            std::thread::yield_now();
        }
    }

    fn index(&self) -> Index {
        self.index_counted().0
    }

    /// The index and the bytes that were read for it.
    fn index_counted(&self) -> (Index, Build, u64) {
        let mut read = 0;
        let (index, build) =
            Index::open(self.dir.path(), None, false, &mut |bytes| read += bytes).unwrap();
        (index, build, read)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn store_lock_is_held(dir: &Path) -> bool {
    crate::store::lock::DirLock::is_held(dir)
}

fn map(entity: &str) -> BTreeMap<String, u32> {
    BTreeMap::from([(entity.to_owned(), 2)])
}

fn opened(who: &str, prompt: &str) -> Event {
    let body =
        serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}]});
    Event::Opened(Box::new(Opened {
        identity: Identity {
            subject: who.into(),
            issuer: "https://login.example".into(),
            groups: vec!["finance".into(), format!("team-{who}")],
            ..Identity::default()
        },
        endpoint: Endpoint {
            connection: format!("to-{who}"),
            ..Endpoint::default()
        },
        request: RequestRecord {
            payload: "masked".into(),
            body: body.to_string(),
            model: "gpt-4o".into(),
            findings: map("US_SSN"),
            ..RequestRecord::default()
        },
        decision: Decision {
            verdict: "allow".into(),
            policies: vec!["mask".into(), "allow".into()],
            ..Decision::default()
        },
        lent: String::new(),
    }))
}

fn delivered(text: &str) -> Event {
    Event::Delivered(Delivered {
        text: BTreeMap::from([("0.content".to_owned(), text.to_owned())]),
        timing: vec![Timing {
            at_ms: 5,
            bytes: 50,
            text: text.len() as u32,
        }],
        ..Delivered::default()
    })
}

fn closed() -> Event {
    Event::Closed(Box::new(Closed {
        outcome: "completed".into(),
        status: 200,
        model: "gpt-4o-2026".into(),
        findings: map("PERSON"),
        duration_ms: 90,
        ..Closed::default()
    }))
}

fn refused(who: &str, prompt: &str) -> Event {
    let Event::Opened(opened) = opened(who, prompt) else {
        unreachable!()
    };
    Event::Refused(Box::new(Refused {
        identity: opened.identity,
        endpoint: opened.endpoint,
        request: opened.request,
        decision: Decision {
            verdict: "deny".into(),
            code: "policy_denied".into(),
            ..Decision::default()
        },
        status: 403,
    }))
}

fn all() -> Filter {
    Filter {
        limit: 1_000,
        ..Filter::default()
    }
}

fn rows(index: &Index, filter: &Filter) -> Vec<Row> {
    let mut rows = Vec::new();
    index
        .find(filter, |row| {
            rows.push(row);
            true
        })
        .unwrap();
    rows
}

fn names(index: &Index, filter: &Filter) -> Vec<String> {
    let mut names: Vec<_> = rows(index, filter)
        .into_iter()
        .map(|row| row.session)
        .collect();
    names.sort();
    names
}

fn by_text(index: &Index, text: &str) -> Vec<String> {
    names(
        index,
        &Filter {
            text: Some(text.into()),
            ..all()
        },
    )
}

fn conversation(log: &mut Log, session: &str, who: &str, prompt: &str, answer: &str) {
    log.write(session, opened(who, prompt));
    // Cut where a stream would be: inside of words.
    for piece in answer.as_bytes().chunks(5) {
        log.write(session, delivered(std::str::from_utf8(piece).unwrap()));
    }
    log.write(session, closed());
}

/// What is asked, of what, and who is found.
type Case = (
    &'static str,
    fn(&mut Filter, &str),
    &'static str,
    &'static [&'static str],
);
/// A way to spoil an index.
type Spoil = (&'static str, fn(&Path));

#[test]
fn sessions_are_found_by_who_what_when_and_what_was_said() {
    let mut log = Log::new();
    conversation(&mut log, "s-a", "alice", "a blue moon", "It rises seldom");
    conversation(
        &mut log,
        "s-b",
        "bob",
        "a blue car, not a moon",
        "It drives",
    );
    log.write("s-c", refused("carol", "open the \u{e9}tude"));
    log.write("s-d", opened("dave", "still going on"));
    log.close();
    let index = log.index();
    assert!(index.faults().is_empty());
    assert_eq!(names(&index, &all()), ["s-a", "s-b", "s-c", "s-d"]);
    let newest = Filter {
        limit: 1,
        ..Filter::default()
    };
    assert_eq!(names(&index, &newest), ["s-d"]);

    let time = rows(&index, &all())[1].time.clone();
    let cases: [Case; 14] = [
        (
            "principal",
            |f, v| f.principal = vec![v.into()],
            "alice",
            &["s-a"],
        ),
        (
            "principal*",
            |f, v| f.principal = vec![v.into(), "b*".into()],
            "al*",
            &["s-a", "s-b"],
        ),
        ("no such", |f, v| f.principal = vec![v.into()], "ALICE", &[]),
        (
            "a wildcard elsewhere is none",
            |f, v| f.principal = vec![v.into()],
            "a%",
            &[],
        ),
        (
            "group",
            |f, v| f.group = vec![v.into()],
            "team-bob",
            &["s-b"],
        ),
        (
            "connection",
            |f, v| f.connection = vec![v.into()],
            "to-carol",
            &["s-c"],
        ),
        (
            "model that answered",
            |f, v| f.model = vec![v.into()],
            "gpt-4o-2026",
            &["s-a", "s-b"],
        ),
        (
            "verdict",
            |f, v| f.verdict = vec![v.into()],
            "deny",
            &["s-c"],
        ),
        (
            "code",
            |f, v| f.outcome = vec![v.into()],
            "policy_denied",
            &["s-c"],
        ),
        (
            "entity of the answer",
            |f, v| f.entity = vec![v.into()],
            "PERSON",
            &["s-a", "s-b"],
        ),
        (
            "words of both",
            |f, v| f.text = Some(v.into()),
            "moon blue",
            &["s-a", "s-b"],
        ),
        (
            "a word that was cut",
            |f, v| f.text = Some(v.into()),
            "RISES",
            &["s-a"],
        ),
        (
            "without its accent",
            |f, v| f.text = Some(v.into()),
            "etude",
            &["s-c"],
        ),
        (
            "a beginning",
            |f, v| f.text = Some(v.into()),
            "mo*",
            &["s-a", "s-b"],
        ),
    ];
    for (what, set, value, expected) in cases {
        let mut filter = all();
        set(&mut filter, value);
        assert_eq!(names(&index, &filter), expected, "{what}");
    }
    assert_eq!(by_text(&index, "\"blue moon\""), ["s-a"]);
    assert!(by_text(&index, "car OR moon").is_empty(), "no operators");
    let since = Filter {
        since: Some(time.clone()),
        ..all()
    };
    let until = Filter {
        until: Some(time),
        ..all()
    };
    assert_eq!(names(&index, &since), ["s-c", "s-d"]);
    assert_eq!(names(&index, &until), ["s-a", "s-b"]);

    let row = &rows(
        &index,
        &Filter {
            principal: vec!["alice".into()],
            ..all()
        },
    )[0];
    assert_eq!(
        (row.verdict.as_str(), row.outcome.as_str(), row.status),
        ("allow", "completed", 200)
    );
    assert_eq!(
        (row.groups.len(), row.policies.len(), row.duration_ms),
        (2, 2, 90)
    );
    assert_eq!(
        (&row.found_in_prompt, &row.found_in_answer),
        (&map("US_SSN"), &map("PERSON"))
    );
    assert_eq!((row.records, row.verified), (5, true));
}

#[test]
fn a_growing_log_is_followed_and_only_what_is_new_is_read() {
    let mut log = Log::new();
    for n in 0..40 {
        conversation(&mut log, &format!("s-{n:02}"), "alice", "early", "answers");
    }
    let (index, build, whole) = log.index_counted();
    assert_eq!((build, rows(&index, &all()).len()), (Build::Anew, 40));
    drop(index);
    log.write("s-late", opened("bob", "a late question"));
    let (index, build, more) = log.index_counted();
    assert_eq!(build, Build::Continued);
    assert!(more * 4 < whole, "{more} of {whole} bytes were read again");
    let row = &rows(
        &index,
        &Filter {
            principal: vec!["bob".into()],
            ..all()
        },
    )[0];
    assert_eq!((row.outcome.as_str(), row.records), ("", 1));
    assert_eq!(
        by_text(&index, "late question"),
        ["s-late"],
        "while it is open"
    );
    drop(index);
    log.write("s-late", delivered("patience"));
    log.write("s-late", closed());
    log.close();
    let (index, ..) = log.index_counted();
    assert_eq!(by_text(&index, "late patience"), ["s-late"]);
    drop(index);
    let (index, _, nothing) = log.index_counted();
    assert_eq!((nothing, index.faults().len()), (0, 0));
}

#[test]
fn a_session_that_a_crash_cut_is_one_over_both_chains() {
    let mut log = Log::new();
    log.write("s-1", opened("alice", "the question"));
    drop(log.index());
    log.die();
    log.open();
    log.close();
    let index = log.index();
    let row = &rows(&index, &all())[0];
    assert_eq!((row.outcome.as_str(), row.records), ("unknown", 2));
    let session = index.session("s-1").unwrap().unwrap();
    assert_eq!(
        session
            .records
            .iter()
            .map(|at| at.ordinal)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(
        session.verified
            && session
                .records
                .iter()
                .all(|at| index.read(at).unwrap().is_some())
    );
    assert!(index.session("s-2").unwrap().is_none());
}

/// A log of three runs, all of it indexed, each run of several segments.
fn three_runs() -> Log {
    let mut log = Log::new();
    for run in 0..3 {
        for n in 0..9 {
            conversation(
                &mut log,
                &format!("s-{run}{n}"),
                "alice",
                "question",
                "answer",
            );
        }
        log.close();
    }
    assert_eq!(rows(&log.index(), &all()).len(), 27);
    log
}

#[test]
fn what_was_done_to_the_log_since_it_was_indexed_is_seen() {
    let log = three_runs();
    let chain = layout::chains(log.path()).unwrap().remove(1);
    let segments = chain.segments().unwrap();
    assert!(segments.len() > 2);
    let (first, path) = &segments[1];
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let before = file.metadata().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 900).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 900).unwrap();
    // Whoever does so can set the time of change back, but not that of the inode's.
    file.set_modified(before.modified().unwrap()).unwrap();

    for _ in 0..2 {
        let index = log.index();
        let faults = index.faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].chain, chain.chain);
        assert!(faults[0].seq >= *first, "{faults:?}");
        let (sound, bad): (Vec<_>, Vec<_>) = rows(&index, &all())
            .into_iter()
            .partition(|row| row.verified);
        let of_run = |rows: &[Row], run: &str| {
            rows.iter()
                .filter(|row| row.session.starts_with(run))
                .count()
        };
        assert_eq!((of_run(&sound, "s-0"), of_run(&sound, "s-2")), (9, 9));
        assert!(of_run(&sound, "s-1") >= 1 && !bad.is_empty());
        for row in &bad {
            assert!(row.session.starts_with("s-1"));
            assert!(!index.session(&row.session).unwrap().unwrap().verified);
        }
    }

    file.write_all_at(&byte, 900).unwrap();
    let index = log.index();
    assert!(index.faults().is_empty() && rows(&index, &all()).iter().all(|row| row.verified));
}

#[test]
fn a_record_that_changes_after_it_was_indexed_is_not_given_out() {
    let log = three_runs();
    let index = log.index();
    let session = index.session("s-14").unwrap().unwrap();
    let at = session.records[1].clone();
    assert!(index.read(&at).unwrap().is_some());
    // With all its checksums right: as whoever rewrites the log would.
    let chain = layout::chains(log.path()).unwrap().remove(1);
    let path = chain.segment(at.segment);
    let stored = crate::store::reader::record_at(&path, at.offset)
        .unwrap()
        .unwrap();
    let text = String::from_utf8(stored.bytes)
        .unwrap()
        .replace("answe", "ANSWE");
    let mut frame = Vec::new();
    let hash = crate::audit::chain::record_hash(
        at.chain,
        at.seq,
        crate::audit::chain::Position::read(text.as_bytes())
            .unwrap()
            .previous,
        text.as_bytes(),
    );
    crate::store::frame::write_frame(&mut frame, at.seq, hash, 0, text.as_bytes());
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&frame, at.offset).unwrap();
    assert_eq!(index.read(&at).unwrap(), None);
    drop(index);
    let index = log.index();
    assert!(!index.faults().is_empty());
    assert!(!index.session("s-14").unwrap().unwrap().verified);
}

#[test]
fn chains_that_are_gone_are_out_of_the_index() {
    let log = three_runs();
    let first = layout::chains(log.path()).unwrap().remove(0);
    fs::remove_dir_all(&first.path).unwrap();
    let index = log.index();
    assert_eq!(rows(&index, &all()).len(), 18);
    assert!(index.session("s-00").unwrap().is_none());
    assert!(
        by_text(&index, "question")
            .iter()
            .all(|name| !name.starts_with("s-0"))
    );
    let fault = &index.faults()[0];
    assert_eq!(fault.chain, first.chain, "the next chain continues it");
}

#[test]
fn an_index_that_is_corrupt_or_of_another_version_is_built_anew() {
    let log = three_runs();
    let path = log.path().join(FILE);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let spoil: [Spoil; 5] = [
        ("another version", |path| {
            Connection::open(path)
                .unwrap()
                .pragma_update(None, "user_version", 999)
                .unwrap();
        }),
        ("no database", |path| fs::write(path, "hello").unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("cut", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(4_096 * 3).unwrap();
        }),
        ("pages overwritten", |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let pages = file.metadata().unwrap().len() / 4_096;
            for page in 1..pages {
                file.write_all_at(&[0xa5; 4_096], page * 4_096).unwrap();
            }
        }),
    ];
    for (what, spoil) in spoil {
        spoil(&path);
        let (index, build, _) = log.index_counted();
        assert_eq!(build, Build::Anew, "{what}");
        assert_eq!(rows(&index, &all()).len(), 27, "{what}");
    }
    // What somebody else keeps in a file that was named by mistake stays.
    let other = log.path().join("notes.txt");
    fs::write(&other, "mine").unwrap();
    let refused = Index::open(log.path(), Some(&other), true, &mut |_| ());
    assert!(matches!(refused, Err(IndexError::Foreign(_))));
    assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    let elsewhere = log.path().join("elsewhere.sqlite");
    for expected in [Build::Anew, Build::Continued] {
        let (_, build) = Index::open(log.path(), Some(&elsewhere), false, &mut |_| ()).unwrap();
        assert_eq!(build, expected);
    }
}

#[test]
fn an_index_that_grew_step_by_step_is_the_one_built_at_once() {
    let mut log = Log::new();
    let mut chance = 7_u64;
    let mut next = |below: u64| {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (chance >> 33) % below
    };
    let mut open = Vec::new();
    for n in 0..120 {
        match next(5) {
            0 => {
                let name = format!("s-{n}");
                log.write(&name, opened("alice", &format!("question{n}")));
                open.push(name);
            }
            1 if !open.is_empty() => {
                let name = open.swap_remove(next(open.len() as u64) as usize);
                log.write(&name, closed());
            }
            2 if !open.is_empty() => {
                let name = open[next(open.len() as u64) as usize].clone();
                log.write(&name, delivered(&format!("answer{n}")));
            }
            3 if next(6) == 0 => {
                log.close();
                open.clear();
            }
            _ => drop(log.index()),
        }
    }
    log.close();
    let grown = log.index();
    let said = |index: &Index| -> Vec<_> {
        (0..120)
            .map(|n| {
                (
                    by_text(index, &format!("question{n}")),
                    by_text(index, &format!("answer{n}")),
                )
            })
            .collect()
    };
    let (rows_grown, said_grown) = (rows(&grown, &all()), said(&grown));
    drop(grown);
    let (anew, build) = Index::open(log.path(), None, true, &mut |_| ()).unwrap();
    assert_eq!(build, Build::Anew);
    assert_eq!(rows(&anew, &all()), rows_grown);
    assert_eq!(said(&anew), said_grown);
    assert!(rows_grown.len() > 10);
}

#[test]
fn what_is_left_of_a_pruned_log_is_still_found() {
    let mut log = Log::new();
    for n in 0..30 {
        conversation(
            &mut log,
            &format!("s-{n:02}"),
            "alice",
            "a moon",
            "it rises",
        );
    }
    log.close();
    assert_eq!(names(&log.index(), &all()).len(), 30);
    let chain = layout::chains(log.path()).unwrap().remove(0);
    let upto = chain.segments().unwrap()[2].0;
    let (stump, _) = crate::store::prune::stump(&chain, upto).unwrap();
    crate::store::prune::fell(&chain, &stump).unwrap();
    for rebuilt in [false, true] {
        let (index, _) = Index::open(log.path(), None, rebuilt, &mut |_| {}).unwrap();
        assert!(index.faults().is_empty(), "{:?}", index.faults());
        let left = names(&index, &all());
        assert!((5..29).contains(&left.len()), "{left:?}");
        assert_eq!(left.last().map(String::as_str), Some("s-29"));
    }
}
