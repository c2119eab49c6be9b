//! The Open Inference Protocol, version 2 (`inference.GRPCInferenceService`), as KServe and Triton speak it: its methods,
//! its words, and how a tensor's raw contents are to be read.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

use super::{
    super::{Endpoint, ShapeError},
    message::{Part, Reader, What, numbers},
    schema::{Meaning, Method},
};

const SERVICE: &str = "inference.GRPCInferenceService";

macro_rules! endpoints {
    ($($name:literal $method:literal),* $(,)?) => {
        &[$(Endpoint {
            name: $name,
            method: "POST",
            path: concat!("/inference.GRPCInferenceService/", $method),
        }),*]
    };
}

/// Those that infer, and those that ask about server and models. None that loads, unloads or configures.
pub(super) const ENDPOINTS: &[Endpoint] = endpoints![
    "model_infer" "ModelInfer",
    "model_stream_infer" "ModelStreamInfer",
    "model_metadata" "ModelMetadata",
    "model_ready" "ModelReady",
    "server_live" "ServerLive",
    "server_metadata" "ServerMetadata",
    "server_ready" "ServerReady",
];

/// The schema. Empty where it cannot be read, so that every method is unknown; a test reads it.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let schema: &[u8] = include_bytes!("../../../proto/inference/kserve.binpb");
    DescriptorPool::decode(schema).unwrap_or_default()
});

/// The method of `endpoint`.
pub(super) fn method(endpoint: &Endpoint) -> Option<Method> {
    let (_, name) = endpoint.path.rsplit_once('/')?;
    let service = POOL.get_service_by_name(SERVICE)?;
    let method = service.methods().find(|method| method.name() == name)?;
    let input = method.input();
    let names = ["model_name", "name"];
    let model = names
        .iter()
        .find(|name| input.get_field_by_name(name).is_some());
    let model = model.copied().unwrap_or_default();
    Some(Method::new(&method, model.to_owned(), Meaning::Kserve))
}

/// Whether a string field of that full name has words of the protocol. A text in its place is text all the same.
pub(super) fn is_word(field: &str) -> bool {
    const MESSAGES: [&str; 9] = [
        "ModelInferRequest",
        "ModelInferRequest.InferInputTensor",
        "ModelInferRequest.InferRequestedOutputTensor",
        "ModelInferResponse",
        "ModelInferResponse.InferOutputTensor",
        "ModelMetadataRequest",
        "ModelMetadataResponse",
        "ModelMetadataResponse.TensorMetadata",
        "ModelReadyRequest",
    ];
    const FIELDS: [&str; 7] = [
        "model_name",
        "model_version",
        "id",
        "name",
        "version",
        "versions",
        "datatype",
    ];
    let inside = field.strip_prefix("inference.");
    inside
        .and_then(|field| field.rsplit_once('.'))
        .is_some_and(|(message, name)| MESSAGES.contains(&message) && FIELDS.contains(&name))
}

/// Whether a bytes field is an element of a tensor of strings.
pub(super) fn is_element(field: &str) -> bool {
    field == "inference.InferTensorContents.bytes_contents"
}

/// Whether a bytes field is what a tensor's datatype says.
pub(super) fn is_raw(field: &str) -> bool {
    matches!(
        field,
        "inference.ModelInferRequest.raw_input_contents"
            | "inference.ModelInferResponse.raw_output_contents"
    )
}

/// The datatypes of the protocol whose elements are numbers.
const NUMBERS: [&str; 13] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "FP32", "FP64", "BF16",
];

/// Reads what can be read only with the whole message: names of tensors, and raw contents by the tensors' datatypes.
///
/// # Errors
/// `unknown_datatype`, `invalid_tensor` where tensors and raw contents do not go together, `shared_memory` where what is
/// inferred from or answered stands in memory and not in the message.
pub(super) fn settle(
    parts: &mut [Part],
    message: &str,
    reader: &mut Reader<'_>,
) -> Result<(), ShapeError> {
    let raw = match message {
        "inference.ModelStreamInferResponse" => {
            let inner = parts.iter_mut().find(|part| part.number == 2);
            return match inner.map(|part| &mut part.what) {
                Some(What::Inner(parts)) => settle(parts, "inference.ModelInferResponse", reader),
                _ => Ok(()),
            };
        }
        "inference.ModelInferRequest" => 7,
        "inference.ModelInferResponse" => 6,
        _ => return Ok(()),
    };
    let mut tensors = Vec::new();
    for part in parts.iter_mut() {
        match part.number {
            5 => tensors.push(Tensor::read(part, reader)?),
            6 if raw == 7 => refuse_shared_memory(part.inner(), 2, reader)?,
            _ => {}
        }
    }
    let raws = parts.iter_mut().filter(|part| part.number == raw);
    let mut count = 0;
    for (place, part) in raws.enumerate() {
        count += 1;
        let tensor = tensors.get(place).ok_or_else(mismatch)?;
        part.name(&tensor.name);
        part.what = match tensor.strings {
            true => What::Inner(reader.elements(part)?),
            false => What::Value(numbers(part.body.len())),
        };
    }
    // Servers take all tensors' contents from here, or none's.
    let raw_only = count == tensors.len() && !tensors.iter().any(|tensor| tensor.contents);
    match count == 0 || raw_only {
        true => Ok(()),
        false => Err(mismatch()),
    }
}

fn mismatch() -> ShapeError {
    let reason = "raw contents are there for some tensors only, or for more than there are";
    ShapeError::new("invalid_tensor", reason.to_owned())
}

/// What counts of a tensor.
struct Tensor {
    name: String,
    /// Whether its elements are strings.
    strings: bool,
    /// Whether its contents stand in it.
    contents: bool,
}

impl Tensor {
    fn read(part: &mut Part, reader: &Reader<'_>) -> Result<Self, ShapeError> {
        let inner = part.inner();
        refuse_shared_memory(inner, 4, reader)?;
        let datatype = reader.string(inner, 2);
        let strings = datatype == "BYTES";
        if !strings && !NUMBERS.contains(&datatype) {
            let reason = "a tensor is of a datatype that the protocol does not have";
            return Err(ShapeError::new("unknown_datatype", reason.to_owned()));
        }
        let name = reader.string(inner, 1).to_owned();
        let contents = inner.iter().any(|part| part.number == 5);
        if let What::Inner(inner) = &mut part.what {
            let contents = inner.iter_mut().filter(|part| part.number == 5);
            contents.for_each(|contents| contents.name(&name));
        }
        Ok(Self {
            name,
            strings,
            contents,
        })
    }
}

/// Triton's extension: a tensor whose contents the server reads from or writes to memory that it shares with the caller.
fn refuse_shared_memory(
    tensor: &[Part],
    parameters: u32,
    reader: &Reader<'_>,
) -> Result<(), ShapeError> {
    let mut entries = tensor.iter().filter(|part| part.number == parameters);
    if entries.any(|entry| reader.string(entry.inner(), 1).starts_with("shared_memory")) {
        let reason = "a tensor stands in shared memory, where nothing can look into it";
        return Err(ShapeError::new("shared_memory", reason.to_owned()));
    }
    Ok(())
}
