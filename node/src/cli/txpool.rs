//! What the mempool holds at most: options of a sequencer.

use crate::mempool::PoolLimits;
use clap::{Args, value_parser};
use std::time::Duration;

/// Bytes in the unit of the options.
const MIB: usize = 1024 * 1024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of the sequencer's mempool")]
pub(super) struct TxPoolLimits {
    /// Most transactions in the mempool
    #[arg(long, value_name = "TRANSACTIONS", default_value_t = 16_384, value_parser = value_parser!(u32).range(1..))]
    txpool_max_transactions: u32,
    /// Most bytes of all transactions in the mempool
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = value_parser!(u32).range(1..=65_536))]
    txpool_max_size: u32,
    /// Most transactions in the mempool that wait for a nonce or for funds
    #[arg(long, value_name = "TRANSACTIONS", default_value_t = 4_096)]
    txpool_max_queued: u32,
    /// Most transactions of one account
    #[arg(long, value_name = "TRANSACTIONS", default_value_t = 1_024, value_parser = value_parser!(u32).range(1..))]
    txpool_account_transactions: u32,
    /// Most transactions of one account that wait for a nonce or for funds
    #[arg(long, value_name = "TRANSACTIONS", default_value_t = 64)]
    txpool_account_queued: u32,
    /// By how much a replacement must raise both fees
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    txpool_price_bump: u16,
    /// How long an account's transactions wait for a nonce or for funds
    #[arg(long, value_name = "SECONDS", default_value_t = 10_800, value_parser = value_parser!(u64).range(1..))]
    txpool_lifetime: u64,
}

impl TxPoolLimits {
    /// The limits that these options say.
    pub(super) fn limits(&self) -> PoolLimits {
        PoolLimits {
            max_transactions: self.txpool_max_transactions as usize,
            max_bytes: (self.txpool_max_size as usize).saturating_mul(MIB),
            max_queued: self.txpool_max_queued as usize,
            max_per_sender: self.txpool_account_transactions as usize,
            max_queued_per_sender: self.txpool_account_queued as usize,
            replacement_percent: self.txpool_price_bump.into(),
            queued_lifetime: Duration::from_secs(self.txpool_lifetime),
            ..PoolLimits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        limits: TxPoolLimits,
    }

    fn parse(options: &[&str]) -> Result<PoolLimits, clap::Error> {
        let program = Program::try_parse_from(["program"].iter().chain(options))?;
        Ok(program.limits.limits())
    }

    #[test]
    fn without_options_the_limits_are_the_mempool_s_own() {
        assert_eq!(parse(&[]).unwrap(), PoolLimits::default());
    }

    #[test]
    fn every_option_changes_its_limit() {
        let changed = parse(&[
            "--txpool-max-transactions=1",
            "--txpool-max-size=2",
            "--txpool-max-queued=3",
            "--txpool-account-transactions=4",
            "--txpool-account-queued=5",
            "--txpool-price-bump=6",
            "--txpool-lifetime=7",
        ]);
        let expected = PoolLimits {
            max_transactions: 1,
            max_bytes: 2_097_152,
            max_queued: 3,
            max_per_sender: 4,
            max_queued_per_sender: 5,
            replacement_percent: 6,
            queued_lifetime: Duration::from_secs(7),
            ..PoolLimits::default()
        };
        assert_eq!(changed.unwrap(), expected);
        assert!(parse(&["--txpool-max-transactions=0"]).is_err());
        assert!(parse(&["--txpool-account-transactions=0"]).is_err());
    }
}
