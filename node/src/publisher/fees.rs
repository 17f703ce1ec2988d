//! What to pay for space in a Bitcoin block.

use crate::l1::{Bitcoin, L1Error};
use bitcoin::{Amount, FeeRate};
use kedge_genesis::L1Height;
use serde::{Deserialize, Serialize};

/// Virtual bytes of reveals that one Bitcoin block is expected to take, at a rate that leads the market.
const BLOCK_VSIZE: u64 = 900_000;

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

/// How soon a publication has to be confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Urgency {
    /// As [`FeePolicy`] says, for as long as it takes.
    #[default]
    Usual,
    /// In the L1 block of this height at the latest. The nearer it comes the faster the rate rises, up to
    /// the ceiling, and a commit that would be confirmed too late for its reveals is not waited for.
    By(#[serde(with = "height")] L1Height),
    /// Nothing new is signed for now; what is signed stays on its way.
    Held,
}

/// How a height is stored: as its number.
mod height {
    use super::{Deserialize, L1Height};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(height: &L1Height, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(height.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<L1Height, D::Error> {
        u32::deserialize(from).map(L1Height)
    }
}

/// What [`Urgency`] makes of the policy at one tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Blocks to ask estimates for.
    pub(super) target_blocks: u16,
    /// Never less than this.
    pub(super) least: FeeRate,
    /// Blocks without confirmation after which more is paid.
    pub(super) bump_after: u32,
    /// Whether there is no time to wait for the commit's confirmation before the reveals go out.
    pub(super) rush: bool,
    /// Whether money that does not suffice for the rate is spent on as much of it as it pays for.
    pub(super) at_any_rate: bool,
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

    /// The rate to pay now at this pace.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(super) async fn at(&self, pace: Pace, bitcoin: &dyn Bitcoin) -> Result<FeeRate, L1Error> {
        let estimate = bitcoin.fee_rate(pace.target_blocks).await?;
        Ok(self.within(estimate.unwrap_or(self.fallback).max(pace.least)))
    }

    /// How to go on at this tip with reveals of `vsize` virtual bytes together, whose commit is
    /// `committed` (confirmed) or not.
    pub(super) fn pace(&self, urgency: Urgency, tip: u32, committed: bool, vsize: u64) -> Pace {
        let usual = Pace {
            target_blocks: self.target_blocks,
            least: self.floor,
            bump_after: self.bump_after,
            rush: false,
            at_any_rate: false,
        };
        let Urgency::By(deadline) = urgency else { return usual };
        // Blocks that are still to come and count.
        let left = deadline.0.saturating_sub(tip);
        let reveal_blocks = u32::try_from(vsize.div_ceil(BLOCK_VSIZE)).unwrap_or(u32::MAX).max(1);
        // One more block for the commit would leave each of the two a single chance.
        let rush = !committed && left <= reveal_blocks.saturating_add(1);
        let slack = if committed || rush { left } else { left - reveal_blocks };
        let least = match slack {
            0 | 1 => self.ceiling,
            2 => FeeRate::from_sat_per_kwu(self.ceiling.to_sat_per_kwu() / 4).max(self.floor),
            _ => self.floor,
        };
        let half = u16::try_from(slack / 2).unwrap_or(u16::MAX).max(1);
        Pace {
            target_blocks: half.min(self.target_blocks),
            least,
            bump_after: (slack / 4).clamp(1, self.bump_after.max(1)),
            rush,
            at_any_rate: true,
        }
    }

    /// The rate after a raise from `paid`, when the market asks for `market`; none at the ceiling.
    pub(super) fn raised(&self, paid: FeeRate, market: FeeRate) -> Option<FeeRate> {
        let more = percent(paid, 100 + self.bump_percent).max(market);
        let rate = self.within(more);
        (rate > paid).then_some(rate)
    }

    /// As [`Self::raised`], for a transaction that is replaced by another of its size: one that pays for its
    /// own relay too (BIP-125 rule 4).
    pub(crate) fn replacing(&self, paid: FeeRate, market: FeeRate) -> Option<FeeRate> {
        let relay = paid.to_sat_per_kwu().saturating_add(FeeRate::BROADCAST_MIN.to_sat_per_kwu());
        self.raised(paid, market.max(FeeRate::from_sat_per_kwu(relay)))
    }
}

/// `rate` times `percent` / 100, rounded up.
pub(super) fn percent(rate: FeeRate, percent: u32) -> FeeRate {
    let scaled = rate.to_sat_per_kwu().saturating_mul(u64::from(percent)).div_ceil(100);
    FeeRate::from_sat_per_kwu(scaled)
}

/// Whether Bitcoin Core refuses a transaction for this reason that paying more helps against.
pub(super) fn is_too_cheap(reason: &str) -> bool {
    // The latter when there is less in the mempool that pays less than what was refused.
    reason.contains("fee") || reason.contains("mempool full")
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

    #[test]
    fn a_deadline_sets_target_least_rate_and_raises_by_the_blocks_that_are_left() {
        let policy =
            FeePolicy { ceiling: vb(400), target_blocks: 6, bump_after: 4, ..FeePolicy::default() };
        let by = Urgency::By(L1Height(100));
        // Tip, commit confirmed, virtual bytes → target, least, raise after, rush.
        for (tip, committed, vsize, expected) in [
            (40, false, 2_000, (6, 1, 4, false)),
            (40, true, 2_000, (6, 1, 4, false)),
            // Nine blocks for the commit and one for the reveal.
            (90, false, 2_000, (4, 1, 2, false)),
            (96, false, 2_000, (1, 1, 1, false)),
            (97, false, 2_000, (1, 100, 1, false)),
            // Commit and reveal together, two chances.
            (98, false, 2_000, (1, 100, 1, true)),
            (98, true, 2_000, (1, 100, 1, false)),
            (99, false, 2_000, (1, 400, 1, true)),
            (99, true, 2_000, (1, 400, 1, false)),
            (100, true, 2_000, (1, 400, 1, false)),
            // Reveals that take two blocks.
            (97, false, 1_100_000, (1, 1, 1, true)),
            (96, false, 1_100_000, (1, 100, 1, false)),
        ] {
            let pace = policy.pace(by, tip, committed, vsize);
            let found = (pace.target_blocks, pace.least, pace.bump_after, pace.rush);
            let (target, least, after, rush) = expected;
            assert_eq!(found, (target, vb(least), after, rush), "tip {tip}, {committed}, {vsize}");
        }
        for urgency in [Urgency::Usual, Urgency::Held] {
            let pace = policy.pace(urgency, 99, false, 2_000);
            assert_eq!((pace.target_blocks, pace.bump_after, pace.rush), (6, 4, false));
        }
    }

    #[test]
    fn what_a_higher_fee_helps_against_is_known_by_bitcoin_cores_reasons() {
        for (reason, helps) in [
            ("min relay fee not met, 100 < 110", true),
            ("mempool min fee not met, 100 < 5000", true),
            ("insufficient fee, rejecting replacement 00; new feerate 1 <= old feerate 2", true),
            ("mempool full", true),
            ("tx-size", false),
            ("too-long-mempool-chain, too many unconfirmed ancestors", false),
            ("bad-txns-inputs-missingorspent", false),
        ] {
            assert_eq!(is_too_cheap(reason), helps, "{reason}");
        }
    }

    #[test]
    fn urgency_is_stored_in_a_form_that_reads_back() {
        for urgency in [Urgency::Usual, Urgency::By(L1Height(7)), Urgency::Held] {
            let text = serde_json::to_string(&urgency).unwrap();
            assert_eq!(serde_json::from_str::<Urgency>(&text).unwrap(), urgency, "{text}");
        }
    }
}
