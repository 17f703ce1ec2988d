//! The clients that people use, from npm: `cast`, `forge`, and programs on viem and ethers.

use crate::process::read;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The npm prefix with the pinned tools, `KEDGE_TOOLS`.
pub(crate) fn prefix() -> Result<PathBuf> {
    let dir = std::env::var_os("KEDGE_TOOLS").context("KEDGE_TOOLS is not set: run `make test`")?;
    Ok(dir.into())
}

/// Its packages.
pub(crate) fn modules() -> Result<PathBuf> {
    Ok(prefix()?.join("node_modules"))
}

/// Where the sources of the tests' own tools are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}

/// The path of `anvil`.
///
/// # Errors
/// When the tools are not there.
pub fn anvil() -> Result<PathBuf> {
    Ok(modules()?.join("@foundry-rs/anvil-linux-amd64/bin/anvil"))
}

/// `cast` against one node.
#[derive(Clone, Debug)]
pub struct Cast {
    rpc: String,
}

impl Cast {
    /// A client of this URL.
    pub fn new(rpc: impl Into<String>) -> Self {
        Self { rpc: rpc.into() }
    }

    /// What a command prints.
    ///
    /// # Errors
    /// When it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let cast = modules()?.join("@foundry-rs/cast-linux-amd64/bin/cast");
        // The place of a mapping's entry is computed: that command knows no node.
        let url: &[&str] =
            if arguments.first() == Some(&"index") { &[] } else { &["--rpc-url", &self.rpc] };
        read(&cast, with_options(arguments, url)).await
    }

    /// What a command prints as JSON.
    ///
    /// # Errors
    /// When it fails.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.run(&with_options(arguments, &["--json"])).await?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }
}

/// A command with further options, which go before `--create`: what follows that is the code and its arguments.
fn with_options<'a>(arguments: &[&'a str], options: &[&'a str]) -> Vec<&'a str> {
    let create = arguments.iter().position(|argument| *argument == "--create");
    let (own, code) = arguments.split_at(create.unwrap_or(arguments.len()));
    [own, options, code].concat()
}

/// Writes a program with the command line of the native `solc` that runs the compiler from npm.
pub(crate) fn solc(dir: &Path) -> Result<PathBuf> {
    let solc = dir.join("solc");
    std::fs::write(
        &solc,
        format!(
            "#!/bin/sh\nNODE_PATH='{}' exec node '{}' \"$@\"\n",
            modules()?.display(),
            sources().join("solc.cjs").display()
        ),
    )?;
    std::fs::set_permissions(&solc, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(solc)
}

/// Deploys a contract of `tests/tools` with `forge create` and gives what that prints.
///
/// # Errors
/// When it fails.
pub async fn forge_create(rpc: &str, key: &str, contract: &str, scratch: &Path) -> Result<Value> {
    let forge = modules()?.join("@foundry-rs/forge-linux-amd64/bin/forge");
    let project = scratch.join("forge");
    std::fs::create_dir_all(project.join("src"))?;
    std::fs::copy(
        sources().join(format!("{contract}.sol")),
        project.join(format!("src/{contract}.sol")),
    )?;
    let solc = solc(&project)?;
    let root = project.display().to_string();
    let text = read(
        &forge,
        [
            "create",
            &format!("src/{contract}.sol:{contract}"),
            "--root",
            &root,
            "--use",
            &solc.display().to_string(),
            "--offline",
            "--rpc-url",
            rpc,
            "--private-key",
            key,
            "--broadcast",
            "--json",
        ],
    )
    .await?;
    // What it says about compiling comes first.
    let json = text.find('{').and_then(|start| text.get(start..)).context("no JSON from forge")?;
    serde_json::from_str(json).with_context(|| format!("not JSON: {json}"))
}

/// Runs a program of `tests/tools` on Node.js with the npm packages and gives what it prints.
///
/// # Errors
/// When it fails.
pub async fn node(program: &str, arguments: &[&str]) -> Result<String> {
    let mut all = vec![sources().join(program).display().to_string()];
    all.push(prefix()?.display().to_string());
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    read(Path::new("node"), all).await
}
