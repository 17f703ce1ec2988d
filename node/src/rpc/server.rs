//! HTTP and WebSocket on one port.

use super::{
    at_hand::AtHand,
    front::{Front, LONGEST},
    heavy::HeavyPool,
    push::{PushOnly, mark_plain_http},
};
use jsonrpsee::{
    Methods,
    server::{
        BatchRequestConfig, PingConfig, Server, ServerConfig, ServerHandle as Inner,
        middleware::{http::ProxyGetRequestLayer, rpc::RpcServiceBuilder},
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tower_http::cors::{Any, CorsLayer};

/// Messages that wait for one WebSocket connection to read them; a signed block may be megabytes.
const MESSAGE_BUFFER: u32 = 64;

/// Where the server listens and what it allows.
#[derive(Clone, Debug)]
pub struct RpcConfig {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Largest request body, bytes.
    pub max_request_bytes: u32,
    /// Largest response body, bytes.
    pub max_response_bytes: u32,
    /// Most connections at a time.
    pub max_connections: u32,
    /// Most subscriptions of one WebSocket connection.
    pub max_subscriptions: u32,
    /// Most requests in one batch.
    pub max_batch: u32,
    /// Most gas of one `eth_call` or `eth_estimateGas`.
    pub call_gas: u64,
    /// Most calls that are executed at a time; further ones wait.
    pub concurrent_calls: usize,
    /// Where calls run that take long: as many at a time as it has places, apart from all others.
    pub heavy: HeavyPool,
    /// Longest that one request may execute transactions again for a trace, or search logs.
    pub trace_time: Duration,
    /// Most that the trace of one transaction or call may hold, bytes.
    pub trace_bytes: usize,
    /// Most blocks that one `eth_getLogs` looks at.
    pub log_blocks: u64,
    /// Most logs of one answer.
    pub log_results: usize,
    /// Most filters at a time that clients poll.
    pub max_filters: usize,
    /// After how long a filter is gone that nobody polls.
    pub filter_expiry: Duration,
}

impl RpcConfig {
    /// The defaults, on `listen`.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            max_request_bytes: 5 * 1024 * 1024,
            max_response_bytes: 64 * 1024 * 1024,
            max_connections: 500,
            max_subscriptions: 128,
            max_batch: 100,
            call_gas: 50_000_000,
            concurrent_calls: std::thread::available_parallelism().map_or(2, usize::from) * 2,
            heavy: HeavyPool::default(),
            trace_time: Duration::from_secs(10),
            trace_bytes: 128 * 1024 * 1024,
            log_blocks: 100_000,
            log_results: 20_000,
            max_filters: 1_024,
            filter_expiry: super::filters::EXPIRY,
        }
    }
}

/// A running server. It stops when [`Self::stop`] is called or the handle is dropped.
#[derive(Debug)]
pub struct ServerHandle {
    inner: Inner,
    address: SocketAddr,
}

impl ServerHandle {
    /// A server that runs at this address.
    pub(crate) const fn new(inner: Inner, address: SocketAddr) -> Self {
        Self { inner, address }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends subscriptions, and waits for running requests, for a second at most.
    pub async fn stop(self) {
        // An error says that it has stopped already.
        let _ = self.inner.stop();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.inner.stopped()).await;
    }
}

/// Serves `methods`, and what is `at_hand` without them.
///
/// # Errors
/// When the address cannot be bound.
pub(super) async fn start(
    config: &RpcConfig,
    methods: impl Into<Methods>,
    at_hand: AtHand,
) -> std::io::Result<ServerHandle> {
    let server_config = ServerConfig::builder()
        .max_request_body_size(config.max_request_bytes)
        .max_response_body_size(config.max_response_bytes)
        .max_connections(config.max_connections)
        .max_subscriptions_per_connection(config.max_subscriptions)
        .set_batch_request_config(BatchRequestConfig::Limit(config.max_batch))
        .set_message_buffer_capacity(MESSAGE_BUFFER)
        .enable_ws_ping(PingConfig::new())
        .set_tcp_no_delay(true)
        .set_id_provider(EthSubscriptionId)
        .build();
    let cors = CorsLayer::new().allow_origin(Any).allow_headers(Any).allow_methods(Any);
    // The pair of literals is valid: both are a path and a method name.
    let health = ProxyGetRequestLayer::new([("/health", "kedge_health")])
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    let (at_hand, longest) = (Arc::new(at_hand), LONGEST.min(config.max_request_bytes));
    let server = Server::builder()
        .set_config(server_config)
        .set_rpc_middleware(RpcServiceBuilder::new().layer_fn(PushOnly))
        .set_http_middleware(
            tower::ServiceBuilder::new()
                .layer(cors)
                .layer(health)
                .layer(tower::layer::layer_fn(move |inner| Front {
                    inner,
                    at_hand: at_hand.clone(),
                    longest,
                }))
                .map_request(mark_plain_http),
        )
        .build(config.listen)
        .await?;
    let address = server.local_addr()?;
    Ok(ServerHandle::new(server.start(methods), address))
}

/// Subscription ids as Ethereum clients give them: hexadecimal quantities.
#[derive(Debug)]
struct EthSubscriptionId;

impl jsonrpsee::core::traits::IdProvider for EthSubscriptionId {
    fn next_id(&self) -> jsonrpsee::types::SubscriptionId<'static> {
        let id: u128 = rand::random();
        format!("{id:#x}").into()
    }
}
