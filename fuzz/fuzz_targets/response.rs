//! An answer passed in pieces is the answer passed whole.

#![no_main]

use std::sync::Arc;

use countersign::dialect::{Dialect, Endpoint, Selection, ShapeError, SignedAnswers};
use countersign_fuzz::{Lanes, choice, endpoint};
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 5] = [
    "text/event-stream",
    "application/x-ndjson",
    "application/json",
    "text/plain",
    "application/grpc",
];
/// What becomes of what is signed.
const SIGNED: [SignedAnswers; 3] = [
    SignedAnswers::Pass,
    SignedAnswers::Strip,
    SignedAnswers::Refuse,
];

fuzz_target!(|data: &[u8]| {
    let Some((dialect, endpoint, data)) = endpoint(data) else {
        return;
    };
    let Some((which, data)) = choice(data) else {
        return;
    };
    let Some((cut, body)) = choice(data) else {
        return;
    };
    let kind = TYPES[which % TYPES.len()];
    let selection = Arc::new(Selection {
        signed_answers: SIGNED[which / TYPES.len() % SIGNED.len()],
        ..Selection::default()
    });
    let pass = |len| pass(dialect, endpoint, kind, &selection, body, len);
    let whole = pass(body.len().max(1));
    let pieces = pass(1 + cut % 17);
    if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces);
    }
    assert_eq!(whole.is_ok(), pieces.is_ok());
});

fn pass(
    dialect: &dyn Dialect,
    endpoint: &Endpoint,
    kind: &str,
    selection: &Arc<Selection>,
    body: &[u8],
    len: usize,
) -> Result<Vec<u8>, ShapeError> {
    let mut lanes = Lanes::default();
    let mut reader = dialect.read_response(endpoint, 200, Some(kind))?;
    reader.select(selection);
    let (mut now, mut terminal) = (Vec::new(), Vec::new());
    for piece in body.chunks(len) {
        let passed = reader.push(piece, &mut lanes)?;
        now.extend(passed.now);
        terminal.extend(passed.terminal);
    }
    let passed = reader.finish(&mut lanes)?;
    now.extend(passed.now);
    terminal.extend(passed.terminal);
    now.extend(terminal);
    Ok(now)
}
