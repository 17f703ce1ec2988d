//! `kedge proof` as people use it, on `kedge dev` with a liar: a proof from a node, checked on a node's Bitcoin and
//! from a folder, every exit status, and files that are not what they should be.

use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::{
    Amount, OutPoint, TxOut,
    consensus::encode::serialize_hex,
    key::{Keypair, Secp256k1},
};
use kedge_bridge::{
    assertion::{AssertionBody, assertion_id},
    bond::Bond,
    commit::{Commit, CommitOutput, reveal},
    envelope::{Kind, leaf_script, split},
};
use kedge_genesis::{L1Height, L1Ref, Network};
use kedge_tests::{
    bitcoind::block,
    kedge::{Dev, output},
    process::free_port,
    until,
    wallet::Wallet,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Verdicts as exit statuses.
const FRAUD: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_FRAUD: i32 = 3;
const MALFORMED: i32 = 4;

/// A development rollup with a right assertion and one whose last claim is wrong.
struct Liar {
    dir: TempDir,
    dev: Dev,
    right: Value,
    wrong: String,
}

impl Liar {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let dev = Dev::start(dir.path(), &["--l1-block-time=0"]).await?;
        let mut wallet = Wallet::new();
        let address = wallet.address().to_string();
        let mined = dev.bitcoin().call("generatetoaddress", json!([1, address])).await?;
        let hash = mined[0].as_str().context("a hash")?;
        wallet.add_coinbase(&block(&dev.bitcoin(), hash).await?);
        dev.client().kedge(&["l1", "mine", "100"]).await?;
        let right = until("an assertion", || async {
            let all = dev.client().rpc.call("kedge_assertions", json!([])).await?;
            Ok(all.get(0).cloned())
        })
        .await?;
        ensure!(right["agrees"] == true, "the first assertion is wrong: {right}");
        let wrong = lie(&dev, &mut wallet, &right).await?;
        Ok(Self { dir, dev, right, wrong })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn build(&self, assertion: &str, out: &Path, more: &[&str]) -> Result<Done> {
        let out = out.display().to_string();
        let arguments =
            ["proof", "build", "--rpc", &self.dev.ready.rpc, "--assertion", assertion, "--out"];
        run(&[&arguments[..], &[&out], more].concat()).await
    }

    async fn export(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        let text = dir.display().to_string();
        let done = run(&["l1", "export-blocks", &text, "--l1-rpc", &self.dev.ready.l1_rpc]).await?;
        ensure!(done.status == 0, "{done:?}");
        Ok(dir)
    }
}

/// Asserts the same as `right` but for the last claim, and gives the id.
async fn lie(dev: &Dev, wallet: &mut Wallet, right: &Value) -> Result<String> {
    let params = Network::Dev.params();
    let mut claims: Vec<B256> = serde_json::from_value(right["claims"].clone())?;
    *claims.last_mut().context("a claim")? = B256::repeat_byte(1);
    let hash: bitcoin::BlockHash = serde_json::from_value(right["l1"]["hash"].clone())?;
    let height = right["l1"]["height"].as_u64().context("a height")?;
    let hash = bitcoin::hashes::Hash::to_byte_array(hash).into();
    let l1 = L1Ref { height: L1Height(height.try_into()?), hash };
    let parent = serde_json::from_value(right["parent"].clone())?;
    let body = AssertionBody { parent, params_hash: params.hash(), l1, claims }.encode();

    let key = Keypair::from_seckey_slice(&Secp256k1::new(), &[7; 32])?;
    let publisher = key.x_only_public_key().0;
    let parts = split(Kind::Assertion, params.chain_id, 0, B256::ZERO, &body, params)?;
    let leaf = leaf_script(&publisher, Kind::Assertion, &parts[0].0, &parts[0].1)?;
    let commit = Commit::new(publisher, leaf).context("a commit")?;
    let bond = Bond::of(params, publisher).context("signers")?.tx_out(params.proposer_bond);
    let value = bond.value + Amount::from_sat(50_000);
    let output = TxOut { value, script_pubkey: commit.script_pubkey() };
    let paid = wallet.pay(vec![output], Amount::from_sat(1_000))?;
    let outpoint = OutPoint::new(paid.compute_txid(), 0);
    let revealed = reveal(&[CommitOutput { outpoint, value, commit }], vec![bond], &key)?;
    for tx in [&paid, &revealed] {
        dev.bitcoin().call("sendrawtransaction", json!([serialize_hex(tx)])).await?;
    }
    dev.client().kedge(&["l1", "mine", "1"]).await?;
    let id = assertion_id(&OutPoint::new(revealed.compute_txid(), 0)).to_string();
    until("the wrong assertion", || async {
        let all = dev.client().rpc.call("kedge_assertions", json!([])).await?;
        let all = all.as_array().context("a list")?;
        Ok(all.iter().any(|one| one["id"] == id.as_str()).then_some(()))
    })
    .await?;
    Ok(id)
}

/// A command that has ended.
#[derive(Debug)]
struct Done {
    status: i32,
    out: String,
    error: String,
}

impl Done {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))
    }

    fn is(self, status: i32, says: &str) -> Result<Self> {
        ensure!(self.status == status, "not {status}: {self:?}");
        ensure!(!self.error.contains("panicked"), "{self:?}");
        let said = format!("{}{}", self.out, self.error).to_lowercase();
        ensure!(said.contains(&says.to_lowercase()), "no word of {says}: {self:?}");
        Ok(self)
    }
}

async fn run(arguments: &[&str]) -> Result<Done> {
    let output = output(arguments).await?;
    Ok(Done {
        status: output.status.code().context("it ended by a signal")?,
        out: String::from_utf8(output.stdout)?,
        error: String::from_utf8(output.stderr)?,
    })
}

async fn verify(file: &Path, more: &[&str]) -> Result<Done> {
    let file = file.display().to_string();
    run(&[&["proof", "verify", &file][..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_built_and_checked_on_a_node_and_from_a_folder() -> Result<()> {
    let liar = Liar::start().await?;
    let (file, l1) = (liar.path("proof"), ["--l1-rpc", &liar.dev.ready.l1_rpc]);
    liar.build(&liar.wrong, &file, &[]).await?.is(0, "kedge proof verify")?;
    let bytes = std::fs::read(&file)?;
    // The same by what the list of assertions shows.
    let listed = run(&["assertions", "--rpc", &liar.dev.ready.rpc]).await?.is(0, "WRONG")?;
    let line = listed.out.lines().find(|line| line.contains("WRONG")).context("a line")?;
    let shown = line.split_whitespace().next().context("a column")?;
    let again = liar.path("again");
    liar.build(shown, &again, &[]).await?.is(0, &liar.wrong)?;
    ensure!(std::fs::read(&again)? == bytes, "another proof");

    let by_node = verify(&file, &[&l1[..], &["--json"]].concat()).await?.is(FRAUD, "")?.json()?;
    ensure!(by_node["verdict"] == "fraud" && by_node["kind"] == "output_root", "{by_node}");
    ensure!(by_node["assertion"]["id"] == liar.wrong.as_str(), "{by_node}");
    ensure!(by_node["assertion"]["stage"] == "proposed", "{by_node}");
    ensure!(by_node["onBitcoin"] == json!([]), "{by_node}");
    verify(&file, &l1).await?.is(FRAUD, "fraud: segment")?;

    // Offline, with nothing else than files. A second export has nothing to add.
    let blocks = liar.export("blocks").await?;
    liar.export("blocks").await?;
    let folder = blocks.display().to_string();
    let offline = ["--blocks", &folder, "--json"];
    let by_folder = verify(&file, &offline).await?.is(FRAUD, "")?.json()?;
    ensure!(by_folder == by_node, "{by_folder} is not {by_node}");

    // What is right is no fraud.
    let id = liar.right["id"].as_str().context("an id")?;
    let right = liar.path("right");
    liar.build(id, &right, &[]).await?.is(FAILED, "is right")?;
    ensure!(!right.exists(), "a file was written");
    let built = liar.build(id, &right, &["--segment", "0"]).await?;
    built.is(0, "this segment is right: the proof will come to no fraud")?;
    verify(&right, &["--blocks", &folder]).await?.is(NO_FRAUD, "no fraud")?;
    verify(&right, &l1).await?.is(NO_FRAUD, "no fraud")?;

    // An existing file is left alone, and reasons are given.
    liar.build(&liar.wrong, &file, &[]).await?.is(FAILED, "something already")?;
    ensure!(std::fs::read(&file)? == bytes, "the file was overwritten");
    let (other, count) = (liar.path("other"), liar.right["claims"].as_array().map_or(0, Vec::len));
    let (last, beyond) = (count.to_string(), (count + 1).to_string());
    let late = liar.build(&liar.wrong, &other, &["--segment", &last]).await?;
    late.is(FAILED, "the first wrong segment is")?;
    let none = liar.build(id, &other, &["--segment", &beyond]).await?;
    none.is(FAILED, "there is no segment")?;
    let nobody = B256::repeat_byte(3).to_string();
    liar.build(&nobody, &other, &[]).await?.is(FAILED, &nobody)?;
    liar.build("0x12", &other, &[]).await?.is(FAILED, "0x12")?;
    ensure!(!other.exists(), "a file was written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_proof_is_shown() -> Result<()> {
    let liar = Liar::start().await?;
    let file = liar.path("proof");
    liar.build(&liar.wrong, &file, &[]).await?.is(0, "")?;
    let path = file.display().to_string();
    let inspect = |more: &[&str]| {
        let arguments: Vec<String> =
            ["proof", "inspect", &path].iter().chain(more).map(|it| (*it).to_owned()).collect();
        async move { run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let alone = inspect(&["--json"]).await?.is(0, "")?.json()?;
    ensure!(alone["assertion"] == liar.wrong.as_str(), "{alone}");
    ensure!(alone["sizes"]["encoded"] == std::fs::metadata(&file)?.len(), "{alone}");
    ensure!(alone["sizes"]["reveals"] == 1, "{alone}");
    ensure!(alone["claims"]["assertedHash"].is_null(), "{alone}");

    let url = &liar.dev.ready.rpc;
    let all = ["--l1-rpc", &liar.dev.ready.l1_rpc, "--rpc", url, "--against", url];
    let shown = inspect(&[&all[..], &["--json"]].concat()).await?.is(0, "")?.json()?;
    ensure!(shown["judged"]["verdict"] == "fraud", "{shown}");
    ensure!(shown["claims"]["assertedHash"] == B256::repeat_byte(1).to_string(), "{shown}");
    ensure!(shown["claims"]["asserted"].is_null(), "only its hash is known: {shown}");
    ensure!(shown["replay"]["reached"] == shown["claims"]["post"], "{shown}");
    ensure!(shown["trusted"]["assertion"]["agrees"] == false, "{shown}");
    // This node holds the true chain, not the asserted one.
    ensure!(shown["against"]["holdsTheAssertedChain"] == false, "{shown}");
    ensure!(shown["against"]["firstDivergence"].is_null(), "{shown}");
    ensure!(shown["against"]["outputRoot"] == shown["claims"]["post"]["outputRoot"], "{shown}");

    let text = inspect(&all).await?.is(0, "Bitcoin holds its hash alone")?;
    text.is(0, "does not hold the asserted chain")?;
    inspect(&["--against", url]).await?.is(USAGE, "--l1-rpc")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_that_are_no_proof_or_no_chain_get_their_own_status() -> Result<()> {
    let liar = Liar::start().await?;
    let file = liar.path("proof");
    liar.build(&liar.wrong, &file, &[]).await?.is(0, "")?;
    let bytes = std::fs::read(&file)?;
    let blocks = liar.export("blocks").await?;
    let folder = blocks.display().to_string();
    let offline = ["--blocks", &folder];

    let (empty, cut, flipped) = (liar.path("empty"), liar.path("cut"), liar.path("flipped"));
    std::fs::write(&empty, [])?;
    std::fs::write(&cut, &bytes[..bytes.len() / 2])?;
    let mut other = bytes.clone();
    let last = other.len() / 2;
    other[last] ^= 0x10;
    std::fs::write(&flipped, other)?;
    let huge = liar.path("huge");
    std::fs::File::create(&huge)?.set_len(1 << 34)?;
    for path in [&empty, &cut, &flipped, &huge] {
        verify(path, &offline).await?.is(MALFORMED, "malformed")?;
    }
    let json = verify(&empty, &[&offline[..], &["--json"]].concat()).await?.json()?;
    ensure!(json["verdict"] == "malformed" && json["reason"] == "encoding", "{json}");
    verify(&file, &[&offline[..], &["--network", "regtest"]].concat())
        .await?
        .is(MALFORMED, "another chain")?;

    // Not to be read: a folder, nothing, and what the system refuses to read, whoever asks.
    let missing = liar.path("missing");
    for path in [liar.dir.path(), &missing, Path::new("/proc/self/mem")] {
        verify(path, &offline).await?.is(FAILED, &path.display().to_string())?;
    }
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    verify(&file, &["--l1-rpc", &nowhere]).await?.is(FAILED, &nowhere)?;
    verify(&file, &[]).await?.is(USAGE, "--blocks")?;
    verify(&file, &[&offline[..], &["--l1-rpc", &nowhere]].concat())
        .await?
        .is(USAGE, "--blocks")?;

    // Folders in which something is wrong.
    let mut names: Vec<_> =
        std::fs::read_dir(&blocks)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    let gap = &names[50];
    let held = std::fs::read(gap)?;
    std::fs::remove_file(gap)?;
    let hash = gap.file_stem().and_then(|name| name.to_str()?.split_once('-')).context("a name")?.1;
    verify(&file, &offline).await?.is(FAILED, hash)?;
    std::fs::write(gap, &held[..held.len() - 1])?;
    verify(&file, &offline).await?.is(FAILED, "not a Bitcoin block")?;
    std::fs::write(gap, hex::encode(&held))?;
    verify(&file, &offline).await?.is(FRAUD, "fraud")?;
    // The chain ends before the assertion.
    let short = liar.path("short");
    std::fs::create_dir(&short)?;
    for name in &names[..50] {
        std::fs::copy(name, short.join(name.file_name().context("a name")?))?;
    }
    let text = short.display().to_string();
    verify(&file, &["--blocks", &text]).await?.is(FAILED, &liar.wrong)?;
    let none = liar.path("none").display().to_string();
    std::fs::create_dir(&none)?;
    verify(&file, &["--blocks", &none]).await?.is(FAILED, "none of the 0 blocks")?;
    Ok(())
}
