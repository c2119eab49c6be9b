//! The yardstick: an ext_proc service in the same modes that answers each message with itself.
//!
//! It sets the metadata that the guards of the shipped Envoy configuration demand, so that Envoy's part is the same.

use std::{io, pin::Pin};

use envoy_types::pb::{
    envoy::service::ext_proc::v3::{
        BodyMutation, BodyResponse, CommonResponse, HeadersResponse, HttpBody, ProcessingRequest,
        ProcessingResponse, StreamedBodyResponse, TrailersResponse,
        body_mutation::Mutation,
        external_processor_server::{ExternalProcessor, ExternalProcessorServer},
        processing_request::Request as Asked,
        processing_response::Response as Told,
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use futures::{Stream, StreamExt, future};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// The largest message taken, as in the service.
const MESSAGE: usize = 8 << 20;

/// Serves on the Unix socket at `path` until it is killed.
pub async fn serve(path: &str) -> io::Result<()> {
    let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
    println!("ready");
    Server::builder()
        .add_service(ExternalProcessorServer::new(Noop).max_decoding_message_size(MESSAGE))
        .serve_with_incoming(incoming)
        .await
        .map_err(io::Error::other)
}

struct Noop;

#[tonic::async_trait]
impl ExternalProcessor for Noop {
    type ProcessStream =
        Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send + 'static>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let answers = request.into_inner().filter_map(|message| {
            future::ready(match message {
                Ok(message) => message.request.map(|asked| Ok(answer(asked))),
                Err(status) => Some(Err(status)),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(asked: Asked) -> ProcessingResponse {
    let (told, grants) = match asked {
        Asked::RequestHeaders(_) => (Told::RequestHeaders(unchanged()), Some("permit")),
        Asked::ResponseHeaders(_) => (Told::ResponseHeaders(unchanged()), Some("release")),
        Asked::RequestBody(body) => (Told::RequestBody(again(body)), None),
        Asked::ResponseBody(body) => (Told::ResponseBody(again(body)), None),
        Asked::RequestTrailers(_) => (Told::RequestTrailers(TrailersResponse::default()), None),
        Asked::ResponseTrailers(_) => (Told::ResponseTrailers(TrailersResponse::default()), None),
    };
    ProcessingResponse {
        response: Some(told),
        dynamic_metadata: grants.map(granted),
        ..ProcessingResponse::default()
    }
}

fn unchanged() -> HeadersResponse {
    HeadersResponse {
        response: Some(CommonResponse::default()),
    }
}

fn again(body: HttpBody) -> BodyResponse {
    let streamed = StreamedBodyResponse {
        body: body.body,
        end_of_stream: body.end_of_stream,
        ..StreamedBodyResponse::default()
    };
    BodyResponse {
        response: Some(CommonResponse {
            body_mutation: Some(BodyMutation {
                mutation: Some(Mutation::StreamedResponse(streamed)),
            }),
            ..CommonResponse::default()
        }),
    }
}

fn granted(key: &str) -> Struct {
    let text = Value {
        kind: Some(Kind::StringValue("granted".to_owned())),
    };
    let ours = Value {
        kind: Some(Kind::StructValue(Struct {
            fields: [(key.to_owned(), text)].into(),
        })),
    };
    Struct {
        fields: [("countersign".to_owned(), ours)].into(),
    }
}
