//! Metrics over HTTP, in the text format of Prometheus.

use axum::{Router, http::StatusCode, routing::get};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves what a registry holds at `/metrics` until `stop`.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let render = move || async move {
        TextEncoder::new().encode_to_string(&registry.gather()).map_err(|error| {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR
        })
    };
    let router = Router::new().route("/metrics", get(render));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;

    #[tokio::test]
    async fn metrics_are_served_as_prometheus_reads_them() {
        let registry = Registry::new();
        let counter = IntCounter::new("kedge_things_total", "Things").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, registry, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let text = http.get(url).send().await.unwrap().text().await.unwrap();
        assert_eq!(
            text,
            "# HELP kedge_things_total Things\n# TYPE kedge_things_total counter\nkedge_things_total 3\n"
        );
        drop(http);
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
