//! `kedge db`, `kedge export` and `kedge import`: what is done with the store of a node that is stopped.

mod check;
mod files;

use super::network;
use crate::{
    engine::{Engine, EngineOptions, Heads, identity_of},
    node::DEV_FOLDER,
};
use clap::{Args, Subcommand};
pub(super) use files::{ExportArgs, ImportArgs, export, import};
use indicatif::{ProgressBar, ProgressStyle};
use kedge_genesis::{L2Number, Network, Params};
use kedge_store::{L1Rows, L2Rows, SCHEMA, Store, Table, finalized, oldest_state};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode, sync::Arc};

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Show the chain that the database holds and how large its tables are
    Stats(Datadir),
    /// Check hashes, roots, indexes, state and history; fails where something is wrong
    Verify(Datadir),
    /// Take the latest blocks back, down to any block that is not final
    Rollback(RollbackArgs),
    /// Rewrite the database's files without what was overwritten or deleted
    Compact(Datadir),
    /// Copy the database into a new folder, with a manifest
    Snapshot(files::SnapshotArgs),
    /// Make a data directory from a snapshot
    Restore(files::RestoreArgs),
}

/// The store of a node.
#[derive(Args, Clone, Debug)]
pub(super) struct Datadir {
    /// Where the node keeps the chain; no node may be running there
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Which network
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = network)]
    network: Network,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RollbackArgs {
    #[command(flatten)]
    dir: Datadir,
    /// The block that is to be the latest
    #[arg(long, value_name = "NUMBER")]
    to: u64,
    /// Put the users' transactions of removed blocks among the waiting ones, on a sequencer's database
    #[arg(long)]
    keep_transactions: bool,
}

impl Datadir {
    fn params(&self) -> &'static Params {
        self.network.params()
    }

    /// The store, of a node or of the node of a development rollup.
    fn store(&self) -> anyhow::Result<Arc<Store>> {
        let development = self.datadir.join(DEV_FOLDER).join("store");
        let folder = if development.exists() { development } else { self.datadir.join("store") };
        Ok(Arc::new(Store::open_existing(folder, &identity_of(self.params())?)?))
    }

    /// The engine over the store.
    fn engine(&self, options: EngineOptions) -> anyhow::Result<Engine> {
        Ok(Engine::open(self.store()?, self.params(), options)?)
    }
}

/// A bar on a terminal, nothing elsewhere.
fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{msg} {bar:40} {human_pos}/{human_len} {eta}");
    // The template is valid; another one would only look different.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A size for people.
fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

pub(super) async fn run(command: DbCommand) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || match command {
        DbCommand::Stats(dir) => stats(&dir).map(|()| ExitCode::SUCCESS),
        DbCommand::Verify(dir) => check::verify(&dir),
        DbCommand::Rollback(args) => rollback(&args).map(|()| ExitCode::SUCCESS),
        DbCommand::Compact(dir) => compact(&dir).map(|()| ExitCode::SUCCESS),
        DbCommand::Snapshot(args) => files::snapshot(&args).map(|()| ExitCode::SUCCESS),
        DbCommand::Restore(args) => files::restore(&args).map(|()| ExitCode::SUCCESS),
    })
    .await?
}

fn stats(dir: &Datadir) -> anyhow::Result<()> {
    let store = dir.store()?;
    let params = dir.params();
    let identity = identity_of(params)?;
    let reader = store.reader();
    let latest = reader.latest()?.unwrap_or_default();
    let l1 = reader.l1_tip()?.unwrap_or_default();
    let safe = reader.safe_at(l1.height)?.min(latest);
    let (last_final, oldest) = (finalized(&reader)?, oldest_state(&reader)?);
    let mut sizes = Vec::new();
    for table in Table::ALL {
        sizes.push((table.name(), store.table_size(*table)?));
    }
    let total: u64 = sizes.iter().map(|(_, size)| size.bytes).sum();
    if dir.json {
        let tables: Vec<_> = sizes
            .iter()
            .map(|(name, size)| json!({ "name": name, "rows": size.rows, "bytes": size.bytes }))
            .collect();
        println!(
            "{}",
            json!({
                "network": params.network.name(), "schema": SCHEMA, "params": identity.params,
                "genesis": identity.genesis, "latest": latest.0, "safe": safe.0,
                "finalized": last_final.0, "oldestState": oldest.0, "l1Height": l1.height.0,
                "bytes": total, "tables": tables,
            })
        );
        return Ok(());
    }
    println!("network       {} (schema {SCHEMA})", params.network.name());
    println!("genesis       {}", identity.genesis);
    println!("blocks        {latest} latest, {safe} safe, {last_final} final");
    println!("state from    block {oldest}");
    println!("Bitcoin       block {}", l1.height);
    println!("files         {}", size(total));
    println!();
    println!("{:<20} {:>14} {:>12}", "table", "rows (about)", "in files");
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse((size.bytes, size.rows)));
    for (name, table) in sizes.into_iter().filter(|(_, size)| size.rows > 0) {
        println!("{name:<20} {:>14} {:>12}", table.rows, size(table.bytes));
    }
    Ok(())
}

fn rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let options =
        EngineOptions { journal_removed: args.keep_transactions, ..EngineOptions::default() };
    let engine = args.dir.engine(options)?;
    let before = engine.heads();
    let Heads { latest, safe, l1_tip, .. } = engine.roll_back_to(L2Number(args.to))?;
    let removed = before.latest.number.0.saturating_sub(latest.number.0);
    let l1_removed = before.l1_tip.height.0.saturating_sub(l1_tip.height.0);
    if args.dir.json {
        println!(
            "{}",
            json!({
                "latest": latest.number.0, "hash": latest.hash, "safe": safe.number.0,
                "l1Height": l1_tip.height.0, "removed": removed, "l1Removed": l1_removed,
            })
        );
        return Ok(());
    }
    println!("latest is block {} ({}); took {removed} back", latest.number, latest.hash);
    if l1_removed > 0 {
        println!(
            "Bitcoin is followed up to block {}; the node processes {l1_removed} blocks again, and blocks that \
             they confirm come back",
            l1_tip.height
        );
    }
    Ok(())
}

fn compact(dir: &Datadir) -> anyhow::Result<()> {
    let store = dir.store()?;
    let bytes = || -> anyhow::Result<u64> {
        let mut total = 0;
        for table in Table::ALL {
            total += store.table_size(*table)?.bytes;
        }
        Ok(total)
    };
    let before = bytes()?;
    let bar = bar(Table::ALL.len() as u64, "tables");
    for table in Table::ALL {
        store.compact(*table)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let after = bytes()?;
    if dir.json {
        println!("{}", json!({ "bytesBefore": before, "bytes": after }));
    } else {
        println!("files take {}, before {}", size(after), size(before));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::tests::world::{World, account},
        snapshot,
    };
    use alloy_primitives::Address;
    use tempfile::TempDir;

    /// The data directory of a node of dev, with two blocks that Bitcoin has not confirmed.
    fn datadir(dir: &TempDir) -> Datadir {
        let params = Network::Dev.params();
        let mut world = World::of(params);
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let batch = world.batch().unwrap();
        world.mine(vec![batch]);
        world.build(vec![]).unwrap();
        let transfer = world.transfer(Address::repeat_byte(0xb0), 1_000);
        world.build(vec![transfer]).unwrap();
        let (copy, datadir) = (dir.path().join("copy"), dir.path().join("data"));
        let made = snapshot::create(world.store(), params, &copy, true, |_, _| {}).unwrap();
        snapshot::restore(&copy, &made, params, &datadir, |_| {}).unwrap();
        Datadir { datadir, network: Network::Dev, json: true }
    }

    fn heads(dir: &Datadir) -> Heads {
        dir.engine(EngineOptions::default()).unwrap().heads()
    }

    #[tokio::test]
    async fn what_was_rolled_back_can_be_imported_again() {
        let temporary = TempDir::new().unwrap();
        let dir = datadir(&temporary);
        let before = heads(&dir);
        let file = temporary.path().join("blocks");
        let args = || ExportArgs { file: file.clone(), dir: dir.clone(), from: 1, to: None };
        export(args()).await.unwrap();
        let error = export(args()).await.unwrap_err().to_string();
        assert!(error.contains("choose another file"), "{error}");
        let to = before.safe.number.0;
        let back = RollbackArgs { dir: dir.clone(), to, keep_transactions: false };
        run(DbCommand::Rollback(back)).await.unwrap();
        assert_eq!(heads(&dir).latest, before.safe);
        import(ImportArgs { file: file.clone(), dir: dir.clone() }).await.unwrap();
        assert_eq!(heads(&dir).latest, before.latest);
        run(DbCommand::Compact(dir.clone())).await.unwrap();
        run(DbCommand::Verify(dir.clone())).await.unwrap();
        assert_eq!(heads(&dir).latest, before.latest);
    }

    #[tokio::test]
    async fn a_database_that_a_node_holds_is_left_alone() {
        let temporary = TempDir::new().unwrap();
        let dir = datadir(&temporary);
        let held = dir.store().unwrap();
        for command in [
            DbCommand::Stats(dir.clone()),
            DbCommand::Verify(dir.clone()),
            DbCommand::Compact(dir.clone()),
        ] {
            let error = run(command).await.unwrap_err().to_string();
            assert!(error.contains("in use by another process"), "{error}");
        }
        drop(held);
        run(DbCommand::Stats(dir)).await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_without_a_database_is_refused_and_stays_empty() {
        let temporary = TempDir::new().unwrap();
        let datadir = temporary.path().to_owned();
        let dir = Datadir { datadir, network: Network::Dev, json: false };
        let error = run(DbCommand::Stats(dir)).await.unwrap_err().to_string();
        assert!(error.contains("check --datadir"), "{error}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
