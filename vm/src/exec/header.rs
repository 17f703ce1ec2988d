//! The header of a block, and the base fee of the next.

use crate::{EvmConfig, Header, OpReceiptEnvelope, OpTxEnvelope, Payload};
use alloc::vec::Vec;
use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, TxReceipt};
use alloy_eips::{Encodable2718, eip7685::EMPTY_REQUESTS_HASH};
use alloy_primitives::{Address, B64, B256, Bloom, Bytes, U256};
use alloy_trie::{EMPTY_ROOT_HASH, root::ordered_trie_root_with_encoder};
use op_alloy_consensus::{decode_holocene_extra_data, decode_jovian_extra_data};
use op_revm::OpSpecId;

/// Base fee of the block after `parent` in wei per gas: EIP-1559 with the denominator and elasticity of
/// the parent's `extraData` (Holocene), where the larger of gas used and data footprint counts and the
/// minimum base fee applies (Jovian). None when the `extraData` is neither form.
pub fn next_base_fee(parent: &Header) -> Option<u64> {
    let (denominator, elasticity, minimum, used) = if parent.extra_data.len() == 9 {
        let (elasticity, denominator) = decode_holocene_extra_data(&parent.extra_data).ok()?;
        (denominator, elasticity, 0, parent.gas_used)
    } else {
        let (elasticity, denominator, minimum) =
            decode_jovian_extra_data(&parent.extra_data).ok()?;
        let used = parent.gas_used.max(parent.blob_gas_used.unwrap_or_default());
        (denominator, elasticity, minimum, used)
    };
    let base_fee = u128::from(parent.base_fee_per_gas?);
    let target = u128::from(parent.gas_limit).checked_div(u128::from(elasticity))?;
    let (used, denominator) = (u128::from(used), u128::from(denominator));
    let change = |distance: u128| {
        base_fee.checked_mul(distance)?.checked_div(target)?.checked_div(denominator)
    };
    let next = if used > target {
        base_fee.checked_add(change(used.checked_sub(target)?)?.max(1))?
    } else {
        base_fee.saturating_sub(change(target.checked_sub(used)?)?)
    };
    u64::try_from(next).ok().map(|next| next.max(minimum))
}

/// What a header states that does not follow from execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockAttributes {
    /// Number of the block.
    pub number: u64,
    /// Unix seconds.
    pub timestamp: u64,
    /// Receives the priority fees.
    pub beneficiary: Address,
    /// What `PREVRANDAO` answers: on Kedge the hash of the L1 origin.
    pub prev_randao: B256,
    /// Gas limit of the block.
    pub gas_limit: u64,
    /// Wei per gas.
    pub base_fee: u64,
    /// EIP-4788; zero on Kedge, which has no beacon chain.
    pub parent_beacon_block_root: B256,
    /// Fee parameters for the next block.
    pub extra_data: Bytes,
}

impl EvmConfig {
    /// The attributes of `payload` on top of `parent`. None when the parent's `extraData` holds no fee
    /// parameters.
    pub fn attributes(&self, parent: &Header, payload: &Payload) -> Option<BlockAttributes> {
        Some(BlockAttributes {
            number: payload.number.0,
            timestamp: payload.timestamp,
            beneficiary: self.beneficiary,
            prev_randao: payload.origin.hash,
            gas_limit: self.gas_limit,
            base_fee: next_base_fee(parent)?,
            parent_beacon_block_root: B256::ZERO,
            extra_data: self.extra_data(),
        })
    }
}

/// What a header states that follows from execution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) state_root: B256,
    /// Storage root of the message passer.
    pub(crate) withdrawals_root: B256,
    pub(crate) gas_used: u64,
    /// Jovian keeps the data availability footprint in `blobGasUsed`.
    pub(crate) footprint: u64,
}

pub(crate) fn seal(
    spec: OpSpecId,
    attributes: &BlockAttributes,
    parent_hash: B256,
    transactions: &[OpTxEnvelope],
    receipts: &[OpReceiptEnvelope],
    outcome: Outcome,
) -> Header {
    let isthmus = spec.is_enabled_in(OpSpecId::ISTHMUS);
    Header {
        parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: attributes.beneficiary,
        state_root: outcome.state_root,
        transactions_root: list_root(transactions),
        receipts_root: list_root(receipts),
        logs_bloom: receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom()),
        difficulty: U256::ZERO,
        number: attributes.number,
        gas_limit: attributes.gas_limit,
        gas_used: outcome.gas_used,
        timestamp: attributes.timestamp,
        extra_data: attributes.extra_data.clone(),
        mix_hash: attributes.prev_randao,
        nonce: B64::ZERO,
        base_fee_per_gas: Some(attributes.base_fee),
        withdrawals_root: Some(if isthmus { outcome.withdrawals_root } else { EMPTY_ROOT_HASH }),
        blob_gas_used: Some(outcome.footprint),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(attributes.parent_beacon_block_root),
        requests_hash: isthmus.then_some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// Root of the trie of EIP-2718 encodings by RLP of their index.
fn list_root<T: Encodable2718>(items: &[T]) -> B256 {
    ordered_trie_root_with_encoder(items, |item, out: &mut Vec<u8>| item.encode_2718(out))
}
