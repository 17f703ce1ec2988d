//! `admin_*`: what an operator does to a running node, on a port of its own behind a token.
//!
//! Nothing of it is remembered: a node that starts again makes blocks, posts them, and logs what it was
//! told to at its start.

#[cfg(test)]
mod tests;
mod token;

pub use token::{Token, TokenError};

use crate::{
    batcher::Batcher,
    engine::Engine,
    rpc::{ServerHandle, types::Roles},
    sequencer::Sequencer,
};
use alloy_primitives::B256;
use anyhow::Context as _;
use jsonrpsee::{
    core::RpcResult,
    proc_macros::rpc,
    server::{Server, ServerConfig},
    types::ErrorObjectOwned,
};
use kedge_genesis::Params;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, sync::Arc};

/// Administration of a node. Names and shapes are op-node's and op-batcher's where they have such a method.
#[rpc(server, namespace = "admin")]
pub trait AdminApi {
    /// What this node is.
    #[method(name = "nodeInfo")]
    fn node_info(&self) -> RpcResult<NodeInfo>;

    /// Whether the sequencer makes blocks.
    #[method(name = "sequencerActive")]
    fn sequencer_active(&self) -> RpcResult<bool>;

    /// Has the sequencer make no further block. Returns the hash of the latest.
    #[method(name = "stopSequencer", blocking)]
    fn stop_sequencer(&self) -> RpcResult<B256>;

    /// Has the sequencer make blocks again. `latest` has to be the latest block's hash, so that who starts
    /// it knows on what.
    #[method(name = "startSequencer", blocking)]
    fn start_sequencer(&self, latest: B256) -> RpcResult<()>;

    /// Whether the batcher begins further batches.
    #[method(name = "batcherActive")]
    fn batcher_active(&self) -> RpcResult<bool>;

    /// Has the batcher begin no further batch. What it has begun is seen through.
    #[method(name = "stopBatcher")]
    fn stop_batcher(&self) -> RpcResult<()>;

    /// Has the batcher post what is due.
    #[method(name = "startBatcher")]
    fn start_batcher(&self) -> RpcResult<()>;

    /// Drops every waiting transaction, from the journal too. Returns how many there were.
    #[method(name = "clearTxpool", blocking)]
    fn clear_txpool(&self) -> RpcResult<u64>;

    /// Has the node log what this filter selects, as `KEDGE_LOG` does at the start.
    #[method(name = "setLogFilter")]
    fn set_log_filter(&self, filter: String) -> RpcResult<()>;
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Name and version of this program.
    pub name: String,
    /// Name of the network.
    pub network: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// What it takes part in.
    pub roles: Roles,
}

/// What [`LogFilter`] calls.
type SetFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Changes what is logged; fails with the reason when the filter cannot be read.
#[derive(Clone)]
pub struct LogFilter(Arc<SetFilter>);

impl LogFilter {
    /// Changes it by this function.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter(..)")
    }
}

/// The parts of a node that are administered.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The network.
    pub params: &'static Params,
    /// The chain.
    pub engine: Arc<Engine>,
    /// What the node takes part in.
    pub roles: Roles,
    /// On a sequencer.
    pub sequencer: Option<Arc<Sequencer>>,
    /// On a sequencer.
    pub batcher: Option<Arc<Batcher>>,
    /// What is logged.
    pub log: LogFilter,
}

/// -32000, as go-ethereum and op-node answer.
fn refuse(reason: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(crate::rpc::error::code::INVALID_INPUT, reason, None::<()>)
}

impl Admin {
    fn sequencer(&self) -> Result<&Sequencer, ErrorObjectOwned> {
        self.sequencer.as_deref().ok_or_else(|| refuse("this node is not the sequencer"))
    }

    fn batcher(&self) -> Result<&Batcher, ErrorObjectOwned> {
        self.batcher.as_deref().ok_or_else(|| refuse("this node is not the sequencer"))
    }
}

impl AdminApiServer for Admin {
    fn node_info(&self) -> RpcResult<NodeInfo> {
        Ok(NodeInfo {
            name: concat!("kedge/", env!("CARGO_PKG_VERSION")).into(),
            network: self.params.network.name().into(),
            chain_id: self.params.chain_id,
            roles: self.roles,
        })
    }

    fn sequencer_active(&self) -> RpcResult<bool> {
        Ok(self.sequencer.as_ref().is_some_and(|sequencer| sequencer.is_active()))
    }

    fn stop_sequencer(&self) -> RpcResult<B256> {
        let sequencer = self.sequencer()?;
        if !sequencer.is_active() {
            return Err(refuse("sequencer not running"));
        }
        let latest = sequencer.pause();
        tracing::warn!(block = latest.number.0, hash = %latest.hash, "the sequencer is stopped");
        Ok(latest.hash)
    }

    fn start_sequencer(&self, latest: B256) -> RpcResult<()> {
        let sequencer = self.sequencer()?;
        if sequencer.is_active() {
            return Err(refuse("sequencer already running"));
        }
        let head = self.engine.heads().latest.hash;
        if latest != head {
            return Err(refuse(format!(
                "block hash does not match: head {head}, received {latest}"
            )));
        }
        sequencer.resume();
        tracing::warn!(hash = %head, "the sequencer is started");
        Ok(())
    }

    fn batcher_active(&self) -> RpcResult<bool> {
        Ok(self.batcher.as_ref().is_some_and(|batcher| batcher.is_active()))
    }

    fn stop_batcher(&self) -> RpcResult<()> {
        self.batcher()?.set_active(false);
        tracing::warn!("the batcher is stopped");
        Ok(())
    }

    fn start_batcher(&self) -> RpcResult<()> {
        self.batcher()?.set_active(true);
        tracing::warn!("the batcher is started");
        Ok(())
    }

    fn clear_txpool(&self) -> RpcResult<u64> {
        let dropped = self.sequencer()?.mempool().clear();
        tracing::warn!(dropped, "the mempool is cleared");
        Ok(dropped as u64)
    }

    fn set_log_filter(&self, filter: String) -> RpcResult<()> {
        (self.log.0)(&filter).map_err(refuse)?;
        tracing::info!(filter, "logging changed");
        Ok(())
    }
}

/// Most connections at a time.
const MAX_CONNECTIONS: u32 = 16;
/// Largest request and answer, bytes.
const MAX_BYTES: u32 = 64 * 1024;

/// Serves `admin_*` to who shows the token, until the handle is stopped or dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(listen: SocketAddr, token: Token, admin: Admin) -> anyhow::Result<ServerHandle> {
    let config = ServerConfig::builder()
        .max_connections(MAX_CONNECTIONS)
        .max_request_body_size(MAX_BYTES)
        .max_response_body_size(MAX_BYTES)
        .build();
    let guard = tower::layer::layer_fn(move |inner| token::Guarded { inner, token: token.clone() });
    let server = Server::builder()
        .set_config(config)
        .set_http_middleware(tower::ServiceBuilder::new().layer(guard))
        .build(listen)
        .await
        .with_context(|| {
            format!("cannot listen on {listen}; is another program using the port? choose one with --admin-port")
        })?;
    let address = server.local_addr()?;
    Ok(ServerHandle::new(server.start(admin.into_rpc()), address))
}
