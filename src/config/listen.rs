//! Where the services listen, and how much they may hold.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    ExtProc, Limits, Listen, TlsFiles, raw,
    understand::{At, GIB, KIB, MIB, Notes, TIB, size},
    units,
};
use crate::exchange::COPIES;

/// Mode of a socket for its owner alone.
const OWNER: u32 = 0o600;
/// Mode of a socket for its owner and its group.
const GROUP: u32 = 0o660;

pub(super) fn listen(raw: raw::Listen, at: &At, notes: &mut Notes<'_>) -> Option<Listen> {
    let ext_proc = match raw.ext_proc {
        None => Some(ExtProc::Unix(
            PathBuf::from("/run/countersign/ext_proc.sock"),
            OWNER,
        )),
        Some(raw::ExtProc::Address(address)) => {
            let full = raw::ExtProcFull {
                address,
                mode: None,
                tls: None,
                insecure: false,
            };
            ext_proc(full, &at.key("ext_proc"), notes)
        }
        Some(raw::ExtProc::Full(full)) => ext_proc(full, &at.key("ext_proc"), notes),
    };
    let full = match raw.http {
        None => plain("127.0.0.1:8480".to_owned()),
        Some(raw::Http::Address(address)) => plain(address),
        Some(raw::Http::Full(full)) => full,
    };
    let http = http(full, &at.key("http"), notes);
    let (ext_proc, (http, http_tls)) = (ext_proc?, http?);
    if let ExtProc::Tls(address, _) | ExtProc::Insecure(address) = &ext_proc
        && overlap(*address, http)
    {
        notes.fault(&at.key("http"), "the address is already that of `ext_proc`");
    }
    Some(Listen {
        ext_proc,
        http,
        http_tls,
    })
}

fn plain(address: String) -> raw::HttpFull {
    raw::HttpFull {
        address,
        tls: None,
        insecure: false,
    }
}

/// Port 0 is whatever is free, so it never collides.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}

fn ext_proc(raw: raw::ExtProcFull, at: &At, notes: &mut Notes<'_>) -> Option<ExtProc> {
    let raw::ExtProcFull {
        address,
        mode,
        tls,
        insecure,
    } = raw;
    if let Some(path) = address.strip_prefix("unix:") {
        if tls.is_some() || insecure {
            notes.fault(at, "`tls` and `insecure` are for `tcp:` addresses; a Unix socket is guarded by its mode");
        }
        let path = notes.path(path, at);
        // sockaddr_un holds 108 bytes, the last of them NUL.
        if path.as_os_str().len() > 107 {
            notes.fault(at, "the path of a Unix socket has at most 107 bytes");
        }
        let mode = match mode {
            None | Some(raw::SocketMode::Owner) => OWNER,
            Some(raw::SocketMode::Group) => GROUP,
        };
        return Some(ExtProc::Unix(path, mode));
    }
    if mode.is_some() {
        notes.fault(&at.key("mode"), "`mode` is for a Unix socket");
    }
    let Some(address) = address.strip_prefix("tcp:") else {
        notes.fault(
            at,
            "write `unix:/run/countersign/ext_proc.sock` or `tcp:127.0.0.1:9000`",
        );
        return None;
    };
    let address = socket_address(address, at, notes)?;
    match (tls, insecure) {
        (Some(tls), false) => {
            let at = at.key("tls");
            if tls.client_ca.is_none() {
                notes.fault(&at, "`client_ca` is missing: whoever reaches this port with a valid token could read the lent credentials");
            }
            Some(ExtProc::Tls(address, files(tls, &at, notes)))
        }
        (Some(_), true) => {
            notes.fault(at, "`tls` and `insecure: true` contradict each other");
            None
        }
        (None, true) => {
            notes.warn(at, "insecure: whoever reaches this port with a valid token can read the lent credentials");
            Some(ExtProc::Insecure(address))
        }
        (None, false) => {
            notes.fault(
                at,
                "a `tcp:` address needs `tls: { cert, key, client_ca }`, or `insecure: true`",
            );
            None
        }
    }
}

fn files(tls: raw::Tls, at: &At, notes: &mut Notes<'_>) -> TlsFiles {
    let named = at.key("client_names");
    if tls.client_names.as_ref().is_some_and(Vec::is_empty) {
        notes.fault(
            &named,
            "lists nobody; leave it out if any certificate that `client_ca` signed will do",
        );
    }
    let names = tls.client_names.unwrap_or_default();
    if !names.is_empty() && tls.client_ca.is_none() {
        notes.fault(
            &named,
            "without `client_ca` no client is asked for a certificate",
        );
    }
    for (i, name) in names.iter().enumerate() {
        let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        if !good || name.contains('*') {
            notes.fault(
                &named.index(i),
                "write a DNS name or a URI in full, as in `envoy.example.org` or `spiffe://example.org/envoy`",
            );
        }
    }
    TlsFiles {
        cert: notes.existing(&tls.cert, &at.key("cert")),
        key: notes.existing(&tls.key, &at.key("key")),
        client_ca: tls
            .client_ca
            .map(|path| notes.existing(&path, &at.key("client_ca"))),
        client_names: names.into_iter().collect(),
    }
}

fn http(
    raw: raw::HttpFull,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<(SocketAddr, Option<TlsFiles>)> {
    let address = socket_address(&raw.address, at, notes)?;
    if let Some(tls) = raw.tls {
        if raw.insecure {
            notes.fault(at, "`tls` and `insecure: true` contradict each other");
        }
        return Some((address, Some(files(tls, &at.key("tls"), notes))));
    }
    if !address.ip().is_loopback() {
        if raw.insecure {
            notes.warn(
                at,
                "insecure: the API, without TLS, is reachable from other machines",
            );
        } else {
            notes.fault(
                at,
                "listens beyond loopback without TLS; use 127.0.0.1, give it `tls: { cert, key }`, or say `insecure: true`",
            );
        }
    }
    Some((address, None))
}

fn socket_address(text: &str, at: &At, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        notes.fault(
            at,
            "not an address; write an IP and a port, as in `127.0.0.1:8480` or `[::1]:8480`",
        );
    }
    parsed
}

pub(super) fn limits(raw: &raw::Limits, at: &At, notes: &mut Notes<'_>) -> Option<Limits> {
    let request_body = size(
        raw.request_body.as_ref(),
        10 * MIB,
        KIB,
        GIB,
        &at.key("request_body"),
        notes,
    );
    let response_body = size(
        raw.response_body.as_ref(),
        32 * MIB,
        KIB,
        GIB,
        &at.key("response_body"),
        notes,
    );
    let memory = size(
        raw.memory.as_ref(),
        512 * MIB,
        MIB,
        TIB,
        &at.key("memory"),
        notes,
    );
    let streams = raw.streams.unwrap_or(4096);
    let streams_per_principal = match raw.streams_per_principal {
        Some(written) if written > streams => {
            notes.fault(
                &at.key("streams_per_principal"),
                format!("must be at most `streams`, which is {streams}"),
            );
            written
        }
        Some(written) => written,
        None => streams.min(64),
    };
    let (request_body, response_body, memory) = (request_body?, response_body?, memory?);
    let least = COPIES as u64 * request_body.max(response_body);
    if memory < least {
        let least = units::spelled(least);
        notes.fault(
            &at.key("memory"),
            format!("must hold one body {COPIES} times, as it is received, forwarded and recorded: {least} or more"),
        );
        return None;
    }
    let memory_per_principal = size(
        raw.memory_per_principal.as_ref(),
        (memory / 2).max(least),
        least,
        memory,
        &at.key("memory_per_principal"),
        notes,
    )?;
    Some(Limits {
        request_body,
        response_body,
        memory,
        memory_per_principal,
        streams,
        streams_per_principal,
    })
}
