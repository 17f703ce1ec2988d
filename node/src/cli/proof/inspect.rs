//! `kedge proof inspect`.

use super::super::{
    Client,
    client::{connect, explain, print_json, short},
};
use super::{InspectArgs, open, verify};
use crate::{
    proof::{
        BitcoinChain, Judged, ProofFile,
        against::{self, Difference, Divergence, NodeBlock},
        inspect::{BlockRow, ClaimFields, Replayed, Weight, replayed, weight},
    },
    rpc::{KedgeApiClient as _, types::AssertionStatus},
};
use alloy_primitives::B256;
use anyhow::bail;
use kedge_fraud_proof::Claim;
use kedge_vm::ExecutedBlock;
use serde_json::{Value, json};

/// Most blocks that are asked of a node: no segment has as many.
const MAX_BLOCKS: u64 = 1_000;
/// Differences of state that are shown without `--json`.
const SHOWN: usize = 20;

/// What is found out, as far as the command line names where.
struct Inspection {
    file: ProofFile,
    weight: Weight,
    /// By Bitcoin blocks.
    judged: Option<Judged>,
    replayed: Option<Replayed>,
    /// By `--rpc`.
    trusted: Option<Trusted>,
    /// By `--against`.
    against: Option<Against>,
}

/// What a trusted node says.
struct Trusted {
    assertion: Option<AssertionStatus>,
    /// The segment's blocks as the node has them.
    blocks: Vec<Option<NodeBlock>>,
}

/// What a node that holds the asserted chain says.
struct Against {
    /// The true output root after the segment.
    expected: B256,
    divergence: Option<Divergence>,
    /// Its output root after the segment.
    output_root: Option<B256>,
    /// The asserted claim, when it is the true one with that root.
    opened: Option<Claim>,
}

pub(super) async fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let file = match open(&args.file, args.blocks.network)? {
        Ok(file) => file,
        Err(reason) => {
            bail!("{} is no proof that can be looked into: {reason}", args.file.display())
        }
    };
    let weight = weight(&file);
    let (mut judged, mut replay) = (None, None);
    let mut file = file;
    if let Some(chain) = args.blocks.chain(file.params).await? {
        let (walked, chain, found) = verify::walk(file, chain).await?;
        let run = execute(walked, chain, found).await?;
        (file, judged, replay) = (run.0, Some(run.1), run.2);
    }
    let trusted = match &args.rpc {
        Some(url) => Some(ask(&file, &Client { rpc: url.clone(), json: args.json }).await?),
        None => None,
    };
    let against = match (&args.against, &judged, &replay) {
        (Some(url), Some(judged), Some(Replayed { blocks, reached: Ok(truth) })) => {
            Some(compare(&file, judged, blocks, truth, url).await?)
        }
        _ => None,
    };
    let found = Inspection { file, weight, judged, replayed: replay, trusted, against };
    if args.json {
        return print_json(&found.json());
    }
    found.show(args.against.is_some());
    Ok(())
}

/// Executes the segment on a thread that may block.
async fn execute(
    file: ProofFile,
    chain: BitcoinChain,
    judged: Judged,
) -> anyhow::Result<(ProofFile, Judged, Option<Replayed>)> {
    let run = tokio::task::spawn_blocking(move || {
        let replayed = replayed(&file, &chain, judged.assertion.l1.height)?;
        anyhow::Ok((file, judged, replayed))
    });
    run.await?
}

async fn ask(file: &ProofFile, client: &Client) -> anyhow::Result<Trusted> {
    let node = connect(client)?;
    let assertions = node.assertions().await.map_err(explain(client))?;
    let assertion = assertions.into_iter().find(|one| one.id == file.proof.head.assertion);
    let mut blocks = Vec::new();
    if let Some(run) = &file.proof.run {
        let first = file.proof.pre.number.next().0;
        let last = run.post.number.0.min(first.saturating_add(MAX_BLOCKS));
        for number in first..=last {
            blocks.push(against::block(&node, number).await.map_err(explain(client))?);
        }
    }
    Ok(Trusted { assertion, blocks })
}

async fn compare(
    file: &ProofFile,
    judged: &Judged,
    blocks: &[ExecutedBlock],
    truth: &Claim,
    url: &str,
) -> anyhow::Result<Against> {
    let client = Client { rpc: url.to_owned(), json: false };
    let node = connect(&client)?;
    let why = explain(&client);
    let divergence = against::first_divergence(&node, blocks).await.map_err(&why)?;
    let last = against::block(&node, truth.number.0).await.map_err(&why)?;
    let output_root = last.and_then(|block| block.output_root);
    let asserted = asserted_hash(file, judged);
    let opened = output_root
        .map(|output_root| Claim { output_root, ..*truth })
        .filter(|claim| Some(claim.hash()) == asserted);
    Ok(Against { expected: truth.output_root, divergence, output_root, opened })
}

/// The hash that the assertion has for the segment.
fn asserted_hash(file: &ProofFile, judged: &Judged) -> Option<B256> {
    let segment = usize::try_from(file.proof.head.segment).ok()?;
    judged.assertion.claims.get(segment).copied()
}

impl Inspection {
    /// The hash of the asserted claim, by Bitcoin or by the trusted node.
    fn asserted_hash(&self) -> Option<B256> {
        let segment = usize::try_from(self.file.proof.head.segment).ok()?;
        let by_node = self.trusted.as_ref().and_then(|node| node.assertion.as_ref());
        match (&self.judged, by_node) {
            (Some(judged), _) => asserted_hash(&self.file, judged),
            (None, Some(assertion)) => assertion.claims.get(segment).copied(),
            (None, None) => self.file.proof.asserted.map(|claim| claim.hash()),
        }
    }

    /// The asserted claim itself, where it is known.
    fn asserted(&self) -> Option<Claim> {
        let opened = self.against.as_ref().and_then(|against| against.opened);
        opened.or(self.file.proof.asserted)
    }

    fn rows(&self) -> Vec<BlockRow> {
        let blocks = self.replayed.iter().flat_map(|replayed| &replayed.blocks);
        blocks.map(BlockRow::from).collect()
    }

    fn json(&self) -> Value {
        let proof = &self.file.proof;
        let fields = |claim: &Claim| json!(ClaimFields::from(claim));
        let mut shown = json!({
            "proof": proof.id(),
            "network": self.file.params.network.name(),
            "paramsHash": proof.head.params,
            "assertion": proof.head.assertion,
            "segment": proof.head.segment,
            "claims": {
                "pre": fields(&proof.pre),
                "post": proof.run.as_ref().map(|run| fields(&run.post)),
                "asserted": self.asserted().as_ref().map(fields),
                "assertedHash": self.asserted_hash(),
            },
            "sizes": self.weight,
        });
        if let Some(judged) = &self.judged {
            shown["judged"] = verify::judged_json(&self.file, judged);
        }
        if let Some(replayed) = &self.replayed {
            shown["replay"] = json!({
                "blocks": self.rows(),
                "reached": replayed.reached.as_ref().ok().map(fields),
                "malformed": replayed.reached.as_ref().err().map(|reason| reason.label()),
            });
        }
        if let Some(trusted) = &self.trusted {
            let blocks: Vec<Value> = trusted.blocks.iter().flatten().map(block_json).collect();
            shown["trusted"] = json!({ "assertion": trusted.assertion, "blocks": blocks });
        }
        if let Some(against) = &self.against {
            shown["against"] = json!({
                "expectedOutputRoot": against.expected,
                "outputRoot": against.output_root,
                "holdsTheAssertedChain": against.opened.is_some(),
                "firstDivergence": against.divergence,
            });
        }
        shown
    }

    fn show(&self, asked: bool) {
        let proof = &self.file.proof;
        println!("proof      {}", proof.id());
        println!(
            "network    {}, parameters {}",
            self.file.params.network.name(),
            proof.head.params
        );
        println!("assertion  {}", proof.head.assertion);
        println!("segment    {}", proof.head.segment);
        println!();
        show_claim("claim before the segment", &proof.pre);
        match &proof.run {
            Some(run) => show_claim("true claim after it, by the proof", &run.post),
            None => println!(
                "no execution: the place of that claim shows too few or too many segments\n"
            ),
        }
        self.show_asserted();
        self.show_weight();
        if let Some(judged) = &self.judged {
            println!("by Bitcoin's blocks");
            println!("{}", verify::verdict_text(&judged.verdict));
            verify::show_assertion(&self.file, judged);
            println!();
        }
        self.show_replay();
        self.show_trusted();
        match &self.against {
            Some(against) => self.show_against(against),
            None if asked => println!("nothing to compare: there is no execution of this segment"),
            None => {}
        }
    }

    fn show_asserted(&self) {
        match (self.asserted(), self.asserted_hash()) {
            (Some(claim), _) => show_claim("asserted claim", &claim),
            (None, Some(hash)) => {
                println!("asserted claim");
                println!("  hash          {hash}");
                println!(
                    "  Bitcoin holds its hash alone, which does not say what is wrong in it. A node that"
                );
                println!("  holds the asserted chain does: name one with --against\n");
            }
            (None, None) => {}
        }
    }

    fn show_weight(&self) {
        let weight = &self.weight;
        println!("size");
        println!("  file          {} bytes, {} before compression", weight.encoded, weight.content);
        println!(
            "  trie nodes    {} bytes, {} nodes of {} bytes",
            weight.packed_nodes, weight.node_count, weight.nodes
        );
        println!("  codes         {} bytes, {} codes", weight.codes, weight.code_count);
        println!("  derive state  {} bytes", weight.derive_state);
        println!("  header        {} bytes", weight.header);
        println!("  claims        {} bytes", weight.claims);
        println!(
            "  on Bitcoin    {} bytes in {} reveals of {} vB together, and a commit transaction of some {} vB",
            weight.envelopes, weight.reveals, weight.reveal_vsize, weight.commit_vsize
        );
        println!();
    }

    fn show_replay(&self) {
        let Some(replayed) = &self.replayed else { return };
        println!("the segment, executed on the proof");
        println!(
            "  block       txs  skipped  gas used    metered     witness    state root           output root"
        );
        for row in self.rows() {
            println!(
                "  {:<10}  {:<3}  {:<7}  {:<10}  {:<10}  {:<9}  {}  {}",
                row.number,
                row.transactions,
                row.skipped,
                row.gas_used,
                row.metered_gas,
                row.witness_bytes,
                short(&row.state_root),
                short(&row.output_root)
            );
        }
        match &replayed.reached {
            Ok(claim) => {
                println!("  reaches claim {}", claim.hash());
                if let Some(asserted) = self.asserted_hash() {
                    println!("  asserted is   {asserted}");
                }
            }
            Err(reason) => {
                println!("  stops: the proof is malformed, {reason}; so this shows nothing")
            }
        }
        println!();
    }

    fn show_trusted(&self) {
        let Some(trusted) = &self.trusted else { return };
        println!("by the node of --rpc");
        match &trusted.assertion {
            None => println!("  no such assertion counts"),
            Some(assertion) => {
                let right = if assertion.agrees { "right" } else { "WRONG" };
                println!(
                    "  the assertion is {right}; in block {}, deadline {}",
                    assertion.confirmed_at, assertion.deadline
                );
            }
        }
        let rows = self.rows();
        let first = self.file.proof.pre.number.next().0;
        for (number, block) in (first..).zip(&trusted.blocks) {
            let row = rows.iter().find(|row| row.number == number);
            match block {
                None => println!("  block {number}: it has none"),
                Some(block) => {
                    let same = match row {
                        Some(row) if row.hash == block.header.hash_slow() => ", the same",
                        Some(_) => ", ANOTHER than by execution",
                        None => "",
                    };
                    let root = block.output_root.unwrap_or_default();
                    println!(
                        "  block {number}: {} transactions, {} gas, output root {}{same}",
                        block.transactions(),
                        block.header.gas_used,
                        short(&root)
                    );
                }
            }
        }
        println!();
    }

    fn show_against(&self, against: &Against) {
        println!("against the node of --against");
        println!("  true output root    {}", against.expected);
        match against.output_root {
            Some(root) => println!("  the node's          {root}"),
            None => println!("  the node's          none: it has no such block"),
        }
        if against.opened.is_some() {
            println!("  that is the asserted claim: the node holds the asserted chain");
        } else {
            println!(
                "  that does not give the asserted claim: the node does not hold the asserted chain"
            );
        }
        let Some(divergence) = &against.divergence else {
            println!("  it has every block of the segment as it truly is");
            return;
        };
        show_divergence(divergence);
    }
}

fn block_json(block: &NodeBlock) -> Value {
    json!({
        "number": block.header.number,
        "transactions": block.transactions(),
        "gasUsed": block.header.gas_used,
        "hash": block.header.hash_slow(),
        "stateRoot": block.header.state_root,
        "outputRoot": block.output_root,
    })
}

fn show_claim(title: &str, claim: &Claim) {
    println!("{title}");
    println!(
        "  L1 height     {}, and {} payloads of the next block",
        claim.l1_height, claim.offset
    );
    println!("  derive state  {}", claim.derive_state);
    println!("  L2 block      {}", claim.number);
    println!("  output root   {}", claim.output_root);
    println!("  hash          {}\n", claim.hash());
}

fn show_divergence(divergence: &Divergence) {
    println!("  first block that differs: {}", divergence.block);
    if divergence.missing {
        println!("    the node does not have it");
        return;
    }
    for Difference { field, expected, found } in &divergence.header {
        println!("    {field}: {expected}, the node has {found}");
    }
    match &divergence.transaction {
        None => println!("  no transaction, and no receipt of one, differs"),
        Some(tx) => {
            let name = |hash: Option<B256>| hash.map_or("none".to_owned(), |hash| hash.to_string());
            println!(
                "  first transaction that differs: number {}, {}",
                tx.index,
                name(tx.expected)
            );
            if tx.expected != tx.found {
                println!("    the node has {}", name(tx.found));
            }
            for Difference { field, expected, found } in &tx.receipt {
                println!("    {field}: {expected}, the node has {found}");
            }
        }
    }
    if let Some(reason) = &divergence.state_unavailable {
        println!("  the node does not give the state after that block: {reason}");
        return;
    }
    if divergence.state.is_empty() {
        println!("  nothing that the true execution changes, or a transaction names, differs:");
        println!("  what does is an account or slot that no true transaction has touched");
    }
    for difference in divergence.state.iter().take(SHOWN) {
        let Difference { field, expected, found } = &difference.difference;
        let slot = difference.slot.map(|slot| format!(" {slot}")).unwrap_or_default();
        println!("  {} {field}{slot}: {expected}, the node has {found}", difference.address);
    }
    let more = divergence.state.len().saturating_sub(SHOWN);
    if more > 0 {
        println!("  and {more} more; --json has all");
    }
}
