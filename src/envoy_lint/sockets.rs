//! What transport sockets do with the bytes of a connection: which protect them, which may not, which hand a copy on.

use serde_json::Value;

use super::{
    Found,
    shape::{Spot, field, kind, text},
};

/// What a transport socket is to a connection.
enum Socket {
    /// Nobody between can read or change what is said, from the first byte on.
    Protecting,
    /// Everybody between can.
    Plain,
    /// Plain, until the protocol above asks for TLS, if it does.
    StartTls,
    /// Leaves what is said to the one inside.
    Wrapping,
    /// The same, and copies what is said.
    Tapping,
    /// It cannot be told.
    Unknown,
}

/// Whether this `transport_socket` protects all that is said.
pub(super) fn is_protecting(socket: &Spot<'_>) -> bool {
    match what(socket.value) {
        Socket::Protecting => true,
        Socket::Wrapping | Socket::Tapping => inner(socket).as_ref().is_some_and(is_protecting),
        Socket::Plain | Socket::StartTls | Socket::Unknown => false,
    }
}

/// Names the transport sockets in `spot` that are not what they seem.
pub(super) fn judge(spot: &Spot<'_>, found: &mut Found) {
    spot.each(&mut |below| {
        let Some(socket) = below.key("transport_socket") else {
            return;
        };
        match what(socket.value) {
            Socket::Tapping => found.error("tap", &socket.path, "copies of requests and answers leave; remove it"),
            Socket::StartTls => found.warning("starttls", &socket.path, "the connection is plain until the protocol above asks for TLS, and HTTP never does; use the transport socket of TLS"),
            Socket::Unknown => found.warning("socket_unknown", &socket.path, "it is not known here whether this protects what is said, or copies it, and it counts as plain; use the transport socket of TLS"),
            Socket::Protecting | Socket::Plain | Socket::Wrapping => {}
        }
    });
}

fn inner<'c>(socket: &Spot<'c>) -> Option<Spot<'c>> {
    socket.key("typed_config")?.key("transport_socket")
}

fn what(socket: &Value) -> Socket {
    let Some(config) = field(socket, "typed_config") else {
        return match text(socket, "name") {
            Some("envoy.transport_sockets.raw_buffer") => Socket::Plain,
            _ => Socket::Unknown,
        };
    };
    match kind(config) {
        Some(
            "UpstreamTlsContext"
            | "DownstreamTlsContext"
            | "QuicUpstreamTransport"
            | "QuicDownstreamTransport"
            | "Alts",
        ) => Socket::Protecting,
        Some("RawBuffer") => Socket::Plain,
        Some("UpstreamStartTlsConfig" | "StartTlsConfig") => Socket::StartTls,
        Some(
            "ProxyProtocolUpstreamTransport"
            | "InternalUpstreamTransport"
            | "Http11ProxyUpstreamTransport",
        ) => Socket::Wrapping,
        Some("Config") if is_tcp_stats(config) => Socket::Wrapping,
        Some("Tap") => Socket::Tapping,
        _ => Socket::Unknown,
    }
}

/// The one whose type has too common a name.
fn is_tcp_stats(config: &Value) -> bool {
    let full = config.get("@type").and_then(Value::as_str);
    full.is_some_and(|full| full.contains(".transport_sockets.tcp_stats."))
}
