//! The stream of answers to Envoy, and how it may end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use envoy_types::pb::envoy::service::ext_proc::v3::ProcessingResponse;
use futures::Stream;
use tokio::sync::mpsc;
use tonic::Status;

/// Answers on their way to Envoy at once; beyond that the exchange waits until Envoy reads. These few are the only bytes of
/// a body that the byte budget does not count.
pub(super) const WAITING: usize = 4;

enum Said {
    Answer(Box<ProcessingResponse>),
    Finished,
    Failed(Status),
}

/// The exchange's end: says the answers, and at last how it went.
pub(super) struct Teller(mpsc::Sender<Said>);

/// Envoy's end. INVARIANT: ends in an error unless [`Teller::finish`] was called, so that a task that panicked, was
/// aborted or just returned can never be taken for one that was done.
pub struct Answers {
    said: mpsc::Receiver<Said>,
    over: bool,
}

/// Envoy reads no more.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) fn channel() -> (Teller, Answers) {
    let (tell, said) = mpsc::channel(WAITING);
    (Teller(tell), Answers { said, over: false })
}

impl Teller {
    pub(super) async fn answer(&self, answer: ProcessingResponse) -> Result<(), Gone> {
        self.0
            .send(Said::Answer(Box::new(answer)))
            .await
            .map_err(|_| Gone)
    }

    /// Both directions are over: the stream ends well.
    pub(super) async fn finish(self) {
        let _ = self.0.send(Said::Finished).await;
    }

    /// The stream ends in `status`.
    pub(super) async fn fail(self, status: Status) {
        let _ = self.0.send(Said::Failed(status)).await;
    }

    /// Resolves when Envoy reads no more.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
impl Answers {
    /// Answers that nobody has read.
    pub(super) fn waiting(&self) -> usize {
        self.said.len()
    }
}

impl Stream for Answers {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let said = match self.said.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(said) => said,
        };
        if let Some(Said::Answer(answer)) = said {
            return Poll::Ready(Some(Ok(*answer)));
        }
        self.over = true;
        Poll::Ready(match said {
            Some(Said::Finished) => None,
            Some(Said::Failed(status)) => Some(Err(status)),
            _ => Some(Err(Status::internal(
                "the exchange stopped without having finished",
            ))),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tonic::Code;

    use super::*;

    async fn end_of(mut answers: Answers) -> Option<Code> {
        while let Some(answer) = answers.next().await {
            if let Err(status) = answer {
                assert!(answers.next().await.is_none(), "nothing follows an error");
                return Some(status.code());
            }
        }
        None
    }

    #[tokio::test]
    async fn only_a_finished_exchange_ends_well() {
        let (teller, answers) = channel();
        tokio::spawn(async move {
            let _ = teller.answer(ProcessingResponse::default()).await;
            teller.finish().await;
        });
        assert_eq!(end_of(answers).await, None);
    }

    #[tokio::test]
    async fn a_dropped_teller_is_an_error() {
        let (teller, answers) = channel();
        drop(teller);
        assert_eq!(end_of(answers).await, Some(Code::Internal));
    }

    #[tokio::test]
    async fn an_early_return_after_an_answer_is_an_error() {
        let (teller, answers) = channel();
        tokio::spawn(async move {
            let _ = teller.answer(ProcessingResponse::default()).await;
        });
        assert_eq!(end_of(answers).await, Some(Code::Internal));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let (teller, answers) = channel();
        let task = tokio::spawn(async move {
            let _ = teller.answer(ProcessingResponse::default()).await;
            let nothing: Option<u8> = None;
            assert!(nothing.is_some(), "injected");
        });
        assert_eq!(end_of(answers).await, Some(Code::Internal));
        assert!(task.await.is_err_and(|error| error.is_panic()));
    }

    #[tokio::test]
    async fn an_aborted_task_is_an_error() {
        let (teller, answers) = channel();
        let task = tokio::spawn(async move {
            let _ = teller.answer(ProcessingResponse::default()).await;
            std::future::pending::<()>().await;
            teller.finish().await;
        });
        task.abort();
        assert_eq!(end_of(answers).await, Some(Code::Internal));
    }

    #[tokio::test]
    async fn a_failure_is_told_as_it_is() {
        let (teller, answers) = channel();
        teller.fail(Status::unavailable("shutting down")).await;
        assert_eq!(end_of(answers).await, Some(Code::Unavailable));
    }
}
