//! The suites of `tests/clients`: what dApp teams do with their libraries and tools, against a running `kedge dev`.

use crate::{
    DEADLINE,
    kedge::Dev,
    process::read,
    tools::{modules, prefix, solc},
};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
};
use tempfile::TempDir;
use tokio::{process::Command, time::timeout};

/// Where the suites are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A `kedge dev` that mines when it is asked to, and what the suites need to know about it.
#[derive(Debug)]
pub struct Live {
    /// The node.
    pub dev: Dev,
    /// ABI and bytecode of the contracts of `tests/clients/foundry/src`, by name.
    pub contracts: Value,
    dir: TempDir,
}

impl Live {
    /// Compiles the contracts and starts a node.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let (compile, contracts) = (sources().join("compile.cjs"), sources().join("foundry/src"));
        let (compiled, dev) = tokio::try_join!(
            read(Path::new("node"), [&compile, &contracts]),
            Dev::start(dir.path(), &["--l1-block-time=0"]),
        )?;
        let contracts: Value = serde_json::from_str(&compiled).context("compiled contracts")?;
        let accounts = dev.ready.accounts.iter();
        let live = json!({
            "rpc": dev.ready.rpc,
            "chainId": dev.ready.chain_id,
            "accounts": accounts.map(|one| json!({"address": one.address, "key": one.key})).collect::<Vec<_>>(),
            "contracts": contracts,
        });
        std::fs::write(dir.path().join("live.json"), live.to_string())?;
        Ok(Self { dev, contracts, dir })
    }

    /// A folder that is gone when this is.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a suite of Node.js's test runner.
    ///
    /// # Errors
    /// When one of its tests fails, with what the runner says about it, and when none ran.
    pub async fn node(&self, suite: &str) -> Result<()> {
        let mut command = Command::new("node");
        command.arg("--test-reporter=spec").arg(sources().join(suite));
        let told = self.suite(suite, command).await?;
        let count = |what: &str| -> Result<u32> {
            let mut words = told.lines().filter_map(|line| line.split_once(what)?.1.parse().ok());
            words.next_back().with_context(|| format!("no count of {what}in\n{told}"))
        };
        let (all, passed) = (count("tests ")?, count("pass ")?);
        ensure!(all > 0 && passed == all, "{passed} of {all} tests passed:\n{told}");
        Ok(())
    }

    /// Runs a suite of Python's `unittest`.
    ///
    /// # Errors
    /// When one of its tests fails, with what the runner says about it, and when none ran.
    pub async fn python(&self, suite: &str) -> Result<()> {
        let mut command = Command::new(prefix()?.join("python/bin/python"));
        // No compiled files beside the sources.
        command.arg("-B").arg(sources().join(suite));
        let told = self.suite(suite, command).await?;
        let last = told.lines().last();
        ensure!(last == Some("OK") && !told.contains("\nRan 0 tests"), "not all passed:\n{told}");
        Ok(())
    }

    /// Runs a suite to its end and gives what it said.
    async fn suite(&self, name: &str, mut command: Command) -> Result<String> {
        let log = self.dir.path().join(format!("{name}.log"));
        let file = File::create(&log)?;
        command
            .env("KEDGE_LIVE", self.dir.path().join("live.json"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        let status = timeout(DEADLINE, command.status()).await;
        let told = std::fs::read_to_string(&log)?;
        match status {
            Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => Ok(told),
            Ok(status) => bail!("{name}: {status:?}\n{told}"),
            Err(_) => bail!("{name} does not end:\n{told}"),
        }
    }
}

/// A copy of the Foundry project `tests/clients/foundry`, in which `forge` leaves what it makes.
#[derive(Debug)]
pub struct Foundry {
    root: PathBuf,
    solc: PathBuf,
}

impl Foundry {
    /// Copies it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(scratch: &Path) -> Result<Self> {
        let root = scratch.join("foundry");
        for folder in ["src", "script", "test"] {
            std::fs::create_dir_all(root.join(folder))?;
            for entry in std::fs::read_dir(sources().join("foundry").join(folder))? {
                let entry = entry?;
                std::fs::copy(entry.path(), root.join(folder).join(entry.file_name()))?;
            }
        }
        std::fs::copy(sources().join("foundry/foundry.toml"), root.join("foundry.toml"))?;
        let solc = solc(scratch)?;
        Ok(Self { root, solc })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs `forge` with variables in its environment: whether it succeeded, and what it said.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub async fn forge(
        &self,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<(bool, String)> {
        let mut command = Command::new(modules()?.join("@foundry-rs/forge-linux-amd64/bin/forge"));
        command
            .args(arguments)
            .arg("--root")
            .arg(&self.root)
            .arg("--use")
            .arg(&self.solc)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(DEADLINE, command.output()).await.context("forge does not end")??;
        let mut told = String::from_utf8_lossy(&output.stdout).into_owned();
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), told))
    }
}
