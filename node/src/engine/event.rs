//! What the engine tells the rest of the node, after it is on disk.

use super::Heads;
use alloy_primitives::{B256, Bytes};
use kedge_bridge::derive::BatchSeen;
use kedge_fraud_proof::AssertionEvent;
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::{DepositRow, NoteRow, Solvency};
use kedge_vm::{ExecutedBlock, Header, OpReceiptEnvelope, OpTxEnvelope};
use std::sync::Arc;

/// Something that happened. Events of one write come in this order: blocks removed (latest first),
/// blocks added, the L1 block, the heads.
#[derive(Clone, Debug)]
pub enum EngineEvent {
    /// A block was added on top.
    NewBlock(Arc<ExecutedBlock>),
    /// The latest block was taken back.
    Removed(Arc<RemovedBlock>),
    /// An L1 block was processed.
    L1Connected(Arc<L1Outcome>),
    /// An L1 block left the chain.
    L1Disconnected(L1Ref),
    /// The heads moved.
    Heads(Box<Heads>),
}

/// A block that is no longer in the chain.
#[derive(Clone, Debug)]
pub struct RemovedBlock {
    /// Its header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    /// Its transactions.
    pub transactions: Vec<OpTxEnvelope>,
    /// Their receipts.
    pub receipts: Vec<OpReceiptEnvelope>,
    /// Users' transactions that it listed, EIP-2718 bytes: they may go back to the mempool.
    pub user_transactions: Vec<Bytes>,
}

/// What one L1 block did.
#[derive(Clone, Debug)]
pub struct L1Outcome {
    /// The L1 block.
    pub at: L1Ref,
    /// Derived blocks that were not known yet, in order.
    pub appended: Vec<Arc<ExecutedBlock>>,
    /// How many derived blocks were the unsafe ones already.
    pub promoted: u64,
    /// Unsafe blocks that Bitcoin contradicts, latest first.
    pub removed: Vec<Arc<RemovedBlock>>,
    /// Batches that became complete.
    pub batches: Vec<BatchSeen>,
    /// What the rules passed over.
    pub notes: Vec<NoteRow>,
    /// What happened to assertions.
    pub assertions: Vec<AssertionEvent>,
    /// Deposits in the block.
    pub deposits: Vec<DepositRow>,
    /// Indices of the withdrawals that the block paid.
    pub paid: Vec<u64>,
    /// The safe head's number after it.
    pub safe: L2Number,
    /// What the vault holds against what it owes.
    pub solvency: Solvency,
}
