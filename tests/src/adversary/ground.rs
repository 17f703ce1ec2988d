//! The two Bitcoins that every scenario runs on.

use crate::{bitcoind::CoreBitcoin, l1::TestBitcoin, sim_bitcoin::SimBitcoin};
use anyhow::Result;
use bitcoin::Script;
use std::sync::Arc;

/// Blocks on top of a coinbase output before it can be spent.
const MATURITY: u32 = 100;

/// Which Bitcoin.
#[derive(Clone, Copy, Debug)]
pub enum Ground {
    /// In memory.
    Simulated,
    /// A Bitcoin Core process.
    Core,
}

impl Ground {
    /// Starts it with `coins` coinbase outputs of `to` that can be spent.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(self, to: &Script, coins: u32) -> Result<Arc<dyn TestBitcoin>> {
        match self {
            Self::Simulated => {
                let bitcoin = SimBitcoin::new();
                for _ in 0..coins + MATURITY {
                    bitcoin.mine_exactly_now(to, &[])?;
                }
                Ok(Arc::new(Arc::new(bitcoin)))
            }
            Self::Core => {
                let bitcoin = CoreBitcoin::start().await?;
                bitcoin.mine_many(to, coins + MATURITY).await?;
                Ok(Arc::new(bitcoin))
            }
        }
    }
}
