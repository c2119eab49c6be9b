//! What may go of the sealed payloads, and when: whole files, oldest first, never the newest.
//!
//! Promises: as for segments, except that no checkpoint has to cover them: the records that commit to them are in the log, and a
//! record that says which files go is durable before they do. How old a file is, its time of last change says, which an erasure puts
//! back; one whose sessions go on in the next is as old as that. Cannot do: carry out an erasure in what was archived.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{Retention, SweepError, Sweeper};
use crate::{
    audit::record::{Discarded, Event},
    runtime::ledger::ALARMS,
    store::sealed::{self, sealed_dir},
};

/// Files that may go by one rule.
#[derive(Debug, PartialEq)]
struct Due {
    files: Vec<PathBuf>,
    told: Discarded,
}

impl Sweeper {
    /// Takes the oldest file off the disk if it may and is to go; whether it did. A crash after any line leaves it there, or gone and
    /// on record. No erasure comes in between.
    pub(super) fn discard(&self, now: Timestamp) -> Result<bool, SweepError> {
        let dir = sealed_dir(&self.dir);
        let _held = match sealed::hold(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            held => held?,
        };
        let Some(mut due) = due(&dir, now, &self.retention, self.publishes, 1)? else {
            return Ok(false);
        };
        if let Some(to) = &self.retention.archive {
            sealed::copy(&due.files, &sealed_dir(to))?;
            due.told.rule = format!("archive, {}", due.told.rule);
        }
        self.record(vec![Event::Discarded(due.told.clone())])?;
        sealed::remove(&due.files, &dir)?;
        let Discarded { first, rule, .. } = due.told;
        tracing::info!(file = first, rule, "discarded sealed payloads");
        Ok(true)
    }
}

/// The oldest files that may go, and are to, at most `most_files`. With `publishes`, only those whose pieces Kafka has.
fn due(
    dir: &Path,
    now: Timestamp,
    retention: &Retention,
    publishes: bool,
    most_files: usize,
) -> io::Result<Option<Due>> {
    let files = sealed::files(dir)?;
    let Some((_, older)) = files.split_last() else {
        return Ok(None);
    };
    let (mut seen, mut bytes) = (Vec::new(), 0);
    for (_, path) in &files {
        let found = fs::metadata(path)?;
        bytes += found.len();
        let until = Timestamp::try_from(found.modified()?).map_err(io::Error::other)?;
        seen.push((found.len(), until));
    }
    let published = if publishes {
        Some(sealed::published(dir)?)
    } else {
        None
    };
    let above = |bytes: u64, percent: u8| {
        let cap = retention.sealed_cap.unwrap_or(u64::MAX);
        u128::from(bytes) * 100 >= u128::from(cap) * u128::from(percent)
    };
    // From the second alarm on, down to below the first.
    let pressing = above(bytes, ALARMS[1]);
    let rule = |until: Timestamp, bytes: u64| {
        let age = Duration::try_from(now.duration_since(until)).unwrap_or_default();
        if age < retention.at_least {
            return None;
        }
        if let Some(most) = retention.age.filter(|most| age >= *most) {
            return Some(format!("age {}s", most.as_secs()));
        }
        if let Some(most) = retention.size.filter(|most| bytes > *most) {
            return Some(format!("size {most}"));
        }
        let cap = retention.sealed_cap.unwrap_or_default();
        (pressing && above(bytes, ALARMS[0])).then(|| format!("cap {cap}"))
    };
    let mut due: Option<Due> = None;
    for (at, (number, path)) in older.iter().enumerate().take(most_files) {
        let Some((length, until)) = seen.get(at).copied() else {
            break;
        };
        if rule(until, bytes).is_none() || published.is_some_and(|at| !at.is_past(*number)) {
            break;
        }
        // Without the keys in it, what later files have of its sessions is lost too: it is as old as the last of those.
        let behind = files.get(at + 1..).unwrap_or_default();
        let last = at + sealed::goes_on_in(path, behind)?;
        let until = seen
            .get(at..=last)
            .and_then(|seen| seen.iter().map(|(_, until)| *until).max())
            .unwrap_or(until);
        let Some(rule) = rule(until, bytes) else {
            break;
        };
        let due = match &mut due {
            Some(due) if due.told.rule != rule => break,
            Some(due) => due,
            none => none.insert(Due {
                files: Vec::new(),
                told: Discarded {
                    first: *number,
                    rule,
                    ..Discarded::default()
                },
            }),
        };
        due.files.push(path.clone());
        due.told.last = *number;
        due.told.bytes += length;
        due.told.until = due.told.until.clone().max(format!("{until:.9}"));
        bytes -= length;
    }
    Ok(due)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "files have the time of the machine that the test runs on"
)]
mod tests {
    use std::{fs::File, time::SystemTime};

    use super::*;
    use crate::{
        audit::{
            Durability,
            record::{Entry, Event},
            seal::{Frame, FrameKind},
            verify::Verdict,
        },
        runtime::ledger::{Ledger, LedgerOptions},
        store::testing,
    };

    const HOUR: u64 = 3_600;

    /// Files 1 to 4, last written to 4, 3, 2 and 1 hours ago, each of 1,000 bytes and a bit.
    fn four(dir: &Path) {
        let sealed = sealed_dir(dir);
        for n in 1..=4 {
            let mut writer = sealed::Writer::open(&sealed, 1 << 20).unwrap();
            let frame = Frame {
                session: format!("s-{n}"),
                kind: FrameKind::Piece(0),
                body: vec![n; 1_000],
            };
            writer.append([&frame]).unwrap();
            let (_, path) = sealed::files(&sealed).unwrap().pop().unwrap();
            let ago = Duration::from_secs(HOUR * u64::from(5 - n));
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - ago).unwrap();
        }
    }

    fn numbers(dir: &Path) -> Vec<u64> {
        let files = sealed::files(&sealed_dir(dir)).unwrap();
        files.iter().map(|(number, _)| *number).collect()
    }

    fn retention(age: Option<u64>, size: Option<u64>, at_least: u64) -> Retention {
        Retention {
            age: age.map(|hours| Duration::from_secs(hours * HOUR)),
            size,
            at_least: Duration::from_secs(at_least * HOUR),
            archive: None,
            sealed_cap: None,
        }
    }

    #[test]
    fn a_file_goes_by_the_first_rule_that_says_so_if_it_may() {
        let dir = testing::dir();
        four(dir.path());
        let sealed = sealed_dir(dir.path());
        let capped = |cap| Retention {
            sealed_cap: Some(cap),
            ..retention(None, None, 0)
        };
        let gone = |retention: &Retention, publishes| {
            let due = due(&sealed, Timestamp::now(), retention, publishes, 4).unwrap();
            due.map(|due| {
                assert_eq!(due.told.last - due.told.first + 1, due.files.len() as u64);
                assert!(due.told.bytes > 1_000 * due.files.len() as u64);
                (due.told.first, due.told.last, due.told.rule)
            })
        };
        let upto = |last, rule: &str| Some((1, last, rule.to_owned()));
        assert_eq!(gone(&retention(None, None, 0), false), None);
        assert_eq!(
            gone(&retention(Some(2), None, 0), false),
            upto(3, "age 7200s")
        );
        assert_eq!(
            gone(&retention(Some(3), None, 0), false),
            upto(2, "age 10800s")
        );
        assert_eq!(
            gone(&retention(Some(0), None, 0), false),
            upto(3, "age 0s"),
            "never the newest"
        );
        assert_eq!(
            gone(&retention(Some(1), None, 3), false),
            upto(2, "age 3600s"),
            "too young"
        );
        assert_eq!(gone(&retention(Some(5), None, 0), false), None);
        assert_eq!(
            gone(&retention(None, Some(2_500), 0), false),
            upto(2, "size 2500")
        );
        assert_eq!(
            gone(&retention(Some(4), Some(2_500), 0), false),
            upto(1, "age 14400s")
        );
        assert_eq!(
            gone(&capped(4_500), false),
            upto(1, "cap 4500"),
            "down to below 70 %"
        );
        assert_eq!(gone(&capped(6_000), false), None, "below 85 %");
        // What Kafka has not got stays.
        assert_eq!(gone(&retention(Some(0), None, 0), true), None);
        let (_, place) = sealed::next(&sealed, sealed::Place::default(), 2_500).unwrap();
        sealed::set_published(&sealed, place).unwrap();
        assert_eq!(gone(&retention(Some(0), None, 0), true), upto(2, "age 0s"));
    }

    #[test]
    fn a_file_with_the_keys_of_what_goes_on_in_the_next_goes_no_sooner_than_that() {
        let dir = testing::dir();
        four(dir.path());
        let sealed = sealed_dir(dir.path());
        let put = |number: usize, kind, body: &[u8]| {
            let (_, path) = sealed::files(&sealed).unwrap().swap_remove(number - 1);
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            let frame = Frame {
                session: "on".into(),
                kind,
                body: body.to_vec(),
            };
            // As the writer writes one, into a file that it has left.
            let apart = testing::dir();
            sealed::Writer::open(apart.path(), 1 << 20)
                .unwrap()
                .append([&frame])
                .unwrap();
            let (_, alone) = sealed::files(apart.path()).unwrap().remove(0);
            let bytes = fs::read(alone).unwrap();
            let mut whole = fs::read(&path).unwrap();
            whole.extend_from_slice(&bytes[8..]);
            fs::write(&path, whole).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
        };
        put(1, FrameKind::Keys, b"wrapped");
        put(2, FrameKind::Piece(0), b"piece");
        put(3, FrameKind::Piece(1), b"piece");
        let last = |age: u64, at_least: u64| {
            let retention = retention(Some(age), None, at_least);
            due(&sealed, Timestamp::now(), &retention, false, 4)
                .unwrap()
                .map(|due| due.told.last)
        };
        // Written to 4, 3, 2 and 1 hours ago: the first is as old as the third.
        assert_eq!(last(4, 0), None);
        assert_eq!(last(3, 0), None);
        assert_eq!(last(2, 0), Some(3));
        assert_eq!(last(1, 3), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_is_archived_and_on_record_before_it_does() {
        let (dir, archive) = (testing::dir(), testing::dir());
        four(dir.path());
        let before: Vec<Vec<u8>> = sealed::files(&sealed_dir(dir.path()))
            .unwrap()
            .iter()
            .map(|(_, path)| fs::read(path).unwrap())
            .collect();
        let mut options = LedgerOptions::new(dir.path(), "demo", "a");
        options.retention = Some(Retention {
            archive: Some(archive.path().to_owned()),
            ..retention(Some(3), None, 0)
        });
        // Somebody else's file in the archive is not written over, and then nothing goes.
        let other = sealed_dir(archive.path()).join("00000001.sealed");
        fs::create_dir_all(sealed_dir(archive.path())).unwrap();
        fs::write(&other, "of another log").unwrap();
        let ledger = Ledger::open(options).unwrap();
        let told = ledger.prune().unwrap_err().to_string();
        assert!(told.contains("00000001.sealed"), "{told}");
        assert_eq!(numbers(dir.path()), [1, 2, 3, 4]);
        fs::remove_file(&other).unwrap();
        ledger.prune().unwrap();
        assert_eq!(numbers(dir.path()), [3, 4]);
        for (number, path) in sealed::files(&sealed_dir(archive.path())).unwrap() {
            assert_eq!(fs::read(path).unwrap(), before[number as usize - 1]);
        }
        assert_eq!(numbers(archive.path()), [1, 2]);
        ledger.prune().unwrap();
        ledger.shutdown(0).await.unwrap();
        let told: Vec<Discarded> = testing::records(dir.path())
            .into_iter()
            .filter_map(|(_, _, entry)| match entry.event {
                Event::Discarded(told) => Some(told),
                _ => None,
            })
            .collect();
        let [before, told] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((before.first, before.last), (1, 1));
        assert_eq!((told.first, told.last), (2, 2));
        assert_eq!(told.rule, "archive, age 10800s");
        let report = testing::verify(dir.path());
        assert_eq!(report.verdict(), Verdict::Unanchored);
        assert_eq!(report.discarded.as_ref(), Some(told));
    }

    /// Each round, files of sealed payloads go and segments do, among them segments with the records of files that went before. What is
    /// left still says of the newest that it went, for as long as a session of its time may be in the log.
    #[tokio::test(flavor = "multi_thread")]
    async fn files_and_segments_that_go_together_leave_a_log_that_verifies() {
        let dir = testing::dir();
        let sealed = sealed_dir(dir.path());
        let mut options = LedgerOptions::new(dir.path(), "demo", "a");
        options.segment_bytes = 4_000;
        options.retention = Some(retention(Some(0), None, 0));
        let ledger = Ledger::open(options).unwrap();
        let mut gone = 0;
        for round in 0..4 {
            for n in 0..2 {
                let mut writer = sealed::Writer::open(&sealed, 1 << 20).unwrap();
                let frame = Frame {
                    session: format!("s-{round}-{n}"),
                    kind: FrameKind::Keys,
                    body: vec![1; 100],
                };
                writer.append([&frame]).unwrap();
            }
            for n in 0..10 {
                let closed = Entry {
                    session: format!("s-{round}-{n}"),
                    event: Event::Closed(Box::default()),
                };
                ledger.append(closed, Durability::Disk).await.unwrap();
            }
            ledger.prune().unwrap();
            let last = 2 * (round + 1);
            assert_eq!(numbers(dir.path()), [last], "round {round}");
            let report = testing::verify(dir.path());
            assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
            let pruned: u64 = report.chains.iter().map(|chain| chain.pruned).sum();
            assert!(round == 0 || pruned > gone, "segments went as well");
            gone = pruned;
            let told = testing::records(dir.path())
                .into_iter()
                .rev()
                .find_map(|(_, _, entry)| match entry.event {
                    Event::Discarded(told) => Some(told.last),
                    _ => None,
                });
            // The sweeper's own clock may have swept just before: then what it said went with the segments of that time.
            assert!(
                told.is_none_or(|told| told == last - 1),
                "round {round}: {told:?}"
            );
        }
        ledger.shutdown(0).await.unwrap();
    }
}
