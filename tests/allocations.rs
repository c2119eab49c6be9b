//! What masking a stream costs in memory: how often it asks for some, and how much it keeps.

#![allow(
    unsafe_code,
    reason = "an allocator that counts cannot be had without; it hands everything on to the system's"
)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use countersign::{
    detect::Catalog,
    mask::{Masker, Plan},
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
