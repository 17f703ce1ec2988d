//! Metrics over HTTP, in the text format of Prometheus.

use crate::mempool::Mempool;
use axum::{Router, http::StatusCode, routing::get};
use prometheus::{
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use std::sync::Arc;
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

/// How full the mempool is, read whenever the metrics are.
#[derive(Debug)]
pub struct PoolMetrics {
    mempool: Arc<Mempool>,
    transactions: IntGaugeVec,
    bytes: IntGauge,
}

impl PoolMetrics {
    /// Has `registry` show this mempool.
    ///
    /// # Errors
    /// When it shows one already.
    pub fn register(registry: &Registry, mempool: Arc<Mempool>) -> prometheus::Result<()> {
        let transactions =
            Opts::new("kedge_txpool_transactions", "Waiting transactions by sub-pool");
        let metrics = Self {
            mempool,
            transactions: IntGaugeVec::new(transactions, &["pool"])?,
            bytes: IntGauge::new("kedge_txpool_bytes", "Bytes of waiting transactions")?,
        };
        registry.register(Box::new(metrics))
    }
}

impl Collector for PoolMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.transactions.desc(), self.bytes.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let status = self.mempool.status_at_head();
        for (pool, size) in
            [("pending", status.pending), ("basefee", status.base_fee), ("queued", status.queued)]
        {
            self.transactions.with_label_values(&[pool]).set(gauge(size));
        }
        self.bytes.set(gauge(self.mempool.bytes()));
        [self.transactions.collect(), self.bytes.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::tests::world::{World, account},
        mempool::MempoolConfig,
        mempool_link::HeadState,
    };
    use alloy_primitives::{Address, U256};
    use prometheus::IntCounter;

    #[test]
    fn the_mempool_s_sizes_are_those_of_the_moment() {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let state = HeadState::new(world.engine.clone());
        let mempool =
            Arc::new(Mempool::new(MempoolConfig::new(world.engine.evm()), Arc::new(state), None));
        let registry = Registry::new();
        PoolMetrics::register(&registry, mempool.clone()).unwrap();
        let first = world.plain_transfer(Address::repeat_byte(9), U256::ONE);
        world.nonce += 1;
        let later = world.plain_transfer(Address::repeat_byte(9), U256::ONE);
        let bytes = first.len() + later.len();
        mempool.add(first).unwrap();
        mempool.add(later).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "kedge_txpool_transactions{pool=\"pending\"} 1".to_owned(),
            "kedge_txpool_transactions{pool=\"basefee\"} 0".to_owned(),
            "kedge_txpool_transactions{pool=\"queued\"} 1".to_owned(),
            format!("kedge_txpool_bytes {bytes}"),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }

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
