//! What users send to Bitcoin is relayed by Bitcoin Core with its default policy.

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, consensus::encode::serialize_hex};
use kedge_bridge::{deposit::deposit_outputs, vault};
use kedge_genesis::{Network, Sats};
use kedge_tests::{bitcoind::Bitcoind, chain::fresh_address};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn deposits_are_relayed() -> Result<()> {
    let bitcoind = Bitcoind::start().await?;
    let mut wallet = bitcoind.funded_wallet(2).await?;
    let script = vault::vault_script(Network::Regtest.params()).context("regtest has a vault")?;
    for count in [1, 2, 3] {
        let deposits = (0..count)
            .map(|n| Ok((fresh_address(&format!("recipient {n}")).parse()?, Sats(10_000))))
            .collect::<Result<Vec<_>>>()?;
        let tx = wallet.pay(deposit_outputs(&script, &deposits), Amount::from_sat(1_000))?;
        let verdict =
            bitcoind.rpc().call("testmempoolaccept", json!([[serialize_hex(&tx)]])).await?;
        ensure!(verdict[0]["allowed"] == true, "{count} recipients: {verdict}");
        bitcoind.rpc().call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    }
    Ok(())
}
