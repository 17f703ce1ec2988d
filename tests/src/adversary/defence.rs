//! What the honest do against lies.

use super::{Arena, COIN, End, Hand, Role};
use alloy_primitives::B256;
use anyhow::{Context, Result, bail, ensure};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid, XOnlyPublicKey, key::Keypair};
use kedge::{
    challenger::{Challenger, ChallengerEvent},
    wallet::Wallet,
};
use kedge_bridge::bond::Bond;
use kedge_fraud_proof::{AssertionEvent, Verdict, verify};
use kedge_genesis::L1Height;
use std::sync::Arc;

/// Fee rate that the signers choose where Bitcoin has no estimate.
const SIGNERS_RATE: FeeRate = FeeRate::from_sat_per_vb_u32(2);
/// Blocks within which that is estimated.
const SIGNERS_TARGET: u16 = 3;

impl Arena {
    /// Pays a role's wallet in so many coins.
    ///
    /// # Errors
    /// When the purse is empty.
    pub async fn fund_role(&mut self, role: &Role, coins: usize) -> Result<()> {
        let coin = TxOut { value: COIN, script_pubkey: role.script()? };
        let tx = self.purse.pay(vec![coin; coins], Amount::from_sat(50_000))?;
        self.mine(&[tx]).await.map(drop)
    }

    /// The proof that an assertion is wrong.
    ///
    /// # Errors
    /// When it is right, or the proof is not accepted by the public verifier.
    pub fn proof_of(&self, id: B256) -> Result<Vec<u8>> {
        let proof = self.engine.build_proof(id)?.context("nothing is wrong with it")?.encode();
        let node = self.node(id)?;
        let verdict = verify(self.params, &**self.engine.store(), &node.view(), &proof)?;
        ensure!(matches!(verdict, Verdict::Fraud { .. }), "the verifier says {verdict:?}");
        Ok(proof)
    }

    /// The right proof against an assertion, by anybody.
    ///
    /// # Errors
    /// When the assertion is right.
    pub fn prove(&mut self, by: &Keypair, id: B256) -> Result<Hand> {
        let proof = self.proof_of(id)?;
        self.proof(by, &proof)
    }

    /// The honest challenger's key.
    pub fn challenger(&self) -> Keypair {
        self.challenger.key()
    }

    /// The honest challenger's process, and its wallet.
    ///
    /// # Errors
    /// When its records do not read back.
    pub fn open_challenger(&self) -> Result<(Challenger, Arc<Wallet>)> {
        self.challenger.challenger(self, self.challenger.records(), self.client())
    }

    /// Lets the honest challenger do what it has to do, block by block, until no wrong assertion is open.
    ///
    /// # Errors
    /// When one settles, or this machine fails.
    pub async fn challenge(&mut self) -> Result<()> {
        let (challenger, _) = self.open_challenger()?;
        loop {
            challenger.step().await?;
            let tracker = self.tracker()?;
            let wrong = || tracker.nodes().iter().filter(|node| node.is_open() && !node.agrees);
            if wrong().next().is_none() {
                return Ok(());
            }
            let late = wrong().find(|node| node.deadline <= self.tip());
            ensure!(late.is_none(), "nobody proved it wrong in time: {late:?}");
            self.mine_waiting().await?;
        }
    }

    /// Lets the honest proposer post its next assertion, and mines it. Its id.
    ///
    /// # Errors
    /// When it posts none.
    pub async fn propose(&mut self) -> Result<B256> {
        let proposer = self.proposer.proposer(self, 1)?;
        for _ in 0..3 {
            proposer.step().await?;
            for event in self.mine_waiting().await? {
                if let AssertionEvent::Proposed { id, agrees: true } = event {
                    return Ok(id);
                }
            }
        }
        bail!("the proposer posts no assertion")
    }

    /// Lets each signer take its turn, if it has one.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn step_signers(&self) -> Result<Vec<Txid>> {
        let mut sent = Vec::new();
        for (signer, peers) in &self.signers {
            sent.extend(signer.step(peers).await?);
        }
        Ok(sent)
    }

    /// Mines until no assertion can be proven wrong any more and no proof is under way.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn mine_past_deadlines(&mut self) -> Result<()> {
        let last = self.tracker()?.nodes().iter().map(|node| node.deadline).max();
        self.mine_until(last.unwrap_or_default()).await?;
        while !self.tracker()?.channels().is_empty() {
            self.mine(&[]).await?;
        }
        Ok(())
    }

    /// Checks where each bond goes, to the satoshi: once the verdict is final, to the challenger whose proof
    /// rejected the assertion, all of it but the fee of that; otherwise it stays until its proposer may take
    /// it, and then the honest proposer's is in his wallet.
    ///
    /// # Errors
    /// When one goes elsewhere.
    pub async fn bonds_pay(&mut self, ends: &[(B256, End)]) -> Result<()> {
        let final_at = self.tip().0 + self.params.finality_depth;
        let from = self.tip().next();
        let mut rates = Vec::new();
        // Each of the signers has had its turn by then, and what it sent is in a block.
        while self.tip().0 < final_at + 4 {
            let rate = self.client().fee_rate(SIGNERS_TARGET).await?.unwrap_or(SIGNERS_RATE);
            rates.push(rate.max(FeeRate::BROADCAST_MIN));
            self.step_signers().await?;
            self.mine_waiting().await?;
        }
        for (id, end) in ends {
            let node = self.node(*id)?;
            let spent = self.spend_of(node.bond, from).await?;
            let End::Rejected { by, .. } = end else {
                ensure!(spent.is_none(), "the bond of {id} is gone: {spent:?}");
                continue;
            };
            let spent = spent.with_context(|| format!("nobody slashed the bond of {id}"))?;
            let proposer = XOnlyPublicKey::from_slice(&node.proposer)?;
            let bond = Bond::of(self.params, proposer).context("the network has signers")?;
            let challenger = XOnlyPublicKey::from_slice(by)?;
            let mut slashes = rates.iter().filter_map(|rate| {
                bond.slash_spend(node.bond, node.bond_value, &challenger, *rate)
            });
            ensure!(
                slashes.any(|slash| slash.tx().compute_txid() == spent.compute_txid()),
                "the bond of {id} goes to {:?}, not to {challenger} at one of {rates:?}",
                spent.output
            );
        }
        Ok(())
    }

    /// The transaction from that height on that spends an output.
    async fn spend_of(&self, output: OutPoint, from: L1Height) -> Result<Option<Transaction>> {
        for height in (from.0..=self.tip().0).map(L1Height) {
            let spends = |tx: &Transaction| tx.input.iter().any(|it| it.previous_output == output);
            if let Some(tx) = self.block(height).await?.txdata.into_iter().find(spends) {
                return Ok(Some(tx));
            }
        }
        Ok(None)
    }

    /// Lets the honest challenger take its rewards and the honest proposer its bonds, and checks that these
    /// are all that is left of theirs on Bitcoin.
    ///
    /// # Errors
    /// When they do not get them.
    pub async fn everybody_is_paid(&mut self, ends: &[(B256, End)]) -> Result<()> {
        let (challenger, _) = self.open_challenger()?;
        let proposer = self.proposer.proposer(self, u32::MAX)?;
        let delay = self.params.challenge_window + u32::from(self.params.bond_margin);
        let mut until = self.tip();
        for (id, _) in ends {
            until = until.max(self.node(*id)?.confirmed_at.plus(delay));
        }
        let mut rewards = Vec::new();
        while self.tip() < until.plus(3) {
            for event in challenger.step().await? {
                if let ChallengerEvent::RewardTaken { assertion, .. } = event {
                    rewards.push(assertion);
                }
            }
            proposer.step().await?;
            self.step_signers().await?;
            self.mine_waiting().await?;
        }
        let own = self.challenger().x_only_public_key().0.serialize();
        for (id, end) in ends {
            let left = self.client().tx_out(&self.node(*id)?.bond, true).await?;
            match end {
                End::Rejected { by, .. } if *by == own => {
                    ensure!(rewards.contains(id), "no reward for {id}");
                }
                End::Settled => ensure!(left.is_none(), "the bond of {id} did not return"),
                _ => {}
            }
        }
        Ok(())
    }
}
