//! How fast a node imports full blocks, state roots and storage included, against bare revm on the same
//! transactions in the same run, with few accounts and with many.
//!
//! Times are printed, never asserted; `docs/benchmarks.md` has the results and what they rest on. Numbers of
//! accounts may be given as arguments.

mod bare;
mod state;
mod trie;
mod work;

use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, block, transaction,
};
use kedge::block_file::{FileBlock, Imported, import_blocks, read_block};
use kedge::engine::{Engine, EngineOptions};
use kedge_genesis::L1Height;
use kedge_store::Store;
use state::{People, create, identity, params};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tikv_jemallocator::Jemalloc;
use work::Work;

/// The allocator of `kedge`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const ACCOUNTS: [u64; 2] = [10_000, 5_000_000];
const BLOCKS: u64 = 60;
/// Measured so many times, alternating; the shortest counts, for what disturbs only ever adds.
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    // `cargo test --benches` and the like only ask whether it builds.
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let chosen: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let mut first: Vec<Row> = Vec::new();
    println!(
        "accounts  transactions      count  Mgas    revm ms  revm tx/s  revm Mgas/s  import ms  tx/s    Mgas/s  \
         of revm  of fewest accounts"
    );
    for accounts in if chosen.is_empty() { ACCOUNTS.to_vec() } else { chosen } {
        let dir = TempDir::new()?;
        let people = People::new(accounts);
        let genesis = dir.path().join("genesis");
        create(&genesis, &people)?;
        let store = Store::open(&genesis, &identity()?)?;
        let rows = Work::ALL
            .into_iter()
            .map(|work| measure(dir.path(), &store, &people, work))
            .collect::<Result<Vec<_>>>()?;
        for (work, row) in Work::ALL.into_iter().zip(&rows) {
            let fewest = first.iter().find(|other| other.work == work).unwrap_or(row);
            row.print(accounts, fewest);
        }
        if first.is_empty() {
            first = rows;
        }
    }
    Ok(())
}

/// One workload on one state.
struct Row {
    work: Work,
    transactions: usize,
    gas: u64,
    bare: Duration,
    import: Duration,
}

impl Row {
    fn rates(&self, time: Duration) -> (f64, f64) {
        let seconds = time.as_secs_f64();
        (self.transactions as f64 / seconds, self.gas as f64 / 1e6 / seconds)
    }

    fn print(&self, accounts: u64, fewest: &Self) {
        let (bare_rate, bare_gas) = self.rates(self.bare);
        let (rate, gas) = self.rates(self.import);
        println!(
            "{accounts:8}  {:16}  {:5}  {:6.1}  {:7.0}  {bare_rate:9.0}  {bare_gas:11.0}  {:9.0}  {rate:6.0}  \
             {gas:6.0}  {:7.2}  {:18.2}",
            self.work.name(),
            self.transactions,
            self.gas as f64 / 1e6,
            self.bare.as_secs_f64() * 1e3,
            self.import.as_secs_f64() * 1e3,
            gas / bare_gas,
            gas / fewest.rates(fewest.import).1,
        );
    }
}

/// An engine on a copy of block 0, one Bitcoin block on.
fn engine(genesis: &Store, to: &Path) -> Result<Engine> {
    genesis.checkpoint(to)?;
    let store = Arc::new(Store::open(to, &identity()?)?);
    let engine = Engine::open(store, params(), EngineOptions::default())?;
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(B256::repeat_byte(1).to_vec()),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(5_000_000_000),
            script_pubkey: ScriptBuf::new(),
        }],
    };
    let mut block = Block {
        header: block::Header {
            version: block::Version::TWO,
            prev_blockhash: BlockHash::from_byte_array(params().l1_start.hash.0),
            merkle_root: TxMerkleNode::all_zeros(),
            time: params().l1_start_time + 60,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        },
        txdata: vec![coinbase],
    };
    block.header.merkle_root = block.compute_merkle_root().context("a coinbase")?;
    engine.connect_l1(L1Height(params().l1_start.height.0 + 1), block)?;
    Ok(engine)
}

fn measure(dir: &Path, genesis: &Store, people: &People, work: Work) -> Result<Row> {
    let path = dir.join("source");
    let source = engine(genesis, &path)?;
    let file = work::fill(&source, people, work, BLOCKS)?;
    drop(source);
    std::fs::remove_dir_all(path)?;
    let mut blocks: Vec<FileBlock> = Vec::new();
    let mut rest = file.as_slice();
    while let Some((block, _)) = read_block(&mut rest)? {
        blocks.push(block);
    }
    let state = bare::state(people, &blocks)?;
    let mut row = Row {
        work,
        transactions: bare::users(&blocks).count(),
        gas: blocks.iter().map(|block| block.header.gas_used).sum(),
        bare: Duration::MAX,
        import: Duration::MAX,
    };
    for _ in 0..ROUNDS {
        row.bare = row.bare.min(bare::run(state.clone(), &blocks)?);
        let path = dir.join("import");
        let engine = engine(genesis, &path)?;
        row.import = row.import.min(import(&engine, &file)?);
        drop(engine);
        std::fs::remove_dir_all(path)?;
    }
    Ok(row)
}

/// What `kedge import` does with a file of blocks.
fn import(engine: &Engine, file: &[u8]) -> Result<Duration> {
    let (start, mut known) = (Instant::now(), 0);
    import_blocks(engine, file, |imported, _| known += u32::from(imported == Imported::Known))?;
    let took = start.elapsed();
    ensure!(known == 0, "{known} blocks were there already");
    Ok(took)
}
