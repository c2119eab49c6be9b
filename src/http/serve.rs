//! The connections of the API, accepted and served.
//!
//! Promises: no more than [`CONNECTIONS`], by [`Places`]; each must bring the head of its next request in [`HEAD_TIME`], so who says nothing
//! takes no place for long. One request at a time on each (HTTP/1.1), so what is bounded for a request is bounded for all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::select;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Backing, Places, router};

/// How many connections there may be.
const CONNECTIONS: usize = 256;

/// How long the head of a request may take to come, counted from the connection or the answer before.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Serves until `shutdown` resolves, and those who are being answered until they are.
pub async fn serve<L>(
    mut listener: L,
    backing: Arc<dyn Backing>,
    shutdown: impl Future<Output = ()> + Send,
) where
    L: Listener<Addr = SocketAddr>,
{
    let service = TowerToHyperService::new(router(backing));
    let (places, stop, connections) = (
        Places::new(CONNECTIONS),
        CancellationToken::new(),
        TaskTracker::new(),
    );
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let (stream, peer) = select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (place, service, stop) = (places.enter(peer.ip()), service.clone(), stop.clone());
        connections.spawn(async move {
            let mut connection = std::pin::pin!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let mut stopped = std::pin::pin!(stop.cancelled());
            let mut stopping = false;
            loop {
                select! {
                    // What went wrong with a connection is its client's to know.
                    _ = connection.as_mut() => return,
                    () = place.given_up() => return,
                    () = &mut stopped, if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        });
    }
    drop(listener);
    stop.cancel();
    connections.close();
    connections.wait().await;
}
