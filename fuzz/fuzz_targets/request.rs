//! A request body that is read, rewritten without changing a text, is the body as it came.

#![no_main]

use bytes::Bytes;
use countersign::mask::mask;
use countersign_fuzz::{PLAN, endpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((dialect, endpoint, body)) = endpoint(data) else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let Ok(read) = dialect.read_request(endpoint, Some("application/json"), body.clone()) else {
        return;
    };
    assert_eq!(read.rewrite(&mut |_| None), body);
    let masked = read.rewrite(&mut |text| Some(mask(&PLAN, text).0));
    let again = dialect.read_request(endpoint, Some("application/json"), masked);
    assert!(again.is_ok(), "what was masked has its shape still");
});
