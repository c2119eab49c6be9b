//! A request body that is read, rewritten without changing a text, is the body as it came.

#![no_main]

use bytes::Bytes;
use countersign::mask::mask_under;
use countersign_fuzz::{PLAN, endpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((dialect, endpoint, body)) = endpoint(data) else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let path = endpoint.path.replace("{model}", "model");
    let kind = match dialect.name() {
        "kserve" | "grpc" => "application/grpc",
        "text" => "text/plain",
        _ => "application/json",
    };
    let read = |body| dialect.read_request(endpoint, &path, Some(kind), body);
    let Ok(request) = read(body.clone()) else {
        return;
    };
    assert_eq!(request.rewrite(&mut |_| None), body);
    let masked = request.rewrite(&mut |text| Some(mask_under(&PLAN, text.label, text.text).0));
    assert!(read(masked).is_ok(), "what was masked has its shape still");
});
