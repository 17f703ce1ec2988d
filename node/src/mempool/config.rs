//! What the pool admits and how much it holds.

use kedge_vm::EvmConfig;
use op_revm::OpSpecId;
use std::time::Duration;

/// The rules that transactions are checked by.
#[derive(Clone, Debug)]
pub struct MempoolConfig {
    /// EIP-155 chain id that signatures must name.
    pub chain_id: u64,
    /// The rules that transactions will be executed by.
    pub spec: OpSpecId,
    /// Most gas that a transaction can declare and still fit an otherwise empty block.
    pub max_gas: u64,
    /// Largest data footprint of a block, in gas (Jovian).
    pub max_footprint: u64,
    /// Lowest base fee that there can be, wei per gas: less never gets in.
    pub min_base_fee: u64,
    /// What an operator can choose.
    pub limits: PoolLimits,
}

impl MempoolConfig {
    /// The rules of a network, with the default limits.
    pub fn new(evm: &EvmConfig) -> Self {
        Self {
            chain_id: evm.chain_id,
            spec: evm.spec,
            max_gas: evm.max_transaction_gas(),
            max_footprint: evm.gas_limit,
            min_base_fee: evm.fees.min_base_fee,
            limits: PoolLimits::default(),
        }
    }
}

/// How much the pool holds. *Queued* are transactions that wait for a nonce or for funds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Most transactions in the pool.
    pub max_transactions: usize,
    /// Most bytes of all encoded transactions in the pool.
    pub max_bytes: usize,
    /// Most queued transactions in the pool, when one more arrives.
    pub max_queued: usize,
    /// Most transactions of one sender.
    pub max_per_sender: usize,
    /// Most queued transactions of one sender, when one more arrives.
    pub max_queued_per_sender: usize,
    /// Largest encoded transaction, bytes.
    pub max_transaction_bytes: usize,
    /// By how many percent a replacement must raise both fees.
    pub replacement_percent: u128,
    /// How long a sender's queued transactions are kept while none of them becomes executable.
    pub queued_lifetime: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            max_transactions: 16_384,
            max_bytes: 128 * 1024 * 1024,
            max_queued: 4_096,
            max_per_sender: 1_024,
            max_queued_per_sender: 64,
            max_transaction_bytes: 128 * 1024,
            replacement_percent: 10,
            queued_lifetime: Duration::from_secs(3 * 60 * 60),
        }
    }
}
