//! What an exchange tells the ledger: builds its records and knows which of them are durable.

use std::{collections::BTreeMap, sync::Arc};

use super::{Answered, filter::Filter, lending::Guard, rules::Connection, sealing::Sealing};
use crate::audit::{
    Durability, Transaction,
    record::{
        Closed, Decision, Delivered, Endpoint, Entry, Event, Identity, Opened, Refused,
        RequestRecord, Sealed, Timing,
    },
    seal::{Frame, Part, Seed},
};
use crate::{dialect::ResponseFacts, mask};

/// Most text one record carries, in bytes. A byte of text is at most six in JSON (`\u0000`), so a record of this much text
/// and its other fields stays under 256 KiB.
pub(super) const TEXT_PER_RECORD: usize = 32 << 10;

/// What may be let out of a stream before it must be recorded, in bytes, and again while that is being recorded. So after
/// a kill at most twice this and one event were delivered and are not recorded.
pub(super) const RECORD_EACH: usize = 16 << 10;

/// The records of one exchange.
pub(super) struct Journal {
    session: String,
    connection: Option<Arc<Connection>>,
    /// Hides what the connection lends; there from the moment the request is weighed.
    guard: Option<Arc<Guard>>,
    identity: Identity,
    endpoint: Endpoint,
    parts: u32,
    response_bytes: u64,
    timing: Vec<Timing>,
    unrecorded: usize,
    transaction: Transaction,
    seed: Option<Seed>,
    sealing: Option<Sealing>,
    /// What had to be sealed could not be.
    unsealed: bool,
    answered: Answered,
    masked_response: BTreeMap<String, u64>,
    open: bool,
}

/// How a session ended, as `closed` says it.
pub(super) struct End {
    pub(super) outcome: &'static str,
    pub(super) code: &'static str,
    pub(super) reason: String,
    pub(super) status: u16,
    pub(super) duration_ms: u32,
}

impl Journal {
    pub(super) fn new(session: String, seed: Option<Seed>) -> Self {
        Self {
            session,
            connection: None,
            guard: None,
            identity: Identity::default(),
            endpoint: Endpoint::default(),
            parts: 0,
            response_bytes: 0,
            timing: Vec::new(),
            unrecorded: 0,
            transaction: Transaction::default(),
            seed,
            sealing: None,
            unsealed: false,
            answered: Answered::default(),
            masked_response: BTreeMap::new(),
            open: false,
        }
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.as_ref()
    }

    pub(super) fn durability(&self) -> Durability {
        self.connection
            .as_ref()
            .map_or(Durability::Disk, |connection| connection.durability)
    }

    pub(super) fn found(&mut self, connection: Arc<Connection>) {
        self.connection = Some(connection);
    }

    /// What hides the credentials of this exchange, from here to its end.
    pub(super) fn guarded(&mut self, guard: Arc<Guard>) {
        self.guard = Some(guard);
    }

    pub(super) fn known(&mut self, identity: Identity, endpoint: Endpoint) {
        self.identity = identity;
        self.endpoint = endpoint;
    }

    /// Whether there is an `opened` that is durable and a `closed` that is not.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    pub(super) fn mark_open(&mut self) {
        self.open = true;
    }

    pub(super) fn mark_closed(&mut self) {
        self.open = false;
    }

    /// Values masked in the answer, by entity.
    pub(super) fn masked_response(&self) -> &BTreeMap<String, u64> {
        &self.masked_response
    }

    /// What the closing record says of the answer.
    pub(super) fn answered(&self) -> &Answered {
        &self.answered
    }

    pub(super) fn refused(
        &mut self,
        mut request: RequestRecord,
        original: Option<&[u8]>,
        decision: Decision,
        status: u32,
    ) -> Vec<Entry> {
        self.seal_request(&mut request, original);
        let (request, rest) = self.split(request);
        let (identity, endpoint) = (
            std::mem::take(&mut self.identity),
            std::mem::take(&mut self.endpoint),
        );
        let refused = Refused {
            identity,
            endpoint,
            request,
            decision,
            status,
        };
        self.with_parts(Event::Refused(Box::new(refused)), rest)
    }

    pub(super) fn opened(
        &mut self,
        mut request: RequestRecord,
        original: Option<&[u8]>,
        decision: Decision,
        lent: String,
    ) -> Vec<Entry> {
        self.transaction.request(request.body.as_bytes());
        self.seal_request(&mut request, original);
        let (request, rest) = self.split(request);
        let (identity, endpoint) = (
            std::mem::take(&mut self.identity),
            std::mem::take(&mut self.endpoint),
        );
        let opened = Opened {
            identity,
            endpoint,
            request,
            decision,
            lent,
        };
        self.with_parts(Event::Opened(Box::new(opened)), rest)
    }

    /// Seals the body as it was received, where the connection asks for that.
    fn seal_request(&mut self, request: &mut RequestRecord, original: Option<&[u8]>) {
        let (Some(connection), Some(guard), Some(original)) =
            (&self.connection, &self.guard, original)
        else {
            return;
        };
        let seed = self.seed.take();
        self.sealing = Sealing::new(&self.session, seed.as_ref(), connection, guard);
        request.sealed = self
            .sealing
            .as_mut()
            .and_then(|sealing| sealing.request(original));
        match &request.sealed {
            Some(sealed) => self.transaction.sealed(Part::Request, sealed),
            None => self.unsealed = true,
        }
    }

    /// What arrived of the answer since the last call, sealed.
    fn seal_answer(&mut self, end: bool) -> Option<Sealed> {
        let sealing = self.sealing.as_mut()?;
        let sealed = sealing.answer(end);
        self.unsealed |= sealing.has_failed();
        if let Some(sealed) = &sealed {
            self.transaction.sealed(Part::Answer, sealed);
        }
        sealed
    }

    /// What must be kept before the next record is written; `None`, once, where something could not be sealed.
    pub(super) fn take_sealed(&mut self) -> Option<Vec<Frame>> {
        if std::mem::take(&mut self.unsealed) {
            self.sealing = None;
            return None;
        }
        let frames = self.sealing.as_mut().map(Sealing::take_frames);
        Some(frames.unwrap_or_default())
    }

    /// Bytes in memory that wait to be sealed or kept.
    pub(super) fn memory(&self) -> usize {
        self.sealing.as_ref().map_or(0, Sealing::memory)
    }

    /// A body longer than one record goes on in further ones.
    fn split(&self, mut request: RequestRecord) -> (RequestRecord, Vec<String>) {
        let mut pieces = pieces(&request.body)
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into_iter();
        request.body = pieces.next().unwrap_or_default();
        (request, pieces.collect())
    }

    fn with_parts(&mut self, first: Event, rest: Vec<String>) -> Vec<Entry> {
        let mut entries = vec![self.entry(first)];
        for text in rest {
            let text = BTreeMap::from([("body".to_owned(), text)]);
            entries.push(self.part(true, text, Vec::new()));
        }
        entries
    }

    fn part(
        &mut self,
        of_request: bool,
        text: BTreeMap<String, String>,
        timing: Vec<Timing>,
    ) -> Entry {
        let part = self.parts;
        self.parts += 1;
        self.entry(Event::Delivered(Delivered {
            part,
            of_request,
            text,
            timing,
            sealed: None,
        }))
    }

    fn entry(&self, event: Event) -> Entry {
        Entry {
            session: self.session.clone(),
            event,
        }
    }

    /// Bytes of the answer as they arrived.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.response_bytes += bytes.len() as u64;
        if let Some(sealing) = &mut self.sealing {
            sealing.received(bytes);
        }
    }

    /// Bytes of the answer were let out, and with them so many bytes of recordable text became known.
    pub(super) fn let_out(&mut self, at_ms: u32, bytes: usize, text: usize) {
        self.unrecorded += bytes;
        let bytes = clamp(bytes as u64);
        let text = clamp(text as u64);
        match self.timing.last_mut() {
            // The clock tells no more apart, and a record must not grow with the number of pieces.
            Some(last) if last.at_ms == at_ms => {
                last.bytes = last.bytes.saturating_add(bytes);
                last.text = last.text.saturating_add(text);
            }
            _ => self.timing.push(Timing { at_ms, bytes, text }),
        }
    }

    /// Bytes let out and not yet asked to be recorded.
    pub(super) fn unrecorded(&self) -> usize {
        self.unrecorded
    }

    /// Records of what was let out since the last call; none where nothing was.
    pub(super) fn delivered(&mut self, filter: &mut Filter) -> Vec<Entry> {
        self.unrecorded = 0;
        let mut timing = std::mem::take(&mut self.timing);
        let shown = filter.take_shown();
        let mut entries = Vec::new();
        let mut text = BTreeMap::new();
        let mut room = TEXT_PER_RECORD;
        for (channel, whole) in shown {
            let name = format!("{}.{}", channel.choice, channel.field);
            self.transaction.answer(&name, whole.as_bytes());
            for piece in pieces(&whole) {
                if piece.len() + name.len() > room && !text.is_empty() {
                    entries.push(self.part(
                        false,
                        std::mem::take(&mut text),
                        std::mem::take(&mut timing),
                    ));
                    room = TEXT_PER_RECORD;
                }
                room = room.saturating_sub(piece.len() + name.len());
                text.entry(name.clone())
                    .or_insert_with(String::new)
                    .push_str(piece);
            }
        }
        if !text.is_empty() || !timing.is_empty() {
            entries.push(self.part(false, text, timing));
        }
        if let Some(Entry {
            event: Event::Delivered(last),
            ..
        }) = entries.last_mut()
        {
            last.sealed = self.seal_answer(false);
        }
        entries
    }

    /// What recovery would write for the session.
    pub(super) fn unknown(&self) -> Entry {
        let closed = Closed {
            outcome: "unknown".into(),
            ..Closed::default()
        };
        self.entry(Event::Closed(Box::new(closed)))
    }

    /// The last records of the session: what was let out and not yet recorded, then `closed`.
    pub(super) fn close(
        &mut self,
        end: End,
        account: Option<(&mut Filter, ResponseFacts)>,
    ) -> Vec<Entry> {
        let mut closed = Closed {
            outcome: end.outcome.into(),
            code: end.code.into(),
            reason: end.reason,
            status: end.status.into(),
            bytes: self.response_bytes,
            duration_ms: end.duration_ms,
            ..Closed::default()
        };
        let mut entries = Vec::new();
        if let Some((filter, facts)) = account {
            filter.settle();
            entries = self.delivered(filter);
            closed.findings = filter
                .findings()
                .iter()
                .map(|(entity, n)| (entity.to_string(), clamp(*n)))
                .collect();
            closed.masked = filter
                .masked()
                .map(|(entity, _, by)| (entity.to_string(), by.to_string()))
                .collect();
            self.masked_response = filter
                .masked()
                .map(|(entity, n, _)| (entity.to_string(), n))
                .collect();
            // Words of the upstream's choosing, and so no safer than its text.
            let shown = |word: String| match &self.guard {
                Some(guard) => mask::mask(guard.record_plan(), &word).0,
                None => String::new(),
            };
            closed.model = shown(facts.model.unwrap_or_default());
            closed.system_fingerprint = shown(facts.system_fingerprint.unwrap_or_default());
            closed.response_id = shown(facts.id.unwrap_or_default());
            closed.finish_reasons = facts.finish_reasons.into_iter().map(shown).collect();
            self.answered = Answered {
                id: closed.response_id.clone(),
                model: closed.model.clone(),
                finish_reasons: closed.finish_reasons.clone(),
                input_tokens: facts.input_tokens,
                output_tokens: facts.output_tokens,
            };
            closed.input_tokens = facts.input_tokens.unwrap_or_default();
            closed.output_tokens = facts.output_tokens.unwrap_or_default();
            let named = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect();
            closed.unscanned = named(&facts.unscanned);
            closed.stripped = named(&facts.stripped);
        }
        closed.sealed = self.seal_answer(true);
        closed.parts = self.parts;
        closed.transaction_sha256 = self.transaction.finish(closed.status);
        entries.push(self.entry(Event::Closed(Box::new(closed))));
        entries
    }
}

/// `text` in pieces of at most [`TEXT_PER_RECORD`] bytes, cut between characters.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(rest.floor_char_boundary(TEXT_PER_RECORD));
        rest = after;
        Some(piece)
    })
}

fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
