//! `eth_gasPrice`, `eth_maxPriorityFeePerGas`, `eth_feeHistory`.

use super::{block::FullBlock, chain::View, error::RpcError};
use alloy_consensus::Transaction as _;
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_rpc_types_eth::FeeHistory;
use kedge_genesis::L2Number;
use kedge_vm::next_base_fee;

/// The tip that wallets are told, wei per gas. Blocks are made at once and seldom full, so it need not
/// compete; it is in the order of the least base fee.
pub(super) const SUGGESTED_TIP: u128 = 1_000_000;

/// Most blocks of one fee history, as in go-ethereum.
const MAX_HISTORY: u64 = 1_024;
/// Most percentiles of one fee history, as in go-ethereum.
const MAX_PERCENTILES: usize = 100;

impl View<'_> {
    /// Base fee of the next block, wei per gas.
    pub(super) fn next_base_fee(&self) -> Result<u64, RpcError> {
        let header = self.header(self.latest()?)?;
        Ok(next_base_fee(&header).unwrap_or_default())
    }

    /// Fees of the `count` blocks up to `newest`.
    pub(super) fn fee_history(
        &self,
        count: u64,
        newest: BlockNumberOrTag,
        percentiles: Option<Vec<f64>>,
    ) -> Result<FeeHistory, RpcError> {
        let percentiles = percentiles.filter(|all| !all.is_empty());
        check_percentiles(percentiles.as_deref().unwrap_or_default())?;
        let Some(newest) = self.find(BlockId::Number(newest))? else {
            return Err(RpcError::Execution("request beyond head block".into()));
        };
        let count = count.min(MAX_HISTORY).min(newest.0.saturating_add(1));
        if count == 0 {
            return Ok(FeeHistory::default());
        }
        let oldest = newest.0 + 1 - count;
        let mut history = FeeHistory { oldest_block: oldest, ..Default::default() };
        let mut rewards = Vec::new();
        for number in oldest..=newest.0 {
            let header = self.header(L2Number(number))?;
            history.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or_default().into());
            history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
            history.base_fee_per_blob_gas.push(1);
            history.blob_gas_used_ratio.push(0.0);
            if let Some(percentiles) = &percentiles {
                rewards.push(block_rewards(&*self.block(L2Number(number))?, percentiles));
            }
            if number == newest.0 {
                history.base_fee_per_gas.push(next_base_fee(&header).unwrap_or_default().into());
                history.base_fee_per_blob_gas.push(1);
            }
        }
        history.reward = percentiles.map(|_| rewards);
        Ok(history)
    }
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 { 0.0 } else { used as f64 / limit as f64 }
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), RpcError> {
    if percentiles.len() > MAX_PERCENTILES {
        return Err(RpcError::InvalidParams(format!(
            "invalid reward percentile: over the query limit {MAX_PERCENTILES}"
        )));
    }
    let mut last = 0.0;
    for (index, &percentile) in percentiles.iter().enumerate() {
        if !(0.0..=100.0).contains(&percentile) {
            return Err(RpcError::InvalidParams(format!(
                "invalid reward percentile: {percentile}"
            )));
        }
        if index > 0 && percentile <= last {
            return Err(RpcError::InvalidParams(format!(
                "invalid reward percentile: #{}:{last} >= #{index}:{percentile}",
                index - 1
            )));
        }
        last = percentile;
    }
    Ok(())
}

/// The tip below which the given percentiles of the block's gas were bought. Deposits pay none and do
/// not count.
fn block_rewards(block: &FullBlock, percentiles: &[f64]) -> Vec<u128> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut before = 0;
    let mut tips = Vec::new();
    for (tx, receipt) in block.transactions.iter().zip(&block.receipts) {
        let cumulative = receipt.cumulative_gas_used();
        if !tx.is_deposit() {
            let tip = tx.effective_tip_per_gas(base_fee).unwrap_or_default();
            tips.push((tip, cumulative.saturating_sub(before)));
        }
        before = cumulative;
    }
    tips.sort_unstable();
    let total: u64 = tips.iter().map(|(_, gas)| gas).sum();
    percentiles
        .iter()
        .map(|percentile| {
            let threshold = (total as f64 * percentile / 100.0) as u64;
            let mut sum = 0;
            let mut reward = 0;
            for (tip, gas) in &tips {
                reward = *tip;
                sum += gas;
                if sum >= threshold {
                    break;
                }
            }
            reward
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_rise_within_0_and_100() {
        assert!(check_percentiles(&[]).is_ok());
        assert!(check_percentiles(&[0.0, 50.0, 100.0]).is_ok());
        for wrong in [&[-1.0][..], &[101.0], &[f64::NAN], &[50.0, 50.0], &[50.0, 10.0]] {
            let error = check_percentiles(wrong).expect_err("wrong");
            assert_eq!(error.code(), -32602);
        }
        assert!(check_percentiles(&vec![1.0; 101]).is_err());
    }
}
