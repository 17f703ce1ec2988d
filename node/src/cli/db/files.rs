//! `kedge db snapshot`, `kedge db restore`, `kedge export`, `kedge import`.

use super::{Datadir, bar, size};
use crate::{
    block_file::{Imported, import_blocks, write_blocks},
    engine::EngineOptions,
    snapshot::{self, Manifest},
};
use anyhow::{Context, ensure};
use clap::Args;
use kedge_genesis::L2Number;
use kedge_store::L2Rows;
use serde_json::json;
use std::{
    fs::{self, File},
    io::{BufReader, BufWriter},
    path::{Path, PathBuf},
};

#[derive(Args, Debug)]
pub(in super::super) struct SnapshotArgs {
    /// The folder; it is created, or empty
    #[arg(value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    dir: Datadir,
    /// Leave out this node's own Bitcoin transactions, wallets and waiting transactions: to give it to others
    #[arg(long)]
    without_own_records: bool,
}

#[derive(Args, Debug)]
pub(in super::super) struct RestoreArgs {
    /// The snapshot's folder
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    dir: Datadir,
}

#[derive(Args, Debug)]
pub(in super::super) struct ExportArgs {
    /// The file; it is created
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) dir: Datadir,
    /// The first block
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(super) from: u64,
    /// The last block; by default the latest
    #[arg(long, value_name = "NUMBER")]
    pub(super) to: Option<u64>,
}

#[derive(Args, Debug)]
pub(in super::super) struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) dir: Datadir,
}

pub(super) fn snapshot(args: &SnapshotArgs) -> anyhow::Result<()> {
    let (store, params) = (args.dir.store()?, args.dir.params());
    let bar = bar(0, "bytes");
    let own = !args.without_own_records;
    let manifest = snapshot::create(&store, params, &args.to, own, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    tell(args.dir.json, "wrote", &manifest)
}

pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let params = args.dir.params();
    let manifest = snapshot::manifest(&args.from, params)?;
    let bar = bar(manifest.size(), "bytes");
    let progress = |done| bar.set_position(done);
    snapshot::restore(&args.from, &manifest, params, &args.dir.datadir, progress)?;
    bar.finish_and_clear();
    tell(args.dir.json, "restored", &manifest)
}

fn tell(as_json: bool, what: &str, manifest: &Manifest) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(manifest)?);
    } else {
        println!(
            "{what} a snapshot of {} at block {} ({}), Bitcoin block {}: {} files, {}",
            manifest.network,
            manifest.latest,
            manifest.latest_hash,
            manifest.l1_height,
            manifest.files.len(),
            size(manifest.size())
        );
    }
    Ok(())
}

pub(in super::super) async fn export(args: ExportArgs) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || write(&args)).await?
}

fn write(args: &ExportArgs) -> anyhow::Result<()> {
    let store = args.dir.store()?;
    let reader = store.reader();
    let latest = reader.latest()?.unwrap_or_default().0;
    let (first, last) = (args.from, args.to.unwrap_or(latest));
    ensure!(first <= latest, "--from {first}: the latest block is {latest}");
    ensure!(last <= latest, "--to {last}: the latest block is {latest}");
    ensure!(first <= last, "--from {first} is above --to {last}");
    // Whole or not at all.
    let path = &args.file;
    ensure!(!path.exists(), "{} exists; choose another file", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let cannot = || format!("cannot write {}", path.display());
    let file = tempfile::Builder::new()
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .with_context(cannot)?;
    let bar = bar(last + 1 - first, "blocks");
    let mut out = BufWriter::new(file);
    let count = write_blocks(&reader, L2Number(first), L2Number(last), &mut out, || bar.inc(1))?;
    let file = out.into_inner().map_err(|error| error.into_error()).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    file.persist_noclobber(path).map_err(|error| error.error).with_context(cannot)?;
    bar.finish_and_clear();
    let bytes = fs::metadata(path)?.len();
    if args.dir.json {
        println!("{}", json!({ "from": first, "to": last, "blocks": count, "bytes": bytes }));
    } else {
        println!("wrote {count} blocks, {first} to {last}, {}", size(bytes));
    }
    Ok(())
}

pub(in super::super) async fn import(args: ImportArgs) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || read(&args)).await?
}

fn read(args: &ImportArgs) -> anyhow::Result<()> {
    let path = &args.file;
    let cannot = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let metadata = file.metadata().with_context(cannot)?;
    let length = metadata.len();
    ensure!(
        length > 0 || !metadata.is_file(),
        "{} is empty: not what `kedge export` writes",
        path.display()
    );
    let engine = args.dir.engine(EngineOptions::default())?;
    let bar = bar(length, "bytes");
    let (mut known, mut added) = (0_u64, 0_u64);
    let done = import_blocks(&engine, BufReader::new(file), |imported, bytes| {
        match imported {
            Imported::Known => known += 1,
            Imported::Added => added += 1,
        }
        bar.inc(bytes as u64);
    })
    .with_context(|| format!("importing {}", path.display()));
    bar.finish_and_clear();
    let latest = engine.heads().latest;
    if done.is_ok() && args.dir.json {
        println!(
            "{}",
            json!({ "known": known, "added": added, "latest": latest.number.0, "hash": latest.hash })
        );
    } else if !args.dir.json {
        println!(
            "{known} blocks were there already, {added} were added, not yet confirmed by Bitcoin; latest is \
             block {} ({})",
            latest.number, latest.hash
        );
    }
    done
}
