//! The commands of `cast` that people use every day.

use alloy_primitives::{Address, U256, hex, keccak256};
use anyhow::{Context, Result, bail, ensure};
use kedge_tests::{chain::fresh_address, clients::Live, kedge::quantity, tools::Cast};
use serde_json::Value;
use std::fmt::Debug;

/// Fails with the name of the command when the two differ.
fn same<T: PartialEq<U> + Debug, U: Debug>(command: &str, found: T, expected: U) -> Result<()> {
    ensure!(found == expected, "cast {command}: {found:?} instead of {expected:?}");
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// A chain with a token, and `cast` on it.
struct Bench {
    live: Live,
    cast: Cast,
    /// The token's deployment.
    deployed: Value,
    token: String,
}

impl Bench {
    async fn start() -> Result<Self> {
        let live = Live::start().await?;
        let cast = Cast::new(&live.dev.ready.rpc);
        let code = live.contracts["Token"]["bytecode"].as_str().context("no bytecode")?;
        let key = &live.dev.ready.accounts[0].key;
        let deployed = cast
            .json(&["send", "--private-key", key, "--create", code, "constructor(uint256)", "1000"])
            .await?;
        let token = text(&deployed, "contractAddress")?.to_owned();
        Ok(Self { live, cast, deployed, token })
    }

    fn from(&self) -> &str {
        &self.live.dev.ready.accounts[0].address
    }

    async fn send(&self, arguments: &[&str]) -> Result<Value> {
        let key = &self.live.dev.ready.accounts[0].key;
        self.cast.json(&[&["send", "--private-key", key], arguments].concat()).await
    }

    /// A transfer of tokens.
    async fn transfer(&self, to: &str, value: &str) -> Result<Value> {
        self.send(&[&self.token, "transfer(address,uint256)", to, value]).await
    }

    async fn is(&self, arguments: &[&str], expected: &str) -> Result<()> {
        same(&arguments.join(" "), self.cast.run(arguments).await?.as_str(), expected)
    }

    /// Why a command fails.
    async fn fails(&self, arguments: &[&str]) -> Result<String> {
        match self.cast.run(arguments).await {
            Ok(told) => bail!("cast {}: {told}", arguments.join(" ")),
            Err(error) => Ok(error.to_string()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_the_chain() -> Result<()> {
    let bench = Bench::start().await?;
    let client = bench.live.dev.client();
    let chain_id = bench.live.dev.ready.chain_id.to_string();
    bench.is(&["chain-id"], &chain_id).await?;
    let version = bench.cast.run(&["client"]).await?;
    ensure!(version.to_lowercase().starts_with("kedge/"), "cast client: {version}");
    let latest = client.head("latest").await?;
    let number = latest.number.to_string();
    bench.is(&["block-number"], &number).await?;
    bench.is(&["block", "latest", "--field", "hash"], &latest.hash).await?;
    bench.is(&["block", &latest.hash, "--field", "stateRoot"], &latest.state_root).await?;
    bench.is(&["block", "earliest", "--field", "number"], "0").await?;

    let full = bench.cast.json(&["block", &number, "--full"]).await?;
    let last = full["transactions"].as_array().and_then(|all| all.last()).context("none")?;
    same("block --full", text(last, "hash")?, text(&bench.deployed, "transactionHash")?)?;
    let first = bench.cast.json(&["block", "1", "--full"]).await?;
    same("block --full", text(&first["transactions"][0], "type")?, "0x7e")?;

    let timestamp = quantity(&full["timestamp"])?.to_string();
    let found = bench.cast.run(&["find-block", &timestamp]).await?;
    let found = bench.cast.run(&["block", &found, "--field", "timestamp"]).await?;
    same("find-block", found.as_str(), timestamp.as_str())?;
    let age = bench.cast.run(&["age", "latest"]).await?;
    ensure!(age.contains("UTC") || age.contains(':'), "cast age: {age}");
    let base_fee = quantity(&full["baseFeePerGas"])?;
    bench.is(&["base-fee"], &base_fee.to_string()).await?;
    let price: u128 = bench.cast.run(&["gas-price"]).await?.parse()?;
    ensure!(price >= base_fee, "cast gas-price: {price} below the base fee of {base_fee}");
    let wrong = bench.fails(&["block", "1000000"]).await?;
    ensure!(wrong.contains("not found"), "cast block: {wrong}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_contracts_and_their_storage() -> Result<()> {
    let bench = Bench::start().await?;
    let (token, from) = (bench.token.as_str(), bench.from());
    let client = bench.live.dev.client();
    bench.is(&["balance", from], &client.balance(from).await?.to_string()).await?;
    bench.is(&["nonce", from], "1").await?;
    let created = bench.cast.run(&["compute-address", from, "--nonce", "0"]).await?;
    ensure!(created.to_lowercase().contains(&token.to_lowercase()), "compute-address: {created}");

    let code = bench.cast.run(&["code", token]).await?;
    let bytes = hex::decode(&code)?;
    bench.is(&["codesize", token], &bytes.len().to_string()).await?;
    bench.is(&["codehash", token], &format!("{:#x}", keccak256(&bytes))).await?;
    bench.is(&["call", token, "symbol()(string)"], "\"TEST\"").await?;
    let erc20 = bench.cast.run(&["balance", "--erc20", token, from]).await?;
    ensure!(erc20.starts_with("1000"), "cast balance --erc20: {erc20}");

    let to = fresh_address("slots");
    bench.transfer(&to, "77").await?;
    let slot = bench.cast.run(&["index", "address", &to, "2"]).await?;
    let word = format!("{:#066x}", U256::from(77));
    bench.is(&["storage", token, &slot], &word).await?;
    let deployed = quantity(&bench.deployed["blockNumber"])?.to_string();
    let zero = format!("{:#066x}", U256::ZERO);
    bench.is(&["storage", token, &slot, "--block", &deployed], &zero).await?;
    let proof = bench.cast.json(&["proof", token, &slot]).await?;
    same("proof", quantity(&proof["storageProof"][0]["value"])?, 77)?;
    let root = format!("\"{}\"", text(&proof, "storageHash")?);
    let told = bench.cast.run(&["storage-root", token]).await?;
    same("storage-root", told.trim_matches('"'), root.trim_matches('"'))?;
    let path = proof["accountProof"].as_array().context("no proof")?;
    let node = hex::decode(path.first().and_then(Value::as_str).context("an empty proof")?)?;
    let state_root = client.head("latest").await?.state_root;
    same("proof", format!("{:#x}", keccak256(node)), state_root)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_every_kind() -> Result<()> {
    let bench = Bench::start().await?;
    let ready = &bench.live.dev.ready;
    let client = bench.live.dev.client();
    for (kind, options) in [
        ("0x0", &["--legacy"][..]),
        ("0x1", &["--legacy", "--access-list", "[]"]),
        ("0x2", &["--priority-gas-price", "1000000", "--gas-price", "1gwei"]),
    ] {
        let to = fresh_address(&format!("sent with {options:?}"));
        let receipt = bench.send(&[&[to.as_str(), "--value", "5"], options].concat()).await?;
        same("send", text(&receipt, "status")?, "0x1")?;
        same("send", text(&receipt, "type")?, kind)?;
        same("send", client.balance(&to).await?, 5)?;
        let hash = text(&receipt, "transactionHash")?;
        let receipt = client.receipt(hash).await?;
        ensure!(quantity(&receipt["l1Fee"])? > 0, "no fee for Bitcoin space: {receipt}");
        bench.is(&["tx", hash, "value"], "5").await?;
        bench.is(&["receipt", hash, "status"], "true").await?;
        let raw = bench.cast.run(&["tx", hash, "--raw"]).await?;
        same("tx --raw", format!("{:#x}", keccak256(hex::decode(&raw)?)), hash)?;
    }

    let to = fresh_address("published");
    let key = &ready.accounts[1].key;
    let raw = bench.cast.run(&["mktx", "--private-key", key, "--value", "6", &to]).await?;
    let receipt = bench.cast.json(&["publish", &raw]).await?;
    same("publish", text(&receipt, "status")?, "0x1")?;
    same("publish", client.balance(&to).await?, 6)?;

    // EIP-7702: the account gets the token's code, and gives it back.
    let [_, _, owner, ..] = &ready.accounts[..] else { bail!("too few accounts") };
    for (delegate, code) in [
        (bench.token.clone(), format!("0xef0100{}", &bench.token[2..]).to_lowercase()),
        (Address::ZERO.to_string(), "0x".to_owned()),
    ] {
        let delegating =
            ["send", "--private-key", &owner.key, &owner.address, "owner()", "--auth", &delegate];
        let receipt = bench.cast.json(&delegating).await?;
        same("send --auth", text(&receipt, "type")?, "0x4")?;
        bench.is(&["code", &owner.address], &code).await?;
    }

    // One that waits behind a gap is in the pool.
    let gap = ["--nonce", "1000", "--gas-limit", "21000", "--value", "1", &to];
    let raw = bench.cast.run(&[&["mktx", "--private-key", key], &gap[..]].concat()).await?;
    let hash = bench.cast.run(&["publish", "--async", &raw]).await?;
    let status = bench.cast.json(&["tx-pool", "status"]).await?;
    same("tx-pool status", quantity(&status["queued"])?, 1)?;
    let content = bench.cast.json(&["tx-pool", "content"]).await?;
    ensure!(content["queued"].to_string().contains(&hash), "tx-pool content: {content}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_estimates_logs_and_replays() -> Result<()> {
    let bench = Bench::start().await?;
    let (token, from) = (bench.token.as_str(), bench.from());
    let to = fresh_address("called for");
    let transfer = [token, "transfer(address,uint256)", &to, "5"];
    let as_owner = ["--from", from];
    let gas = bench.cast.run(&[&["estimate"], &transfer[..], &as_owner[..]].concat()).await?;
    let made = bench.cast.json(&[&["access-list"], &transfer[..], &as_owner[..]].concat()).await?;
    same("access-list", made["accessList"].as_array().map(Vec::len), Some(1))?;
    let receipt = bench.transfer(&to, "5").await?;
    ensure!(quantity(&receipt["gasUsed"])? <= gas.parse()?, "estimated {gas}: {receipt}");
    bench.is(&["call", token, "balanceOf(address)(uint256)", &to], "5").await?;
    let deployed = quantity(&bench.deployed["blockNumber"])?.to_string();
    let then = ["call", token, "balanceOf(address)(uint256)", &to, "--block", &deployed];
    bench.is(&then, "0").await?;
    let slot = bench.cast.run(&["index", "address", &to, "2"]).await?;
    let differing = format!("{token}:{slot}:{:#066x}", U256::from(42));
    let read = ["call", token, "balanceOf(address)(uint256)", &to];
    let overridden = [&read[..], &["--override-state-diff", &differing]].concat();
    bench.is(&overridden, "42").await?;

    let stranger = &bench.live.dev.ready.accounts[1].address;
    let minting = [token, "mint(uint256)", "1", "--from", stranger];
    for command in ["call", "estimate"] {
        let reason = bench.fails(&[&[command], &minting[..]].concat()).await?;
        ensure!(reason.contains("only the owner mints"), "cast {command}: {reason}");
    }
    let traced = [&["call"], &minting[..], &["--trace"]].concat();
    let traced = bench.cast.run(&traced).await.or_else(|error| anyhow::Ok(error.to_string()))?;
    ensure!(traced.contains("only the owner mints"), "cast call --trace: {traced}");

    let signature = "Transfer(address indexed,address indexed,uint256)";
    let topic = ["logs", "--from-block", "0", "--address", token, signature];
    let all = bench.cast.json(&topic).await?;
    same("logs", all.as_array().map(Vec::len), Some(2))?;
    let padded = Address::parse_checksummed(&to, None)?.into_word().to_string();
    let raw_topic = format!("{:#x}", keccak256("Transfer(address,address,uint256)"));
    let one = ["logs", "--from-block", "0", "--address", token, &raw_topic, "", &padded];
    let one = bench.cast.json(&one).await?;
    same("logs", one.as_array().map(Vec::len), Some(1))?;
    let hash = text(&receipt, "transactionHash")?;
    same("logs", text(&one[0], "transactionHash")?, hash)?;

    for options in [&[][..], &["--quick"]] {
        let told = bench.cast.run(&[&["run", hash], options].concat()).await?;
        ensure!(told.contains("Transaction successfully executed"), "cast run: {told}");
        let used = quantity(&receipt["gasUsed"])?.to_string();
        ensure!(told.contains(&used), "cast run: not {used} gas: {told}");
    }
    // A revert with an error of the contract's own is found before it is sent.
    let fails = bench.transfer(&to, "100000000000").await.err().context("it is sent")?;
    let selector = keccak256("InsufficientBalance(address,uint256,uint256)");
    let selector = hex::encode(&selector[..4]);
    ensure!(fails.to_string().contains(&selector), "cast send: {fails}");

    let block = bench.cast.run(&["rpc", "eth_blockNumber"]).await?;
    let expected = bench.live.dev.client().head("latest").await?.number;
    same("rpc", block.trim_matches('"'), format!("{expected:#x}"))?;
    let traced = bench.cast.run(&["rpc", "trace_transaction", hash]).await?;
    let traced: Value = serde_json::from_str(&traced)?;
    same("rpc", text(&traced[0]["action"], "to")?, token.to_lowercase())?;
    let options = r#"{"tracer":"callTracer"}"#;
    let traced = bench.cast.run(&["rpc", "debug_traceTransaction", hash, options]).await?;
    let traced: Value = serde_json::from_str(&traced)?;
    same("rpc", quantity(&traced["gasUsed"])?, quantity(&receipt["gasUsed"])?)?;
    let wrong = bench.fails(&["rpc", "eth_noSuchMethod"]).await?;
    ensure!(wrong.contains("-32601"), "cast rpc: {wrong}");
    Ok(())
}
