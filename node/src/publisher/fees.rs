//! What to pay for space in a Bitcoin block.

use crate::l1::{Bitcoin, L1Error};
use bitcoin::{Amount, FeeRate};

/// How fees are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeePolicy {
    /// Blocks within which a transaction should be confirmed.
    pub target_blocks: u16,
    /// The rate when the node has no estimate.
    pub fallback: FeeRate,
    /// Never less: what nodes relay.
    pub floor: FeeRate,
    /// Never more.
    pub ceiling: FeeRate,
    /// Blocks without confirmation after which a reveal is replaced by one that pays more.
    pub bump_after: u32,
    /// By how much more, per cent.
    pub bump_percent: u32,
}

impl Default for FeePolicy {
    fn default() -> Self {
        Self {
            target_blocks: 2,
            fallback: FeeRate::from_sat_per_vb_u32(5),
            floor: FeeRate::from_sat_per_vb_u32(1),
            ceiling: FeeRate::from_sat_per_vb_u32(500),
            bump_after: 2,
            bump_percent: 30,
        }
    }
}

impl FeePolicy {
    /// The rate to pay now.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn now(&self, bitcoin: &dyn Bitcoin) -> Result<FeeRate, L1Error> {
        let estimate = bitcoin.fee_rate(self.target_blocks).await?;
        Ok(self.within(estimate.unwrap_or(self.fallback)))
    }

    /// The rate, moved between floor and ceiling; the ceiling wins.
    pub fn within(&self, rate: FeeRate) -> FeeRate {
        rate.max(self.floor).min(self.ceiling)
    }

    /// The rate after a raise from `paid`, when the market asks for `market`; none at the ceiling.
    pub(super) fn raised(&self, paid: FeeRate, market: FeeRate) -> Option<FeeRate> {
        let more = percent(paid, 100 + self.bump_percent).max(market);
        let rate = self.within(more);
        (rate > paid).then_some(rate)
    }
}

/// `rate` times `percent` / 100, rounded up.
pub(super) fn percent(rate: FeeRate, percent: u32) -> FeeRate {
    let scaled = rate.to_sat_per_kwu().saturating_mul(u64::from(percent)).div_ceil(100);
    FeeRate::from_sat_per_kwu(scaled)
}

/// The fee of so many virtual bytes.
pub(super) fn fee(rate: FeeRate, vsize: u64) -> Amount {
    rate.fee_vb(vsize).unwrap_or(Amount::MAX_MONEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vb(rate: u32) -> FeeRate {
        FeeRate::from_sat_per_vb_u32(rate)
    }

    #[test]
    fn a_raise_follows_the_market_but_not_above_the_ceiling() {
        let policy = FeePolicy { ceiling: vb(100), ..FeePolicy::default() };
        assert_eq!(policy.raised(vb(10), vb(5)), Some(vb(13)));
        assert_eq!(policy.raised(vb(10), vb(50)), Some(vb(50)));
        assert_eq!(policy.raised(vb(90), vb(500)), Some(vb(100)));
        assert_eq!(policy.raised(vb(100), vb(500)), None);
    }
}
