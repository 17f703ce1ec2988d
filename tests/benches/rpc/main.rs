//! JSON-RPC of `kedge` and of `anvil` side by side: the same requests from the same load to both, in turn.
//!
//! Figures are printed, never asserted; what counts are the ratios. `docs/benchmarks.md` says what they rest on.

mod load;
mod nodes;
mod transactions;

use alloy_primitives::Address;
use anyhow::{Context, Result, ensure};
use load::{CONNECTIONS, Load, encode};
use nodes::Node;
use serde_json::{Value, json};
use std::time::Duration;
use transactions::{Sender, Signed};

/// Transfers of the full block: what the block gas limit of Kedge lets in.
const FULL: usize = 780;
/// Accounts that submit, and what each submits.
const SENDERS: u64 = 1_000;
const TRANSFERS: usize = 8;
/// What each of them is given, wei.
const FUNDS: u64 = 1_000_000_000_000_000;
/// Each rate is measured so often and for so long, the best counting: what disturbs only ever takes away.
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(2);
/// A whole block is asked for so often.
const LOOKS: usize = 15;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo test --benches` and the like only ask whether it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (kedge, setup) = Node::kedge(dir.path()).await?;
    let anvil = Node::anvil(dir.path(), setup.chain_id).await?;
    let [first, second] = setup.keys.get(..2).context("two accounts")? else { unreachable!() };
    let mut bank = Sender::of(first, setup.chain_id)?;
    let mut full = Sender::of(second, setup.chain_id)?;

    let mut senders = (0..SENDERS)
        .map(|number| Sender::fresh(number, setup.chain_id))
        .collect::<Result<Vec<_>>>()?;
    let funding = senders
        .iter()
        .map(|sender| bank.transfer(sender.address(), FUNDS))
        .collect::<Result<Vec<_>>>()?;
    let block = (0..FULL)
        .map(|number| full.transfer(recipient(number), 1 + number as u64))
        .collect::<Result<Vec<_>>>()?;
    let small = bank.transfer(recipient(0), 1)?;

    let mut numbers = Vec::new();
    for node in [&kedge, &anvil] {
        for part in funding.chunks(500) {
            node.send(&encoded(part)).await?;
            node.include(&part.last().context("a chunk is not empty")?.hash).await?;
        }
        // The first comes last, so that all wait for it and go into one block.
        node.send(&encoded(&block[1..])).await?;
        node.send(&encoded(&block[..1])).await?;
        let number = node.include(&block.last().context("a full block")?.hash).await?;
        ensure!(node.count(&number).await? >= FULL as u64, "the block was divided");
        numbers.push(number);
        node.send(&encoded(std::slice::from_ref(&small))).await?;
        node.include(&small.hash).await?;
    }
    let [of_kedge, of_anvil] = &numbers[..] else { unreachable!() };

    println!("answers per second, {CONNECTIONS} connections of one thread");
    println!(
        "{:44} {:>9} {:>9} {:>6}   {:>11} {:>11}   {:>11} {:>11}",
        "", "kedge", "anvil", "ratio", "kedge p50", "p99 ms", "anvil p50", "p99 ms"
    );
    let asked = bank.address();
    let hello = "0x68656c6c6f2c20776f726c64";
    let sha256 = json!([{"to": Address::with_last_byte(2), "data": hello}, "latest"]);
    for (name, method, params) in [
        ("eth_blockNumber", "eth_blockNumber", json!([])),
        ("eth_getBalance", "eth_getBalance", json!([asked, "latest"])),
        ("eth_getBlockByNumber, latest, hashes", "eth_getBlockByNumber", json!(["latest", false])),
        ("eth_call, sha256", "eth_call", sha256),
    ] {
        compare(name, [&kedge, &anvil], method, [&params, &params]).await?;
    }
    let params = [of_kedge, of_anvil].map(|number| json!([number, false]));
    let [a, b] = &params;
    let name = format!("eth_getBlockByNumber, {FULL} hashes");
    compare(&name, [&kedge, &anvil], "eth_getBlockByNumber", [a, b]).await?;

    println!("\nms for a block of {FULL} transfers");
    println!("{:44} {:>9} {:>9} {:>6}   {:>11}", "", "kedge", "anvil", "ratio", "kedge first");
    for (name, method, full) in [
        ("eth_getBlockByNumber, transactions", "eth_getBlockByNumber", true),
        ("eth_getBlockReceipts", "eth_getBlockReceipts", false),
    ] {
        let params = [of_kedge, of_anvil]
            .map(|number| if full { json!([number, true]) } else { json!([number]) });
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..LOOKS {
            for ((node, params), times) in [&kedge, &anvil].iter().zip(&params).zip(&mut times) {
                let (at, request) = (node.at, encode(method, params));
                times.push(apart(move || load::single(at, &request)).await?.0);
            }
        }
        let [kedge, anvil] = times;
        let (first, kedge, anvil) = (ms(kedge[0]), ms(median(kedge)), ms(median(anvil)));
        println!("{name:44} {kedge:9.2} {anvil:9.2} {:6.3}   {first:11.2}", kedge / anvil);
    }

    println!("\nsubmissions per second, {SENDERS} senders");
    let mut best: [Option<Load>; 2] = [None, None];
    for _ in 0..ROUNDS {
        let mut lists = vec![Vec::new(); CONNECTIONS];
        for (number, sender) in senders.iter_mut().enumerate() {
            for _ in 0..TRANSFERS {
                let tx = sender.transfer(recipient(number), 1)?;
                lists[number % CONNECTIONS]
                    .push(encode("eth_sendRawTransaction", &json!([tx.encoded])));
            }
        }
        for (node, best) in [&kedge, &anvil].iter().zip(&mut best) {
            let (at, lists) = (node.at, lists.clone());
            let load = apart(move || load::send(at, lists)).await?;
            keep_best(best, load);
        }
    }
    row("eth_sendRawTransaction", best);
    Ok(())
}

fn recipient(number: usize) -> Address {
    Address::left_padding_from(&(0x1000_0000 + number as u64).to_be_bytes())
}

fn encoded(transactions: &[Signed]) -> Vec<String> {
    transactions.iter().map(|tx| tx.encoded.clone()).collect()
}

/// Off the thread that reads what the processes print.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// The rates of one request, measured in turn.
async fn compare(name: &str, nodes: [&Node; 2], method: &str, params: [&Value; 2]) -> Result<()> {
    let mut best: [Option<Load>; 2] = [None, None];
    for _ in 0..ROUNDS {
        for ((node, params), best) in nodes.iter().zip(params).zip(&mut best) {
            let (at, request) = (node.at, encode(method, params));
            keep_best(best, apart(move || load::repeat(at, &request, TIME)).await?);
        }
    }
    row(name, best);
    Ok(())
}

/// The highest rate counts: what disturbs only ever lowers it.
fn keep_best(best: &mut Option<Load>, load: Load) {
    if best.is_none_or(|best| best.rate < load.rate) {
        *best = Some(load);
    }
}

fn row(name: &str, best: [Option<Load>; 2]) {
    let [Some(kedge), Some(anvil)] = best else { return };
    println!(
        "{name:44} {:9.0} {:9.0} {:6.2}   {:11.3} {:11.3}   {:11.3} {:11.3}",
        kedge.rate,
        anvil.rate,
        kedge.rate / anvil.rate,
        ms(kedge.p50),
        ms(kedge.p99),
        ms(anvil.p50),
        ms(anvil.p99)
    );
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
