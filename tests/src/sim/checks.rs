//! What has to hold at every step.

use super::host::Host;
use super::ledger::Ledger;
use alloy_primitives::{Address, B256, U256};
use anyhow::{Context, Result, ensure};
use bitcoin::ScriptBuf;
use kedge::engine::Heads;
use kedge_fraud_proof::{AssertionNode, AssertionStatus};
use kedge_genesis::{L2Number, Params, Sats};
use kedge_store::{L1Rows, L2Rows};
use std::collections::BTreeMap;

/// What is remembered of earlier steps.
pub(super) struct Checks {
    params: &'static Params,
    /// The last final block that a party has known.
    finalized: BTreeMap<&'static str, L2Number>,
    /// The hash of every block that was final for anybody.
    hashes: BTreeMap<L2Number, B256>,
    /// Heads of a party when it was checked last.
    seen: BTreeMap<&'static str, Heads>,
    /// Every assertion that ever counted for anybody.
    pub(super) assertions: BTreeMap<B256, AssertionNode>,
    /// Addresses that only deposits pay, with what is deposited, satoshis.
    pub(super) deposits: Vec<(Address, u64)>,
    /// Scripts that only payouts pay.
    pub(super) scripts: Vec<ScriptBuf>,
    /// What became of assertions since somebody asked.
    pub(super) news: Vec<String>,
}

impl Checks {
    pub(super) const fn new(params: &'static Params) -> Self {
        Self {
            params,
            finalized: BTreeMap::new(),
            hashes: BTreeMap::new(),
            seen: BTreeMap::new(),
            assertions: BTreeMap::new(),
            deposits: Vec::new(),
            scripts: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Checks a party's node.
    pub(super) fn host(&mut self, host: &Host, ledger: &Ledger, at_tip: bool) -> Result<()> {
        let Some(live) = &host.live else { return Ok(()) };
        let heads = live.engine.heads();
        if self.seen.insert(host.name, heads) == Some(heads) {
            return Ok(());
        }
        let numbers =
            [heads.latest, heads.safe, heads.finalized, heads.settled].map(|head| head.number);
        ensure!(numbers.is_sorted_by(|a, b| a >= b), "heads out of order: {numbers:?}");
        let reader = live.engine.store().reader();

        let before = self.finalized.insert(host.name, heads.finalized.number).unwrap_or_default();
        ensure!(
            before <= heads.finalized.number,
            "finalized went back from {before} to {}",
            heads.finalized.number
        );
        for number in before.0..=heads.finalized.number.0 {
            let number = L2Number(number);
            let hash = reader.hash(number)?.context("a final block has a hash")?;
            let known = *self.hashes.entry(number).or_insert(hash);
            ensure!(known == hash, "final block {number} is {hash} here and {known} elsewhere");
        }

        let solvency = reader.solvency()?;
        ensure!(solvency.holds(), "the vault does not cover what it owes: {solvency:?}");
        if at_tip {
            let real = ledger.vault();
            ensure!(
                solvency.vault.0 == real,
                "the vault holds {real} sat, not {}",
                solvency.vault.0
            );
        }

        for node in reader.tracker()?.nodes() {
            if at_tip {
                let (id, at, real) = (node.id, node.confirmed_at, ledger.height(&node.bond.txid));
                ensure!(real == Some(at.0), "assertion {id} is confirmed at {real:?}, not {at}");
            }
            self.assertion(node)?;
        }
        for (address, sats) in &self.deposits {
            let balance = reader.account(*address)?.map_or(U256::ZERO, |account| account.balance);
            ensure!(
                balance.is_zero() || balance == Sats(*sats).to_wei(),
                "{address} has {balance} wei of one deposit of {sats} sat"
            );
        }
        Ok(())
    }

    fn assertion(&mut self, node: &AssertionNode) -> Result<()> {
        let id = node.id;
        match node.status {
            AssertionStatus::Settled { at } => {
                ensure!(node.agrees, "the wrong assertion {id} settled");
                // Its parent's window is over by then.
                let due = node.confirmed_at.plus(self.params.challenge_window);
                ensure!(at == due, "assertion {id} settled at {at}, its window ends with {due}");
            }
            AssertionStatus::Rejected { .. } => {
                ensure!(!node.agrees, "the right assertion {id} was rejected");
            }
            AssertionStatus::Proposed | AssertionStatus::Challenged => {}
        }
        let mut kept = node.clone();
        if let Some(before) = self.assertions.get(&id) {
            // A node drops the claims of what is decided.
            kept.claims.clone_from(&before.claims);
        }
        let before = self.assertions.insert(id, kept);
        if before.as_ref().is_none_or(|before| before.status != node.status) {
            let truth = if node.agrees { "right" } else { "wrong" };
            let (l1, status) = (node.l1.height, &node.status);
            self.news.push(format!("the {truth} assertion {id} up to {l1}: {status:?}"));
        }
        let agreed = before.is_none_or(|before| before.agrees == node.agrees);
        ensure!(agreed, "nodes disagree on whether {id} is right");
        Ok(())
    }

    /// Checks Bitcoin: nobody is paid twice.
    pub(super) fn bitcoin(&self, ledger: &Ledger) -> Result<()> {
        for script in &self.scripts {
            let paid = ledger.paid(script);
            ensure!(paid.len() <= 1, "a withdrawal was paid {} times: {paid:?}", paid.len());
        }
        Ok(())
    }
}
