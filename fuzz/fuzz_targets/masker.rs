//! A text masked in pieces is the text masked whole.

#![no_main]

use countersign::mask::{Masker, mask};
use countersign_fuzz::{PLAN, choice};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((cuts, data)) = choice(data) else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    let (whole, counts) = mask(&PLAN, &text);
    let mut masker = Masker::new(PLAN.clone());
    let mut out = String::new();
    let (mut rest, mut len) = (&*text, 1 + cuts);
    while !rest.is_empty() {
        let mut cut = rest.len().min(1 + len % 67);
        while !rest.is_char_boundary(cut) {
            cut += 1;
        }
        masker.push(&rest[..cut], &mut out);
        assert!(masker.held() <= Masker::HELD_BYTES);
        (rest, len) = (&rest[cut..], len.wrapping_mul(31).wrapping_add(7));
    }
    masker.finish(&mut out);
    assert_eq!(out, whole);
    assert_eq!(masker.counts(), counts);
});
