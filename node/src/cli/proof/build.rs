//! `kedge proof build`.

use super::super::client::{connect, explain, print_json};
use super::BuildArgs;
use crate::{
    proof::file,
    rpc::{
        KedgeApiClient as _,
        error::code,
        types::{AssertionStage, AssertionStatus},
    },
};
use alloy_primitives::B256;
use anyhow::{Context, bail, ensure};
use jsonrpsee::core::client::Error as ClientError;
use kedge_fraud_proof::Proof;
use serde_json::json;

pub(super) async fn build(args: BuildArgs) -> anyhow::Result<()> {
    let client = &args.client;
    // Before anybody works for it.
    ensure!(
        !args.out.try_exists().unwrap_or(true),
        "--out {}: there is something already; name a new file",
        args.out.display()
    );
    let node = connect(client)?;
    let assertions = node.assertions().await.map_err(explain(client))?;
    let assertion = find(&assertions, &args.assertion)?;
    if assertion.agrees && args.segment.is_none() {
        bail!(
            "assertion {} is right, as far as the node at {} can tell: there is nothing to prove; with \
             --segment N it builds what would be the proof about one of its {} segments",
            assertion.id,
            client.rpc,
            assertion.claims.len()
        );
    }
    let bytes =
        node.build_proof(assertion.id, args.segment).await.map_err(|error| match error {
            ClientError::Call(answer) if answer.code() == code::PRUNED => anyhow::anyhow!(
                "the node at {} no longer has the state before that segment ({}); ask one that has",
                client.rpc,
                answer.message()
            ),
            other => explain(client)(other),
        })?;
    let proof = Proof::decode(&bytes).context("the node answered with something else")?;
    ensure!(
        proof.head.assertion == assertion.id,
        "the node answered with a proof about another assertion"
    );
    file::write_new(&args.out, &bytes)
        .with_context(|| format!("--out {}: cannot be written", args.out.display()))?;
    let segment = proof.head.segment;
    let right = is_right(&proof, assertion);
    if client.json {
        return print_json(&json!({
            "file": args.out.display().to_string(),
            "bytes": bytes.len(),
            "proof": proof.id(),
            "assertion": assertion.id,
            "segment": segment,
            "segmentIsRight": right,
        }));
    }
    println!(
        "wrote the proof about segment {segment} of assertion {} to {}, {} bytes",
        assertion.id,
        args.out.display(),
        bytes.len()
    );
    if right {
        println!("this segment is right: the proof will come to no fraud");
    }
    match assertion.stage {
        AssertionStage::Settled => println!("the assertion is settled: no proof moves it any more"),
        AssertionStage::Rejected => println!("the assertion is rejected already"),
        AssertionStage::Proposed | AssertionStage::Challenged => {
            println!("it counts on Bitcoin up to block {}", assertion.deadline);
        }
    }
    println!("check it with `kedge proof verify {} --l1-rpc URL`", args.out.display());
    Ok(())
}

/// Fewest characters of an id that name an assertion, `0x` included.
const SHORT_ID: usize = 10;

/// The assertion with that id, or whose id begins like that.
fn find<'a>(assertions: &'a [AssertionStatus], text: &str) -> anyhow::Result<&'a AssertionStatus> {
    let named = |assertion: &&AssertionStatus| {
        // Whole, or the beginning that lists show.
        text.parse::<B256>().is_ok_and(|id| id == assertion.id)
            || text.len() >= SHORT_ID && assertion.id.to_string().starts_with(text)
    };
    let mut found = assertions.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(assertion), None) => Ok(assertion),
        (Some(_), Some(_)) => {
            bail!("--assertion {text}: more than one assertion is shown like that")
        }
        (None, _) if text.parse::<B256>().is_ok() => bail!(
            "no assertion {text} counts on this node; `kedge assertions --json` lists those that do"
        ),
        (None, _) => bail!(
            "--assertion {text}: not the id of an assertion of this node; `kedge assertions` lists them"
        ),
    }
}

/// Whether the assertion says the same about the segment.
fn is_right(proof: &Proof, assertion: &AssertionStatus) -> bool {
    let asserted = usize::try_from(proof.head.segment).ok().map(|at| assertion.claims.get(at));
    let at_end = proof.pre.l1_height.0 == assertion.l1.height && proof.pre.offset == 0;
    match (&proof.run, asserted) {
        (Some(run), Some(Some(asserted))) => run.post.hash() == *asserted,
        // After the last claim: right when that is at the end.
        (None, Some(None)) => at_end,
        _ => false,
    }
}
