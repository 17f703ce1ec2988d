//! The bond of an assertion that this challenger proved wrong.
//!
//! bond unspent → wait for the signers · bond spent to our reward script → take it · to anybody else → lost ·
//! taking confirmed → taken. Where the bond went is read from Bitcoin at each step, so a reorganisation of any of
//! it only takes the story back.

use super::{
    Challenger, Round, State,
    event::ChallengerEvent,
    record::{self, Paid, Record, Reward, Taking},
};
use crate::{l1::Broadcast, wallet::TxPlace};
use alloy_primitives::B256;
use bitcoin::{FeeRate, OutPoint, Txid};
use kedge_bridge::{
    bond::{reward_script, reward_spend},
    derive::L1Lookup as _,
};
use kedge_genesis::{L1Height, L1Ref, Sats};

/// Blocks after which a taking that is not confirmed is replaced by one that pays more.
const RETAKE_AFTER: u32 = 6;

impl Challenger {
    /// Makes the next step towards having the bond.
    pub(super) async fn reward(
        &self,
        id: B256,
        tip: L1Ref,
        state: &mut State,
        round: &mut Round<'_>,
    ) -> anyhow::Result<()> {
        let Some(record) = state.book.get(&id).cloned() else { return Ok(()) };
        let found = match &record.reward {
            Some(Reward::Paid(paid)) if self.is_there(paid).await? => record.reward.clone(),
            // Not looked for yet, or a reorganisation took it away again.
            _ => self.find(&record, tip).await?,
        };
        let mut paid = match found {
            Some(Reward::Paid(paid)) => paid,
            other => {
                if other != record.reward {
                    if let Some(Reward::Lost(txid)) = other {
                        round.tell(ChallengerEvent::RewardLost { assertion: id, txid });
                    }
                    self.keep(&mut state.book, id, Record { reward: other, ..record })?;
                }
                return Ok(());
            }
        };
        let taken = self.taking_of(&paid);
        let (known, height) = (paid.taken, taken.map(|(_, height)| height.0));
        paid.taken = height;
        let reward = Some(Reward::Paid(paid.clone()));
        if reward != record.reward {
            self.keep(&mut state.book, id, Record { reward, ..record })?;
        }
        if let Some((txid, height)) = taken {
            if known != Some(height.0) {
                let (amount, height) = (paid.value, height.0);
                round.tell(ChallengerEvent::RewardTaken { assertion: id, amount, txid, height });
            }
            return Ok(());
        }
        self.take(id, paid, tip, state).await
    }

    /// Whether a reward that was found is still in the chain, taken or not.
    async fn is_there(&self, paid: &Paid) -> anyhow::Result<bool> {
        Ok(self.taking_of(paid).is_some()
            || self.bitcoin.tx_out(&paid.outpoint, false).await?.is_some())
    }

    /// What took the reward into the wallet, once it is confirmed.
    fn taking_of(&self, paid: &Paid) -> Option<(Txid, L1Height)> {
        paid.takings.iter().find_map(|taking| match self.wallet.place(taking.txid) {
            Some(TxPlace::Confirmed(height)) => Some((taking.txid, height)),
            Some(TxPlace::Unconfirmed) | None => None,
        })
    }

    /// Where the bond went, by the blocks that the node has processed; none while it is unspent.
    async fn find(&self, record: &Record, tip: L1Ref) -> anyhow::Result<Option<Reward>> {
        if self.bitcoin.tx_out(&record.bond, false).await?.is_some() {
            return Ok(None);
        }
        let (store, bond) = (self.engine.store().clone(), record.bond);
        let script = reward_script(&self.publisher.key());
        let from = L1Height(record.confirmed_at);
        tokio::task::spawn_blocking(move || {
            let mut height = from;
            while height <= tip.height {
                let block = store.l1_block(height)?;
                let spends = |tx: &&bitcoin::Transaction| {
                    tx.input.iter().any(|input| input.previous_output == bond)
                };
                if let Some(tx) = block.txdata.iter().find(spends) {
                    let txid = tx.compute_txid();
                    let paid = (0..).zip(&tx.output).find(|(_, out)| out.script_pubkey == script);
                    return Ok(Some(match paid {
                        Some((vout, output)) => Reward::Paid(Paid {
                            outpoint: OutPoint { txid, vout },
                            value: output.value.to_sat(),
                            takings: Vec::new(),
                            taken: None,
                        }),
                        None => Reward::Lost(txid),
                    }));
                }
                height = height.next();
            }
            Ok(None)
        })
        .await?
    }

    /// Spends the reward into the wallet: what is signed is stored with the record, then broadcast.
    async fn take(
        &self,
        id: B256,
        mut paid: Paid,
        tip: L1Ref,
        state: &mut State,
    ) -> anyhow::Result<()> {
        let (fees, bitcoin) = (self.options.fees, &*self.bitcoin);
        let mut rate = fees.now(bitcoin).await?;
        let latest = paid.takings.last().filter(|of| self.wallet.place(of.txid).is_some());
        if let Some(latest) = latest {
            // The wallet broadcasts it again when the mempool loses it.
            if tip.height.0 < latest.at.saturating_add(RETAKE_AFTER) {
                return Ok(());
            }
            let before = FeeRate::from_sat_per_kwu(latest.rate);
            let Some(raised) = fees.replacing(before, rate) else { return Ok(()) };
            rate = raised;
        }
        let Some(record) = state.book.get(&id).cloned() else { return Ok(()) };
        let rewards = [(paid.outpoint, Sats(paid.value))];
        let Some(tx) = reward_spend(&rewards, self.wallet.change_script()?, rate, &self.key) else {
            return Ok(());
        };
        let txid = tx.compute_txid();
        paid.takings.push(Taking { txid, at: tip.height.0, rate: rate.to_sat_per_kwu() });
        let record = Record { reward: Some(Reward::Paid(paid)), ..record };
        self.wallet.insert(tx.clone(), vec![record::write(id, Some(&record))])?;
        state.book.insert(id, record);
        if let Broadcast::Rejected { code, reason } = bitcoin.broadcast(&tx).await? {
            tracing::warn!(%txid, code, reason, "Bitcoin refused to let the reward be taken");
        }
        Ok(())
    }
}
