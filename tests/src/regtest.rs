//! A whole rollup in separate processes on Bitcoin Core.

use crate::{
    bitcoind::{Bitcoind, Miner},
    chain::{Chain, wei},
    kedge::{Account, Node, Signer, binary},
    process::read,
    wallet::Wallet,
};
use anyhow::{Context, Result};
use bitcoin::{Address, Amount, TxOut, consensus::encode::serialize_hex};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// bitcoind, a sequencer that is the proposer too, three signers, and a miner with a block every second.
#[derive(Debug)]
pub struct Regtest {
    /// The Bitcoin underneath.
    pub bitcoind: Bitcoind,
    /// Coins of a user on Bitcoin.
    pub coins: Wallet,
    /// Makes blocks, posts batches and assertions.
    pub sequencer: Node,
    /// The vault's signers.
    pub signers: Vec<Signer>,
    options: Vec<String>,
    _miner: Miner,
}

impl Regtest {
    /// Starts all of it.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(dir: &Path) -> Result<Self> {
        let bitcoind = Bitcoind::start().await?;
        let mut coins = bitcoind.funded_wallet(5).await?;
        fund(&bitcoind, &mut coins, &address_of("operator").await?).await?;
        fund(&bitcoind, &mut coins, &address_of("wallet").await?).await?;
        bitcoind.mine(1, &coins.address()).await?;
        let options = vec![
            "--network=regtest".to_owned(),
            format!("--l1-rpc={}", bitcoind.url()),
            format!("--l1-cookie-file={}", bitcoind.cookie().display()),
        ];
        let shared: Vec<_> = options.iter().map(String::as_str).collect();
        let roles = [&shared[..], &["--sequencer", "--proposer"]].concat();
        let sequencer = Node::start(dir, "sequencer", &roles).await?;
        let signers = Signer::start_all(dir, 3, &shared).await?;
        let _miner = bitcoind.mine_every(Duration::from_secs(1), &coins.address());
        Ok(Self { bitcoind, coins, sequencer, signers, options, _miner })
    }

    /// The chain as the sequencer's users see it.
    pub fn chain(&self) -> Chain {
        Chain { client: self.sequencer.client(), bitcoin: self.bitcoind.rpc().clone() }
    }

    /// What a node of this network needs on its command line.
    pub fn options(&self) -> Vec<&str> {
        self.options.iter().map(String::as_str).collect()
    }

    /// Deposits from the wallet of the command line and waits until the account is credited.
    ///
    /// # Errors
    /// When the balance is not right to the wei.
    pub async fn fund(&self, account: &Account, sats: u64) -> Result<()> {
        let amount = format!("{sats}sat");
        let deposit = ["bridge", "deposit", "--to", &account.address, "--amount", &amount];
        let l1 = self.options.get(1..).unwrap_or_default().iter().map(String::as_str);
        let arguments: Vec<_> = deposit.into_iter().chain(l1).collect();
        self.chain().client.kedge(&arguments).await?;
        self.chain().credited(&account.address, wei(sats)).await
    }
}

/// The first address of the wallet of a role whose key is public.
async fn address_of(role: &str) -> Result<Address> {
    let arguments = ["key", "show", "--network", "regtest", "--dev", role, "--json"];
    let shown: Value = serde_json::from_str(&read(&binary(), arguments).await?)?;
    let address = shown["walletAddress"].as_str().context("no wallet address")?;
    Ok(address.parse::<Address<_>>()?.require_network(bitcoin::Network::Regtest)?)
}

/// Pays several coins to a wallet, so that it can have several transactions under way.
async fn fund(bitcoind: &Bitcoind, from: &mut Wallet, to: &Address) -> Result<()> {
    let coin = TxOut { value: Amount::from_sat(900_000_000), script_pubkey: to.script_pubkey() };
    let tx = from.pay(vec![coin; 5], Amount::from_sat(10_000))?;
    bitcoind.rpc().call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    Ok(())
}
