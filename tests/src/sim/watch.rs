//! What the parties hand to Bitcoin, judged when it has just come to the mempool, by Bitcoin's chain as the
//! [`Ledger`] reads it: whether they were allowed to sign or show it yet.

use super::host::{Host, Role, key};
use super::ledger::Ledger;
use crate::sim_bitcoin::SimBitcoin;
use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::{Transaction, Txid, XOnlyPublicKey};
use kedge::engine::Engine;
use kedge_bridge::bond::{Bond, BondSpend};
use kedge_bridge::envelope::{Kind, envelopes};
use kedge_fraud_proof::{AssertionNode, ProofHead};
use kedge_genesis::{L1Height, L2Number, Params};
use kedge_store::L1Rows;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Blocks before the deadline from which on a proof may be shown although its commit is not confirmed: one
/// for each of the two would leave neither a second chance.
const RUSH: u32 = 2;

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: HashSet<Txid>,
    /// Proofs of the challenger's of which something was shown, by channel.
    shown: BTreeSet<B256>,
}

/// What it is judged by.
pub(super) struct Sight<'a> {
    pub(super) params: &'static Params,
    pub(super) bitcoin: &'a SimBitcoin,
    pub(super) ledger: &'a Ledger,
    /// All that ever counted.
    pub(super) assertions: &'a BTreeMap<B256, AssertionNode>,
    /// Who has just done something, and the node, whether the process still runs or not.
    pub(super) host: &'a Host,
    pub(super) engine: &'a Engine,
}

impl Watch {
    /// Judges what is new in the mempool.
    pub(super) fn look(&mut self, sight: &Sight<'_>) -> Result<()> {
        for tx in sight.bitcoin.waiting() {
            let txid = tx.compute_txid();
            if self.seen.insert(txid) {
                sight.slash(&tx).with_context(|| format!("slash {txid}"))?;
                sight.payout(&tx).with_context(|| format!("payout {txid}"))?;
                self.proof(sight, &tx).with_context(|| format!("reveal {txid}"))?;
            }
        }
        Ok(())
    }

    /// The challenger shows nothing of a proof before Bitcoin has its commit, from which its priority counts,
    /// unless time is short: else whoever copies it may commit first.
    fn proof(&mut self, sight: &Sight<'_>, tx: &Transaction) -> Result<()> {
        for (input, envelope) in envelopes(tx) {
            if envelope.kind != Kind::Proof
                || envelope.publisher != key("challenger").x_only_public_key().0
            {
                continue;
            }
            let channel = envelope.header.channel_id(Kind::Proof);
            let is_new = self.shown.insert(channel);
            // Without a connection its chain may have the commit that the best one has lost.
            let knows = sight.host.role == Role::Challenger && sight.host.link.is_up();
            if !is_new || !knows || envelope.header.chunk != 0 {
                continue;
            }
            let Ok(head) = ProofHead::decode(&envelope.body) else { continue };
            let Some(deadline) = sight.deadline(&head.assertion) else { continue };
            let commit = tx.input.get(input as usize).context("it has the input")?.previous_output;
            let left = deadline.saturating_sub(sight.tip());
            ensure!(
                sight.ledger.height(&commit.txid).is_some() || left <= RUSH,
                "a proof is shown {left} blocks before its deadline, its commit is not confirmed"
            );
        }
        Ok(())
    }
}

impl Sight<'_> {
    fn tip(&self) -> u32 {
        self.bitcoin.tip().height.0
    }

    /// The last block in which an assertion can be proven wrong, by where Bitcoin has it.
    fn deadline(&self, id: &B256) -> Option<u32> {
        let bond = self.assertions.get(id)?.bond;
        Some(self.ledger.height(&bond.txid)? + self.params.challenge_window)
    }

    /// Whether nothing can change any more what became of an assertion.
    fn is_final(&self, id: &B256) -> bool {
        let depth = self.params.finality_depth;
        self.deadline(id).is_some_and(|deadline| deadline + depth <= self.tip())
    }

    /// The signers take a bond when the verdict is final, and that of a wrong assertion only.
    fn slash(&self, tx: &Transaction) -> Result<()> {
        for input in &tx.input {
            let spent = |node: &&AssertionNode| node.bond == input.previous_output;
            let Some(node) = self.assertions.values().find(spent) else { continue };
            let proposer = XOnlyPublicKey::from_slice(&node.proposer)?;
            let bond = Bond::of(self.params, proposer).context("there are signers")?;
            if bond.spent_by(&input.witness) != Some(BondSpend::Slash) {
                continue;
            }
            let (id, tip) = (node.id, self.tip());
            ensure!(!node.agrees, "of the right assertion {id}");
            let deadline = self.deadline(&id);
            ensure!(self.is_final(&id), "at {tip}, of {id} with deadline {deadline:?}");
        }
        Ok(())
    }

    /// The signers pay what an assertion covers whose settlement is final.
    fn payout(&self, tx: &Transaction) -> Result<()> {
        if !tx.input.iter().any(|input| self.ledger.is_vaults(&input.previous_output)) {
            return Ok(());
        }
        let settled =
            self.assertions.values().filter(|node| node.agrees && self.is_final(&node.id));
        let through = settled.map(|node| node.l1.height).max().unwrap_or(L1Height(0));
        let reader = self.engine.store().reader();
        let last: L2Number = reader.safe_at(through)?;
        for row in reader.withdrawals_from(0, usize::MAX)? {
            let paid = tx.output.iter().any(|output| output.script_pubkey == row.script);
            ensure!(
                !paid || row.block <= last,
                "at {}, of the withdrawal of block {}, settlement is final up to {last} at {through}",
                self.tip(),
                row.block
            );
        }
        Ok(())
    }
}
