//! Callers: each sends a request, reads the whole answer, and sends the next. Every latency is kept, so percentiles are exact.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::{upstream, wire::Wire};

/// What one run is made of: `name=value` words.
struct Plan {
    address: String,
    request: Vec<u8>,
    connections: usize,
    seconds: f64,
    /// Stops after so many requests where it is not 0.
    requests: u64,
}

#[derive(Default)]
struct Seen {
    latencies: Vec<u32>,
    /// From the request to the first byte of the body, µs.
    firsts: Vec<u32>,
    /// Between one read that brought an event and the next, µs.
    gaps: Vec<u32>,
    /// Answers with another status than 200, and connections that broke.
    failed: u64,
    statuses: std::collections::BTreeMap<u16, u64>,
    planted: u64,
    events: u64,
    bytes: u64,
    begun: u64,
}

/// Sends what is in the file `request`, a whole HTTP/1.1 request, to `address`; prints what was seen as one line of JSON.
pub async fn run(address: &str, request: &str, options: &[&str]) -> io::Result<()> {
    let mut plan = Plan {
        address: address.to_owned(),
        request: std::fs::read(request)?,
        connections: 1,
        seconds: 1.0,
        requests: 0,
    };
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "connections" => plan.connections = value.parse().map_err(io::Error::other)?,
            "seconds" => plan.seconds = value.parse().map_err(io::Error::other)?,
            "requests" => plan.requests = value.parse().map_err(io::Error::other)?,
            _ => return Err(io::Error::other(format!("no such option: `{name}`"))),
        }
    }
    let plan = Rc::new(plan);
    let seen = Rc::new(RefCell::new(Seen::default()));
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(plan.seconds);
    let local = tokio::task::LocalSet::new();
    for _ in 0..plan.connections {
        let (plan, seen) = (Rc::clone(&plan), Rc::clone(&seen));
        local.spawn_local(async move { call_until(&plan, &seen, until).await });
    }
    local.await;
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", report(&mut seen.borrow_mut(), seconds));
    Ok(())
}

async fn call_until(plan: &Plan, seen: &RefCell<Seen>, until: Instant) {
    while Instant::now() < until {
        match keep_calling(plan, seen, until).await {
            Ok(()) => return,
            Err(_) => {
                seen.borrow_mut().failed += 1;
                // Whoever refuses connections is not asked a million times.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn keep_calling(plan: &Plan, seen: &RefCell<Seen>, until: Instant) -> io::Result<()> {
    let mut wire = Wire::new(TcpStream::connect(&plan.address).await?)?;
    let mut tail = Vec::new();
    while Instant::now() < until {
        {
            let mut seen = seen.borrow_mut();
            if plan.requests != 0 && seen.begun >= plan.requests {
                return Ok(());
            }
            seen.begun += 1;
        }
        call(plan, seen, &mut wire, &mut tail).await?;
    }
    Ok(())
}

async fn call(
    plan: &Plan,
    seen: &RefCell<Seen>,
    wire: &mut Wire,
    tail: &mut Vec<u8>,
) -> io::Result<()> {
    let began = Instant::now();
    wire.write(&plan.request).await?;
    let head = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let streams = head.field("content-type") == Some("text/event-stream");
    let (mut first, mut last_event, mut planted) = (None, None, false);
    let mut ends_in_break = false;
    tail.clear();
    while let Some(piece) = wire.piece().await? {
        let now = Instant::now();
        first.get_or_insert(now);
        planted |= upstream::contains(tail, &piece);
        let mut seen = seen.borrow_mut();
        seen.bytes += piece.len() as u64;
        if streams {
            let across = u64::from(ends_in_break && piece.starts_with(b"\n"));
            let events = memchr::memmem::find_iter(&piece, b"\n\n").count() as u64 + across;
            ends_in_break = piece.ends_with(b"\n") && !piece.ends_with(b"\n\n");
            if events > 0 {
                seen.events += events;
                if let Some(last) = last_event.replace(now) {
                    seen.gaps.push(micros(now - last));
                }
            }
        }
    }
    let took = micros(began.elapsed());
    let mut seen = seen.borrow_mut();
    *seen.statuses.entry(head.status()).or_default() += 1;
    if head.status() != 200 {
        seen.failed += 1;
        return Ok(());
    }
    seen.planted += u64::from(planted);
    seen.latencies.push(took);
    if let Some(first) = first {
        seen.firsts.push(micros(first - began));
    }
    Ok(())
}

fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX)
}

fn report(seen: &mut Seen, seconds: f64) -> String {
    let statuses: Vec<String> = seen
        .statuses
        .iter()
        .map(|(status, n)| format!(r#""{status}": {n}"#))
        .collect();
    format!(
        r#"{{"requests": {}, "seconds": {seconds:.6}, "failed": {}, "statuses": {{{}}}, "planted": {}, "events": {}, "bytes": {}, "latency_us": {}, "first_us": {}, "gap_us": {}}}"#,
        seen.latencies.len(),
        seen.failed,
        statuses.join(", "),
        seen.planted,
        seen.events,
        seen.bytes,
        percentiles(&mut seen.latencies),
        percentiles(&mut seen.firsts),
        percentiles(&mut seen.gaps),
    )
}

/// Nearest rank; all 0 where there is none.
fn percentiles(of: &mut [u32]) -> String {
    of.sort_unstable();
    let at = |share: f64| {
        let rank = (share * of.len() as f64).ceil() as usize;
        of.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    };
    format!(
        r#"{{"p50": {}, "p90": {}, "p99": {}, "max": {}}}"#,
        at(0.5),
        at(0.9),
        at(0.99),
        of.last().copied().unwrap_or(0)
    )
}
