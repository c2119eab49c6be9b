use std::io::ErrorKind;

use super::*;
use crate::store::disk::faulty::Faults;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_770_000_000 + second).unwrap()
}

/// Every event that is read when the log is opened.
fn opened(dir: &Path) -> (ControlLog, Vec<(Placed, Vec<u8>)>) {
    let mut read = Vec::new();
    let log = ControlLog::open(dir, |placed, event| read.push((placed, event.to_vec()))).unwrap();
    (log, read)
}

fn texts(read: &[(Placed, Vec<u8>)]) -> Vec<&str> {
    read.iter()
        .map(|(_, event)| std::str::from_utf8(event).unwrap())
        .collect()
}

#[test]
fn places_and_time_go_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, read) = opened(dir.path());
    assert!(read.is_empty());
    let placed = log.append(at(10), [&b"one"[..], b"two"]).unwrap();
    assert_eq!(placed.iter().map(|p| p.offset).collect::<Vec<_>>(), [0, 1]);
    // The clock is set back: the log's is not.
    assert_eq!(log.append(at(5), [&b"three"[..]]).unwrap()[0].at, at(10));
    drop(log);
    let (mut log, read) = opened(dir.path());
    assert_eq!(texts(&read), ["one", "two", "three"]);
    let placed = log.append(at(1), [&b"four"[..]]).unwrap();
    assert_eq!(
        placed,
        [Placed {
            offset: 3,
            at: at(10)
        }]
    );
    drop(log);
    assert_eq!(
        texts(&opened(dir.path()).1),
        ["one", "two", "three", "four"]
    );
}

#[test]
fn what_a_crash_tore_off_is_cut_wherever_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    log.append(at(1), [&b"first"[..]]).unwrap();
    log.append(at(2), [&b"second"[..]]).unwrap();
    drop(log);
    let path = dir.path().join("00000000000000000000.log");
    let whole = fs::read(&path).unwrap();
    let first = HEADER + 4 + "first".len();
    for cut in first..whole.len() {
        for entry in fs::read_dir(dir.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(&path, &whole[..cut]).unwrap();
        let (mut log, read) = opened(dir.path());
        assert_eq!(texts(&read), ["first"], "cut at {cut}");
        log.append(at(3), [&b"third"[..]]).unwrap();
        drop(log);
        assert_eq!(texts(&opened(dir.path()).1), ["first", "third"], "{cut}");
    }
}

#[test]
fn damage_before_the_end_is_told_and_nothing_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    for event in [&b"first"[..], b"second"] {
        let (mut log, _) = opened(dir.path());
        log.append(at(1), [event]).unwrap();
    }
    let path = dir.path().join("00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes[HEADER] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = ControlLog::open(dir.path(), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("event 0 is damaged"), "{error}");
    // Also in the last file, where a good frame behind it shows that it was on disk.
    let last = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(last.path());
    log.append(at(1), [&b"first"[..]]).unwrap();
    log.append(at(2), [&b"second"[..]]).unwrap();
    drop(log);
    let file = last.path().join("00000000000000000000.log");
    let mut bytes = fs::read(&file).unwrap();
    bytes[HEADER + 5] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = ControlLog::open(last.path(), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("event 0 is damaged"), "{error}");
    // And a file that is gone is missed.
    fs::remove_file(&path).unwrap();
    let (mut log, read) = opened(dir.path());
    assert_eq!(texts(&read), ["second"]);
    log.append(at(2), [&b"third"[..]]).unwrap();
    drop(log);
    fs::rename(
        dir.path().join("00000000000000000001.log"),
        dir.path().join("00000000000000000000.log"),
    )
    .unwrap();
    let error = ControlLog::open(dir.path(), |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("should be the first"), "{error}");
}

#[test]
fn what_failed_does_not_count_then_or_later() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let mut log = ControlLog::open_on(faults.disk(), dir.path(), |_, _| {}).unwrap();
    log.append(at(1), [&b"first"[..]]).unwrap();
    faults.write(Some((ErrorKind::StorageFull, 7)));
    log.append(at(2), [&b"torn"[..]]).unwrap_err();
    faults.write(None);
    faults.sync(Some(ErrorKind::Other));
    log.append(at(3), [&b"unsynced"[..]]).unwrap_err();
    // While it cannot even be taken back, nothing is written.
    log.append(at(3), [&b"unsynced"[..]]).unwrap_err();
    faults.sync(None);
    let placed = log.append(at(4), [&b"second"[..]]).unwrap();
    assert_eq!(placed[0].offset, 1);
    drop(log);
    assert_eq!(texts(&opened(dir.path()).1), ["first", "second"]);
}

#[test]
fn one_process_owns_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = opened(dir.path());
    assert!(matches!(
        ControlLog::open(dir.path(), |_, _| {}),
        Err(StoreError::Locked(_))
    ));
    drop(log);
    opened(dir.path());
}

#[test]
fn old_files_go_once_nobody_could_ask_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = opened(dir.path());
    let event = vec![b'x'; MAX_EVENT];
    let many = |log: &mut ControlLog, second| {
        for _ in 0..17 {
            log.append(at(second), [&event[..]]).unwrap();
        }
    };
    many(&mut log, 0);
    many(&mut log, 100);
    assert_eq!(files(dir.path()).unwrap().len(), 3);
    many(&mut log, 4 * 86_400);
    let left = files(dir.path()).unwrap();
    assert!(left.len() <= 2 && left[0].0 > 0, "{left:?}");
    let next = log.next;
    drop(log);
    let (log, read) = opened(dir.path());
    assert_eq!(log.next, next, "places go on");
    assert!(!read.is_empty());
}
