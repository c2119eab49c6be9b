//! Between Envoy's messages and the exchange's words. The only place that knows the wire format.

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            HeaderMap, HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
        },
        extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
        service::ext_proc::v3::{
            BodyMutation, BodyResponse, CommonResponse, GrpcStatus, HeaderMutation,
            HeadersResponse, HttpHeaders, ImmediateResponse, ProcessingRequest, ProcessingResponse,
            StreamedBodyResponse, TrailersResponse, body_mutation::Mutation as Body,
            processing_request::Request, processing_response::Response,
        },
        r#type::v3::HttpStatus,
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    exchange::{Answer, Attributes, Headers, Immediate, Input, Mutation},
    identity::Certificate,
};

/// The namespace of our dynamic metadata, as Envoy's guards name it.
const NAMESPACE: &str = "countersign";
/// The key the request guard asks for.
const PERMIT: &str = "permit";
/// The key the response guard asks for.
const RELEASE: &str = "release";
/// The value both ask for.
const GRANTED: &str = "granted";
/// Under this name Envoy sends its attributes.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

/// Whether Envoy sends all that must be governed; a stable code where it does not.
///
/// Only the stream's first message tells.
pub(super) fn check_modes(first: &ProcessingRequest) -> Result<(), &'static str> {
    if first.observability_mode {
        return Err("observability_mode");
    }
    let Some(modes) = &first.protocol_config else {
        return Err("no_protocol_config");
    };
    let duplex = BodySendMode::FullDuplexStreamed as i32;
    if modes.request_body_mode != duplex {
        return Err("wrong_request_body_mode");
    }
    if modes.response_body_mode != duplex {
        return Err("wrong_response_body_mode");
    }
    Ok(())
}

/// What Envoy's message says, or `None` for one that says nothing.
pub(super) fn input(mut message: ProcessingRequest) -> Option<Input> {
    let attributes = message.attributes.remove(ATTRIBUTES).unwrap_or_default();
    Some(match message.request? {
        Request::RequestHeaders(head) => {
            let end = head.end_of_stream;
            Input::RequestHeaders(headers(head), read_attributes(&attributes), end)
        }
        Request::RequestBody(body) => {
            Input::RequestBody(Bytes::from(body.body), body.end_of_stream)
        }
        Request::RequestTrailers(_) => Input::RequestTrailers,
        Request::ResponseHeaders(head) => {
            let end = head.end_of_stream;
            Input::ResponseHeaders(headers(head), end)
        }
        Request::ResponseBody(body) => {
            Input::ResponseBody(Bytes::from(body.body), body.end_of_stream)
        }
        Request::ResponseTrailers(trailers) => Input::ResponseTrailers(fields(trailers.trailers)),
    })
}

fn headers(head: HttpHeaders) -> Headers {
    fields(head.headers)
}

fn fields(map: Option<HeaderMap>) -> Headers {
    let fields = map.unwrap_or_default().headers.into_iter();
    fields
        .map(|field| {
            (
                field.key,
                if field.raw_value.is_empty() {
                    field.value.into_bytes()
                } else {
                    field.raw_value
                },
            )
        })
        .collect()
}

fn read_attributes(attributes: &Struct) -> Attributes {
    let text = |name: &str| match attributes
        .fields
        .get(name)
        .and_then(|value| value.kind.as_ref())
    {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    };
    Attributes {
        route: text("xds.route_name"),
        cluster: text("xds.cluster_name"),
        source_address: text("source.address"),
        certificate: read_certificate(attributes),
    }
}

/// The caller's certificate, where Envoy says that there is one and which. What it does not say is not guessed, and headers
/// are not asked: anybody can send those.
fn read_certificate(attributes: &Struct) -> Option<Certificate> {
    let value = |name: &str| attributes.fields.get(name)?.kind.as_ref();
    let text = |name: &str| match value(name) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    };
    if !matches!(value("connection.mtls"), Some(Kind::BoolValue(true))) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(
        text("connection.sha256_peer_certificate_digest"),
        &mut digest,
    )
    .ok()?;
    Some(Certificate {
        digest,
        uri: text("connection.uri_san_peer_certificate"),
        dns: text("connection.dns_san_peer_certificate"),
        subject: text("connection.subject_peer_certificate"),
    })
}

/// The message that tells Envoy `answer`.
pub(super) fn message(answer: Answer) -> ProcessingResponse {
    match answer {
        Answer::RequestHeaders(mutation) => ProcessingResponse {
            dynamic_metadata: Some(grant(PERMIT)),
            ..said(Response::RequestHeaders(head(mutation)))
        },
        Answer::RequestBody(bytes, end) => said(Response::RequestBody(piece(bytes, end))),
        Answer::ResponseHeaders(mutation) => ProcessingResponse {
            dynamic_metadata: Some(grant(RELEASE)),
            ..said(Response::ResponseHeaders(head(mutation)))
        },
        Answer::ResponseBody(bytes, end) => said(Response::ResponseBody(piece(bytes, end))),
        Answer::ResponseTrailers(Mutation { set, remove }) => {
            said(Response::ResponseTrailers(TrailersResponse {
                header_mutation: Some(HeaderMutation {
                    set_headers: set_all(set),
                    remove_headers: remove,
                }),
            }))
        }
        Answer::Immediate(immediate) => {
            said(Response::ImmediateResponse(immediate_response(immediate)))
        }
    }
}

fn said(response: Response) -> ProcessingResponse {
    ProcessingResponse {
        response: Some(response),
        ..ProcessingResponse::default()
    }
}

fn grant(key: &str) -> Struct {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let inner = Struct {
        fields: [(key.to_owned(), text(GRANTED))].into(),
    };
    Struct {
        fields: [(
            NAMESPACE.to_owned(),
            Value {
                kind: Some(Kind::StructValue(inner)),
            },
        )]
        .into(),
    }
}

fn head(mutation: Mutation) -> HeadersResponse {
    let Mutation { set, remove } = mutation;
    let header_mutation = Some(HeaderMutation {
        set_headers: set_all(set),
        remove_headers: remove,
    });
    HeadersResponse {
        response: Some(CommonResponse {
            header_mutation,
            ..CommonResponse::default()
        }),
    }
}

fn piece(bytes: Bytes, end_of_stream: bool) -> BodyResponse {
    let streamed = StreamedBodyResponse {
        body: bytes.into(),
        end_of_stream,
        ..StreamedBodyResponse::default()
    };
    let body_mutation = Some(BodyMutation {
        mutation: Some(Body::StreamedResponse(streamed)),
    });
    BodyResponse {
        response: Some(CommonResponse {
            body_mutation,
            ..CommonResponse::default()
        }),
    }
}

fn immediate_response(immediate: Immediate) -> ImmediateResponse {
    ImmediateResponse {
        status: Some(HttpStatus {
            code: immediate.status.into(),
        }),
        headers: Some(HeaderMutation {
            set_headers: set_all(immediate.headers),
            remove_headers: Vec::new(),
        }),
        body: immediate.body.into(),
        grpc_status: immediate.grpc_status.map(|status| GrpcStatus {
            status: status.into(),
        }),
        details: format!("countersign_{}", immediate.code),
    }
}

fn set_all(fields: Vec<(String, SecretString)>) -> Vec<HeaderValueOption> {
    let set = |(key, value): (String, SecretString)| HeaderValueOption {
        header: Some(HeaderValue {
            key,
            raw_value: value.expose_secret().as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    fields.into_iter().map(set).collect()
}
