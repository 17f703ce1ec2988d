//! The honest roles: the node's own code over this arena's engine and Bitcoin, one step at a time.

use super::{Arena, key};
use anyhow::{Context, Result};
use bitcoin::{
    ScriptBuf,
    key::{Keypair, Secp256k1},
};
use kedge::{
    challenger::{Challenger, ChallengerOptions, Reporter},
    engine::Engine,
    l1::{Bitcoin, MemoryRecords, Records},
    proposer::Proposer,
    publisher::{FeePolicy, Publisher},
    signer::{Peer, Signer},
    wallet::{Wallet, WalletKeys},
};
use kedge_genesis::{BitcoinNetwork, L1Height, Params, params::dev_secrets};
use std::sync::Arc;

/// What is left of a role when its process ends: keys and records.
#[derive(Clone)]
pub struct Role {
    /// Its name, which its keys are made from.
    pub name: &'static str,
    records: Arc<MemoryRecords>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Role").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Role {
    /// A role that never ran.
    pub fn new(name: &'static str) -> Self {
        Self { name, records: Arc::new(MemoryRecords::default()) }
    }

    /// The key that it publishes with.
    pub fn key(&self) -> Keypair {
        key(self.name)
    }

    fn wallet_keys(&self) -> WalletKeys {
        let seed = alloy_primitives::keccak256(format!("{} wallet", self.name));
        WalletKeys::from_seed(BitcoinNetwork::Regtest, &seed.0)
    }

    /// Where its wallet is paid first.
    ///
    /// # Errors
    /// Never.
    pub fn script(&self) -> Result<ScriptBuf> {
        Ok(self.wallet_keys().first_address(BitcoinNetwork::Regtest)?.script_pubkey())
    }

    /// Its records, which outlive it.
    pub fn records(&self) -> Arc<dyn Records> {
        self.records.clone()
    }

    /// Its wallet and its publisher, on these records and this Bitcoin.
    ///
    /// # Errors
    /// When the records do not read back.
    pub fn open(
        &self,
        arena: &Arena,
        records: Arc<dyn Records>,
        bitcoin: Arc<dyn Bitcoin>,
    ) -> Result<(Arc<Wallet>, Arc<Publisher>)> {
        let birthday: L1Height = arena.params.l1_start.height;
        let network = BitcoinNetwork::Regtest;
        let wallet =
            Wallet::open(records.clone(), self.name, &self.wallet_keys(), network, birthday)?;
        let wallet = Arc::new(wallet);
        let publisher = Publisher::open(
            "publisher",
            records,
            wallet.clone(),
            bitcoin,
            self.key(),
            FeePolicy::default(),
            arena.params.finality_depth,
        )?;
        Ok((wallet, Arc::new(publisher)))
    }

    /// A challenger on these records and this Bitcoin, and its wallet.
    ///
    /// # Errors
    /// When the records do not read back.
    pub fn challenger(
        &self,
        arena: &Arena,
        records: Arc<dyn Records>,
        bitcoin: Arc<dyn Bitcoin>,
    ) -> Result<(Challenger, Arc<Wallet>)> {
        let (wallet, publisher) = self.open(arena, records, bitcoin.clone())?;
        let challenger = Challenger::new(
            arena.params,
            arena.engine.clone(),
            bitcoin,
            publisher,
            wallet.clone(),
            self.key(),
            ChallengerOptions::default(),
            Reporter::default(),
        )?;
        Ok((challenger, wallet))
    }

    /// A proposer that posts after so many L1 blocks.
    ///
    /// # Errors
    /// When the records do not read back.
    pub fn proposer(&self, arena: &Arena, interval: u32) -> Result<Proposer> {
        let bitcoin = arena.client();
        let (wallet, publisher) = self.open(arena, self.records(), bitcoin.clone())?;
        Proposer::new(
            arena.params,
            arena.engine.clone(),
            bitcoin,
            publisher,
            wallet,
            self.key(),
            interval,
        )
    }
}

/// The vault's signers over the arena's node.
///
/// # Errors
/// When the network has none.
pub(super) fn signers(
    params: &'static Params,
    engine: &Arc<Engine>,
    bitcoin: &Arc<dyn Bitcoin>,
) -> Result<Vec<(Arc<Signer>, Vec<Peer>)>> {
    let secp = Secp256k1::new();
    let signers = dev_secrets::SIGNERS
        .iter()
        .map(|secret| {
            let key = Keypair::from_seckey_slice(&secp, secret)?;
            let signer = Signer::new(params, key, engine.clone(), bitcoin.clone())?;
            Ok(Arc::new(signer))
        })
        .collect::<Result<Vec<_>>>()
        .context("the network has signers")?;
    Ok(signers
        .iter()
        .map(|signer| {
            let others = signers.iter().filter(|other| other.place() != signer.place());
            (signer.clone(), others.cloned().map(Peer::Local).collect())
        })
        .collect())
}
