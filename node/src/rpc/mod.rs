//! JSON-RPC: what wallets, dApps and the command line talk to.
//!
//! The execution-apis specification is the contract for `eth_*`, error codes included; transactions and
//! receipts carry the OP Stack's fields. Every request reads one snapshot of the store; only
//! `eth_sendRawTransaction` changes anything, the mempool. Nothing here signs, and no method
//! administers the node: [`crate::admin`] does, on another port.
//!
//! | module | its job |
//! | --- | --- |
//! | `server` | HTTP and WebSocket on one port, limits, CORS, graceful stop |
//! | `front`, `push` | what is answered or refused before a method sees it |
//! | `at_hand`, `encoded`, `brief` | what is answered at once: JSON of blocks, encoded once; short calls |
//! | `api`, `eth` | `eth_*` by request and answer, on `chain`, `block`, `fees`, `logs`, `proof` |
//! | `info` | `eth_*` about the node, and further look-ups |
//! | `call`, `overrides` | execution that nobody signed: `eth_call`, `eth_estimateGas`, `eth_createAccessList` |
//! | `prepare`, `simulate` | `eth_fillTransaction`, `eth_sendRawTransactionSync`, `eth_simulateV1` |
//! | `submit` | `eth_sendRawTransaction` |
//! | `subscribe`, `filters` | `eth_subscribe`, and `eth_newFilter` and its kind |
//! | `txpool`, `misc`, `optimism` | `txpool_*`; `net_*` and `web3_*`; `optimism_*` |
//! | `kedge`, `position` | `kedge_*`, with the shapes of [`types`] |
//! | `assertions` | `kedge_assertions` and `kedge_subscribe` |
//! | `signed` | `kedge_signedBlocks`, and those as a stream |
//! | `debug`, [`tracers`], `witness` | `debug_*`, with go-ethereum's tracers |
//! | `trace`, `ots`, `ots_shapes` | `trace_*`, `ots_*` |
//! | `replay`, `guard` | blocks executed again under an inspector, within bounds |
//! | `heavy` | where calls run that take long |
//! | `discover` | `rpc.discover`, from `openrpc.json` |
//! | `error` | which error is which code |

mod api;
mod assertions;
mod at_hand;
mod block;
mod brief;
mod call;
mod chain;
mod debug;
mod discover;
mod encoded;
pub mod error;
mod eth;
mod fees;
mod filters;
mod front;
mod guard;
mod heavy;
mod info;
mod kedge;
mod logs;
mod misc;
mod optimism;
mod ots;
mod ots_shapes;
mod overrides;
mod position;
mod prepare;
mod proof;
mod push;
mod replay;
mod server;
mod signed;
mod simulate;
mod submit;
mod subscribe;
mod trace;
pub mod tracers;
mod txpool;
pub mod types;
mod witness;

pub use api::EthApiServer;
pub use assertions::{KedgeSubscribeApiClient, KedgeSubscribeApiServer};
pub use block::{RpcBlock, RpcHeader};
pub use debug::DebugApiServer;
pub use encoded::Json;
pub use filters::EthFilterApiServer;
pub use heavy::HeavyPool;
pub use info::{Capabilities, EthInfoApiServer};
pub use kedge::{KedgeApiClient, KedgeApiServer};
pub use misc::{NetApiServer, Web3ApiServer};
pub use optimism::OptimismApiServer;
pub use ots::OtsApiServer;
pub use position::{KedgeItemsApiClient, KedgeItemsApiServer};
pub use prepare::{EthPrepareApiServer, SyncWait};
pub use server::{RpcConfig, ServerHandle};
pub use signed::{KedgeStreamApiClient, KedgeStreamApiServer};
pub use submit::{Sequencer, Submission};
pub use subscribe::SubscribeApiServer;
pub use trace::TraceApiServer;
pub use txpool::TxPoolApiServer;

use crate::{engine::Engine, stream::Follower};
use anyhow::Context as _;
use jsonrpsee::RpcModule;
use kedge_genesis::Params;
use kedge_store::Store;
use std::sync::Arc;

/// The parts of a node that requests reach.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// The network.
    pub params: &'static Params,
    /// Where everything is read.
    pub store: Arc<Store>,
    /// Heads and events.
    pub engine: Arc<Engine>,
    /// Where transactions go.
    pub submission: Submission,
    /// What the node takes part in, for `kedge_syncStatus`.
    pub roles: types::Roles,
    /// Where blocks come from before Bitcoin has them, for `kedge_syncStatus`.
    pub follower: Option<Arc<Follower>>,
}

/// Serves JSON-RPC, and the methods in `extra` besides, until the handle is stopped or dropped.
///
/// # Errors
/// When the address cannot be listened on, and when `extra` redefines a method or has one that the OpenRPC
/// document does not describe.
pub async fn serve(
    config: RpcConfig,
    node: NodeHandle,
    extra: RpcModule<()>,
) -> anyhow::Result<ServerHandle> {
    let chain = Arc::new(chain::Chain::new(node.params, node.store.clone(), node.engine.clone()));
    let eth = eth::Eth::new(chain.clone(), node.submission.clone(), &config);
    let at_hand = at_hand::AtHand::new(eth.clone(), config.max_response_bytes);
    let mut methods = methods(&config, node, chain, eth)?;
    methods.merge(extra)?;
    discover::add(&mut methods)?;
    server::start(&config, methods, at_hand).await.with_context(|| {
        format!(
            "cannot listen on {}: is another program using the port? choose one with --rpc-port",
            config.listen
        )
    })
}

fn methods(
    config: &RpcConfig,
    node: NodeHandle,
    chain: Arc<chain::Chain>,
    eth: eth::Eth,
) -> anyhow::Result<RpcModule<()>> {
    let misc = misc::Misc { chain_id: node.params.chain_id };
    let mut module = RpcModule::new(());
    module.merge(EthApiServer::into_rpc(eth.clone()))?;
    module.merge(EthInfoApiServer::into_rpc(eth.clone()))?;
    module.merge(EthPrepareApiServer::into_rpc(eth))?;
    module
        .merge(filters::Filters::new(chain.clone(), node.submission.clone(), config).into_rpc())?;
    let txpool = txpool::TxPool { chain: chain.clone(), submission: node.submission.clone() };
    module.merge(txpool.into_rpc())?;
    let tracing = replay::Tracing::new(chain.clone(), config);
    module.merge(trace::Trace(tracing.clone()).into_rpc())?;
    module.merge(ots::Ots(tracing.clone()).into_rpc())?;
    module.merge(debug::Debug::new(tracing, node.submission.clone()).into_rpc())?;
    let subscriptions =
        subscribe::Subscriptions { chain: chain.clone(), submission: node.submission };
    module.merge(subscriptions.into_rpc())?;
    module.merge(assertions::Updates(chain.clone()).into_rpc())?;
    module.merge(optimism::Optimism(chain.clone()).into_rpc())?;
    module.merge(signed::SignedBlocks(chain.clone()).into_rpc())?;
    let kedge = kedge::Kedge::new(chain, node.roles, node.follower);
    module.merge(KedgeItemsApiServer::into_rpc(kedge.clone()))?;
    module.merge(KedgeApiServer::into_rpc(kedge))?;
    module.merge(NetApiServer::into_rpc(misc))?;
    module.merge(Web3ApiServer::into_rpc(misc))?;
    Ok(module)
}
