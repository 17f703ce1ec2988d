//! `kedge l1 export-blocks`: Bitcoin's blocks as files.

use super::{L1Args, network};
use crate::{
    l1::{RpcClient, check_ready},
    proof::{BitcoinChain, NodeBlocks, file},
};
use anyhow::{Context, ensure};
use bitcoin::consensus::serialize;
use clap::Args;
use kedge_genesis::{L1Height, Network};
use serde_json::json;
use std::{fs, path::PathBuf, sync::Arc};

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// The folder; files that are there already are left alone
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Which network: its Bitcoin is written from the block after its start on
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = network)]
    network: Network,
    #[command(flatten)]
    l1: L1Args,
    /// The last block to write, by height; by default the tip
    #[arg(long, value_name = "HEIGHT")]
    to: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes one file per block, `HEIGHT-HASH.block`. A folder that was exported before gets what is new.
pub(super) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let params = args.network.params();
    let bitcoin = RpcClient::new(&args.l1.l1_rpc, args.l1.credentials.auth()?)?;
    let info = check_ready(&bitcoin, params.bitcoin, params.l1_start.height.next()).await?;
    let to = args.to.map_or(info.height, L1Height);
    ensure!(to <= info.height, "--to {to}: Bitcoin's tip is at height {}", info.height);
    let source = NodeBlocks::open(Arc::new(bitcoin), params).await?;
    let (dir, chain) = (args.dir.clone(), BitcoinChain::new(params, Box::new(source)));
    let write = move || write_blocks(&dir, chain, to);
    let (written, kept) = tokio::task::spawn_blocking(write).await??;
    if args.json {
        println!("{}", json!({ "to": to.0, "written": written, "kept": kept }));
    } else {
        let dir = args.dir.display();
        println!("wrote {written} blocks up to {to} into {dir}; {kept} were there already");
    }
    Ok(())
}

fn write_blocks(
    dir: &std::path::Path,
    mut chain: BitcoinChain,
    to: L1Height,
) -> anyhow::Result<(u32, u32)> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let bar = super::proof::progress(chain.at().height, to);
    let (mut written, mut kept) = (0, 0);
    while chain.at().height < to {
        let Some(l1) = chain.advance()? else { break };
        let path = dir.join(format!("{:07}-{}.block", l1.at.height.0, l1.block.block_hash()));
        if path.exists() {
            kept += 1;
        } else {
            file::write_new(&path, &serialize(&*l1.block))
                .with_context(|| format!("cannot write {}", path.display()))?;
            written += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((written, kept))
}
