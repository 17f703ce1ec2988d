//! Bitcoin as the node sees it: one small trait with two real implementations, a Bitcoin Core node
//! over JSON-RPC ([`rpc`]) and an embedded regtest chain on Bitcoin Core's own consensus engine
//! ([`embedded`]). [`facade`] offers the embedded chain to other processes as Bitcoin Core would.

pub mod embedded;
pub mod error;
pub mod facade;
pub mod records;
pub mod rpc;

pub use embedded::Embedded;
pub use error::L1Error;
pub use records::{MemoryRecords, RecordTable, Records};
pub use rpc::{Auth, RpcClient};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, FeeRate, OutPoint, Transaction, TxOut, Txid};
use kedge_genesis::{BitcoinNetwork, L1Height};

/// Bitcoin Core's error code for a transaction whose inputs are missing or spent.
pub const MISSING_INPUTS: i64 = -25;

/// Where a Bitcoin node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// The network's name as Bitcoin Core says it: `main`, `signet`, `regtest`, …
    pub chain: String,
    /// Height of the best fully validated block.
    pub height: L1Height,
    /// Height of the best header, at least `height`.
    pub headers: L1Height,
    /// Hash of the best fully validated block.
    pub best: BlockHash,
    /// Whether the node says that it is still in its initial block download.
    pub ibd: bool,
    /// The lowest height whose block is at hand, when the node prunes.
    pub pruned_below: Option<L1Height>,
}

/// What a Bitcoin node made of a transaction that was handed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// It is in the mempool now.
    Accepted,
    /// It was there already, in the mempool or in a block.
    AlreadyKnown,
    /// It is not acceptable now; it may become so.
    Rejected {
        /// Bitcoin Core's error code: −25 for missing inputs, −26 for policy and consensus.
        code: i64,
        /// Bitcoin Core's reason, such as `min relay fee not met`.
        reason: String,
    },
}

/// An unspent output as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unspent {
    /// The output.
    pub output: TxOut,
    /// How many blocks confirm it; zero in the mempool.
    pub confirmations: u32,
    /// Whether it is the output of a coinbase transaction.
    pub coinbase: bool,
}

/// A Bitcoin node. An error means that the question could not be answered, never that the chain or a
/// transaction is at fault.
#[async_trait]
pub trait Bitcoin: Send + Sync {
    /// Where the node stands.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn chain_info(&self) -> Result<ChainInfo, L1Error>;

    /// The hash of the block at `height` of the best chain, none above its tip.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error>;

    /// A block by hash, on the best chain or not.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`] or [`L1Error::BlockPruned`] when the node does not have it, or when
    /// the node does not answer.
    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error>;

    /// A header by hash, on the best chain or not.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`], or when the node does not answer.
    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error>;

    /// Hands a transaction to the node's mempool and the network. Idempotent.
    ///
    /// # Errors
    /// When the node does not answer; a refusal is an answer.
    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error>;

    /// An unspent output, none when it does not exist or is spent; with `mempool`, as the mempool's
    /// transactions make it.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error>;

    /// The fee rate to be confirmed within `target_blocks`, none when the node has no estimate.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, L1Error>;

    /// Whether the transaction is in the node's mempool.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error>;

    /// Returns once the best block is another than `known`.
    ///
    /// # Errors
    /// When the node does not answer.
    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error>;
}

/// Checks that a node can be followed from `needed` on: right network, blocks at hand, not in its
/// initial download. A regtest node whose tip is old counts as synchronised.
///
/// # Errors
/// [`L1Error::WrongNetwork`], [`L1Error::Syncing`], [`L1Error::Pruned`], or when it does not answer.
pub async fn check_ready(
    bitcoin: &dyn Bitcoin,
    network: BitcoinNetwork,
    needed: L1Height,
) -> Result<ChainInfo, L1Error> {
    let info = bitcoin.chain_info().await?;
    if info.chain != network.core_name() {
        return Err(L1Error::WrongNetwork { expected: network.core_name(), found: info.chain });
    }
    if let Some(first) = info.pruned_below.filter(|first| *first > needed) {
        return Err(L1Error::Pruned { needed, first });
    }
    let behind = info.headers > info.height;
    if info.ibd && (behind || network != BitcoinNetwork::Regtest) {
        return Err(L1Error::Syncing { height: info.height, headers: info.headers });
    }
    Ok(info)
}

/// The `bitcoin` crate's name of a network.
pub const fn rust_network(network: BitcoinNetwork) -> bitcoin::Network {
    match network {
        BitcoinNetwork::Regtest => bitcoin::Network::Regtest,
        BitcoinNetwork::Signet => bitcoin::Network::Signet,
        BitcoinNetwork::Main => bitcoin::Network::Bitcoin,
    }
}
