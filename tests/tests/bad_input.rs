//! What goes wrong says what is wrong and what to do, on one line, and leaves everything as it was.

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, TxOut, consensus::encode::serialize_hex, opcodes, script::Builder};
use kedge_tests::{
    bitcoind::Bitcoind,
    kedge::{Client, Dev, Node, output},
    process::free_port,
    wallet::Wallet,
};
use serde_json::{Value, json};
use std::{net::TcpListener, os::unix::fs::PermissionsExt};

/// Runs a command that must fail with one line on standard error that contains all of these.
async fn refused(arguments: &[&str], says: &[&str]) -> Result<()> {
    let output = output(arguments).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    let command = arguments.join(" ");
    ensure!(!output.status.success(), "`kedge {command}` succeeded");
    ensure!(!error.contains("panicked"), "`kedge {command}` panicked: {error}");
    let reasons: Vec<_> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    ensure!(reasons.len() == 1, "`kedge {command}` gives {} reasons: {error}", reasons.len());
    for part in says {
        let found = error.to_lowercase().contains(&part.to_lowercase());
        ensure!(found, "`kedge {command}` does not mention {part}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn wrong_command_lines_are_refused() -> Result<()> {
    for (arguments, says) in [
        (&["dev", "--no-such-flag"][..], &["--no-such-flag"][..]),
        (&["no-such-command"], &["no-such-command"]),
        (&["dev", "--rpc-port", "seventy"], &["seventy", "--rpc-port"]),
        (&["node", "--network", "no-such-network", "--datadir", "x"], &["no-such-network"]),
        (&["bridge", "deposit", "--to", "0x12", "--amount", "1btc"], &["0x12"]),
        (&["bridge", "deposit", "--to", ZERO, "--amount", "1"], &["btc", "sat"]),
        (&["bridge", "deposit", "--to", ZERO, "--amount", "0.000000001btc"], &["0.000000001btc"]),
        (&["bridge", "deposit", "--to", ZERO, "--amount", "-1sat"], &["-1"]),
    ] {
        refused(arguments, says).await?;
    }
    Ok(())
}

const ZERO: &str = "0x0000000000000000000000000000000000000001";

#[tokio::test]
async fn a_client_without_a_node_says_so() -> Result<()> {
    let url = format!("http://127.0.0.1:{}", free_port());
    refused(&["status", "--rpc", &url], &[&url]).await
}

#[tokio::test]
async fn a_port_in_use_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let other = free_port().to_string();
    let datadir = dir.path().join("dev").display().to_string();
    let ports = [(&port, &other), (&other, &port)];
    for (rpc, l1) in ports {
        let arguments =
            ["dev", "--datadir", &datadir, "--rpc-port", rpc, "--l1-rpc-port", l1, "--json"];
        refused(&arguments, &[&port, "in use"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_locked_or_of_another_chain_is_refused_and_kept() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let before = dev.client().head("latest").await?;
    let datadir = dev.datadir().display().to_string();
    let (rpc, l1) = (free_port().to_string(), free_port().to_string());
    let again = ["dev", "--datadir", &datadir, "--rpc-port", &rpc, "--l1-rpc-port", &l1];
    refused(&again, &["in use"]).await?;

    dev.process.interrupt(kedge_tests::kedge::STOP).await?;
    let bitcoind = Bitcoind::start().await?;
    let cookie = bitcoind.cookie().display().to_string();
    let url = bitcoind.url();
    let rollup = dev.datadir().join("rollup").display().to_string();
    let other_chain = [
        "node",
        "--network=regtest",
        "--datadir",
        &rollup,
        "--rpc-port",
        &rpc,
        "--l1-rpc",
        &url,
        "--l1-cookie-file",
        &cookie,
    ];
    refused(&other_chain, &["dev", "regtest"]).await?;

    dev.reopen().await?;
    ensure!(dev.client().block(before.number).await? == before, "the data were damaged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_cannot_serve_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bitcoind = Bitcoind::start().await?;
    let cookie = bitcoind.cookie().display().to_string();
    let wrong_cookie = dir.path().join("cookie");
    std::fs::write(&wrong_cookie, "__cookie__:wrong")?;
    let wrong_cookie = wrong_cookie.display().to_string();
    let missing = dir.path().join("missing").display().to_string();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let url = bitcoind.url();
    for (network, l1, cookie, says) in [
        ("regtest", &nobody, &cookie, &nobody[..]),
        ("signet", &url, &cookie, "not been launched"),
        ("regtest", &url, &wrong_cookie, "cookie"),
        ("regtest", &url, &missing, &missing),
    ] {
        let (datadir, port) = (dir.path().join("node").display().to_string(), free_port());
        let port = port.to_string();
        let arguments = [
            "node",
            "--network",
            network,
            "--datadir",
            &datadir,
            "--rpc-port",
            &port,
            "--l1-rpc",
            l1,
            "--l1-cookie-file",
            cookie,
        ];
        refused(&arguments, &[says]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bridge_cannot_do_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let before = dev.client().head("latest").await?;
    let main_net = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let user = Wallet::new().address().to_string();
    for (command, to, amount, says) in [
        ("withdraw", "bcrt1qqqq", "1btc", "bcrt1qqqq"),
        ("withdraw", main_net, "1btc", main_net),
        ("withdraw", &dev.ready.vault, "1btc", "vault"),
        ("withdraw", &user, "10000sat", "smallest"),
        ("withdraw", &user, "1000btc", "insufficient funds"),
        ("deposit", ZERO, "9999sat", "smallest"),
        ("deposit", ZERO, "1000000btc", "wallet"),
    ] {
        let arguments =
            ["bridge", command, "--rpc", &dev.ready.rpc, "--to", to, "--amount", amount];
        refused(&arguments, &[says]).await?;
    }
    ensure!(dev.client().head("latest").await? == before, "something was done");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_get_the_error_of_the_specification() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
    let rpc = dev.client().rpc;
    for (body, code) in [
        ("{", -32700),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_noSuchMethod","params":[]}"#, -32601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":[]}"#, -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["0x12","latest"]}"#,
            -32602,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":[{},7]}"#, -32602),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"eth_getBlockByNumber","params":["last",false]}"#,
            -32602,
        ),
    ] {
        let answer = rpc.post(body.to_owned()).await?;
        ensure!(answer["error"]["code"] == code, "{body} is answered with {answer}");
    }
    for raw in ["0x", "0x00", "0x02c0", "0x7ec0", "0xf8", "zz"] {
        let answer = rpc.call("eth_sendRawTransaction", json!([raw])).await;
        ensure!(answer.is_err(), "{raw} was accepted");
    }
    ensure!(rpc.call("eth_blockNumber", json!([])).await.is_ok(), "it stopped answering");
    Ok(())
}

/// Runs a node on this bitcoind that must refuse it.
async fn node_refused(bitcoind: &Bitcoind, says: &[&str]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (datadir, port) = (dir.path().join("node").display().to_string(), free_port().to_string());
    let (url, cookie) = (bitcoind.url(), bitcoind.cookie().display().to_string());
    let arguments = ["node", "--network=regtest", "--datadir", &datadir, "--rpc-port", &port];
    let l1 = ["--l1-rpc", &url, "--l1-cookie-file", &cookie];
    refused(&[&arguments[..], &l1].concat(), says).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_has_pruned_what_is_needed_is_refused() -> Result<()> {
    let bitcoind = Bitcoind::start_with(&["-prune=1", "-fastprune"]).await?;
    for _ in 0..8 {
        bitcoind.mine(100, &Wallet::new().address()).await?;
    }
    let pruned = bitcoind.rpc().call("pruneblockchain", json!([500])).await?;
    ensure!(pruned.as_u64() > Some(0), "nothing was pruned: {pruned}");
    node_refused(&bitcoind, &["pruned"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bitcoind_that_is_still_syncing_is_refused() -> Result<()> {
    let other = Bitcoind::start().await?;
    let hashes = other.mine(3, &Wallet::new().address()).await?;
    // Its newest block is the genesis block of 2011, and it knows the headers of others.
    let bitcoind = Bitcoind::start_with(&["-maxtipage=86400"]).await?;
    for hash in hashes {
        let header = other.rpc().call("getblockheader", json!([hash, false])).await?;
        bitcoind.rpc().call("submitheader", json!([header])).await?;
    }
    node_refused(&bitcoind, &["still syncing"]).await
}

#[tokio::test]
async fn a_bad_key_file_is_refused_without_showing_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("key");
    let file = path.display().to_string();
    let show = ["key", "show", "--key-file", &file];
    refused(&show, &[&file]).await?;
    for (text, mode, says) in
        [("5ec4e7", 0o600, "64 hexadecimal digits"), (&"5ec4e7ab".repeat(8), 0o644, "chmod 600")]
    {
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        refused(&show, &[&file, says]).await?;
        let error = String::from_utf8(output(&show).await?.stderr)?;
        ensure!(!error.contains("5ec4e7"), "the key is shown: {error}");
    }
    Ok(())
}

/// Outputs that look like Kedge's, on Bitcoin: skipped by every node.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_on_bitcoin_are_skipped() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bitcoind = Bitcoind::start().await?;
    let mut wallet = bitcoind.funded_wallet(2).await?;
    let payloads: [&[u8]; 8] = [
        b"kdg",
        b"kdgd",
        b"kdgd\x01\x02\x03",
        b"kdgd\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14",
        b"kdgw",
        b"kdgw\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"kdgv\x51",
        b"kdg?",
    ];
    for payload in payloads {
        let mut script = Builder::new().push_opcode(opcodes::all::OP_RETURN);
        script = script.push_slice(bitcoin::script::PushBytesBuf::try_from(payload.to_vec())?);
        let output = TxOut { value: Amount::ZERO, script_pubkey: script.into_script() };
        let tx = wallet.pay(vec![output], Amount::from_sat(1_000))?;
        bitcoind.rpc().call("sendrawtransaction", json!([serialize_hex(&tx)])).await?;
    }
    bitcoind.mine(1, &wallet.address()).await?;

    let l1 = format!("--l1-rpc={}", bitcoind.url());
    let cookie = format!("--l1-cookie-file={}", bitcoind.cookie().display());
    let node = Node::start(dir.path(), "node", &["--network=regtest", &l1, &cookie]).await?;
    reaches_tip(&node.client(), bitcoind.rpc().call("getblockcount", json!([])).await?).await
}

async fn reaches_tip(client: &Client, height: Value) -> Result<()> {
    let height = height.as_u64().context("a height")?;
    kedge_tests::until(&format!("the node reaches L1 block {height}"), || async {
        let status = client.rpc.call("kedge_syncStatus", json!([])).await?;
        Ok((status["l1Tip"]["height"] == height).then_some(()))
    })
    .await
}
