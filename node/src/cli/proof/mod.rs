//! `kedge proof`: builds fraud proofs, judges them on nothing but Bitcoin blocks, and shows what is in them.

mod build;
mod inspect;
mod verify;

use super::{Client, L1Credentials, network};
use crate::{
    l1::RpcClient,
    proof::{BitcoinChain, BlockSource, Folder, NodeBlocks, ProofFile, file},
};
use alloy_primitives::B256;
use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use kedge_fraud_proof::Malformed;
use kedge_genesis::{L1Height, Network, Params};
use std::{path::PathBuf, process::ExitCode, sync::Arc};

/// Exit status of `kedge proof verify` for a proof of what is right.
const NO_FRAUD: u8 = 3;
/// Exit status of `kedge proof verify` for what is no proof.
const MALFORMED: u8 = 4;

const STATUSES: &str = "\
Exit status:
  0  fraud is proven
  1  no verdict: a file or Bitcoin block cannot be read, or the assertion is not in these blocks
  2  the command line is wrong
  3  no fraud: the segment is as the assertion says
  4  malformed: it proves nothing";

#[derive(Debug, Subcommand)]
pub(super) enum ProofCommand {
    /// Have a node build the proof that an assertion is wrong, and write it to a new file
    Build(BuildArgs),
    /// Judge a proof by Bitcoin blocks alone
    #[command(after_help = STATUSES)]
    Verify(VerifyArgs),
    /// Show what a proof claims and weighs, and with Bitcoin blocks what its segment really does
    Inspect(InspectArgs),
}

#[derive(Args, Debug)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    client: Client,
    /// The assertion: its id, or as `kedge assertions` shows it
    #[arg(long, value_name = "ID")]
    assertion: String,
    /// The segment, from 0; by default the first wrong one
    #[arg(long, value_name = "N")]
    segment: Option<u32>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Where Bitcoin's blocks are.
#[derive(Args, Debug)]
struct BlockArgs {
    /// Bitcoin Core's RPC endpoint
    #[arg(long, value_name = "URL")]
    l1_rpc: Option<String>,
    #[command(flatten)]
    credentials: L1Credentials,
    /// Folder of raw Bitcoin blocks, one a file, as bytes or in hexadecimal
    #[arg(long, value_name = "DIR")]
    blocks: Option<PathBuf>,
    /// Which network; by default the one that the proof names
    #[arg(long, value_name = "NAME", value_parser = network)]
    network: Option<Network>,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("bitcoin").required(true).args(["l1_rpc", "blocks"])))]
pub(super) struct VerifyArgs {
    /// The proof
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("bitcoin").args(["l1_rpc", "blocks"])))]
pub(super) struct InspectArgs {
    /// The proof
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    /// A node that you trust: what it says about the assertion and the segment's blocks
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// A node that holds the asserted chain: where it differs from the true one
    #[arg(long, value_name = "URL", requires = "bitcoin")]
    against: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: ProofCommand) -> anyhow::Result<ExitCode> {
    match command {
        ProofCommand::Build(args) => build::build(args).await.map(|()| ExitCode::SUCCESS),
        ProofCommand::Verify(args) => verify::verify(args).await,
        ProofCommand::Inspect(args) => inspect::inspect(args).await.map(|()| ExitCode::SUCCESS),
    }
}

/// The proof in a file, or why it is none.
fn open(
    path: &std::path::Path,
    network: Option<Network>,
) -> anyhow::Result<Result<ProofFile, Malformed>> {
    let bytes =
        file::read(path).with_context(|| format!("cannot read the proof {}", path.display()))?;
    Ok(ProofFile::parse(bytes, network)?)
}

impl BlockArgs {
    /// The chain of blocks, none when the command line names none.
    async fn chain(&self, params: &'static Params) -> anyhow::Result<Option<BitcoinChain>> {
        let source: Box<dyn BlockSource> = match (&self.l1_rpc, &self.blocks) {
            // Not both: they are one group.
            (Some(url), _) => {
                let bitcoin = RpcClient::new(url, self.credentials.auth()?)?;
                Box::new(NodeBlocks::open(Arc::new(bitcoin), params).await?)
            }
            (None, Some(dir)) => {
                let dir = dir.clone();
                let open = move || Folder::open(&dir, params);
                Box::new(tokio::task::spawn_blocking(open).await??)
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(BitcoinChain::new(params, source)))
    }
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress(from: L1Height, to: L1Height) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(to.since(from)));
    let style = ProgressStyle::with_template("Bitcoin blocks {bar:40} {pos}/{len} {eta}");
    // The template is valid; another one would only look different.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// A Bitcoin hash as Bitcoin shows it.
fn bitcoin_hash(hash: B256) -> bitcoin::BlockHash {
    bitcoin::hashes::Hash::from_byte_array(hash.0)
}
