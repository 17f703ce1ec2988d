//! A soak: nodes that answer many requests of every kind, no answer wrong, and memory that stays as it is.
//!
//! `kedge dev` and a node that follows it are asked by several clients at a time. Each client draws its steps
//! from `MIX` by a seeded generator; what one step learns the next one asks for. What is checked is what must
//! hold whoever asks: methods that say the same agree, errors have the code of their contract, what follows
//! from final blocks alone is the same every time and at every node.
//!
//! | module | its job |
//! | --- | --- |
//! | `world`, `asker` | what is known of the chain and was answered; one client |
//! | `accounts` | transactions and contracts |
//! | `lookups`, `calls`, `traces`, `logs`, `wrong`, `bitcoin` | the steps |
//! | [`memory`] | what the nodes take |

mod accounts;
mod asker;
mod bitcoin;
mod calls;
mod logs;
mod lookups;
pub mod memory;
mod traces;
mod world;
mod wrong;

use crate::{
    kedge::{Dev, Node},
    until,
};
use accounts::{Deed, Sender, check_receipt};
use anyhow::{Context, Result, ensure};
use asker::Asker;
use memory::{Course, Samples};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration, time::Instant};
use tokio::task::JoinSet;
use world::{Included, World, number, text};

/// Clients at a time.
const CLIENTS: usize = 4;

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Requests to be answered.
    pub requests: u64,
    /// Transactions of before the run, which fill the nodes' caches.
    pub transactions: u64,
    /// Of the clients' choices.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that were answered.
    pub answered: u64,
    /// How many of them by method.
    pub counts: BTreeMap<String, u64>,
    /// What was wrong.
    pub wrong: Vec<String>,
    /// Different questions about final blocks, whose answers were compared whenever they were asked again.
    pub settled: usize,
    /// Memory by node.
    pub memory: Vec<(String, Option<Course>)>,
    /// The newest block in the end.
    pub blocks: u64,
    /// How long it took after the preparation.
    pub time: Duration,
}

impl Outcome {
    /// Whether every answer was right and memory flat.
    pub fn holds(&self) -> bool {
        let flat =
            |(_, course): &(_, Option<Course>)| course.is_some_and(|course| course.is_flat());
        self.wrong.is_empty() && self.memory.iter().all(flat)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (method, count) in &self.counts {
            writeln!(f, "{count:8} {method}")?;
        }
        let (minutes, seconds) = (self.time.as_secs() / 60, self.time.as_secs() % 60);
        writeln!(
            f,
            "{} requests of {} methods in {minutes} min {seconds} s, {} blocks; {} questions about final blocks",
            self.answered,
            self.counts.len(),
            self.blocks,
            self.settled
        )?;
        writeln!(f, "resident MiB by quarter of the run             peak   for 100,000 requests")?;
        for (name, course) in &self.memory {
            match course {
                Some(course) => writeln!(
                    f,
                    "{name:11} {course}   {}",
                    if course.is_flat() { "flat" } else { "NOT FLAT" }
                )?,
                None => writeln!(f, "{name:11} too few samples")?,
            }
        }
        writeln!(f, "{} wrong answers", self.wrong.len())
    }
}

macro_rules! mix {
    ($($weight:literal $step:ident,)*) => {
        /// How often a client does what, in parts of the sum.
        const MIX: &[(u32, &str)] = &[$(($weight, stringify!($step)),)*];

        impl Asker {
            async fn step(&mut self, name: &str) -> Result<()> {
                match name {
                    $(stringify!($step) => self.$step().await,)*
                    _ => unreachable!("steps are those of the table"),
                }
            }
        }
    };
}

mix! {
    120 look_at_block,
    10 look_at_uncles,
    100 look_at_receipts,
    120 look_at_transaction,
    100 look_for_nothing,
    100 look_at_account,
    120 look_at_tokens,
    60 look_at_balances,
    60 call_with_overrides,
    40 estimate,
    15 simulate,
    40 fees,
    15 about,
    20 pool,
    30 positions,
    8 bridge,
    40 debug_transaction,
    15 debug_block,
    15 debug_parts,
    20 debug_call,
    15 trace_transaction,
    10 trace_filter,
    15 trace_raw,
    15 otterscan,
    15 search,
    40 look_at_logs,
    40 search_logs,
    15 poll,
    15 listen,
    8 go_silent,
    100 wrong_parameters,
    40 wrong_body,
    5 oversize,
    40 failing_call,
    40 refused_transaction,
    40 batch,
    120 send,
    12 mine,
    4 deposit,
    1 reorganise,
}

impl Asker {
    /// A transaction of any kind.
    async fn send(&mut self) -> Result<()> {
        let deed = Deed::any(&mut self.rng);
        self.deed(deed).await.map(drop)
    }
}

/// Options of both nodes: the database's cache is small, so that it is full early, and filters that nobody
/// polls are gone within the run.
const SHARED: [&str; 2] = ["--cache-mb=32", "--rpc-filter-expiry=30"];

/// Runs a soak in an empty directory.
///
/// # Errors
/// When a node does not start or the chain cannot be prepared. Wrong answers are told in the outcome.
pub async fn run(options: Options, dir: &Path) -> Result<Outcome> {
    let all = [&["--l1-block-time=0"][..], &SHARED].concat();
    let mut dev = Dev::start(dir, &all).await?;
    let source = dev.ready.rpc.replacen("http", "ws", 1);
    let (l1, follow) = (format!("--l1-rpc={}", dev.ready.l1_rpc), format!("--follow={source}"));
    let all = [&["--network=dev", &l1, &follow][..], &SHARED].concat();
    let mut follower = Node::start(dir, "follower", &all).await?;
    let processes = [("kedge dev", dev.process.id()?), ("kedge node", follower.process.id()?)];

    let nodes = vec![dev.client().rpc, follower.client().rpc];
    let mut world = World::new(nodes, dev.bitcoin(), dev.ready.chain_id);
    let keys = dev.ready.accounts.iter().map(|account| Sender::of(&account.key, world.chain_id));
    let mut senders = keys.collect::<Result<Vec<_>>>()?;
    accounts::deploy(&mut world, &mut senders).await?;
    let world = Arc::new(world);
    let senders = prepare(&world, senders, options).await?;
    println!(
        "{} blocks, {} transactions; {CLIENTS} clients, {} requests, seed {}",
        world.known.lock().common,
        options.transactions,
        options.requests,
        options.seed
    );
    let samples = Arc::new(Samples::new(processes.map(|(_, id)| id).to_vec()));
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    let mut shares: Vec<Vec<Sender>> = (0..CLIENTS).map(|_| Vec::new()).collect();
    for (place, sender) in senders.into_iter().enumerate() {
        shares[place % CLIENTS].push(sender);
    }
    for (number, senders) in shares.into_iter().enumerate() {
        let rng =
            StdRng::seed_from_u64(options.seed.wrapping_mul(1_000).wrapping_add(number as u64));
        let asker = Asker { world: world.clone(), rng, node: 0, senders };
        clients.spawn(client(asker, options.requests, samples.clone()));
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    if world.wrong().is_empty() {
        dev.process.hush();
        follower.process.hush();
    }
    let memory = processes.iter().zip(samples.courses());
    Ok(Outcome {
        answered: world.answered(),
        counts: world.counts(),
        wrong: world.wrong(),
        settled: world.digests(),
        memory: memory.map(|((name, _), course)| ((*name).to_owned(), course)).collect(),
        blocks: world.known.lock().common,
        time: begin.elapsed(),
    })
}

/// Takes steps until enough is answered.
async fn client(mut asker: Asker, requests: u64, samples: Arc<Samples>) -> Result<()> {
    let world = asker.world.clone();
    let sum: u32 = MIX.iter().map(|(weight, _)| weight).sum();
    while world.answered() < requests && !world.is_over() {
        let mut place = asker.rng.random_range(0..sum);
        let chosen = MIX.iter().find(|(weight, _)| match place.checked_sub(*weight) {
            Some(rest) => {
                place = rest;
                false
            }
            None => true,
        });
        let (_, name) = chosen.context("a step")?;
        asker.node = asker.rng.random_range(0..world.nodes.len());
        let done = if *name == "reorganise" {
            let _alone = world.chain.write().await;
            asker.step(name).await
        } else {
            let _with_others = world.chain.read().await;
            asker.step(name).await
        };
        if let Err(error) = done {
            world.blame(name, &error);
        }
        samples.take(world.answered(), requests)?;
    }
    Ok(())
}

/// Fills the chain with transactions and the nodes' caches with blocks. Gives the senders back.
async fn prepare(
    world: &Arc<World>,
    senders: Vec<Sender>,
    options: Options,
) -> Result<Vec<Sender>> {
    let each = options.transactions / senders.len() as u64;
    let mut tasks = JoinSet::new();
    for (place, mut sender) in senders.into_iter().enumerate() {
        let (world, mut rng) = (world.clone(), StdRng::seed_from_u64(options.seed ^ place as u64));
        tasks.spawn(async move {
            for _ in 0..each {
                let tx = sender.next(Deed::any(&mut rng), &world, &mut rng)?;
                let params = json!([tx.encoded, 60_000]);
                let receipt = world.ask(0, "eth_sendRawTransactionSync", params).await?;
                check_receipt(&world, &tx, &receipt)?;
                world.known.lock().transactions.push(Included {
                    hash: tx.hash,
                    from: sender.address(),
                    nonce: tx.nonce,
                    block: number(&receipt["blockNumber"])?,
                    block_hash: text(&receipt["blockHash"])?.to_owned(),
                });
            }
            anyhow::Ok((place, sender))
        });
    }
    let mut senders = Vec::new();
    while let Some(done) = tasks.join_next().await {
        senders.push(done??);
    }
    senders.sort_by_key(|(place, _)| *place);
    let last = number(&world.ask(0, "eth_blockNumber", json!([])).await?)?;
    until("every node has the blocks", async || {
        let mut fewest = u64::MAX;
        for node in 0..world.nodes.len() {
            fewest = fewest.min(number(&world.ask(node, "eth_blockNumber", json!([])).await?)?);
        }
        Ok((fewest >= last).then_some(()))
    })
    .await?;
    world.known.lock().common = last;
    for _ in 0..4 {
        world.mine().await?;
    }
    for block in 0..=last {
        let block = world::hex(block);
        for node in 0..world.nodes.len() {
            for (method, params) in [
                ("eth_getBlockByNumber", json!([block, false])),
                ("eth_getBlockByNumber", json!([block, true])),
                ("eth_getBlockReceipts", json!([block])),
            ] {
                let found = world.ask(node, method, params).await?;
                ensure!(!found.is_null(), "no block {block}");
            }
        }
    }
    world.restart();
    Ok(senders.into_iter().map(|(_, sender)| sender).collect())
}
