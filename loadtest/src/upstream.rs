//! A model server that answers at once, as the request's `x-load` says, and counts what it was sent.
//!
//! `json:BYTES` is one chat completion of about that size; `sse:EVENTS:MICROSECONDS` is so many events, so far apart.
//! `GET /seen` tells what came since it was last asked.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};

use crate::wire::{Head, Wire};

/// A value that detectors find, put into prompts and answers: where the filter masks, none arrives.
pub const PLANTED: &[u8] = b"536-22-8145";
const PROSE: &str = "The quarterly figures are in line with what was expected of them. ";
const EVENT: &str = r#"data: {"id":"chatcmpl-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini","system_fingerprint":"fp_0000000000","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}"#;
const LAST: &str = concat!(
    r#"data: {"id":"chatcmpl-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\ndata: [DONE]\n\n"
);

#[derive(Default)]
struct Seen {
    requests: std::cell::Cell<u64>,
    bytes: std::cell::Cell<u64>,
    planted: std::cell::Cell<u64>,
    lent: std::cell::Cell<u64>,
}

/// Serves on a loopback port of its own choosing, which it prints, until it is killed.
pub async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?.port());
    let seen = Rc::new(Seen::default());
    tokio::task::LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                let seen = Rc::clone(&seen);
                tokio::task::spawn_local(async move {
                    // A caller that goes away is none of its business.
                    let _ = converse(stream, &seen).await;
                });
            }
        })
        .await
}

async fn converse(stream: TcpStream, seen: &Seen) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    let mut answers: Vec<(String, Vec<u8>)> = Vec::new();
    let mut tail = Vec::new();
    while let Some(head) = wire.head().await? {
        if head.starts_with("GET /seen ") {
            let told = tell(seen);
            wire.write(&whole(told.as_bytes())).await?;
            continue;
        }
        let mut planted = false;
        tail.clear();
        while let Some(piece) = wire.piece().await? {
            seen.bytes.set(seen.bytes.get() + piece.len() as u64);
            planted |= contains(&mut tail, &piece);
        }
        seen.requests.set(seen.requests.get() + 1);
        seen.planted.set(seen.planted.get() + u64::from(planted));
        seen.lent.set(seen.lent.get() + u64::from(lent(&head)));
        let wanted = head.field("x-load").unwrap_or("json:2048");
        if let Some(events) = wanted.strip_prefix("sse:") {
            stream_events(&mut wire, events).await?;
            continue;
        }
        if !answers.iter().any(|(known, _)| known == wanted) {
            let size = wanted.strip_prefix("json:").and_then(|n| n.parse().ok());
            answers.push((
                wanted.to_owned(),
                whole(completion(size.unwrap_or(2048)).as_bytes()),
            ));
        }
        if let Some((_, answer)) = answers.iter().find(|(known, _)| known == wanted) {
            wire.write(answer).await?;
        }
    }
    Ok(())
}

/// Whether the planted value ends in `piece`, which follows what `tail` was left by.
pub fn contains(tail: &mut Vec<u8>, piece: &[u8]) -> bool {
    let front = &piece[..piece.len().min(PLANTED.len() - 1)];
    tail.extend_from_slice(front);
    let found = memchr::memmem::find(tail, PLANTED).is_some()
        || memchr::memmem::find(piece, PLANTED).is_some();
    let keep = PLANTED.len() - 1;
    if piece.len() >= keep {
        tail.clear();
        tail.extend_from_slice(&piece[piece.len() - keep..]);
    } else if tail.len() > keep {
        tail.drain(..tail.len() - keep);
    }
    found
}

fn lent(head: &Head) -> bool {
    head.field("authorization")
        .is_some_and(|value| value.starts_with("Bearer sk-upstream-"))
}

fn tell(seen: &Seen) -> String {
    let told = format!(
        r#"{{"requests": {}, "bytes": {}, "planted": {}, "lent": {}}}"#,
        seen.requests.take(),
        seen.bytes.take(),
        seen.planted.take(),
        seen.lent.take()
    );
    told
}

fn whole(body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// A chat completion of about `size` bytes, one planted value in it.
fn completion(size: usize) -> String {
    let frame = |content: &str| {
        format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{{"index":0,"message":{{"role":"assistant","content":"{content}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":400,"completion_tokens":400,"total_tokens":800}}}}"#
        )
    };
    let planted = String::from_utf8_lossy(PLANTED);
    let mut content = format!("It is {planted}. ");
    let room = size.saturating_sub(frame(&content).len());
    content.extend(PROSE.chars().cycle().take(room));
    frame(&content)
}

async fn stream_events(wire: &mut Wire, wanted: &str) -> io::Result<()> {
    let (events, apart) = wanted.split_once(':').unwrap_or((wanted, "0"));
    let events: u32 = events.parse().map_err(io::Error::other)?;
    let apart = Duration::from_micros(apart.parse().map_err(io::Error::other)?);
    wire.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await?;
    let event = chunk(&format!("{EVENT}\n\n"));
    let began = Instant::now();
    for n in 0..events {
        // One behind the other by the clock: what an event takes to be written delays none after it.
        if !apart.is_zero() && n > 0 {
            tokio::time::sleep_until((began + apart * n).into()).await;
        }
        wire.write(&event).await?;
    }
    let mut end = chunk(LAST);
    end.extend_from_slice(b"0\r\n\r\n");
    wire.write(&end).await
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
