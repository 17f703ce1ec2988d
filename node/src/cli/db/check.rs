//! `kedge db verify`.

use super::{Datadir, bar};
use kedge_store::{L1Rows, L2Rows, Table, VerifyStep};
use serde_json::json;
use std::process::ExitCode;

pub(super) fn verify(dir: &Datadir) -> anyhow::Result<ExitCode> {
    let store = dir.store()?;
    let blocks = store.latest()?.unwrap_or_default().0.saturating_add(1);
    let tip = store.l1_tip()?.unwrap_or_default().height;
    let l1_blocks = u64::from(tip.since(dir.params().l1_start.height)).saturating_add(1);
    let mut history = 0;
    for table in [Table::AccountHistory, Table::StorageHistory, Table::Tries] {
        history += store.table_size(table)?.rows;
    }
    // Estimates, where counting would take as long as checking.
    let total = |step| match step {
        VerifyStep::Blocks => Ok((blocks, "L2 blocks")),
        VerifyStep::State => store.table_size(Table::Accounts).map(|it| (it.rows, "accounts")),
        VerifyStep::History => Ok((history, "history")),
        VerifyStep::Bitcoin => Ok((l1_blocks, "Bitcoin blocks")),
    };
    let mut shown = None;
    let report = store.verify(&mut |step, done| {
        let bar = match &shown {
            Some((at, bar)) if *at == step => bar,
            _ => {
                let (count, what) = total(step).unwrap_or_default();
                &shown.insert((step, bar(count, what))).1
            }
        };
        bar.set_position(done);
    })?;
    if let Some((_, bar)) = shown {
        bar.finish_and_clear();
    }
    if dir.json {
        let faults: Vec<_> = report
            .faults
            .iter()
            .map(|it| json!({ "table": it.table, "key": it.key, "what": it.what }))
            .collect();
        println!(
            "{}",
            json!({
                "sound": report.is_sound(), "blocks": report.blocks, "logIndexRows": report.log_rows,
                "accounts": report.accounts, "slots": report.slots, "trieNodes": report.trie_nodes,
                "historyRows": report.history, "l1Blocks": report.l1_blocks, "faults": faults,
                "moreFaults": report.more_faults,
            })
        );
    } else {
        println!(
            "checked {} blocks with {} rows of the log index, {} accounts, {} slots, {} trie nodes, {} rows of \
             history, {} Bitcoin blocks",
            report.blocks,
            report.log_rows,
            report.accounts,
            report.slots,
            report.trie_nodes,
            report.history,
            report.l1_blocks
        );
        for fault in &report.faults {
            println!("{} {}: {}", fault.table, fault.key, fault.what);
        }
        if report.more_faults > 0 {
            println!("and {} more", report.more_faults);
        }
        if report.is_sound() {
            println!("nothing is wrong");
        }
    }
    if report.is_sound() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "error: the database is damaged; restore it from a snapshot, or remove it and the node derives the chain \
         again from Bitcoin"
    );
    Ok(ExitCode::FAILURE)
}
