//! Spends of outputs by this node that wait for a block: when to make one again that pays more.
//!
//! Nothing of it has to survive a restart: whether an output is spent is asked of Bitcoin, and a spend that
//! is not remembered counts as somebody else's.

use crate::l1::{Bitcoin, L1Error};
use bitcoin::{FeeRate, OutPoint};
use kedge_genesis::L1Height;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// The spends that were broadcast, by the output that they spend.
#[derive(Debug)]
pub struct Bumps {
    /// Blocks after which an unconfirmed spend is replaced by one with a higher fee rate.
    after: u32,
    waiting: Mutex<BTreeMap<OutPoint, Waiting>>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: L1Height,
    rate: FeeRate,
}

/// What to know of an output that is to be spent.
#[derive(Clone, Copy, Debug)]
pub struct Spending {
    /// The output.
    pub output: OutPoint,
    /// Height of the tip.
    pub tip: L1Height,
    /// What Bitcoin's node estimates.
    pub estimate: FeeRate,
    /// The highest rate to pay.
    pub most: FeeRate,
    /// Whether others may spend it for themselves: then nobody's spend is waited for.
    pub contested: bool,
}

impl Bumps {
    /// Nothing waits yet; spends are replaced after so many blocks.
    pub const fn new(after: u32) -> Self {
        Self { after, waiting: Mutex::new(BTreeMap::new()) }
    }

    /// The fee rate at which to spend the output now; none while a spend of it in the mempool is to be waited
    /// for, or pays the most already. Whoever made that one raises its fee when it takes long; if nobody does, as when he stopped,
    /// this node does so after twice the time.
    ///
    /// # Errors
    /// When Bitcoin does not answer.
    pub async fn rate(
        &self,
        bitcoin: &dyn Bitcoin,
        spending: Spending,
    ) -> Result<Option<FeeRate>, L1Error> {
        let Spending { output, tip, estimate, most, contested } = spending;
        if bitcoin.tx_out(&output, true).await?.is_some() {
            return Ok(Some(estimate.min(most)));
        }
        let found = *self
            .waiting
            .lock()
            .entry(output)
            .or_insert(Waiting { since: tip.plus(self.after), rate: estimate });
        if !contested && tip < found.since.plus(self.after) {
            return Ok(None);
        }
        let raised = FeeRate::from_sat_per_kwu(found.rate.to_sat_per_kwu().saturating_mul(3) / 2);
        let raised = raised.max(estimate).min(most);
        Ok((raised > found.rate).then_some(raised))
    }

    /// A spend was broadcast at this rate.
    pub fn sent(&self, output: OutPoint, tip: L1Height, rate: FeeRate) {
        self.waiting.lock().insert(output, Waiting { since: tip, rate });
    }

    /// Bitcoin refused a spend at this rate, perhaps because it does not pay enough to replace another: the
    /// next one pays more.
    pub fn refused(&self, output: OutPoint, rate: FeeRate) {
        if let Some(waiting) = self.waiting.lock().get_mut(&output) {
            waiting.rate = rate;
        }
    }

    /// Forgets all but these outputs.
    pub fn retain(&self, outputs: &[OutPoint]) {
        self.waiting.lock().retain(|output, _| outputs.contains(output));
    }
}
