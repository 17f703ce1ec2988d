//! One step of a publication that was given up.
//!
//! commit unconfirmed → wait: what it locks is the wallet's own change · commit lost its inputs → done ·
//! commit confirmed → spend by key path every output that no reveal spends, in the chain or on its way ·
//! that deep enough → done.
//!
//! A reveal that is in the mempool already is left there: a replacement would have to pay at least its fee
//! (BIP-125 rule 3), so nothing would be gained by it. What its outputs hold is taken back when the mempool drops it.

use super::record::{Publication, Revealed};
use super::{PublishError, Publisher, Urgency};
use crate::l1::Broadcast;
use crate::wallet::TxPlace;
use bitcoin::FeeRate;
use kedge_bridge::commit::{CommitOutput, take_back};

impl Publisher {
    pub(super) async fn take_back(
        &self,
        publication: &mut Publication,
        tip: u32,
    ) -> Result<Option<String>, PublishError> {
        let Some(commit) = publication.commit().map(|commit| commit.tx.compute_txid()) else {
            return self.close(publication, tip).map(|()| None);
        };
        if publication.committed.is_none() {
            // The wallet sees to it that it is confirmed or given up.
            if self.wallet.place(commit).is_none() {
                self.close(publication, tip)?;
            }
            return Ok(None);
        }
        self.choose_confirmed(publication)?;
        let (left, waits) = self.unrevealed(publication).await?;
        let latest = publication.taken_back.last().cloned();
        if left.is_empty() {
            let taken = latest.and_then(|taken| match self.wallet.place(taken.tx.compute_txid()) {
                Some(TxPlace::Confirmed(height)) => Some(height.0),
                Some(TxPlace::Unconfirmed) | None => None,
            });
            let last = taken.or(publication.committed.map(|(_, height)| height));
            if last.is_some_and(|height| self.is_deep(height, tip)) && !waits {
                self.close(publication, tip)?;
            }
            return Ok(None);
        }
        let pace = self.fees.pace(Urgency::Usual, tip, true, 0);
        let market = self.fees.at(pace, &*self.bitcoin).await?;
        let fits = |taken: &Revealed| {
            let spent = taken.tx.input.iter().map(|input| input.previous_output);
            spent.eq(left.iter().map(|output| output.outpoint))
        };
        let taken = match latest.filter(fits) {
            None => self.sign_taking(publication, &left, market, tip)?,
            Some(latest) if tip >= latest.at + self.fees.bump_after => {
                match self.fees.replacing(latest.rate(), market) {
                    Some(rate) => self.sign_taking(publication, &left, rate, tip)?.or(Some(latest)),
                    None => Some(latest),
                }
            }
            Some(latest) => Some(latest),
        };
        let Some(taken) = taken else {
            // They do not pay for being taken.
            if !waits {
                self.close(publication, tip)?;
            }
            return Ok(None);
        };
        let txid = taken.tx.compute_txid();
        if self.wallet.place(txid).is_none() {
            self.wallet.insert(taken.tx.clone(), Vec::new())?;
        }
        if self.bitcoin.in_mempool(&txid).await? {
            return Ok(None);
        }
        Ok(match self.bitcoin.broadcast(&taken.tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => None,
            Broadcast::Rejected { reason, .. } => Some(format!(
                "transaction {txid}, which takes commit outputs back, is refused: {reason}"
            )),
        })
    }

    /// The outputs of the confirmed commit that no reveal spends, in the chain or in the mempool, and
    /// whether reveals are in the mempool. The wallet forgets those that are in neither.
    async fn unrevealed(
        &self,
        publication: &Publication,
    ) -> Result<(Vec<CommitOutput>, bool), PublishError> {
        let (mut left, mut waits) = (Vec::new(), false);
        for (index, group) in publication.groups.iter().enumerate() {
            if group.confirmed.is_some() {
                continue;
            }
            let mut on_its_way = false;
            for reveal in group.reveals.iter().rev() {
                let txid = reveal.tx.compute_txid();
                if self.bitcoin.in_mempool(&txid).await? {
                    on_its_way = true;
                } else if self.wallet.place(txid).is_some() {
                    self.wallet.forget(txid)?;
                }
            }
            if on_its_way {
                waits = true;
                continue;
            }
            let outputs =
                publication.outpoints(index).into_iter().zip(self.commits(&group.leaves)?);
            for (outpoint, of) in outputs {
                if let Some(unspent) = self.bitcoin.tx_out(&outpoint, false).await? {
                    let value = unspent.output.value;
                    left.push(CommitOutput { outpoint, value, commit: of });
                }
            }
        }
        Ok((left, waits))
    }

    /// Signs and stores a version of the transaction that takes `outputs` back. None when they do not pay
    /// for it.
    fn sign_taking(
        &self,
        publication: &mut Publication,
        outputs: &[CommitOutput],
        rate: FeeRate,
        tip: u32,
    ) -> Result<Option<Revealed>, PublishError> {
        let before = publication.taken_back.last();
        let to = match before.and_then(|taken| taken.tx.output.last()) {
            Some(output) => output.script_pubkey.clone(),
            None => self.wallet.change_script()?,
        };
        let Some((tx, fee)) = take_back(outputs, to, rate, &self.key)? else { return Ok(None) };
        let taken = Revealed { tx: tx.clone(), fee, rate: rate.to_sat_per_kwu(), at: tip };
        publication.taken_back.push(taken.clone());
        let stored = self.wallet.insert(tx, vec![self.record(publication)]);
        if let Err(error) = stored {
            publication.taken_back.pop();
            return Err(error.into());
        }
        Ok(Some(taken))
    }
}
