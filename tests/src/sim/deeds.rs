//! What people do who run no node: users, and those who are dishonest.

use super::start::MAX_REORG;
use super::users::{GAS, Wish, fresh_address, fresh_script};
use super::world::{SEQUENCER, World};
use alloy_primitives::Bytes;
use anyhow::{Context, Result};
use bitcoin::{Amount, TxOut};
use kedge::engine::Engine;
use kedge::mempool::PoolError;
use kedge::publisher::Part;
use kedge_bridge::deposit::deposit_outputs;
use kedge_bridge::envelope::{Kind, split};
use kedge_bridge::forced::{encode, price_of};
use kedge_genesis::Sats;
use kedge_store::L2Rows;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::sync::Arc;

impl World {
    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// The node of somebody whose process runs.
    fn any_engine(&mut self) -> Option<Arc<Engine>> {
        let engines: Vec<_> =
            self.hosts.iter().filter_map(|host| Some(host.live.as_ref()?.engine.clone())).collect();
        engines.choose(&mut self.rng).cloned()
    }

    /// A user hands a transaction to the sequencer.
    fn submit(&mut self, who: usize, nonce: usize) -> &'static str {
        let live = self.hosts[SEQUENCER].live.as_ref();
        let Some(sequencing) = live.and_then(|live| live.sequencing.as_ref()) else {
            return "nobody answers";
        };
        let user = &mut self.users[who];
        match sequencing.mempool.add(user.signed[nonce].clone()) {
            Ok(_) | Err(PoolError::AlreadyKnown) => {
                user.taken.insert(nonce);
                "taken"
            }
            Err(_) => "refused",
        }
    }

    /// Users send again what the sequencer never acknowledged and what is not in the chain yet.
    pub(super) fn resubmit(&mut self) -> Result<()> {
        for who in 0..self.users.len() {
            let Some(live) = &self.hosts[SEQUENCER].live else { return Ok(()) };
            let user = &self.users[who];
            let account = live.engine.store().account(user.address())?;
            let next = usize::try_from(account.map_or(0, |account| account.nonce))?;
            let waiting: Vec<usize> =
                (next..user.signed.len()).filter(|nonce| !user.taken.contains(nonce)).collect();
            for nonce in waiting {
                self.submit(who, nonce);
            }
        }
        Ok(())
    }

    /// Every user gets more than he will ever spend, so that no reorganisation of later deposits makes what he
    /// signs invalid.
    pub(super) async fn fund(&mut self) -> Result<()> {
        let deposits: Vec<_> =
            self.users.iter().map(|user| (user.address(), Sats(200_000_000))).collect();
        let outputs = deposit_outputs(&self.vault, &deposits);
        self.purse.pay(&outputs).await?.context("the users have coins")?;
        self.mine(false)?;
        self.funded = self.tip().0;
        Ok(())
    }

    pub(super) async fn deposit(&mut self) -> Result<()> {
        let sats = self.rng.random_range(20_000_000..100_000_000);
        let address = if self.rng.random_bool(0.3) {
            let number = self.fresh();
            fresh_address(number)
        } else {
            self.users.choose(&mut self.rng).context("there are users")?.address()
        };
        let outputs = deposit_outputs(&self.vault, &[(address, Sats(sats))]);
        let Some(tx) = self.purse.pay(&outputs).await? else { return Ok(()) };
        let txid = tx.compute_txid();
        self.story.tell(format!("a deposit of {sats} sat to {address}: {txid}"));
        if self.users.iter().all(|user| user.address() != address) {
            self.checks.deposits.push((address, sats));
        }
        Ok(())
    }

    /// A payment to the vault that is no deposit.
    pub(super) async fn bad_deposit(&mut self) -> Result<()> {
        let number = self.fresh();
        let address = fresh_address(number);
        let mut outputs = deposit_outputs(&self.vault, &[(address, Sats(50_000))]);
        match self.rng.random_range(0..3) {
            0 => outputs.truncate(1),
            1 => outputs.insert(
                0,
                TxOut { value: Amount::from_sat(40_000), script_pubkey: self.vault.clone() },
            ),
            _ => outputs = deposit_outputs(&self.vault, &[(address, Sats(9_999))]),
        }
        if let Some(tx) = self.purse.pay(&outputs).await? {
            self.story.tell(format!("a payment to the vault for nobody: {}", tx.compute_txid()));
        }
        Ok(())
    }

    pub(super) async fn use_l2(&mut self) -> Result<()> {
        let who = self.rng.random_range(0..self.users.len());
        let number = self.fresh();
        if self.top < self.funded + MAX_REORG {
            return self.deposit().await;
        }
        let (tx, what) = if self.rng.random_bool(0.4) {
            let sats = self.rng.random_range(300_000..1_000_000);
            let wish = Wish { script: fresh_script(number), sats };
            let tx = self.users[who].withdraw(self.params, &wish)?;
            self.checks.scripts.push(wish.script.clone());
            self.wishes.push(wish);
            (tx, format!("withdraws {sats} sat"))
        } else {
            let sats = self.rng.random_range(1..10_000);
            let tx = self.users[who].transfer(self.params, fresh_address(number), sats)?;
            (tx, format!("pays {sats} sat"))
        };
        if self.rng.random_bool(0.2) {
            self.force(who, what, vec![tx]).await
        } else {
            let answer = self.submit(who, self.users[who].signed.len() - 1);
            self.story.tell(format!("user {who} {what}: {answer}"));
            Ok(())
        }
    }

    async fn force(&mut self, who: usize, what: String, txs: Vec<Bytes>) -> Result<()> {
        let gas = GAS * txs.len() as u64;
        let body = encode(&txs);
        let chain = self.params.chain_id;
        let parts = split(Kind::Forced, chain, 0, Default::default(), &body, self.params)?;
        let pays = TxOut {
            value: Amount::from_sat(price_of(gas, self.params).0.max(1_000)),
            script_pubkey: self.vault.clone(),
        };
        let parts = parts
            .into_iter()
            .map(|part| Part { output: Some(pays.clone()), ..Part::from(part) })
            .collect();
        self.purse.publish(Kind::Forced, parts).await?;
        self.story.tell(format!("user {who} {what}, through Bitcoin"));
        Ok(())
    }

    pub(super) async fn mischief(&mut self) -> Result<()> {
        let Some(engine) = self.any_engine() else { return Ok(()) };
        let told = match self.rng.random_range(0..12) {
            0..=4 => self.liars.lie(&mut self.rng, &engine).await?,
            5..=8 => self.liars.bluff(&mut self.rng, &engine).await?,
            9 | 10 => self.liars.garbage(&mut self.rng, &engine).await?,
            _ => {
                let vault =
                    TxOut { value: Amount::from_sat(1_000), script_pubkey: self.vault.clone() };
                Some(self.liars.malformed(&mut self.rng, &vault).await?)
            }
        };
        if let Some(told) = told {
            self.story.tell(told);
        }
        Ok(())
    }

    pub(super) async fn copy(&mut self) -> Result<()> {
        for copied in self.liars.copy().await? {
            self.story.tell(copied);
        }
        Ok(())
    }

    /// Everybody who has no process sees to what he has paid and published.
    pub(super) async fn tick_purses(&mut self) -> Result<()> {
        self.purse.tick().await?;
        self.liars.tick().await?;
        self.copy().await
    }
}
