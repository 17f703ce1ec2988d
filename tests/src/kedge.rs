//! Kedge processes: the binary that people run, driven through its command line.

use crate::{
    process::{Process, free_port, read, run},
    rpc::Rpc,
    until,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};
use tokio::time::timeout;

/// The `kedge` binary beside this one, or `KEDGE_EXE`.
pub fn binary() -> PathBuf {
    std::env::var_os("KEDGE_EXE").map_or_else(
        || {
            let test = std::env::current_exe().expect("a running program has a path");
            let dir = test.parent().expect("a program lies in a directory");
            // Test binaries lie in `deps`, binaries one level above.
            let dir = dir.parent().filter(|_| dir.ends_with("deps")).unwrap_or(dir);
            dir.join("kedge")
        },
        PathBuf::from,
    )
}

/// Runs a client command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started or does not end.
pub async fn output(arguments: &[&str]) -> Result<Output> {
    run(&binary(), arguments).await
}

/// A funded account of `kedge dev`.
#[derive(Clone, Debug)]
pub struct Account {
    /// Address, with `0x`.
    pub address: String,
    /// Secret key, with `0x`.
    pub key: String,
}

impl Account {
    /// The first accounts of the mnemonic that development tools share.
    pub fn tests() -> [Self; 2] {
        [
            (
                "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
                "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
            ),
            (
                "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
            ),
        ]
        .map(|(address, key)| Self { address: address.to_owned(), key: key.to_owned() })
    }

    /// A file with the secret key that only its owner can read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn key_file(&self, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(format!("{}.key", self.address));
        std::fs::write(&path, &self.key)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        Ok(path)
    }
}

/// What `kedge dev --json` prints when it is ready.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The JSON-RPC endpoint.
    pub rpc: String,
    /// The endpoint with Bitcoin Core's calls.
    pub l1_rpc: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The vault's address.
    pub vault: String,
    /// The funded accounts.
    pub accounts: Vec<Account>,
}

impl Ready {
    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(value["event"] == "ready", "not ready: {line}");
        let text = |value: &Value, name: &str| {
            let found = value[name].as_str().map(str::to_owned);
            found.with_context(|| format!("no {name} in {line}"))
        };
        let accounts = value["accounts"].as_array().context("no accounts")?;
        Ok(Self {
            rpc: text(&value, "rpc")?,
            l1_rpc: text(&value, "l1Rpc")?,
            chain_id: value["chainId"].as_u64().context("no chainId")?,
            vault: text(&value, "vault")?,
            accounts: accounts
                .iter()
                .map(|account| {
                    Ok(Account {
                        address: text(account, "address")?,
                        key: text(account, "privateKey")?,
                    })
                })
                .collect::<Result<_>>()?,
        })
    }
}

/// A running `kedge dev`.
#[derive(Debug)]
pub struct Dev {
    /// The process.
    pub process: Process,
    /// What it said.
    pub ready: Ready,
    ports: (u16, u16),
    options: Vec<String>,
    datadir: PathBuf,
}

impl Dev {
    /// Starts one in a directory and waits for its ready line.
    ///
    /// # Errors
    /// When that does not come.
    pub async fn start(dir: &Path, options: &[&str]) -> Result<Self> {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self::open(dir.join("dev"), (free_port(), free_port()), options).await
    }

    /// Kills it with SIGKILL and starts it again on the same ports and data.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        self.reopen().await
    }

    /// Kills it with SIGKILL and, while it starts again, after this time once more.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn stumble(&mut self, after: Duration) -> Result<()> {
        self.process.kill().await?;
        self.process = Self::launch(&self.datadir, self.ports, &self.options)?;
        // It may be ready or not by then.
        let _ = timeout(after, self.process.line()).await;
        self.process.kill().await
    }

    /// Starts it again after it has ended.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn reopen(&mut self) -> Result<()> {
        *self = Self::open(self.datadir.clone(), self.ports, self.options.clone()).await?;
        Ok(())
    }

    fn launch(datadir: &Path, ports: (u16, u16), options: &[String]) -> Result<Process> {
        let mut arguments = vec![
            "dev".to_owned(),
            "--json".to_owned(),
            "--verify-witness".to_owned(),
            format!("--datadir={}", datadir.display()),
            format!("--rpc-port={}", ports.0),
            format!("--l1-rpc-port={}", ports.1),
        ];
        arguments.extend(options.iter().cloned());
        let dir = datadir.parent().context("a data directory has a parent")?;
        Process::start("dev", &binary(), &arguments, dir)
    }

    async fn open(datadir: PathBuf, ports: (u16, u16), options: Vec<String>) -> Result<Self> {
        let mut process = Self::launch(&datadir, ports, &options)?;
        let ready = Ready::parse(&process.line().await?)?;
        Ok(Self { process, ready, ports, options, datadir })
    }

    /// Its data directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.ready.rpc)
    }

    /// A client of its Bitcoin.
    pub fn bitcoin(&self) -> Rpc {
        Rpc::new(&self.ready.l1_rpc)
    }
}

/// A running `kedge node`.
#[derive(Debug)]
pub struct Node {
    /// The process.
    pub process: Process,
    port: u16,
    arguments: Vec<String>,
    dir: PathBuf,
    name: String,
}

impl Node {
    /// Starts one with its data in `<dir>/<name>` and waits for its ready line.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(dir: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let port = free_port();
        let mut arguments = vec![
            "node".to_owned(),
            "--json".to_owned(),
            "--verify-witness".to_owned(),
            format!("--datadir={}", dir.join(name).display()),
            format!("--rpc-port={port}"),
        ];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        Self::open(dir.to_owned(), name.to_owned(), port, arguments).await
    }

    /// Kills it with SIGKILL and starts it again on the same port and data.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        let arguments = self.arguments.clone();
        *self = Self::open(self.dir.clone(), self.name.clone(), self.port, arguments).await?;
        Ok(())
    }

    async fn open(dir: PathBuf, name: String, port: u16, arguments: Vec<String>) -> Result<Self> {
        let process = ready(&dir, &name, &arguments).await?;
        Ok(Self { process, port, arguments, dir, name })
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(format!("http://127.0.0.1:{}", self.port))
    }
}

/// A running `kedge signer`.
#[derive(Debug)]
pub struct Signer {
    /// The process.
    pub process: Process,
    arguments: Vec<String>,
    dir: PathBuf,
    name: String,
}

impl Signer {
    /// Starts the signers of a test network, who know each other's ports, each on a node of its own.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start_all(dir: &Path, count: usize, options: &[&str]) -> Result<Vec<Self>> {
        let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
        let mut signers = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let name = format!("signer-{index}");
            let mut arguments = vec![
                "signer".to_owned(),
                "--json".to_owned(),
                format!("--datadir={}", dir.join(&name).display()),
                format!("--dev-key={index}"),
                format!("--listen-port={port}"),
            ];
            let peers = ports.iter().filter(|peer| *peer != port);
            arguments.extend(peers.map(|peer| format!("--peer=http://127.0.0.1:{peer}")));
            arguments.extend(options.iter().map(|option| (*option).to_owned()));
            signers.push(Self::open(dir.to_owned(), name, arguments).await?);
        }
        Ok(signers)
    }

    /// Kills it with SIGKILL and starts it again on the same port and data.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill().await?;
        *self = Self::open(self.dir.clone(), self.name.clone(), self.arguments.clone()).await?;
        Ok(())
    }

    async fn open(dir: PathBuf, name: String, arguments: Vec<String>) -> Result<Self> {
        let process = ready(&dir, &name, &arguments).await?;
        Ok(Self { process, arguments, dir, name })
    }
}

/// Starts a role and waits for its ready line.
async fn ready(dir: &Path, name: &str, arguments: &[String]) -> Result<Process> {
    let mut process = Process::start(name, &binary(), arguments, dir)?;
    let line = process.line().await?;
    ensure!(line.contains("ready"), "{name} is not ready: {line}");
    Ok(process)
}

/// A block as two nodes must agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Block number.
    pub number: u64,
    /// Block hash.
    pub hash: String,
    /// State root.
    pub state_root: String,
}

/// A user of a node: its RPC and its command line.
#[derive(Clone, Debug)]
pub struct Client {
    /// The JSON-RPC endpoint.
    pub rpc: Rpc,
}

impl Client {
    /// A user of this endpoint.
    pub fn new(url: impl Into<String>) -> Self {
        Self { rpc: Rpc::new(url) }
    }

    /// What a client command answers with `--json`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kedge(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["--json", "--rpc", self.rpc.url()]);
        let text = read(&binary(), all).await?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// The block of a tag or a number.
    ///
    /// # Errors
    /// When there is none.
    pub async fn head(&self, tag: &str) -> Result<Head> {
        let block = self.rpc.call("eth_getBlockByNumber", json!([tag, false])).await?;
        let text = |name: &str| {
            block[name].as_str().map(str::to_owned).with_context(|| format!("no {name} at {tag}"))
        };
        let (hash, state_root) = (text("hash")?, text("stateRoot")?);
        Ok(Head { number: quantity(&block["number"])?.try_into()?, hash, state_root })
    }

    /// The block of a number.
    ///
    /// # Errors
    /// When there is none.
    pub async fn block(&self, number: u64) -> Result<Head> {
        self.head(&format!("{number:#x}")).await
    }

    /// Balance in wei at `latest`.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn balance(&self, address: &str) -> Result<u128> {
        quantity(&self.rpc.call("eth_getBalance", json!([address, "latest"])).await?)
    }

    /// Waits for the receipt of a transaction.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn receipt(&self, hash: &str) -> Result<Value> {
        until(&format!("the receipt of {hash}"), || async {
            let receipt = self.rpc.call("eth_getTransactionReceipt", json!([hash])).await?;
            Ok((!receipt.is_null()).then_some(receipt))
        })
        .await
    }

    /// Waits until a tag names a block of at least this number.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn reaches(&self, tag: &str, number: u64) -> Result<Head> {
        until(&format!("{tag} reaches block {number}"), || async {
            let head = self.head(tag).await?;
            Ok((head.number >= number).then_some(head))
        })
        .await
    }
}

/// A hexadecimal quantity.
///
/// # Errors
/// When it is none.
pub fn quantity(value: &Value) -> Result<u128> {
    let text = value.as_str().with_context(|| format!("not a quantity: {value}"))?;
    let digits = text.strip_prefix("0x").with_context(|| format!("not a quantity: {text}"))?;
    Ok(u128::from_str_radix(digits, 16)?)
}

/// How long Ctrl-C may take.
pub const STOP: Duration = Duration::from_secs(2);
