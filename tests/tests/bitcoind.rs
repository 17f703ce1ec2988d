//! The whole loop in separate processes, on Bitcoin Core.

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, consensus::encode::serialize_hex};
use kedge_bridge::{deposit::deposit_outputs, vault};
use kedge_genesis::{Network, Sats};
use kedge_tests::{
    chain::{fresh_address, wei},
    kedge::{Account, Node, STOP},
    regtest::Regtest,
    wallet::Wallet,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_deposits_withdraws_and_a_second_node_agrees() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut net = Regtest::start(dir.path()).await?;
    let chain = net.chain();

    // Two deposits from the wallet of the command line, one from a wallet that only knows the format.
    let [rich, other] = Account::tests();
    net.fund(&rich, 500_000_000).await?;
    net.fund(&other, 100_000_000).await?;
    let script = vault::vault_script(Network::Regtest.params()).context("regtest has a vault")?;
    let to = fresh_address("deposited to by hand");
    let outputs = deposit_outputs(&script, &[(to.parse()?, Sats(50_000_000))]);
    let tx = net.coins.pay(outputs, Amount::from_sat(1_000))?;
    chain.bitcoin.call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    chain.credited(&to, wei(50_000_000)).await?;

    chain.clients(&rich, &other, dir.path()).await?;
    let user = Wallet::new();
    let to = user.address().to_string();
    let withdrawn = chain.withdraw(&rich, &to, 10_000_000, dir.path()).await?;
    let payout = chain.paid_out(&user.script(), withdrawn.paid).await?;
    ensure!(payout.output[0].script_pubkey == script, "the change is not the vault's new head");
    chain.knows_payout(withdrawn.index, &payout).await?;
    chain.is_sound().await?;

    let follower = Node::start(dir.path(), "follower", &net.options()).await?;
    chain.agrees(&follower.client(), withdrawn.block).await?;

    net.sequencer.process.interrupt(STOP).await?;
    for signer in &mut net.signers {
        signer.process.interrupt(STOP).await?;
    }
    Ok(())
}
