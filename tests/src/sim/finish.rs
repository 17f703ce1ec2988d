//! The end of a run: after a calm period everything that was pending is done, and a node that knows nothing
//! comes to the same from Bitcoin alone.

use super::host::{Act, key};
use super::world::World;
use alloy_primitives::U256;
use anyhow::{Context, Result, bail, ensure};
use bitcoin::{OutPoint, XOnlyPublicKey};
use kedge::engine::Engine;
use kedge::l1::Bitcoin as _;
use kedge_bridge::bond::{Bond, reward_script};
use kedge_fraud_proof::{AssertionNode, Verdict, verify};
use kedge_genesis::{L1Height, Sats};
use kedge_store::L2Rows;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks within which everything pending has to be done, besides what the windows take.
const SLACK: u32 = 20;

/// Satoshis below which an output of a publication that was given up may be left, because taking it back costs
/// more at the highest fee estimates of a run.
const WORTH_TAKING: u64 = 10_000;

impl World {
    /// Lets everybody finish, and checks that they did.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.calm()?;
        let since = self.tip();
        let params = self.params;
        let longest = params.challenge_window + u32::from(params.bond_margin) + SLACK;
        let mut missing = String::new();
        while self.tip() < since.plus(longest) {
            self.round().await?;
            match self.pending(since)? {
                Some(what) => missing = what,
                None => {
                    missing.clear();
                    break;
                }
            }
        }
        if !missing.is_empty() {
            for host in &self.hosts {
                for publication in host.live.as_ref().context("it runs")?.publications().await {
                    self.story.tell(format!("{} has pending {publication}", host.name));
                }
            }
            bail!("not done {longest} blocks after the trouble ended: {missing}");
        }
        for index in 0..self.hosts.len() {
            self.act(index, Act::Follow).await?;
        }
        self.bonds(since)?;
        self.forgotten().await?;
        self.same_everywhere().await
    }

    /// The sequencer's node, which is a validator among others here.
    fn engine(&self) -> Result<Arc<Engine>> {
        let host = self.hosts.first().context("there are parties")?;
        Ok(host.live.as_ref().context("it runs")?.engine.clone())
    }

    /// What is not done yet of what began before `since`.
    fn pending(&self, since: L1Height) -> Result<Option<String>> {
        let engine = self.engine()?;
        let reader = engine.store().reader();
        let heads = engine.heads();
        for (who, user) in self.users.iter().enumerate() {
            let nonce = reader.account(user.address())?.map_or(0, |account| account.nonce);
            if nonce < user.signed.len() as u64 {
                let signed = user.signed.len();
                return Ok(Some(format!("{nonce} of user {who}'s {signed} transactions are in")));
            }
        }
        if heads.safe.number < heads.latest.number && heads.latest.origin.height <= since {
            return Ok(Some(format!("block {} is not on Bitcoin", heads.latest.number)));
        }
        for wish in &self.wishes {
            if self.ledger.paid(&wish.script).is_empty() {
                return Ok(Some(format!("a withdrawal of {} sat is not paid", wish.sats)));
            }
        }
        for (address, sats) in &self.checks.deposits {
            let balance = reader.account(*address)?.map_or(U256::ZERO, |account| account.balance);
            if balance.is_zero() {
                return Ok(Some(format!("a deposit of {sats} sat is not credited")));
            }
        }
        for row in reader.assertions()?.iter().filter(|row| row.confirmed_at <= since) {
            if row.settled_at.is_none() && row.rejected_at.is_none() {
                return Ok(Some(format!("assertion {} is open", row.id)));
            }
            if self.ledger.spender(&row.bond).is_none() {
                return Ok(Some(format!("the bond of assertion {} waits", row.id)));
            }
        }
        Ok(None)
    }

    /// Every bond went to whom it belongs, and every withdrawal was paid what was queued.
    fn bonds(&self, since: L1Height) -> Result<()> {
        let engine = self.engine()?;
        let reader = engine.store().reader();
        for row in reader.assertions()?.iter().filter(|row| row.confirmed_at <= since) {
            let spender = self.ledger.spender(&row.bond).context("it was spent")?;
            let node = self.checks.assertions.get(&row.id).context("it was seen")?;
            ensure!(node.agrees != row.rejected_at.is_some(), "the verdict on {} is wrong", row.id);
            let winner = self.winner(node, &engine)?;
            let Some(winner) = winner else {
                ensure!(row.rejection.is_none(), "{} fell to a proof that is none", row.id);
                let key = XOnlyPublicKey::from_slice(row.proposer.as_slice())?;
                let delay = Bond::of(self.params, key).context("there are signers")?.delay();
                let sequence = spender.input.first().context("it has an input")?.sequence;
                ensure!(
                    sequence.to_consensus_u32() == u32::from(delay),
                    "the bond of {} was slashed without a proof",
                    row.id
                );
                continue;
            };
            let reward = reward_script(&XOnlyPublicKey::from_slice(&winner)?);
            let output = spender.output.first().context("it has an output")?;
            ensure!(
                output.script_pubkey == reward,
                "the bond of {} went to {:?} instead of the first committer {}: {row:?}",
                row.id,
                output.script_pubkey,
                alloy_primitives::hex::encode(winner)
            );
        }
        let mut queued = BTreeMap::new();
        for withdrawal in reader.withdrawals_from(0, usize::MAX)? {
            queued.insert(withdrawal.script.clone(), withdrawal);
        }
        for wish in &self.wishes {
            let row = queued.get(&wish.script).context("a withdrawal was queued")?;
            let paid = self.ledger.paid(&wish.script);
            let [once] = paid else { bail!("a withdrawal was paid {} times", paid.len()) };
            ensure!(
                once.sats == row.amount.0,
                "{} instead of {} sat were paid",
                once.sats,
                row.amount
            );
            ensure!(
                row.amount.0 + row.fee.0 == wish.sats,
                "{} sat left L2",
                row.amount.0 + row.fee.0
            );
        }
        for (address, sats) in &self.checks.deposits {
            let account = reader.account(*address)?.context("it was credited")?;
            ensure!(account.balance == Sats(*sats).to_wei(), "{address} has {}", account.balance);
        }
        Ok(())
    }

    /// Whoever publishes knows of every output that he has paid for it: what holds his money is his wallet's,
    /// a bond's, or a commit's that he has not revealed yet. So no crash made him forget one.
    async fn forgotten(&self) -> Result<()> {
        for host in &self.hosts {
            let live = host.live.as_ref().context("it runs")?;
            let Some(wallet) = &live.wallet else { continue };
            wallet.sync(&*self.bitcoin).await?;
            let key = key(host.name).x_only_public_key().0;
            let bond = Bond::of(self.params, key).context("there are signers")?.script();
            let open = live.open_commits().await;
            for txid in self.control.sent(host.name) {
                let Some(tx) = self.ledger.transaction(&txid).filter(|_| !open.contains(&txid))
                else {
                    continue;
                };
                for (vout, output) in (0..).zip(&tx.output) {
                    let outpoint = OutPoint { txid, vout };
                    let is_little = output.value.to_sat() < WORTH_TAKING;
                    if is_little || output.script_pubkey == bond || wallet.owns(outpoint) {
                        continue;
                    }
                    let unspent = self.bitcoin.tx_out(&outpoint, true).await?.is_some();
                    ensure!(!unspent, "{} has forgotten {outpoint}: {output:?}", host.name);
                }
            }
        }
        Ok(())
    }

    /// Who proved an assertion wrong and had committed to the proof first, by what Bitcoin holds.
    fn winner(&self, node: &AssertionNode, engine: &Engine) -> Result<Option<[u8; 32]>> {
        if node.agrees {
            return Ok(None);
        }
        let genuine = |body: &[u8]| {
            let verdict = verify(self.params, &**engine.store(), &node.view(), body);
            matches!(verdict, Ok(Verdict::Fraud { .. }))
        };
        let proofs = self.ledger.proofs_of(
            genuine,
            node.confirmed_at.0,
            node.deadline.0,
            self.params.channel_timeout,
        );
        // Of those committed to at the same height the first that was complete.
        let first = proofs.into_iter().min_by_key(|(_, committed)| *committed);
        Ok(first.map(|(publisher, _)| publisher))
    }
}
