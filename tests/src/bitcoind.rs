//! Bitcoin Core in regtest mode.

use crate::{
    l1::TestBitcoin,
    process::{Process, free_port, read, run},
    rpc::Rpc,
    wallet::Wallet,
};
use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use bitcoin::{
    Address, Block, BlockHash, Network, Script, Transaction,
    consensus::encode::{deserialize_hex, serialize_hex},
};
use kedge::l1::{Auth, Bitcoin, RpcClient};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A `bitcoind -regtest` of its own.
#[derive(Debug)]
pub struct Bitcoind {
    process: Process,
    dir: TempDir,
    port: u16,
    rpc: Rpc,
}

impl Bitcoind {
    /// Starts one and waits until it answers. The executable is `BITCOIND_EXE`, with `bitcoin-cli` beside it.
    ///
    /// # Errors
    /// When there is none or when it does not come up.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_port();
        let mut arguments = vec![
            "-regtest".to_owned(),
            format!("-datadir={}", dir.path().display()),
            format!("-rpcport={port}"),
            "-printtoconsole=0".to_owned(),
            "-listen=0".to_owned(),
            "-connect=0".to_owned(),
            "-dnsseed=0".to_owned(),
            // Regtest has no other blocks than those mined here: they are all recent enough.
            "-maxtipage=9999999999".to_owned(),
        ];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let process = Process::start("bitcoind", &executable("bitcoind")?, arguments, dir.path())?;
        let mut this = Self { process, dir, port, rpc: Rpc::new("") };
        // Waits for the cookie and for the end of the warm-up.
        this.cli(&["-rpcwait", "-rpcwaittimeout=60", "getblockchaininfo"]).await?;
        let cookie = std::fs::read_to_string(this.cookie())?;
        let (user, password) = cookie.split_once(':').context("a cookie is user:password")?;
        this.rpc = Rpc::new(this.url()).with_auth(user, password);
        Ok(this)
    }

    /// Where its RPC is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its cookie file.
    pub fn cookie(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    /// Its RPC.
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Runs `bitcoin-cli`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec![
            "-regtest".to_owned(),
            format!("-datadir={}", self.dir.path().display()),
            format!("-rpcport={}", self.port),
        ];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        read(&executable("bitcoin-cli")?, all).await
    }

    /// Mines blocks to an address.
    ///
    /// # Errors
    /// When bitcoind refuses.
    pub async fn mine(&self, blocks: u32, to: &Address) -> Result<Vec<BlockHash>> {
        mine(&self.rpc, blocks, to).await
    }

    /// Mines a block whenever the interval has passed, until the handle is dropped.
    pub fn mine_every(&self, interval: Duration, to: &Address) -> Miner {
        let (rpc, to) = (self.rpc.clone(), to.clone());
        Miner(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            loop {
                ticks.tick().await;
                // A bitcoind that is being restarted gets its next block later.
                let _ = mine(&rpc, 1, &to).await;
            }
        }))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// A wallet with `coins` mature coinbase outputs.
    ///
    /// # Errors
    /// When mining fails.
    pub async fn funded_wallet(&self, coins: u32) -> Result<Wallet> {
        let mut wallet = Wallet::new();
        let hashes = self.mine(coins, &wallet.address()).await?;
        for hash in hashes {
            wallet.add_coinbase(&block(&self.rpc, &hash.to_string()).await?);
        }
        // A coinbase output can be spent when a hundred blocks are on top.
        self.mine(100, &wallet.address()).await?;
        Ok(wallet)
    }
}

/// Bitcoin Core under a test's control: blocks come when they are asked for, and its clock moves with them, so
/// that no two blocks are equal.
pub struct CoreBitcoin {
    bitcoind: Bitcoind,
    client: Arc<RpcClient>,
    /// Seconds that its clock is past the genesis block's time.
    clock: AtomicU32,
}

impl std::fmt::Debug for CoreBitcoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreBitcoin").field("bitcoind", &self.bitcoind).finish_non_exhaustive()
    }
}

/// Time of regtest's genesis block, Unix seconds.
const GENESIS_TIME: u32 = 1_296_688_602;
/// Seconds from block to block.
const BLOCK_INTERVAL: u32 = 600;

impl CoreBitcoin {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start() -> Result<Self> {
        let bitcoind = Bitcoind::start().await?;
        let client = RpcClient::new(&bitcoind.url(), Auth::Cookie(bitcoind.cookie()))?;
        Ok(Self { bitcoind, client: Arc::new(client), clock: AtomicU32::new(0) })
    }

    /// Mines many blocks at once.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn mine_many(&self, to: &Script, blocks: u32) -> Result<()> {
        self.tick(blocks).await?;
        self.bitcoind.mine(blocks, &address(to)?).await.map(drop)
    }

    /// Moves the clock on by so many blocks.
    async fn tick(&self, blocks: u32) -> Result<()> {
        let by = blocks * BLOCK_INTERVAL;
        let now = GENESIS_TIME + self.clock.fetch_add(by, Ordering::Relaxed) + by;
        self.bitcoind.rpc().call("setmocktime", json!([now])).await.map(drop)
    }
}

#[async_trait]
impl TestBitcoin for CoreBitcoin {
    fn client(&self) -> Arc<dyn Bitcoin> {
        self.client.clone()
    }

    async fn mine(&self, to: &Script) -> Result<BlockHash> {
        self.tick(1).await?;
        let hashes = self.bitcoind.mine(1, &address(to)?).await?;
        hashes.first().copied().context("no block was mined")
    }

    async fn mine_exactly(&self, to: &Script, txs: &[Transaction]) -> Result<BlockHash> {
        self.tick(1).await?;
        let txs: Vec<String> = txs.iter().map(serialize_hex).collect();
        let params = json!([address(to)?.to_string(), txs]);
        let made = self.bitcoind.rpc().call("generateblock", params).await?;
        Ok(made["hash"].as_str().context("generateblock names no hash")?.parse()?)
    }

    async fn take_back(&self, depth: u32) -> Result<()> {
        let Some(above) = depth.checked_sub(1) else { return Ok(()) };
        let info = self.client.chain_info().await?;
        let height = info.height.0.checked_sub(above).context("the chain has fewer blocks")?;
        let hash = self.client.block_hash(kedge_genesis::L1Height(height)).await?;
        let hash = hash.context("the block is in the chain")?;
        self.bitcoind.rpc().call("invalidateblock", json!([hash])).await.map(drop)
    }
}

fn address(script: &Script) -> Result<Address> {
    Ok(Address::from_script(script, Network::Regtest)?)
}

/// A background miner.
#[derive(Debug)]
pub struct Miner(JoinHandle<()>);

impl Drop for Miner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn mine(rpc: &Rpc, blocks: u32, to: &Address) -> Result<Vec<BlockHash>> {
    let hashes = rpc.call("generatetoaddress", json!([blocks, to.to_string()])).await?;
    Ok(serde_json::from_value(hashes)?)
}

/// A block of any Bitcoin that speaks Core's RPC.
///
/// # Errors
/// When it does not have the block.
pub async fn block(rpc: &Rpc, hash: &str) -> Result<Block> {
    match rpc.call("getblock", json!([hash, 0])).await? {
        Value::String(hex) => Ok(deserialize_hex(&hex)?),
        other => bail!("getblock answers {other}"),
    }
}

/// `bitcoind` or `bitcoin-cli`.
///
/// # Errors
/// When `BITCOIND_EXE` is not set.
pub fn executable(name: &str) -> Result<PathBuf> {
    let bitcoind = PathBuf::from(
        std::env::var_os("BITCOIND_EXE").context("BITCOIND_EXE is not set: run `make test`")?,
    );
    Ok(bitcoind.with_file_name(name))
}

/// Whether an executable starts at all, for a message that says what is wrong.
///
/// # Errors
/// When it does not.
pub async fn version() -> Result<String> {
    let output = run(&executable("bitcoind")?, ["-version"]).await?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}
