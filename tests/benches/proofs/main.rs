//! How large fraud proofs of token transfers are, and how long it takes to make and to judge them.
//!
//! Times are printed, never asserted; what compares them is their ratio in this run. `docs/benchmarks.md` has
//! the results and what they rest on.

mod chain;

use anyhow::{Context, Result, ensure};
use chain::Chain;
use kedge_fraud_proof::{Verdict, verify};
use std::time::{Duration, Instant};

/// Counts what is allocated, the database's own memory aside.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Token transfers of a segment; the last fill a block.
const TRANSFERS: [usize; 4] = [40, 120, 240, 390];
const ACCOUNTS: [u64; 2] = [10_000, 1_000_000];
/// Measured so many times, alternating; the shortest counts, for what disturbs only ever adds.
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    // `cargo test --benches` and the like only ask whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    println!(
        "accounts  transfers  gas         witness    nodes  nodes B    packed B   codes B  \
         content B  encoded B  B/transfer  built ms  executed ms  judged ms  ratio  MiB"
    );
    for accounts in ACCOUNTS {
        let most = TRANSFERS.into_iter().max().unwrap_or_default();
        let mut chain = Chain::new(accounts, most as u64)?;
        chain.mine(vec![])?;
        for transfers in TRANSFERS {
            row(&mut chain, accounts, transfers)?;
        }
    }
    Ok(())
}

fn row(chain: &mut Chain, accounts: u64, transfers: usize) -> Result<()> {
    let planned = chain.plan(transfers)?;
    let mut executed = Duration::MAX;
    for _ in 0..ROUNDS {
        let (time, block) = timed(|| chain.execute(&planned));
        let block = block?;
        ensure!(block.skipped.is_empty(), "{:?}", block.skipped.first());
        executed = executed.min(time);
    }
    let block = chain.execute(&planned)?;
    let id = chain.assert_wrongly(planned)?;

    let mut built = Duration::MAX;
    let mut bytes = Vec::new();
    let mut sizes = None;
    for _ in 0..ROUNDS {
        let (time, proof) = timed(|| -> Result<_> {
            let proof = chain.engine.build_proof(id)?.context("the assertion is wrong")?;
            Ok((proof.encode(), proof))
        });
        let (encoded, proof) = proof?;
        built = built.min(time);
        sizes = Some(proof.sizes());
        bytes = encoded;
    }
    let sizes = sizes.context("it was built")?;

    let tracker = chain.engine.tracker()?;
    let view = tracker.get(&id).context("the assertion counts")?.view();
    let store = &**chain.engine.store();
    let mut judged = Duration::MAX;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    for _ in 0..ROUNDS {
        let (time, verdict) = timed(|| verify(chain.params, store, &view, &bytes));
        ensure!(matches!(verdict, Ok(Verdict::Fraud { .. })), "{verdict:?}");
        judged = judged.min(time);
    }
    let memory = MEMORY.peak_usage().saturating_sub(before);
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{accounts:8}  {transfers:9}  {:10}  {:9}  {:5}  {:9}  {:9}  {:7}  {:9}  {:9}  {:10}  {:8.1}  {:11.1}  \
         {:9.1}  {:5.2}  {:3}",
        block.metered_gas,
        block.witness_bytes,
        sizes.node_count,
        sizes.nodes,
        sizes.packed_nodes,
        sizes.codes,
        sizes.content,
        sizes.encoded,
        sizes.encoded / transfers,
        ms(built),
        ms(executed),
        ms(judged),
        ms(judged) / ms(executed),
        memory >> 20,
    );
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}
