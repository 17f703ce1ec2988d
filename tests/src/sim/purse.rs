//! Bitcoin in the hands of users and adversaries: the node's wallet and publisher over records in memory.

use super::host::key;
use super::start::{BIRTHDAY, wallet_keys};
use crate::sim_bitcoin::SimBitcoin;
use anyhow::Result;
use bitcoin::{FeeRate, Transaction, TxOut};
use kedge::clock::Clock;
use kedge::l1::MemoryRecords;
use kedge::publisher::{FeePolicy, Part, PublishError, Publisher};
use kedge::wallet::Wallet;
use kedge_bridge::envelope::Kind;
use kedge_genesis::Params;
use std::sync::Arc;

/// Fee rate of payments, sat/vB.
const RATE: FeeRate = FeeRate::from_sat_per_vb_u32(10);

/// Somebody's Bitcoin.
pub(super) struct Purse {
    pub(super) bitcoin: Arc<SimBitcoin>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) publisher: Publisher,
}

impl Purse {
    pub(super) fn new(
        name: &'static str,
        params: &Params,
        bitcoin: Arc<SimBitcoin>,
        clock: Clock,
    ) -> Result<Self> {
        let records = Arc::new(MemoryRecords::default());
        let keys = wallet_keys(name);
        let wallet = Wallet::open(records.clone(), "purse", &keys, params.bitcoin, BIRTHDAY)?;
        let wallet = Arc::new(wallet.with_clock(clock));
        let publisher = Publisher::open(
            name,
            records,
            wallet.clone(),
            bitcoin.clone(),
            key(name),
            FeePolicy::default(),
            params.finality_depth,
        )?;
        Ok(Self { bitcoin, wallet, publisher })
    }

    /// Sees to everything that was paid and published. Too little money is nobody's fault.
    pub(super) async fn tick(&self) -> Result<()> {
        self.publisher.tick().await?;
        Ok(())
    }

    /// Pays these outputs, in this order. None when there is too little money.
    pub(super) async fn pay(&self, outputs: &[TxOut]) -> Result<Option<Transaction>> {
        self.wallet.sync(&*self.bitcoin).await?;
        match self.wallet.send(&*self.bitcoin, outputs, RATE).await {
            Ok(tx) => Ok(Some(tx)),
            Err(
                kedge::wallet::WalletError::Funds { .. }
                | kedge::wallet::WalletError::Refused { .. },
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Publishes envelopes of one message. False when they are none by the format.
    pub(super) async fn publish(&self, kind: Kind, parts: Vec<Part>) -> Result<bool> {
        self.wallet.sync(&*self.bitcoin).await?;
        match self.publisher.publish(kind, parts).await {
            Ok(_) => Ok(true),
            Err(
                PublishError::Envelope(_) | PublishError::TooLarge { .. } | PublishError::Empty,
            ) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
