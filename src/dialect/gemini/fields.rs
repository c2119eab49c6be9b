//! Where the texts of Gemini's documents are: requests, answers and errors.
//!
//! The wire format is protobuf's JSON mapping: each name may be written in lower camel case or as in the `.proto` file
//! (protobuf.dev, "ProtoJSON Format"). Both are known here; an object with one name in both is refused, since parsers
//! differ in which one holds.

use super::unknown_shape;
use crate::dialect::{
    Channel, ShapeError,
    json::{Document, Kind, Value},
    request::Asked,
    stream::{MAX_CHANNELS, too_many_channels},
    texts::{Class, Fields, Names, Path, SCHEMA, is_schema_type},
};

/// What is asked for: the model stands in the path, and one in the body must be the same.
///
/// # Errors
/// `unknown_shape`, `conflicting_model`.
pub(super) fn asked(
    document: &Document<'_>,
    model: &str,
    stream: bool,
) -> Result<Asked, ShapeError> {
    let root = &document.root;
    if !matches!(root.kind, Kind::Object(_)) || document.member(root, "contents").is_none() {
        return Err(unknown_shape("the request is no object with `contents`"));
    }
    if let Some(named) = document.member(root, "model") {
        let named = document.string(named).unwrap_or_default();
        if named.strip_prefix("models/").unwrap_or(&named) != model {
            return Err(ShapeError::new(
                "conflicting_model",
                "`model` is not the model that the path names".to_owned(),
            ));
        }
    }
    let tools = document
        .member(root, "tools")
        .is_some_and(|tools| match &tools.kind {
            Kind::Array(tools) => !tools.is_empty(),
            kind => !matches!(kind, Kind::Null),
        });
    Ok(Asked {
        model: model.to_owned(),
        stream,
        tools,
    })
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Request,
    Answer,
    Event,
    Error,
}

/// A member by its name in either spelling.
pub(super) fn either<'v, 't: 'v>(
    document: &Document<'t>,
    value: &'v Value,
    camel: &str,
    snake: &str,
) -> Option<&'v Value> {
    document
        .member(value, camel)
        .or_else(|| document.member(value, snake))
}

/// The candidates of an answer.
pub(super) fn candidates<'d>(document: &'d Document<'_>) -> &'d [Value] {
    match document
        .member(&document.root, "candidates")
        .map(|candidates| &candidates.kind)
    {
        Some(Kind::Array(candidates)) => candidates,
        _ => &[],
    }
}

/// The index of a candidate: the mapping leaves out what is zero.
///
/// # Errors
/// `unknown_shape`, `too_many_channels`.
pub(super) fn index(document: &Document<'_>, candidate: &Value) -> Result<u32, ShapeError> {
    let Some(value) = document.member(candidate, "index") else {
        return Ok(0);
    };
    let index = document
        .integer(value)
        .ok_or_else(|| unknown_shape("an index in the stream is no number"))?;
    let small = u32::try_from(index)
        .ok()
        .filter(|index| (*index as usize) < MAX_CHANNELS);
    small.ok_or_else(|| too_many_channels("an index in the stream is too large"))
}

impl Fields for Shape {
    fn names(&self, path: &Path<'_>) -> &'static [&'static str] {
        NAMES.of(path)
    }

    fn vocabulary(&self, path: &Path<'_>) -> &'static [&'static str] {
        let schema = |key: &&str| {
            matches!(
                *key,
                "parameters"
                    | "response"
                    | "responseSchema"
                    | "response_schema"
                    | "parametersJsonSchema"
                    | "parameters_json_schema"
                    | "responseJsonSchema"
                    | "response_json_schema"
            )
        };
        if path.keys.iter().any(schema) {
            SCHEMA
        } else {
            &[]
        }
    }

    fn class(
        &self,
        path: &Path<'_>,
        value: &Value,
        document: &Document<'_>,
    ) -> Result<Class, ShapeError> {
        expect(*self, path, value, document)?;
        let text = document.string(value);
        let answer = matches!(self, Self::Answer | Self::Event);
        Ok(match path.keys.as_slice() {
            _ if is_values(path) => Class::Values,
            [.., "type"] if text.as_deref().is_some_and(is_type) => Class::Protocol,
            _ if NAMES.is_free(path) => Class::Text,
            _ if NAMES.is_word(path, text.as_deref()) => Class::Protocol,
            [.., "thoughtSignature" | "thought_signature"] => Class::Opaque("signed"),
            [
                ..,
                "inlineData" | "inline_data" | "fileData" | "file_data",
                "data",
            ] => Class::Opaque("media"),
            [.., "fileData" | "file_data"] => Class::Partly("media"),
            ["cachedContent" | "cached_content"] => Class::Partly("cached_content"),
            ["candidates", "*", "logprobsResult" | "logprobs_result"] if answer => Class::Echo,
            [
                "candidates",
                "*",
                "citationMetadata" | "citation_metadata",
                "citations" | "citationSources" | "citation_sources",
            ]
            | [
                "candidates",
                "*",
                "groundingMetadata" | "grounding_metadata",
                "groundingSupports" | "grounding_supports",
            ] if answer => Class::Annotations,
            ["candidates", "*", "content", "parts", "*", "text"] if *self == Self::Event => {
                Class::Piece
            }
            // The parts of a stream are pieces of one text already.
            ["candidates", "*", "content", "parts"] if *self == Self::Event => Class::Text,
            [.., "parts"] => Class::Parts,
            _ => Class::Text,
        })
    }

    fn channel(&self, path: &Path<'_>, document: &Document<'_>) -> Result<Channel, ShapeError> {
        let (["candidates", "*", rest @ ..], [place, places @ ..]) =
            (path.keys.as_slice(), path.places.as_slice())
        else {
            return Ok(Channel {
                choice: 0,
                field: path.dotted(),
            });
        };
        let candidate = candidates(document).get(*place);
        let choice = candidate.map_or(Ok(0), |candidate| index(document, candidate))?;
        if let ["content", "parts", "*", "text"] = rest {
            let thought = path
                .object
                .and_then(|part| document.member(part, "thought"))
                .is_some_and(|thought| matches!(thought.kind, Kind::Bool(true)));
            return Ok(Channel {
                choice,
                field: if thought { "thought" } else { "text" }.to_owned(),
            });
        }
        let rest = Path {
            keys: rest.to_vec(),
            places: places.to_vec(),
            object: None,
        };
        Ok(Channel {
            choice,
            field: rest.dotted(),
        })
    }
}

/// Whether a value is what a function is called with, or what it gave back.
fn is_values(path: &Path<'_>) -> bool {
    path.keys.windows(2).any(|two| {
        matches!(
            two,
            ["functionCall" | "function_call", "args"]
                | ["functionResponse" | "function_response", "response"]
        )
    })
}

/// The types of a schema, which Gemini writes in upper case too.
fn is_type(text: &str) -> bool {
    is_schema_type(text) || is_schema_type(&text.to_ascii_lowercase())
}

/// The shapes without which we would not know where the text is.
fn expect(
    shape: Shape,
    path: &Path<'_>,
    value: &Value,
    document: &Document<'_>,
) -> Result<(), ShapeError> {
    if let Kind::Object(members) = &value.kind
        && !NAMES.is_free(path)
    {
        let twin = |name: &str| {
            name.contains('_')
                && members.iter().any(|member| {
                    let other = document.key(&member.key);
                    other != name && spelled_alike(name, other)
                })
        };
        if members.iter().any(|member| twin(document.key(&member.key))) {
            return Err(ShapeError::at(
                "duplicate_key",
                "an object has one name in two spellings",
                value.span.start as usize,
            ));
        }
    }
    let answer = matches!(shape, Shape::Answer | Shape::Event);
    let fault = match (path.keys.as_slice(), &value.kind) {
        (["contents"], Kind::Array(_)) if shape == Shape::Request => None,
        (["contents"], _) if shape == Shape::Request => Some("`contents` is not an array"),
        (["candidates"], Kind::Array(_)) | (["candidates", "*"], Kind::Object(_)) if answer => None,
        (["candidates"] | ["candidates", "*"], _) if answer => {
            Some("the answer's candidates are not an array of objects")
        }
        (
            ["contents", "*"]
            | ["systemInstruction" | "system_instruction"]
            | ["candidates", "*", "content"],
            Kind::Object(_),
        )
        | (["contents", "*", "parts"] | ["candidates", "*", "content", "parts"], Kind::Array(_))
        | (
            ["contents", "*", "parts", "*"] | ["candidates", "*", "content", "parts", "*"],
            Kind::Object(_),
        )
        | (
            ["contents", "*", "parts", "*", "text"]
            | ["candidates", "*", "content", "parts", "*", "text"],
            Kind::String { .. },
        ) => None,
        (
            ["contents", "*"]
            | ["systemInstruction" | "system_instruction"]
            | ["candidates", "*", "content"]
            | ["contents", "*", "parts"]
            | ["candidates", "*", "content", "parts"]
            | ["contents", "*", "parts", "*"]
            | ["candidates", "*", "content", "parts", "*"]
            | ["contents", "*", "parts", "*", "text"]
            | ["candidates", "*", "content", "parts", "*", "text"],
            _,
        ) => Some("a content, part or text is not what it must be"),
        // Arguments dealt out over events: what they make together could not be masked.
        ([.., "partialArgs" | "partial_args"], Kind::Array(_)) if answer => {
            Some("a function call comes in parts")
        }
        _ => None,
    };
    fault.map_or(Ok(()), |reason| Err(unknown_shape(reason)))
}

/// Whether `camel` is how `snake` is written in lower camel case.
fn spelled_alike(snake: &str, camel: &str) -> bool {
    let bare = snake.bytes().filter(|byte| *byte != b'_');
    bare.map(|byte| byte.to_ascii_lowercase())
        .eq(camel.bytes().map(|byte| byte.to_ascii_lowercase()))
}

const NAMES: Names = Names {
    free: &[
        "args",
        "labels",
        "parameters",
        "parametersJsonSchema",
        "parameters_json_schema",
        "partMetadata",
        "part_metadata",
        "response",
        "responseJsonSchema",
        "responseSchema",
        "response_json_schema",
        "response_schema",
        "toolResponse",
        "tool_response",
    ],
    words: &[
        "behavior",
        "blockReason",
        "block_reason",
        "category",
        "createTime",
        "create_time",
        "finishReason",
        "finish_reason",
        "id",
        "language",
        "languageCode",
        "language_code",
        "mediaResolution",
        "media_resolution",
        "method",
        "mimeType",
        "mime_type",
        "modality",
        "mode",
        "model",
        "modelVersion",
        "model_version",
        "outcome",
        "probability",
        "responseId",
        "responseMimeType",
        "response_id",
        "response_mime_type",
        "role",
        "scheduling",
        "serviceTier",
        "service_tier",
        "severity",
        "status",
        "thinkingLevel",
        "thinking_level",
        "threshold",
        "trafficType",
        "traffic_type",
        "urlRetrievalStatus",
        "url_retrieval_status",
        "voiceName",
        "voice_name",
    ],
    known: &[
        "allowedFunctionNames",
        "allowed_function_names",
        "args",
        "aspectRatio",
        "aspect_ratio",
        "audioTimestamp",
        "audioTranscription",
        "audioTranscriptionConfig",
        "audio_timestamp",
        "audio_transcription",
        "audio_transcription_config",
        "avgLogprobs",
        "avg_logprobs",
        "behavior",
        "blockReason",
        "blockReasonMessage",
        "block_reason",
        "block_reason_message",
        "blocked",
        "blockingConfidence",
        "blocking_confidence",
        "cacheTokensDetails",
        "cache_tokens_details",
        "cachedContent",
        "cachedContentTokenCount",
        "cached_content",
        "cached_content_token_count",
        "candidateCount",
        "candidate_count",
        "candidates",
        "candidatesTokenCount",
        "candidatesTokensDetails",
        "candidates_token_count",
        "candidates_tokens_details",
        "category",
        "chosenCandidates",
        "chosen_candidates",
        "citationMetadata",
        "citationSources",
        "citation_metadata",
        "citation_sources",
        "citations",
        "code",
        "codeExecution",
        "codeExecutionResult",
        "code_execution",
        "code_execution_result",
        "computerUse",
        "computer_use",
        "confidenceScores",
        "confidence_scores",
        "content",
        "contents",
        "createTime",
        "create_time",
        "customMetadata",
        "custom_metadata",
        "data",
        "description",
        "details",
        "disabledSafetyPolicies",
        "disabled_safety_policies",
        "displayName",
        "display_name",
        "documentName",
        "document_name",
        "domain",
        "dynamicRetrievalConfig",
        "dynamicThreshold",
        "dynamic_retrieval_config",
        "dynamic_threshold",
        "enableAffectiveDialog",
        "enableEnhancedCivicAnswers",
        "enablePromptInjectionDetection",
        "enable_affective_dialog",
        "enable_enhanced_civic_answers",
        "enable_prompt_injection_detection",
        "endIndex",
        "endOffset",
        "endTime",
        "end_index",
        "end_offset",
        "end_time",
        "enterpriseWebSearch",
        "enterprise_web_search",
        "environment",
        "error",
        "exaAiSearch",
        "exa_ai_search",
        "excludeDomains",
        "exclude_domains",
        "excludedPredefinedFunctions",
        "excluded_predefined_functions",
        "executableCode",
        "executable_code",
        "fileData",
        "fileSearch",
        "fileSearchStore",
        "fileSearchStoreNames",
        "fileUri",
        "file_data",
        "file_search",
        "file_search_store",
        "file_search_store_names",
        "file_uri",
        "finishMessage",
        "finishReason",
        "finish_message",
        "finish_reason",
        "fps",
        "frequencyPenalty",
        "frequency_penalty",
        "functionCall",
        "functionCallingConfig",
        "functionDeclarations",
        "functionResponse",
        "function_call",
        "function_calling_config",
        "function_declarations",
        "function_response",
        "generationConfig",
        "generation_config",
        "googleMaps",
        "googleMapsWidgetContextToken",
        "googleSearch",
        "googleSearchDynamicRetrievalScore",
        "googleSearchRetrieval",
        "google_maps",
        "google_maps_widget_context_token",
        "google_search",
        "google_search_dynamic_retrieval_score",
        "google_search_retrieval",
        "groundingChunkIndices",
        "groundingChunks",
        "groundingMetadata",
        "groundingSupports",
        "grounding_chunk_indices",
        "grounding_chunks",
        "grounding_metadata",
        "grounding_supports",
        "id",
        "image",
        "imageConfig",
        "imageOutputOptions",
        "imageSearchQueries",
        "imageSize",
        "image_config",
        "image_output_options",
        "image_search_queries",
        "image_size",
        "includeServerSideToolInvocations",
        "includeThoughts",
        "include_server_side_tool_invocations",
        "include_thoughts",
        "index",
        "inlineData",
        "inline_data",
        "labels",
        "language",
        "languageCode",
        "language_code",
        "latLng",
        "lat_lng",
        "latitude",
        "license",
        "logProbability",
        "logProbabilitySum",
        "log_probability",
        "log_probability_sum",
        "logprobs",
        "logprobsResult",
        "logprobs_result",
        "longitude",
        "maps",
        "maxOutputTokens",
        "max_output_tokens",
        "mcpServers",
        "mcp_servers",
        "mediaId",
        "mediaResolution",
        "media_id",
        "media_resolution",
        "message",
        "metadataFilter",
        "metadata_filter",
        "method",
        "mimeType",
        "mime_type",
        "modality",
        "mode",
        "model",
        "modelSelectionConfig",
        "modelStatus",
        "modelVersion",
        "model_selection_config",
        "model_status",
        "model_version",
        "multiSpeakerVoiceConfig",
        "multi_speaker_voice_config",
        "name",
        "outcome",
        "output",
        "outputCompressionQuality",
        "outputMimeType",
        "output_compression_quality",
        "output_mime_type",
        "overwrittenThreshold",
        "overwritten_threshold",
        "pageNumber",
        "page_number",
        "parallelAiSearch",
        "parallel_ai_search",
        "parameters",
        "parametersJsonSchema",
        "parameters_json_schema",
        "partIndex",
        "partMetadata",
        "part_index",
        "part_metadata",
        "partialArgs",
        "partial_args",
        "parts",
        "personGeneration",
        "person_generation",
        "placeAnswerSources",
        "placeId",
        "place_answer_sources",
        "place_id",
        "prebuiltVoiceConfig",
        "prebuilt_voice_config",
        "presencePenalty",
        "presence_penalty",
        "probability",
        "probabilityScore",
        "probability_score",
        "prominentPeople",
        "prominent_people",
        "promptFeedback",
        "promptTokenCount",
        "promptTokensDetails",
        "prompt_feedback",
        "prompt_token_count",
        "prompt_tokens_details",
        "publicationDate",
        "publication_date",
        "ragChunk",
        "rag_chunk",
        "renderedContent",
        "renderedParts",
        "rendered_content",
        "rendered_parts",
        "replicatedVoiceConfig",
        "replicated_voice_config",
        "response",
        "responseFormat",
        "responseId",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "response_format",
        "response_id",
        "response_json_schema",
        "response_logprobs",
        "response_mime_type",
        "response_modalities",
        "response_schema",
        "retrieval",
        "retrievalConfig",
        "retrievalMetadata",
        "retrievalQueries",
        "retrieval_config",
        "retrieval_metadata",
        "retrieval_queries",
        "retrievedContext",
        "retrievedUrl",
        "retrieved_context",
        "retrieved_url",
        "role",
        "route",
        "routingConfig",
        "routing_config",
        "safetyRatings",
        "safetySettings",
        "safety_ratings",
        "safety_settings",
        "scheduling",
        "sdkBlob",
        "sdk_blob",
        "searchEntryPoint",
        "searchTypes",
        "search_entry_point",
        "search_types",
        "seed",
        "segment",
        "serviceTier",
        "service_tier",
        "severity",
        "severityScore",
        "severity_score",
        "sourceFlaggingUris",
        "source_flagging_uris",
        "speaker",
        "speakerVoiceConfigs",
        "speaker_voice_configs",
        "speechConfig",
        "speech_config",
        "startIndex",
        "startOffset",
        "startTime",
        "start_index",
        "start_offset",
        "start_time",
        "status",
        "stopSequences",
        "stop_sequences",
        "store",
        "streamFunctionCallArguments",
        "stream_function_call_arguments",
        "systemInstruction",
        "system_instruction",
        "temperature",
        "text",
        "thinkingBudget",
        "thinkingConfig",
        "thinkingLevel",
        "thinking_budget",
        "thinking_config",
        "thinking_level",
        "thought",
        "thoughtSignature",
        "thought_signature",
        "thoughtsTokenCount",
        "thoughts_token_count",
        "threshold",
        "timeRangeFilter",
        "time_range_filter",
        "title",
        "token",
        "tokenCount",
        "tokenId",
        "token_count",
        "token_id",
        "toolCall",
        "toolConfig",
        "toolResponse",
        "toolUsePromptTokenCount",
        "toolUsePromptTokensDetails",
        "tool_call",
        "tool_config",
        "tool_response",
        "tool_use_prompt_token_count",
        "tool_use_prompt_tokens_details",
        "tools",
        "topCandidates",
        "topK",
        "topP",
        "top_candidates",
        "top_k",
        "top_p",
        "totalTokenCount",
        "total_token_count",
        "trafficType",
        "traffic_type",
        "translationConfig",
        "translation_config",
        "uri",
        "urlContext",
        "urlContextMetadata",
        "urlMetadata",
        "urlRetrievalStatus",
        "url_context",
        "url_context_metadata",
        "url_metadata",
        "url_retrieval_status",
        "usageMetadata",
        "usage_metadata",
        "videoMetadata",
        "video_metadata",
        "voiceConfig",
        "voiceName",
        "voice_config",
        "voice_name",
        "web",
        "webSearchQueries",
        "web_search_queries",
        "willContinue",
        "will_continue",
    ],
};

#[cfg(test)]
mod tests {
    #[test]
    fn names_stand_in_the_order_in_which_they_are_looked_for() {
        assert!(super::NAMES.known.is_sorted());
    }
}
