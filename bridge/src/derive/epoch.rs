//! What derivation reads from a Bitcoin block besides messages: its time and its fee rate.

use alloc::vec::Vec;
use bitcoin::Block;
use kedge_genesis::{BitcoinNetwork, L1Height, Params};

/// How many header times the median time past is taken over (BIP-113).
pub const MEDIAN_TIME_SPAN: usize = 11;

/// The median of header times as Bitcoin's `GetMedianTimePast` takes it: the upper one of an even count.
/// Zero for no times.
pub fn median_time(times: &[u32]) -> u64 {
    let mut sorted = Vec::from(times);
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().map_or(0, u64::from)
}

/// `times` with one more at the end, the oldest dropped beyond eleven.
pub(super) fn push_time(times: &[u32], time: u32) -> Vec<u32> {
    let keep = MEDIAN_TIME_SPAN - 1;
    let skip = times.len().saturating_sub(keep);
    times.iter().skip(skip).copied().chain([time]).collect()
}

/// The coins that the block at `height` may create, sat.
pub const fn subsidy(network: BitcoinNetwork, height: L1Height) -> u64 {
    let interval: u32 = match network {
        BitcoinNetwork::Regtest => 150,
        BitcoinNetwork::Signet | BitcoinNetwork::Main => 210_000,
    };
    let Some(halvings) = height.0.checked_div(interval) else { return 0 };
    match 5_000_000_000u64.checked_shr(halvings) {
        Some(subsidy) => subsidy,
        None => 0,
    }
}

/// What the block's transactions paid on average, sat per 1,000 virtual bytes: (coinbase value −
/// subsidy) / weight, clamped to the parameters' limits. A miner that claims less than it may counts
/// as low fees.
pub fn fee_rate(params: &Params, height: L1Height, block: &Block) -> u64 {
    let claimed = block.txdata.first().map_or(0, |coinbase| {
        coinbase.output.iter().fold(0u64, |sum, output| sum.saturating_add(output.value.to_sat()))
    });
    let fees = claimed.saturating_sub(subsidy(params.bitcoin, height));
    let weight = u128::from(block.weight().to_wu());
    // Weight units per 1,000 virtual bytes.
    let rate = u128::from(fees).saturating_mul(4_000).checked_div(weight).unwrap_or(u128::MAX);
    u64::try_from(rate)
        .unwrap_or(u64::MAX)
        .clamp(params.fees.min_l1_fee_rate, params.fees.max_l1_fee_rate)
}
