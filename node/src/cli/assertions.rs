//! `kedge assertions`: the tree of assertions for people.

use super::{
    AssertionsArgs,
    amount::show_btc,
    client::{connect, explain, print_json},
};
use crate::rpc::{
    KedgeApiClient, KedgeSubscribeApiClient,
    types::{AssertionChange, AssertionStage, AssertionStatus, AssertionUpdate, BondStage, Topic},
};
use alloy_primitives::B256;
use anyhow::{Context, bail};
use jsonrpsee::{core::client::Subscription, ws_client::WsClientBuilder};
use kedge_genesis::Sats;

pub(super) async fn show(args: &AssertionsArgs) -> anyhow::Result<()> {
    if args.watch {
        return watch(args).await;
    }
    let listed = connect(&args.client)?.assertions().await.map_err(explain(&args.client))?;
    print(args, &listed)
}

fn print(args: &AssertionsArgs, listed: &[AssertionStatus]) -> anyhow::Result<()> {
    if args.client.json {
        return print_json(&listed);
    }
    if listed.is_empty() {
        println!("no assertions yet");
    } else {
        println!("assertion   L1 block  state");
    }
    for row in tree(listed) {
        println!("{row}");
    }
    Ok(())
}

async fn watch(args: &AssertionsArgs) -> anyhow::Result<()> {
    let url = &args.client.rpc;
    // The same port speaks both.
    let address = match url.strip_prefix("http") {
        Some(rest) => format!("ws{rest}"),
        None => url.clone(),
    };
    let node = WsClientBuilder::default().build(&address).await.with_context(|| {
        format!("no node answers at {url}; start one with `kedge dev`, or name another with --rpc")
    })?;
    // Subscribed first: nothing after the list is missed.
    let mut updates: Subscription<AssertionUpdate> =
        node.updates(Topic::Assertions).await.map_err(explain(&args.client))?;
    print(args, &node.assertions().await.map_err(explain(&args.client))?)?;
    while let Some(update) = updates.next().await {
        let update = update?;
        if args.client.json {
            print_json(&update)?;
            continue;
        }
        let height = update.l1_tip.height;
        match update.change {
            AssertionChange::Added | AssertionChange::Changed => {
                println!("L1 {height}: {}", line(&update.assertion));
            }
            AssertionChange::Removed => {
                println!("L1 {height}: {}  Bitcoin took it back", short(&update.assertion.id));
            }
        }
    }
    bail!("the node at {url} closed the connection")
}

/// One row per assertion, each below the one that it continues. The best branch is not indented, so that a
/// long chain stays readable; what branches off is, one step deeper each time.
fn tree(listed: &[AssertionStatus]) -> Vec<String> {
    let mut rows = Vec::new();
    // Depth first, without recursion: what is pushed last comes next.
    let is_known = |id: &B256| listed.iter().any(|one| one.id == *id);
    let roots = listed.iter().filter(|one| !is_known(&one.parent)).collect();
    let mut next = below(roots, true, 0);
    while let Some((depth, one)) = next.pop() {
        rows.push(format!("{}{}", "  ".repeat(depth), line(one)));
        let children = listed.iter().filter(|child| child.parent == one.id).collect();
        next.extend(below(children, one.best, depth));
    }
    rows
}

/// The continuations of an assertion with their depths, the one to print first last: branches, then what
/// goes on at the same depth.
fn below(
    mut children: Vec<&AssertionStatus>,
    parent_is_best: bool,
    depth: usize,
) -> Vec<(usize, &AssertionStatus)> {
    let straight = children.iter().position(|child| child.best || !parent_is_best);
    let straight = straight.map(|place| (depth, children.remove(place)));
    let branches = children.into_iter().rev().map(|child| (depth + 1, child));
    straight.into_iter().chain(branches).collect()
}

fn line(one: &AssertionStatus) -> String {
    format!("{}  {:<8}  {}", short(&one.id), one.l1.height, state(one))
}

fn short(id: &B256) -> String {
    id.to_string().chars().take(10).collect()
}

fn state(one: &AssertionStatus) -> String {
    let mut parts = Vec::new();
    match one.stage {
        AssertionStage::Proposed => parts.push("proposed".to_owned()),
        AssertionStage::Challenged => {
            parts.push("challenged".to_owned());
            let proofs = one.proofs.iter();
            parts.extend(proofs.map(|proof| format!("{} of {} chunks", proof.seen, proof.total)));
        }
        AssertionStage::Settled if one.agrees => parts.push("settled".to_owned()),
        AssertionStage::Settled => parts.push("settled although WRONG: not trusted".to_owned()),
        AssertionStage::Rejected => parts.push(match (&one.rejected_for, one.rejected_segment) {
            (Some(kind), Some(segment)) => {
                format!("rejected for its {} in segment {segment}", kind.replace('_', " "))
            }
            _ => "rejected with what it continues".to_owned(),
        }),
    }
    if let Some(left) = one.blocks_left {
        match one.wrong_segment {
            Some(segment) => parts.push(format!("WRONG from segment {segment}")),
            None if !one.agrees => parts.push("continues a WRONG one".to_owned()),
            None => {}
        }
        // Where blocks are made on demand there is no time to tell.
        let time = one.seconds_left.filter(|seconds| *seconds > 0);
        let time = time.map(|seconds| format!(" ({})", about(seconds)));
        let blocks = if left == 1 { "block" } else { "blocks" };
        parts.push(format!("{left} {blocks}{} left", time.unwrap_or_default()));
    }
    let bond = show_btc(Sats(one.bond_sats));
    let bond = bond.trim_end_matches(" BTC").trim_end_matches('0').trim_end_matches('.');
    parts.push(match one.bond_stage {
        BondStage::Locked => format!("{bond} BTC locked"),
        BondStage::Returned => format!("{bond} BTC returned"),
        BondStage::Slashed => format!("{bond} BTC to the challenger"),
        BondStage::Seized => format!("{bond} BTC SEIZED by the signers"),
    });
    parts.join(", ")
}

/// A duration in the largest unit of which there are two, rounded down.
fn about(seconds: u64) -> String {
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "min")] {
        if seconds >= 2 * unit {
            return format!("~{} {name}", seconds / unit);
        }
    }
    format!("~{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::types::L1BlockId;
    use bitcoin::{BlockHash, OutPoint, hashes::Hash};

    fn id(number: u8) -> B256 {
        B256::repeat_byte(number)
    }

    fn assertion(number: u8, parent: u8, best: bool) -> AssertionStatus {
        AssertionStatus {
            id: id(number),
            parent: id(parent),
            children: vec![],
            competing: vec![],
            best,
            l1: L1BlockId { height: u32::from(number), hash: BlockHash::all_zeros() },
            claims: vec![],
            confirmed_at: 0,
            deadline: 0,
            blocks_left: None,
            seconds_left: None,
            stage: AssertionStage::Settled,
            settled_at: None,
            proofs: vec![],
            rejected_at: None,
            rejected_segment: None,
            rejected_for: None,
            challenger: None,
            committed_at: None,
            proof_txid: None,
            agrees: best,
            wrong_segment: None,
            bond: OutPoint::null(),
            bond_sats: 100_000_000,
            bond_stage: BondStage::Locked,
            bond_txid: None,
            bond_spent_in: None,
            proposer: B256::ZERO,
        }
    }

    #[test]
    fn the_best_branch_runs_straight_down_and_others_branch_off_below_what_they_continue() {
        let listed = [
            (1, 0, true),
            // Two wrong ones continue it before the right one does, and one continues the first of them.
            (2, 1, false),
            (3, 1, false),
            (4, 1, true),
            (5, 2, false),
            (6, 4, true),
            (7, 6, false),
        ]
        .map(|(number, parent, best)| assertion(number, parent, best));
        let shown: Vec<_> = tree(&listed)
            .iter()
            .map(|row| {
                let depth = row.len() - row.trim_start().len();
                (depth, row.trim_start()[..10].to_owned())
            })
            .collect();
        let expected = [(0, 1), (2, 2), (2, 5), (2, 3), (0, 4), (0, 6), (2, 7)]
            .map(|(depth, number)| (depth, short(&id(number))));
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_line_says_how_far_an_assertion_is_and_who_has_its_bond() {
        let mut one = assertion(9, 1, true);
        one.stage = AssertionStage::Proposed;
        (one.blocks_left, one.seconds_left) = (Some(4), Some(20));
        assert_eq!(state(&one), "proposed, 4 blocks (~20 s) left, 1 BTC locked");
        (one.agrees, one.wrong_segment) = (false, Some(3));
        one.stage = AssertionStage::Challenged;
        one.seconds_left = Some(7_300);
        let progress = crate::rpc::types::ProofProgress {
            challenger: B256::ZERO,
            seen: 1,
            total: 2,
            opened: 0,
        };
        one.proofs = vec![progress];
        let expected =
            "challenged, 1 of 2 chunks, WRONG from segment 3, 4 blocks (~2 h) left, 1 BTC locked";
        assert_eq!(state(&one), expected);
        one.blocks_left = Some(1);
        assert!(state(&one).contains(" 1 block (~2 h) left"));
        one.stage = AssertionStage::Rejected;
        one.blocks_left = None;
        assert_eq!(state(&one), "rejected with what it continues, 1 BTC locked");
        (one.rejected_for, one.rejected_segment) = (Some("output_root".to_owned()), Some(3));
        one.bond_stage = BondStage::Slashed;
        let expected = "rejected for its output root in segment 3, 1 BTC to the challenger";
        assert_eq!(state(&one), expected);
    }
}
