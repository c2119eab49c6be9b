//! `countersign mask` and `countersign unmask`: texts, requests and answers, masked as the gateway would.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};

use super::scan::{self, DetectorArgs, KeyArgs};
use crate::{
    dialect::{
        self, Channel, Dialect, Endpoint, Passed, ResponseBody, Selection, ShapeError, Text,
        TextFilter,
    },
    mask::{self, Masker, Operator, Plan},
};

/// What is read at once, in bytes.
const PIECE: usize = 64 << 10;
/// The longest document that is not a stream, in bytes, and the most of a stream that is looked at to tell what it is.
const MAX_DOCUMENT: usize = 64 << 20;

/// Mask sensitive values: a body on standard input, the masked body on standard output.
///
/// Without --dialect the input is plain text. With it, a request, an answer or a stream of that provider, told apart by
/// what it looks like: the texts in it are masked, everything else stays byte for byte. Memory stays flat for texts and
/// streams of any length; a single document may have 64 MiB.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  countersign mask < notes.txt\n  countersign mask --dialect openai --chunk 3 < stream.sse"
)]
pub struct MaskCommand {
    #[command(flatten)]
    detectors: DetectorArgs,
    /// The provider's format, such as `openai`.
    #[arg(long, value_name = "NAME")]
    dialect: Option<String>,
    /// The endpoint of the dialect; default: the first that knows the shape.
    #[arg(long, value_name = "NAME", requires = "dialect")]
    endpoint: Option<String>,
    /// Cut the input every N bytes, as a network might: what comes out is the same.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// What takes the place of a value.
    #[arg(long, value_enum, default_value = "replace")]
    operator: Word,
    #[command(flatten)]
    key: KeyArgs,
}

/// Put back the values that the operator `tokenize` replaced: text on standard input and output.
///
/// Needs the masking key, and where stand-ins differ by principal, whose they are. Exits 1 where something looks like a
/// token and is not one of these keys: it stays as it is.
#[derive(Args, Debug)]
pub struct UnmaskCommand {
    /// The configuration that names the masking key.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: Option<std::path::PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    /// The entity's name in brackets.
    Replace,
    /// Nothing.
    Redact,
    /// Asterisks but for the last four letters and digits.
    KeepLast4,
    /// A keyed hash.
    Hash,
    /// What `countersign unmask` can undo.
    Tokenize,
}

/// Runs `countersign mask`.
///
/// # Errors
/// Where the input is not what it should be, or reading or writing fails; what was written before is masked.
pub fn run(args: &MaskCommand) -> anyhow::Result<ExitCode> {
    let config = args.detectors.load()?;
    let operator = match args.operator {
        Word::Replace => Operator::Replace,
        Word::Redact => Operator::Redact,
        Word::KeepLast4 => Operator::KeepLast(4),
        Word::Hash => Operator::Hash,
        Word::Tokenize => Operator::Tokenize,
    };
    let keys = match operator.is_keyed() {
        true => Some(args.key.keys(config.as_ref())?),
        false => None,
    };
    let scanner = args.detectors.scanner(config.as_ref())?;
    let fields = Arc::new(args.detectors.fields(config.as_ref()));
    let plan = scan::plan(scanner, &fields, operator, keys);
    let (input, bar) = scan::input("masking");
    let mut input = Pieces {
        input: BufReader::with_capacity(PIECE, input),
        length: args.chunk.map_or(PIECE, |chunk| chunk as usize),
    };
    let mut out = BufWriter::with_capacity(PIECE, io::stdout().lock());
    match &args.dialect {
        None => text(plan, &mut input, &mut out)?,
        Some(name) => {
            let dialect = dialect::by_name(name).ok_or_else(|| unknown_dialect(name))?;
            let endpoints = endpoints(dialect, args.endpoint.as_deref())?;
            let masks = Masks { plan, fields };
            body(&masks, dialect, &endpoints, &mut input, &mut out)?;
        }
    }
    out.flush().context("cannot write")?;
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

/// Runs `countersign unmask`.
///
/// # Errors
/// Where there is no key, or reading or writing fails.
pub fn run_unmask(args: &UnmaskCommand) -> anyhow::Result<ExitCode> {
    let detectors = DetectorArgs {
        config: args.config.clone(),
        entities: Vec::new(),
    };
    let keys = args.key.keys(detectors.load()?.as_ref())?;
    let (mut opened, mut strange) = (0, 0);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut line = String::new();
    let mut input = io::stdin().lock();
    while input.read_line(&mut line).context("cannot read")? > 0 {
        let (text, here, not_ours) = mask::unmask(&keys, &line);
        opened += here;
        strange += not_ours;
        out.write_all(text.as_bytes()).context("cannot write")?;
        line.clear();
    }
    out.flush().context("cannot write")?;
    eprintln!("{opened} values put back");
    if strange > 0 {
        eprintln!(
            "{strange} look like tokens of another key or principal, or are altered: left as they are"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown_dialect(name: &str) -> anyhow::Error {
    let known: Vec<_> = dialect::all()
        .iter()
        .map(|dialect| dialect.name())
        .collect();
    anyhow!("unknown dialect `{name}`: there are {}", known.join(", "))
}

fn endpoints(dialect: &dyn Dialect, wanted: Option<&str>) -> anyhow::Result<Vec<Endpoint>> {
    let all = dialect.endpoints();
    if all.is_empty() {
        bail!(
            "dialect `{}` is known by the schema of a connection only, and cannot be tried here",
            dialect.name()
        );
    }
    let Some(wanted) = wanted else {
        return Ok(all.to_vec());
    };
    let found: Vec<_> = all
        .iter()
        .filter(|endpoint| endpoint.name == wanted)
        .copied()
        .collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().map(|endpoint| endpoint.name).collect();
        bail!(
            "dialect `{}` has no endpoint `{wanted}`: there are {}",
            dialect.name(),
            known.join(", ")
        );
    }
    Ok(found)
}

/// The input in pieces of a length.
struct Pieces<R> {
    input: R,
    length: usize,
}

impl<R: Read> Pieces<R> {
    /// The next piece, empty at the end.
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut piece = Vec::with_capacity(self.length);
        (&mut self.input)
            .take(self.length as u64)
            .read_to_end(&mut piece)
            .context("cannot read")?;
        Ok(piece)
    }
}

/// Masks plain text.
fn text<R: Read>(
    plan: Arc<Plan>,
    input: &mut Pieces<R>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut masker = Masker::new(plan);
    let mut bytes = Vec::new();
    let mut read = 0;
    loop {
        let piece = input.next()?;
        let last = piece.is_empty();
        bytes.extend_from_slice(&piece);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            // A character may go on in the next piece.
            Err(error) if error.error_len().is_none() && !last => error.valid_up_to(),
            Err(error) => bail!(
                "the text is not UTF-8 at byte {}",
                read + error.valid_up_to()
            ),
        };
        let rest = bytes.split_off(whole);
        read += whole;
        let mut masked = String::with_capacity(whole);
        masker.push(&String::from_utf8(bytes)?, &mut masked);
        bytes = rest;
        if last {
            masker.finish(&mut masked);
        }
        out.write_all(masked.as_bytes()).context("cannot write")?;
        if last {
            return Ok(());
        }
    }
}

/// What is masked in a body, and by which fields.
struct Masks {
    plan: Arc<Plan>,
    fields: Arc<Selection>,
}

/// Masks a body of `dialect`.
fn body<R: Read>(
    masks: &Masks,
    dialect: &dyn Dialect,
    endpoints: &[Endpoint],
    input: &mut Pieces<R>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut head = Vec::new();
    let mut look_at = 0;
    let kind = loop {
        let piece = input.next()?;
        head.extend_from_slice(&piece);
        // Looked at each time it has doubled, however small the pieces are.
        if head.len() < look_at && !piece.is_empty() {
            continue;
        }
        look_at = 2 * head.len();
        match kind_of(&head, piece.is_empty()) {
            Some(kind) => break kind,
            None if head.len() > MAX_DOCUMENT => bail!("the document is over {MAX_DOCUMENT} bytes"),
            None => {}
        }
    };
    if kind == Kind::Document
        && let Some(masked) = request(masks, dialect, endpoints, &head)
    {
        return out.write_all(&masked).context("cannot write");
    }
    let mut reader = answer(masks, dialect, endpoints, kind, &head)?;
    let mut lanes = Lanes::new(masks.plan.clone());
    let mut begun = head.chunks(input.length).map(<[u8]>::to_vec);
    loop {
        let piece = match begun.next() {
            Some(piece) => piece,
            None => input.next()?,
        };
        let passed = if piece.is_empty() {
            reader.finish(&mut lanes)
        } else {
            reader.push(&piece, &mut lanes)
        };
        let Passed { now, terminal } = passed.map_err(fault)?;
        out.write_all(&now).context("cannot write")?;
        out.write_all(&terminal).context("cannot write")?;
        if piece.is_empty() {
            return Ok(());
        }
    }
}

fn fault(error: ShapeError) -> anyhow::Error {
    anyhow!(
        "the input is not what it should be: {error} ({})",
        error.code
    )
}

/// What the input looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One JSON document.
    Document,
    /// Several JSON documents, a line each.
    Lines,
    /// Server-sent events.
    Events,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Document => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }
}

/// What begins with `head`; `None` where more is needed to tell.
fn kind_of(head: &[u8], all: bool) -> Option<Kind> {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let Some(first) = text.first() else {
        return all.then_some(Kind::Document);
    };
    if !matches!(first, b'{' | b'[' | b'"') {
        return Some(Kind::Events);
    }
    if let Some(end) = text.iter().position(|byte| *byte == b'\n')
        && serde_json::from_slice::<serde::de::IgnoredAny>(&text[..end]).is_ok()
        && !text[end..].trim_ascii().is_empty()
    {
        return Some(Kind::Lines);
    }
    all.then_some(Kind::Document)
}

/// The masked request, where `body` is one.
fn request(
    Masks { plan, fields }: &Masks,
    dialect: &dyn Dialect,
    endpoints: &[Endpoint],
    body: &[u8],
) -> Option<Vec<u8>> {
    let mut request = endpoints.iter().find_map(|endpoint| {
        let body = body.to_vec().into();
        // Where the path names the model, it does not stand in the body.
        let path = endpoint.path.replace("{model}", "model");
        dialect
            .read_request(endpoint, &path, Some("application/json"), body)
            .ok()
    })?;
    request.select(fields);
    let mut mask = |text: Text<'_>| match text.entity {
        Some(entity) => plan.named(entity, text.text).map(|(_, masked)| masked),
        None => Some(mask::mask_under(plan, text.label, text.text).0),
    };
    Some(request.rewrite(&mut mask).to_vec())
}

/// A reader for the answer that begins with `head`: that of the first endpoint that knows its shape.
fn answer(
    Masks { plan, fields }: &Masks,
    dialect: &dyn Dialect,
    endpoints: &[Endpoint],
    kind: Kind,
    head: &[u8],
) -> anyhow::Result<Box<dyn ResponseBody>> {
    let reader = |endpoint| dialect.read_response(endpoint, 200, Some(kind.content_type()));
    let mut why = None;
    for endpoint in endpoints {
        let tried = reader(endpoint).and_then(|mut tried| {
            let mut lanes = Lanes::new(plan.clone());
            let passed = tried.push(head, &mut lanes)?;
            if kind == Kind::Document {
                tried.finish(&mut lanes)?;
            } else if passed == Passed::default() {
                // Its first event is cut: whatever it is, the next piece tells.
                return Ok(());
            }
            Ok(())
        });
        match tried {
            Ok(()) => {
                let mut reader = reader(endpoint).map_err(fault)?;
                reader.select(fields);
                return Ok(reader);
            }
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(why.map_or_else(|| anyhow!("the dialect has no endpoints"), fault))
}

/// One masker per channel.
struct Lanes {
    plan: Arc<Plan>,
    lanes: BTreeMap<Channel, Masker>,
    /// The keys the next text stands under.
    label: String,
}

impl Lanes {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            lanes: BTreeMap::new(),
            label: String::new(),
        }
    }
}

impl TextFilter for Lanes {
    fn push(&mut self, channel: &Channel, text: &str, out: &mut String) {
        if !self.lanes.contains_key(channel) {
            let label = std::mem::take(&mut self.label);
            let masker = Masker::under(self.plan.clone(), &label);
            self.lanes.insert(channel.clone(), masker);
        }
        if let Some(lane) = self.lanes.get_mut(channel) {
            lane.push(text, out);
        }
    }

    fn finish(&mut self, channel: &Channel, out: &mut String) {
        if let Some(mut lane) = self.lanes.remove(channel) {
            lane.finish(out);
        }
    }

    fn label(&mut self, _: &Channel, label: &str) {
        label.clone_into(&mut self.label);
    }

    fn named(&mut self, entity: &str, _: &Channel, text: &str) -> Option<String> {
        self.plan.named(entity, text).map(|(_, masked)| masked)
    }

    fn part(&mut self, text: &str) -> String {
        mask::mask(&self.plan, text).0
    }

    fn again(&mut self, _: &Channel, text: &str) -> String {
        let label = std::mem::take(&mut self.label);
        mask::mask_under(&self.plan, &label, text).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Catalog;

    const REQUEST: &str =
        r#"{"model":"m", "messages":[{"role":"user","content":"SSN 536-22-8714"}]}"#;
    const ANSWER: &str = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"SSN 536-22-8714"},"finish_reason":"stop"}]}"#;

    fn plan() -> Arc<Plan> {
        let catalog = Catalog::builtin().unwrap();
        scan::plan(
            catalog.scanner(catalog.entities()).unwrap(),
            &Selection::default(),
            Operator::Replace,
            None,
        )
    }

    fn pieces(text: &[u8], length: usize) -> Pieces<&[u8]> {
        Pieces {
            input: text,
            length,
        }
    }

    fn masked(input: &str, length: usize) -> anyhow::Result<String> {
        let dialect = dialect::by_name("openai").unwrap();
        let mut out = Vec::new();
        let fields = Arc::default();
        let masks = Masks {
            plan: plan(),
            fields,
        };
        body(
            &masks,
            dialect,
            dialect.endpoints(),
            &mut pieces(input.as_bytes(), length),
            &mut out,
        )?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn text_is_masked_however_it_is_cut() {
        let input = "\u{e9}\u{1F600} mail ada@example.com \u{e9}, SSN 536-22-8714.";
        let whole = "\u{e9}\u{1F600} mail [EMAIL_ADDRESS] \u{e9}, SSN [US_SSN].";
        for length in 1..=input.len() {
            let mut out = Vec::new();
            text(plan(), &mut pieces(input.as_bytes(), length), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), whole, "cut every {length}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_said_where() {
        for input in [&b"abc\xff def"[..], b"abc\xc3"] {
            let fault = text(plan(), &mut pieces(input, 2), &mut Vec::new()).unwrap_err();
            assert_eq!(fault.to_string(), "the text is not UTF-8 at byte 3");
        }
    }

    #[test]
    fn requests_answers_and_streams_are_told_apart() {
        for length in [1, 7, PIECE] {
            assert_eq!(
                masked(REQUEST, length).unwrap(),
                REQUEST.replace("536-22-8714", "[US_SSN]")
            );
            assert_eq!(
                masked(ANSWER, length).unwrap(),
                ANSWER.replace("536-22-8714", "[US_SSN]")
            );
            let chunk = |text: &str| {
                format!(
                    "data: {{\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
                )
            };
            let stream = format!("{}{}data: [DONE]\n\n", chunk("SSN 536-"), chunk("22-8714."));
            let out = masked(&stream, length).unwrap();
            assert!(
                out.contains("[US_SSN].")
                    && !out.contains("536")
                    && out.ends_with("data: [DONE]\n\n"),
                "{out}"
            );
        }
    }

    #[test]
    fn what_the_dialect_does_not_know_is_refused() {
        for input in [
            "{\"odd\":1}",
            "data: {\"odd\":1}\n\n",
            "",
            "{\"a\":",
            "SSN 536-22-8714",
        ] {
            let fault = masked(input, PIECE).unwrap_err().to_string();
            assert!(!fault.contains("536"), "{fault}");
        }
    }
}
