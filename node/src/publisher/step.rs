//! One step of one publication.
//!
//! commit missing → pay it · commit dropped → broadcast it again, or make another when its inputs are
//! gone or its fee is too low · reveal due → sign, store, broadcast · reveal dropped → broadcast it
//! again · reveal waits too long → replace it by one that pays more, for the commit too · all reveals
//! deep enough → done. A publication that was given up goes another way (`abandon.rs`).

use super::fees::{Pace, Urgency, fee, is_too_cheap, percent};
use super::record::{Committed, Publication, Revealed};
use super::{MAX_FAMILY_VSIZE, PublishError, Publisher};
use crate::l1::{Broadcast, MISSING_INPUTS};
use crate::wallet::{TxPlace, WalletError};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use kedge_bridge::commit::sign;
use kedge_bridge::envelope::Kind;

/// A commit output that only has to exist, and the least change: above every dust limit.
const CARRIER: Amount = Amount::from_sat(1_000);
/// Reveals of one message pay this much more each the earlier they should be in the block, per cent:
/// miners sort by fee rate, and chunks are expected in order.
const ORDER_PERCENT: u32 = 2;
/// How often the first fee rate fits into what a commit output holds, so that raises need no coin.
const RESERVE: u32 = 400;
/// Another input with its signature, and room, virtual bytes.
const INPUT_VSIZE: u64 = 70;
/// A Taproot output, virtual bytes.
const OUTPUT_VSIZE: u64 = 43;

impl Publisher {
    /// As far as it gets now; what stops it becomes the publication's problem.
    pub(super) async fn advance(&self, publication: &mut Publication) {
        if publication.done.is_some() {
            return;
        }
        let problem = match self.step(publication).await {
            Ok(problem) => problem,
            Err(error) => Some(error.to_string()),
        };
        if problem != publication.problem {
            if let Some(problem) = &problem {
                tracing::warn!(publication = publication.id.0, problem, "publication held up");
            }
            publication.problem = problem;
        }
    }

    async fn step(&self, publication: &mut Publication) -> Result<Option<String>, PublishError> {
        let tip = self.wallet.tip().0;
        publication.short = false;
        self.note_confirmations(publication);
        if publication.groups.iter().all(|group| group.confirmed.is_some()) {
            return self.finish(publication, tip).map(|()| None);
        }
        if publication.abandoned {
            return self.take_back(publication, tip).await;
        }
        if publication.urgency == Urgency::Held {
            return Ok(None);
        }
        let pace = self.pace(publication, tip)?;
        let market = self.fees.at(pace, &*self.bitcoin).await?;
        if publication.commits.is_empty() {
            self.commit(publication, self.least(pace, market), market, tip, &[])?;
        }
        if let Some(problem) = self.settle_commit(publication, market, tip, pace).await? {
            return Ok(Some(problem));
        }
        if !self.may_reveal(publication, pace)? {
            return Ok(None);
        }
        let mut problem = None;
        for group in 0..publication.groups.len() {
            if publication.groups.get(group).is_some_and(|group| group.confirmed.is_none()) {
                let next = self.see_to_reveal(publication, group, market, tip, pace).await?;
                problem = problem.or(next);
            }
        }
        Ok(problem)
    }

    /// What its urgency asks for now.
    fn pace(&self, publication: &Publication, tip: u32) -> Result<Pace, PublishError> {
        let mut vsize = 0_u64;
        for group in publication.groups.iter().filter(|group| group.confirmed.is_none()) {
            vsize += self.vsize(group)?;
        }
        Ok(self.fees.pace(publication.urgency, tip, publication.committed.is_some(), vsize))
    }

    /// The least rate that something is begun with when there is too little money for `rate`.
    fn least(&self, pace: Pace, rate: FeeRate) -> FeeRate {
        if pace.at_any_rate { self.fees.floor } else { rate }
    }

    /// Where the wallet has seen the commit and the reveals. A confirmed rival of a newer version counts.
    pub(super) fn note_confirmations(&self, publication: &mut Publication) {
        let seen = |tx: &Transaction| {
            let txid = tx.compute_txid();
            match self.wallet.place(txid) {
                Some(TxPlace::Confirmed(height)) => Some((txid, height.0)),
                Some(TxPlace::Unconfirmed) | None => None,
            }
        };
        for group in &mut publication.groups {
            let all = group.reveals.iter().rev().chain(&group.earlier);
            group.confirmed = all.into_iter().find_map(|reveal| seen(&reveal.tx));
        }
        publication.committed =
            publication.commits.iter().rev().find_map(|commit| seen(&commit.tx));
    }

    fn finish(&self, publication: &mut Publication, tip: u32) -> Result<(), PublishError> {
        let last =
            publication.groups.iter().filter_map(|group| group.confirmed).map(|at| at.1).max();
        match last.filter(|height| self.is_deep(*height, tip)) {
            Some(last) => self.close(publication, last),
            None => Ok(()),
        }
    }

    pub(super) fn is_deep(&self, height: u32, tip: u32) -> bool {
        (tip + 1).saturating_sub(height) >= self.final_depth
    }

    /// Nothing is left to do about it.
    pub(super) fn close(&self, publication: &mut Publication, at: u32) -> Result<(), PublishError> {
        publication.done = Some(at);
        publication.finish();
        self.store(publication)
    }

    /// Pays the commit outputs, excluding earlier commits by spending a coin of theirs. At `rate`, or as
    /// much of what is above `least` as there is money for.
    fn commit(
        &self,
        publication: &mut Publication,
        least: FeeRate,
        mut rate: FeeRate,
        tip: u32,
        conflict: &[OutPoint],
    ) -> Result<(), PublishError> {
        loop {
            // With room for raises if the wallet has the money, else without.
            let mut result = self.try_commit(publication, rate, tip, conflict, RESERVE);
            if let Err(PublishError::Wallet(WalletError::Funds { .. })) = result {
                let reserve = 100 + 10 * ORDER_PERCENT;
                result = self.try_commit(publication, rate, tip, conflict, reserve);
            }
            if !matches!(result, Err(PublishError::Wallet(WalletError::Funds { .. }))) {
                return result;
            }
            publication.short = true;
            if rate <= percent(least, 105) {
                return result;
            }
            rate = midpoint(least, rate);
        }
    }

    fn try_commit(
        &self,
        publication: &mut Publication,
        rate: FeeRate,
        tip: u32,
        conflict: &[OutPoint],
        reserve: u32,
    ) -> Result<(), PublishError> {
        let budget = percent(rate, reserve).min(percent(self.fees.ceiling, 120));
        let count = publication.groups.iter().map(|group| group.leaves.len() as u64).sum::<u64>();
        // A reveal may have to pay for its commit too.
        let parent = fee(budget, INPUT_VSIZE + OUTPUT_VSIZE * (count + 1));
        let mut outputs = Vec::new();
        for group in &publication.groups {
            let vsize = self.vsize(group)?;
            let bond = group.output.as_ref().map_or(Amount::ZERO, |output| output.value);
            let commits = self.commits(&group.leaves)?;
            for (index, commit) in commits.iter().enumerate() {
                let value = match index {
                    0 if outputs.is_empty() => bond + fee(budget, vsize) + parent + CARRIER,
                    0 => bond + fee(budget, vsize) + CARRIER,
                    _ => CARRIER,
                };
                outputs.push(TxOut { value, script_pubkey: commit.script_pubkey() });
            }
        }
        let before = publication.clone();
        let made = self.wallet.pay_recorded(&outputs, rate, conflict, |tx| {
            let fee = fee(rate, tx.vsize() as u64);
            publication.choose(Committed { tx: tx.clone(), fee, at: tip });
            Ok(vec![self.record(publication)])
        });
        if let Err(error) = made {
            *publication = before;
            return Err(error.into());
        }
        Ok(())
    }

    /// Makes the confirmed commit the valid one, since an earlier one may have won. Whether there is one.
    pub(super) fn choose_confirmed(
        &self,
        publication: &mut Publication,
    ) -> Result<bool, PublishError> {
        let won = publication.commits.iter().position(|commit| {
            matches!(self.wallet.place(commit.tx.compute_txid()), Some(TxPlace::Confirmed(_)))
        });
        let Some(won) = won else { return Ok(false) };
        if won + 1 != publication.commits.len() {
            let commit = publication.commits.remove(won);
            publication.choose(commit);
            self.store(publication)?;
        }
        Ok(true)
    }

    /// Sees that the commit is in the chain or the mempool. Answers why it is not.
    async fn settle_commit(
        &self,
        publication: &mut Publication,
        market: FeeRate,
        tip: u32,
        pace: Pace,
    ) -> Result<Option<String>, PublishError> {
        if self.choose_confirmed(publication)? {
            return Ok(None);
        }
        let Some(commit) = publication.commit() else { return Ok(None) };
        let (tx, at, paid) = (commit.tx.clone(), commit.at, commit.rate());
        let txid = tx.compute_txid();
        if self.wallet.place(txid).is_none() {
            // A reorg brought back a chain in which it was given up.
            self.wallet.insert(tx.clone(), Vec::new())?;
        }
        let stuck = tip >= at + pace.bump_after;
        let inputs: Vec<_> = tx.input.iter().map(|input| input.previous_output).collect();
        if self.bitcoin.in_mempool(&txid).await? {
            // A reveal raises it as its child; where none may be broadcast yet it is replaced.
            let revealed = publication.groups.iter().any(|group| !group.reveals.is_empty());
            if stuck
                && !revealed
                && !self.may_reveal(publication, pace)?
                && let Some(rate) = self.fees.raised(paid, market)
            {
                return match self.recommit(publication, paid, rate, tip, &inputs).await {
                    // Without money to pay more, what is signed stays on its way.
                    Err(PublishError::Wallet(WalletError::Funds { .. })) => {
                        self.wallet.insert(tx, Vec::new())?;
                        Ok(None)
                    }
                    other => other,
                };
            }
            return Ok(None);
        }
        let (code, reason) = match self.bitcoin.broadcast(&tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => return Ok(None),
            Broadcast::Rejected { code, reason } => (code, reason),
        };
        if code == MISSING_INPUTS && self.wallet.inputs_gone(&*self.bitcoin, &tx).await? {
            let least = self.least(pace, market);
            return self.recommit(publication, least, market, tip, &inputs).await;
        }
        if is_too_cheap(&reason)
            && stuck
            && let Some(rate) = self.fees.raised(paid, market)
        {
            return self.recommit(publication, paid, rate, tip, &inputs).await;
        }
        Ok(Some(format!("commit {txid} is refused: {reason}")))
    }

    /// Makes another commit that excludes the current one by spending those of its coins that remain,
    /// and broadcasts it. Answers why that is refused.
    async fn recommit(
        &self,
        publication: &mut Publication,
        least: FeeRate,
        rate: FeeRate,
        tip: u32,
        inputs: &[OutPoint],
    ) -> Result<Option<String>, PublishError> {
        if let Some(commit) = publication.commit() {
            self.wallet.forget(commit.tx.compute_txid())?;
        }
        let mut left = Vec::new();
        for input in inputs {
            if self.wallet.owns(*input) && self.bitcoin.tx_out(input, false).await?.is_some() {
                left.push(*input);
            }
        }
        self.commit(publication, least, rate, tip, &left)?;
        let Some(commit) = publication.commit() else { return Ok(None) };
        Ok(match self.bitcoin.broadcast(&commit.tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => None,
            Broadcast::Rejected { reason, .. } => {
                let txid = commit.tx.compute_txid();
                Some(format!("commit {txid} is refused: {reason}"))
            }
        })
    }

    /// Whether the reveals may be broadcast: with an unconfirmed commit only if all fit into the
    /// mempool's limits, and of a fraud proof, whose priority counts from its commit, only if time is short:
    /// that it is confirmed in time matters more than to whom the bond goes.
    fn may_reveal(&self, publication: &Publication, pace: Pace) -> Result<bool, PublishError> {
        let Some(commit) = publication.commit() else { return Ok(false) };
        let confirmed =
            matches!(self.wallet.place(commit.tx.compute_txid()), Some(TxPlace::Confirmed(_)));
        if confirmed {
            return Ok(true);
        }
        // What was revealed once, as before a reorganisation, is no secret any more.
        let revealed = publication.groups.iter().any(|group| !group.reveals.is_empty());
        let is_proof = Kind::from_wire(publication.kind) == Some(Kind::Proof);
        if is_proof && !revealed && !pace.rush {
            return Ok(false);
        }
        let mut family = commit.tx.vsize() as u64;
        for group in &publication.groups {
            family += self.vsize(group)?;
        }
        Ok(family <= MAX_FAMILY_VSIZE)
    }

    /// Sees that a reveal is in the mempool and pays enough. Answers why it is not.
    async fn see_to_reveal(
        &self,
        publication: &mut Publication,
        group: usize,
        market: FeeRate,
        tip: u32,
        pace: Pace,
    ) -> Result<Option<String>, PublishError> {
        let later = publication.groups.len().saturating_sub(group + 1);
        let later = u32::try_from(later).unwrap_or(10).min(10);
        let first = self.fees.within(percent(market, 100 + later * ORDER_PERCENT));
        let latest = publication.groups.get(group).and_then(|group| group.reveals.last()).cloned();
        let reveal = match latest {
            None => {
                let least = self.least(pace, first);
                match self.reveal_within(publication, group, least, first, tip)? {
                    Some(reveal) => reveal,
                    None => self.reveal(publication, group, least, tip)?,
                }
            }
            Some(latest) if tip >= latest.at + pace.bump_after => {
                match self.fees.raised(latest.rate(), first) {
                    // Without money to pay more, what is signed stays on its way.
                    Some(rate) => self
                        .reveal_within(publication, group, latest.rate(), rate, tip)?
                        .unwrap_or(latest),
                    None => latest,
                }
            }
            Some(latest) => latest,
        };
        let txid = reveal.tx.compute_txid();
        if self.wallet.place(txid).is_none() {
            self.wallet.insert(reveal.tx.clone(), Vec::new())?;
        }
        if self.bitcoin.in_mempool(&txid).await? {
            return Ok(None);
        }
        Ok(match self.bitcoin.broadcast(&reveal.tx).await? {
            Broadcast::Accepted | Broadcast::AlreadyKnown => None,
            Broadcast::Rejected { reason, .. } => {
                Some(format!("reveal {txid} is refused: {reason}"))
            }
        })
    }

    /// A version of a reveal that pays `rate`, or as much of what is above `least` as there is money for;
    /// none when that is too little to matter.
    fn reveal_within(
        &self,
        publication: &mut Publication,
        group: usize,
        least: FeeRate,
        mut rate: FeeRate,
        tip: u32,
    ) -> Result<Option<Revealed>, PublishError> {
        loop {
            match self.reveal(publication, group, rate, tip) {
                Ok(reveal) => return Ok(Some(reveal)),
                Err(PublishError::Wallet(WalletError::Funds { .. })) => {}
                Err(error) => return Err(error),
            }
            publication.short = true;
            rate = midpoint(least, rate);
            if rate <= percent(least, 105) {
                return Ok(None);
            }
        }
    }

    /// Signs and stores a version of a reveal that pays `rate`, for its unconfirmed commit too.
    fn reveal(
        &self,
        publication: &mut Publication,
        group: usize,
        rate: FeeRate,
        tip: u32,
    ) -> Result<Revealed, PublishError> {
        let (tx, fee) = self.build_reveal(publication, group, rate)?;
        let revealed = Revealed { tx: tx.clone(), fee, rate: rate.to_sat_per_kwu(), at: tip };
        let Some(of) = publication.groups.get_mut(group) else { return Err(PublishError::Empty) };
        of.reveals.push(revealed.clone());
        let stored = self.wallet.insert(tx, vec![self.record(publication)]);
        if let Err(error) = stored {
            if let Some(of) = publication.groups.get_mut(group) {
                of.reveals.pop();
            }
            return Err(error.into());
        }
        Ok(revealed)
    }

    fn build_reveal(
        &self,
        publication: &Publication,
        group: usize,
        rate: FeeRate,
    ) -> Result<(Transaction, Amount), PublishError> {
        let (Some(of), Some(commit)) = (publication.groups.get(group), publication.commit()) else {
            return Err(PublishError::Empty);
        };
        let commits = self.commits(&of.leaves)?;
        let mut inputs = publication.outpoints(group);
        let mut prevouts: Vec<TxOut> = inputs
            .iter()
            .filter_map(|input| commit.tx.output.get(input.vout as usize).cloned())
            .collect();
        let mut vsize = self.vsize(of)?;
        let bond = of.output.as_ref().map_or(Amount::ZERO, |output| output.value);
        let unconfirmed =
            !matches!(self.wallet.place(commit.tx.compute_txid()), Some(TxPlace::Confirmed(_)));
        // A replacement pays for its own relay on top of what it replaces (BIP-125 rule 4).
        let replaced = of.reveals.last().map(|reveal| reveal.fee);
        let cost = |vsize: u64| {
            let mut cost = fee(rate, vsize);
            if unconfirmed {
                let commits_share = fee(rate, commit.tx.vsize() as u64);
                cost += commits_share.checked_sub(commit.fee).unwrap_or(Amount::ZERO);
            }
            match replaced {
                Some(paid) => cost.max(paid + Amount::from_sat(vsize)),
                None => cost,
            }
        };
        let held = |prevouts: &[TxOut]| prevouts.iter().map(|output| output.value).sum::<Amount>();
        while held(&prevouts) < bond + cost(vsize) + CARRIER {
            vsize += INPUT_VSIZE;
            let missing =
                (bond + cost(vsize) + CARRIER).checked_sub(held(&prevouts)).unwrap_or(Amount::ZERO);
            let Some((coin, output)) = self.wallet.coin(missing, &inputs) else {
                let address = self.wallet.address()?;
                return Err(WalletError::Funds {
                    needed: missing,
                    available: Amount::ZERO,
                    address,
                }
                .into());
            };
            inputs.push(coin);
            prevouts.push(output);
        }
        let paid = cost(vsize);
        let change = held(&prevouts).checked_sub(bond + paid).unwrap_or(CARRIER);
        let mut output: Vec<TxOut> = of.output.iter().cloned().collect();
        output.push(TxOut { value: change, script_pubkey: self.change(of.reveals.last())? });
        let input = inputs
            .iter()
            .map(|outpoint| TxIn {
                previous_output: *outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect();
        let mut tx =
            Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        if inputs.len() > commits.len() {
            self.wallet.sign_inputs(&mut tx, &prevouts)?;
        }
        let commits: Vec<_> = commits.iter().enumerate().collect();
        sign(&mut tx, &prevouts, &commits, &self.key)?;
        Ok((tx, paid))
    }

    /// The change script: a replacement's is that of what it replaces.
    fn change(&self, replaced: Option<&Revealed>) -> Result<ScriptBuf, PublishError> {
        match replaced.and_then(|reveal| reveal.tx.output.last()) {
            Some(output) => Ok(output.script_pubkey.clone()),
            None => Ok(self.wallet.change_script()?),
        }
    }
}

/// Halfway between two rates.
fn midpoint(one: FeeRate, other: FeeRate) -> FeeRate {
    FeeRate::from_sat_per_kwu(one.to_sat_per_kwu().midpoint(other.to_sat_per_kwu()))
}
