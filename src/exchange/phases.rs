//! Where the time of an exchange goes: which phase it is in, from when to when.
//!
//! Promises: it is in one phase at a time, or in none; a bounded number of laps, however long an answer is. Between inputs the time
//! is the one that comes with them. Within one, where deciding and masking take turns, it is asked of a stopwatch, if there is one.

use std::time::Duration;

/// The time since the exchange began, asked anew.
pub type Stopwatch = Box<dyn Fn() -> Duration + Send>;

/// What an exchange is busy with, or waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The caller is being identified.
    Identify,
    /// The request is read, and policy asked.
    Decide,
    /// What policy obliges to is masked in the request, and what the record may show is made.
    MaskRequest,
    /// An approval is asked for and waited for.
    Hold,
    /// An approval is claimed, or a use of a grant taken.
    Claim,
    /// The decision, `opened` or `refused`, is made durable.
    RecordOpened,
    /// Envoy has the request; the head of the answer is awaited.
    Upstream,
    /// What has arrived of the answer is read and masked; not the time between its pieces.
    MaskAnswer,
    /// `closed` is made durable.
    RecordClosed,
}

impl Phase {
    /// All of them, in the order of a request's life.
    pub const ALL: [Self; 9] = [
        Self::Identify,
        Self::Decide,
        Self::MaskRequest,
        Self::Hold,
        Self::Claim,
        Self::RecordOpened,
        Self::Upstream,
        Self::MaskAnswer,
        Self::RecordClosed,
    ];

    /// The name in metrics and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Decide => "decide",
            Self::MaskRequest => "mask_request",
            Self::Hold => "hold",
            Self::Claim => "claim",
            Self::RecordOpened => "record_opened",
            Self::Upstream => "upstream",
            Self::MaskAnswer => "mask_answer",
            Self::RecordClosed => "record_closed",
        }
    }
}

/// A phase that is over; times since the exchange began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// Which.
    pub phase: Phase,
    /// When it began.
    pub from: Duration,
    /// When it ended, for the last time.
    pub to: Duration,
    /// How long it took; less than from `from` to `to` where the exchange was in it again and again.
    pub took: Duration,
}

/// The laps so far, and the phase it is in.
#[derive(Clone, Debug, Default)]
pub struct Laps {
    over: Vec<Lap>,
    now: Option<(Phase, Duration)>,
}

impl Laps {
    /// It is in `phase` from `at` on, and in no other any more.
    pub fn enter(&mut self, phase: Phase, at: Duration) {
        self.leave(at);
        self.now = Some((phase, at));
    }

    /// It is in no phase from `at` on.
    pub fn leave(&mut self, at: Duration) {
        let Some((phase, from)) = self.now.take() else {
            return;
        };
        let to = at.max(from);
        let took = to - from;
        // An answer comes in as many pieces as it likes.
        let again = self.over.iter_mut().find(|lap| lap.phase == phase);
        match again {
            Some(lap) if phase == Phase::MaskAnswer => {
                lap.to = to;
                lap.took += took;
            }
            _ => self.over.push(Lap {
                phase,
                from,
                to,
                took,
            }),
        }
    }

    /// The phase it is in.
    pub(super) fn now(&self) -> Option<Phase> {
        self.now.map(|(phase, _)| phase)
    }

    /// Those that are over.
    #[must_use]
    pub fn over(&self) -> &[Lap] {
        &self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn one_phase_at_a_time_and_an_answer_of_many_pieces_is_one_lap() {
        let mut laps = Laps::default();
        laps.enter(Phase::Identify, ms(1));
        laps.enter(Phase::Decide, ms(3));
        laps.leave(ms(4));
        laps.leave(ms(9));
        for n in 0..1_000 {
            laps.enter(Phase::MaskAnswer, ms(10 + 10 * n));
            laps.leave(ms(11 + 10 * n));
        }
        let lap = |phase, from, to, took| Lap {
            phase,
            from: ms(from),
            to: ms(to),
            took: ms(took),
        };
        let expected = [
            lap(Phase::Identify, 1, 3, 2),
            lap(Phase::Decide, 3, 4, 1),
            lap(Phase::MaskAnswer, 10, 10_001, 1_000),
        ];
        assert_eq!(laps.over(), expected);
        assert_eq!(laps.now(), None);
    }

    #[test]
    fn deciding_twice_is_two_laps() {
        let mut laps = Laps::default();
        laps.enter(Phase::Decide, ms(0));
        laps.enter(Phase::Hold, ms(1));
        laps.enter(Phase::Decide, ms(60_000));
        laps.leave(ms(60_001));
        let phases: Vec<_> = laps.over().iter().map(|lap| lap.phase).collect();
        assert_eq!(phases, [Phase::Decide, Phase::Hold, Phase::Decide]);
    }
}
