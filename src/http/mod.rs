//! Our own HTTP endpoints: health, readiness and metrics. Nothing here can be reached with a request's data in it.

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;

/// What the endpoints tell of.
pub trait Probe: Send + Sync + 'static {
    /// Why requests cannot be served now; empty when they can.
    fn troubles(&self) -> Vec<String>;
    /// Every metric in the OpenMetrics text format.
    fn metrics(&self) -> String;
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// What the listener says when it fails.
pub async fn serve(
    listener: TcpListener,
    probe: Arc<dyn Probe>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(probe);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> Response {
    let troubles = probe.troubles();
    if troubles.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(json!({"status": "not ready", "troubles": troubles})),
    )
        .into_response()
}

async fn metrics(State(probe): State<Arc<dyn Probe>>) -> Response {
    let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], probe.metrics()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<String>);

    impl Probe for Fixed {
        fn troubles(&self) -> Vec<String> {
            self.0.clone()
        }
        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }
    }

    async fn status_of(path: &str, troubles: Vec<String>) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, Arc::new(Fixed(troubles)), async {
            let _ = stopped.await;
        }));
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .get(format!("http://{at}{path}"))
            .send();
        let answer = answer.await.unwrap();
        let told = (answer.status().as_u16(), answer.text().await.unwrap());
        drop(stop);
        serving.await.unwrap().unwrap();
        told
    }

    #[tokio::test]
    async fn readiness_says_what_the_trouble_is() {
        assert_eq!(status_of("/readyz", Vec::new()).await.0, 200);
        let (status, body) = status_of("/readyz", vec!["the audit log is full".to_owned()]).await;
        assert_eq!(status, 503);
        assert!(body.contains("the audit log is full"));
        assert_eq!(status_of("/healthz", vec!["any".to_owned()]).await.0, 200);
        assert_eq!(
            status_of("/metrics", Vec::new()).await,
            (200, "# EOF\n".to_owned())
        );
        assert_eq!(status_of("/elsewhere", Vec::new()).await.0, 404);
    }
}
