//! The whole loop in separate processes, on Bitcoin Core.

use anyhow::{Context, Result, ensure};
use bitcoin::{Address as BitcoinAddress, Amount, TxOut, consensus::encode::serialize_hex};
use kedge_bridge::{deposit::deposit_outputs, vault};
use kedge_genesis::{Network, Sats};
use kedge_tests::{
    bitcoind::Bitcoind,
    chain::{Chain, fresh_address, wei},
    kedge::{Account, Node, STOP, Signer, binary},
    process::read,
    wallet::Wallet,
};
use serde_json::{Value, json};
use std::time::Duration;

/// The first address of the wallet of a role whose key is public.
async fn address_of(role: &str) -> Result<BitcoinAddress> {
    let arguments = ["key", "show", "--network", "regtest", "--dev", role, "--json"];
    let shown: Value = serde_json::from_str(&read(&binary(), arguments).await?)?;
    let address = shown["walletAddress"].as_str().context("no wallet address")?;
    Ok(address.parse::<BitcoinAddress<_>>()?.require_network(bitcoin::Network::Regtest)?)
}

/// Pays several coins to a wallet, so that it can have several transactions under way.
async fn fund(bitcoind: &Bitcoind, from: &mut Wallet, to: &BitcoinAddress) -> Result<()> {
    let coin = TxOut { value: Amount::from_sat(900_000_000), script_pubkey: to.script_pubkey() };
    let tx = from.pay(vec![coin; 5], Amount::from_sat(10_000))?;
    bitcoind.rpc().call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_deposits_withdraws_and_a_second_node_agrees() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bitcoind = Bitcoind::start().await?;
    let mut coins = bitcoind.funded_wallet(5).await?;
    fund(&bitcoind, &mut coins, &address_of("operator").await?).await?;
    fund(&bitcoind, &mut coins, &address_of("wallet").await?).await?;
    bitcoind.mine(1, &coins.address()).await?;

    let l1 = format!("--l1-rpc={}", bitcoind.url());
    let cookie = format!("--l1-cookie-file={}", bitcoind.cookie().display());
    let options = ["--network=regtest", &l1, &cookie];
    let sequencer_options = [&options[..], &["--sequencer", "--proposer"]].concat();
    let mut sequencer = Node::start(dir.path(), "sequencer", &sequencer_options).await?;
    let signers = Signer::start_all(dir.path(), 3, &options).await?;
    let _miner = bitcoind.mine_every(Duration::from_secs(1), &coins.address());
    let chain = Chain { client: sequencer.client(), bitcoin: bitcoind.rpc().clone() };

    // Two deposits from the wallet of the command line, one from a wallet that only knows the format.
    let [rich, other] = Account::tests();
    for (account, sats) in [(&rich, 500_000_000), (&other, 100_000_000)] {
        let amount = format!("{sats}sat");
        let deposit = ["bridge", "deposit", "--to", &account.address, "--amount", &amount];
        chain.client.kedge(&[&deposit[..], &[&l1, &cookie]].concat()).await?;
        chain.credited(&account.address, wei(sats)).await?;
    }
    let params = Network::Regtest.params();
    let script = vault::vault_script(params).context("regtest has a vault")?;
    let to = fresh_address("deposited to by hand");
    let outputs = deposit_outputs(&script, &[(to.parse()?, Sats(50_000_000))]);
    let tx = coins.pay(outputs, Amount::from_sat(1_000))?;
    bitcoind.rpc().call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    chain.credited(&to, wei(50_000_000)).await?;

    chain.clients(&rich, &other, dir.path()).await?;
    let user = Wallet::new();
    let to = user.address().to_string();
    let withdrawn = chain.withdraw(&rich, &to, 10_000_000, dir.path()).await?;
    let payout = chain.paid_out(&user.script(), withdrawn.paid).await?;
    ensure!(payout.output[0].script_pubkey == script, "the change is not the vault's new head");

    chain.knows_payout(withdrawn.index, &payout).await?;
    chain.is_sound().await?;

    let follower = Node::start(dir.path(), "follower", &options).await?;
    chain.agrees(&follower.client(), withdrawn.block).await?;

    sequencer.process.interrupt(STOP).await?;
    for mut signer in signers {
        signer.process.interrupt(STOP).await?;
    }
    Ok(())
}
