//! `kedge proof verify`.

use super::super::client::print_json;
use super::{MALFORMED, NO_FRAUD, VerifyArgs, bitcoin_hash, open, progress};
use crate::proof::{BitcoinChain, JudgeError, Judged, ProofFile, Seen, judge};
use alloy_primitives::B256;
use anyhow::Context;
use kedge_fraud_proof::{AssertionStatus, FraudKind, Malformed, Verdict};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(super) async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let file = match open(&args.file, args.blocks.network)? {
        Ok(file) => file,
        Err(reason) => {
            let verdict = Verdict::Malformed { reason };
            if args.json {
                print_json(&verdict_json(&verdict))?;
            } else {
                println!("{}", verdict_text(&verdict));
            }
            return Ok(status(&verdict));
        }
    };
    let chain = args.blocks.chain(file.params).await?.context("no Bitcoin blocks are named")?;
    let (file, _, judged) = walk(file, chain).await?;
    if args.json {
        print_json(&judged_json(&file, &judged))?;
    } else {
        show(&file, &judged);
    }
    Ok(status(&judged.verdict))
}

/// Judges a proof on a thread that may block.
pub(super) async fn walk(
    file: ProofFile,
    mut chain: BitcoinChain,
) -> anyhow::Result<(ProofFile, BitcoinChain, Judged)> {
    let walk = tokio::task::spawn_blocking(move || {
        let bar = progress(chain.at().height, chain.tip());
        let judged = judge(&file, &mut chain, &mut |_| bar.inc(1));
        bar.finish_and_clear();
        Ok::<_, JudgeError>((file, chain, judged?))
    });
    Ok(walk.await??)
}

fn status(verdict: &Verdict) -> ExitCode {
    match verdict {
        Verdict::Fraud { .. } => ExitCode::SUCCESS,
        Verdict::NoFraud => ExitCode::from(NO_FRAUD),
        Verdict::Malformed { .. } => ExitCode::from(MALFORMED),
    }
}

pub(super) fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fraud { segment, kind } => {
            format!("fraud: segment {segment} is wrong, {}", kind_text(*kind))
        }
        Verdict::NoFraud => "no fraud: the segment is as the assertion says".to_owned(),
        Verdict::Malformed { reason } => format!("malformed: {reason}"),
    }
}

/// What is wrong, for people.
fn kind_text(kind: FraudKind) -> &'static str {
    match kind {
        FraudKind::OutputRoot => "its output root (or more than the asserted hash can tell)",
        FraudKind::SegmentBoundary => "where it ends",
        FraudKind::BlockNumber => "its L2 block number",
        FraudKind::DeriveState => "its derive state",
        FraudKind::L1Block => "its L1 block",
        FraudKind::MissingSegments => "and so are those that should follow: they are missing",
        FraudKind::ExtraSegments => "because the asserted L1 block ends before it",
    }
}

fn verdict_json(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Fraud { segment, kind } => {
            json!({ "verdict": "fraud", "segment": segment, "kind": kind.label() })
        }
        Verdict::NoFraud => json!({ "verdict": "noFraud" }),
        Verdict::Malformed { reason } => malformed_json(reason),
    }
}

fn malformed_json(reason: &Malformed) -> Value {
    json!({ "verdict": "malformed", "reason": reason.label(), "detail": reason.to_string() })
}

/// Everything that is known of a judged proof.
pub(super) fn judged_json(file: &ProofFile, judged: &Judged) -> Value {
    let Judged { verdict, assertion, seen, read } = judged;
    let mut shown = verdict_json(verdict);
    let (stage, at, proof) = match &assertion.status {
        AssertionStatus::Proposed => ("proposed", None, None),
        AssertionStatus::Challenged => ("challenged", None, None),
        AssertionStatus::Settled { at } => ("settled", Some(at.0), None),
        AssertionStatus::Rejected { at, proof } => ("rejected", Some(at.0), proof.as_ref()),
    };
    let rejection = proof.map(|proof| {
        json!({
            "segment": proof.segment,
            "kind": proof.kind.label(),
            "challenger": B256::new(proof.challenger),
            "committed": proof.committed.0,
            "reveal": proof.reveal.txid,
            "byThisProof": seen.iter().any(|seen| seen.at == proof.reveal),
        })
    });
    let reveals: Vec<Value> = seen.iter().map(seen_json).collect();
    shown["proof"] = json!(file.proof.id());
    shown["network"] = json!(file.params.network.name());
    shown["assertion"] = json!({
        "id": assertion.id,
        "parent": assertion.parent,
        "l1": { "height": assertion.l1.height.0, "hash": bitcoin_hash(assertion.l1.hash) },
        "confirmedAt": assertion.confirmed_at.0,
        "deadline": assertion.deadline.0,
        "stage": stage,
        "stageSince": at,
        "rejection": rejection,
    });
    shown["onBitcoin"] = json!(reveals);
    shown["read"] = json!({ "height": read.height.0, "hash": bitcoin_hash(read.hash) });
    shown
}

fn seen_json(seen: &Seen) -> Value {
    json!({
        "txid": seen.at.txid,
        "input": seen.at.input,
        "height": seen.at.height.0,
        "chunk": seen.chunk,
        "chunks": seen.total,
        "publisher": B256::new(seen.publisher),
        "ignored": seen.ignored.map(|reason| reason.to_string()),
    })
}

fn show(file: &ProofFile, judged: &Judged) {
    println!("{}", verdict_text(&judged.verdict));
    show_assertion(file, judged);
}

/// What became of the assertion and of the proof, by these blocks.
pub(super) fn show_assertion(file: &ProofFile, judged: &Judged) {
    let Judged { assertion, seen, read, .. } = judged;
    println!("network    {}", file.params.network.name());
    println!("assertion  {}", assertion.id);
    println!(
        "           about Bitcoin block {}, in block {}, to be proven wrong up to block {}",
        assertion.l1.height, assertion.confirmed_at, assertion.deadline
    );
    let fate = match &assertion.status {
        AssertionStatus::Proposed => "nobody has proven it wrong yet".to_owned(),
        AssertionStatus::Challenged => "a proof against it has begun".to_owned(),
        AssertionStatus::Settled { at } => format!("settled in block {at}"),
        AssertionStatus::Rejected { at, proof: None } => {
            format!("rejected in block {at}, with an assertion that it continues")
        }
        AssertionStatus::Rejected { at, proof: Some(proof) } => {
            let by_this = seen.iter().any(|seen| seen.at == proof.reveal);
            let whose = if by_this { "this proof" } else { "another proof" };
            format!(
                "rejected in block {at}; its bond pays for {whose}, of segment {} ({}), to {}",
                proof.segment,
                proof.kind.label(),
                B256::new(proof.challenger)
            )
        }
    };
    println!("           {fate}");
    println!("proof      {}", file.proof.id());
    println!("           {}", on_bitcoin(seen));
    println!("read       Bitcoin blocks up to {}, {}", read.height, bitcoin_hash(read.hash));
    println!("           (that this is Bitcoin's chain is for you to compare)");
}

fn on_bitcoin(seen: &[Seen]) -> String {
    let Some(last) = seen.last() else {
        return "not on Bitcoin by then".to_owned();
    };
    let whole = (0..last.total).all(|chunk| {
        seen.iter().any(|seen| seen.chunk == chunk && seen.publisher == last.publisher)
    });
    let what = if whole {
        "on Bitcoin".to_owned()
    } else {
        format!("on Bitcoin in part, {} reveals for {} chunks", seen.len(), last.total)
    };
    let place = format!("{what}, last in block {}, transaction {}", last.at.height, last.at.txid);
    match last.ignored {
        Some(reason) => format!("{place}, to no effect: {reason}"),
        None => place,
    }
}
