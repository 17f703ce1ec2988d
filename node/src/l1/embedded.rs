//! A regtest Bitcoin inside this process: blocks are validated and stored by Bitcoin Core's own engine
//! (`bitcoinkernel`), and around it are what the engine lacks: a mempool, an index of unspent outputs
//! and a miner.
//!
//! The engine writes its databases only now and then. So that nothing acknowledged is lost with the
//! process, each block and each accepted transaction goes to a journal first; opening replays what the
//! engine does not have.

pub mod coins;
mod journal;
pub mod pool;
pub mod rules;
pub mod template;

use super::{Bitcoin, Broadcast, ChainInfo, L1Error, Unspent};
use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, FeeRate, OutPoint, Script, Transaction, TxOut, Txid, consensus,
};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    BlockTreeEntry, ChainType, ChainstateManager, Context, ContextBuilder, ProcessBlockResult,
};
use coins::{Coin, Coins};
use journal::Journal;
use kedge_genesis::L1Height;
use parking_lot::Mutex;
use pool::Pool;
use rules::{Refusal, Tip, code};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};
use template::Template;
use tokio::sync::watch;

/// The mempool's journal is rewritten once it is this long, bytes.
const POOL_JOURNAL_LIMIT: u64 = 4 << 20;

/// The embedded chain. Cheap to share; every call is short.
pub struct Embedded {
    state: Mutex<State>,
    tip: watch::Sender<BlockHash>,
}

struct State {
    // Dropped before the context that it was made with.
    engine: ChainstateManager,
    _context: Context,
    /// The best chain, by height.
    links: Vec<Link>,
    heights: HashMap<BlockHash, u32>,
    /// Median time past, by height.
    median_times: Arc<Vec<u32>>,
    coins: Coins,
    pool: Pool,
    blocks: Journal,
    pending: Journal,
    fee_rate: Option<FeeRate>,
    extra: u64,
    _lock: File,
}

/// A block of the best chain.
#[derive(Clone, Copy)]
struct Link {
    hash: BlockHash,
    header: Header,
}

/// What the mempool knows of one of its transactions.
#[derive(Clone, Debug)]
pub struct PoolEntry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its fee.
    pub fee: Amount,
    /// Its virtual size, virtual bytes.
    pub vsize: u64,
    /// When it arrived, Unix seconds.
    pub time: u64,
    /// The tip's height when it arrived.
    pub height: L1Height,
    /// The transactions of the mempool that it spends.
    pub depends: Vec<Txid>,
    /// The transactions of the mempool that spend it.
    pub spent_by: Vec<Txid>,
    /// Ancestors in the mempool, itself included.
    pub ancestors: usize,
    /// Descendants in the mempool, itself included.
    pub descendants: usize,
}

/// A block's place in the best chain.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its height.
    pub height: L1Height,
    /// Its median time past, Unix seconds.
    pub median_time: u32,
    /// The block after it, when it is not the tip.
    pub next: Option<BlockHash>,
}

impl Embedded {
    /// Opens the chain in `datadir`, or starts one there with regtest's genesis block.
    ///
    /// # Errors
    /// [`L1Error::Locked`] when another process has it open, [`L1Error::Damaged`] when a journal does
    /// not read back, or when the engine or the file system fails.
    pub fn open(datadir: &Path) -> Result<Arc<Self>, L1Error> {
        forward_log();
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| L1Error::Io { path, source }
        };
        let blocks_dir = datadir.join("blocks");
        std::fs::create_dir_all(&blocks_dir).map_err(io(&blocks_dir))?;
        let lock_path = datadir.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(L1Error::Locked { path: datadir.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(&lock_path)(source)),
        }
        let (blocks, mined) = Journal::open(datadir.join("blocks.journal"))?;
        let (pending, waiting) = Journal::open(datadir.join("mempool.journal"))?;
        let context = ContextBuilder::new().chain_type(ChainType::Regtest).build()?;
        let engine =
            ChainstateManager::builder(&context, &text(datadir)?, &text(&blocks_dir)?)?.build()?;
        engine.import_blocks()?;
        for raw in &mined {
            if !has_block(&engine, raw) {
                let block = bitcoinkernel::Block::new(raw)?;
                if engine.process_block(&block).is_rejected() {
                    tracing::warn!(hash = %block.hash(), "a block of the journal is refused");
                }
            }
        }
        let mut state = State {
            engine,
            _context: context,
            links: Vec::new(),
            heights: HashMap::new(),
            median_times: Arc::default(),
            coins: Coins::default(),
            pool: Pool::default(),
            blocks,
            pending,
            fee_rate: Some(FeeRate::from_sat_per_vb_u32(1)),
            extra: u64::from(now()) << 32,
            _lock: lock,
        };
        state.follow_engine()?;
        for raw in waiting {
            if let Ok(tx) = consensus::deserialize::<Transaction>(&raw) {
                let _ = state.admit(Arc::new(tx));
            }
        }
        state.compact()?;
        let tip = watch::Sender::new(state.tip().hash);
        Ok(Arc::new(Self { state: Mutex::new(state), tip }))
    }

    /// Mines blocks of what the mempool holds; their rewards go to `script`.
    ///
    /// # Errors
    /// When the engine or the file system fails; the blocks made before remain.
    pub fn mine(&self, count: u32, script: &Script) -> Result<Vec<BlockHash>, L1Error> {
        let mut hashes = Vec::new();
        for left in (0..count).rev() {
            let mut state = self.state.lock();
            let parent = state.tip();
            let (txs, fees) = state.pool.select(template::MAX_TXS_WEIGHT);
            let time = state.next_time(parent.hash, left);
            let made = state.make(parent, time, script, fees, &txs);
            let hash = match made.and_then(|block| state.connect(&block)) {
                Ok(hash) => hash,
                Err(L1Error::BlockRefused { reason }) if !txs.is_empty() => {
                    tracing::error!(reason, "dropping a mempool that makes no block");
                    state.pool = Pool::default();
                    let block = state.make(parent, time, script, 0, &[])?;
                    state.connect(&block)?
                }
                Err(error) => return Err(error),
            };
            hashes.push(hash);
            drop(state);
            self.tip.send_replace(hash);
        }
        let mut state = self.state.lock();
        state.blocks.sync()?;
        state.compact()?;
        Ok(hashes)
    }

    /// Mines empty blocks on any known block. When their branch outgrows the best chain it becomes the
    /// best chain: a reorg.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`] when `parent` is not known, or as [`Self::mine`].
    pub fn mine_on(
        &self,
        parent: BlockHash,
        count: u32,
        script: &Script,
    ) -> Result<Vec<BlockHash>, L1Error> {
        let mut hashes = Vec::new();
        let mut state = self.state.lock();
        let mut parent = Link { hash: parent, header: state.header(&parent)? };
        for left in (0..count).rev() {
            let time = state.next_time(parent.hash, left);
            let block = state.make(parent, time, script, 0, &[])?;
            let hash = state.connect(&block)?;
            parent = Link { hash, header: block.header };
            hashes.push(hash);
        }
        state.blocks.sync()?;
        let best = state.tip().hash;
        drop(state);
        self.tip.send_replace(best);
        Ok(hashes)
    }

    /// Takes in a block that somebody else made.
    ///
    /// # Errors
    /// [`L1Error::BlockRefused`] when it is not valid, or when the engine or the file system fails.
    pub fn submit_block(&self, block: &Block) -> Result<(), L1Error> {
        let mut state = self.state.lock();
        state.connect(block)?;
        let best = state.tip().hash;
        drop(state);
        self.tip.send_replace(best);
        Ok(())
    }

    /// Height and hash of the best block.
    pub fn tip(&self) -> (L1Height, BlockHash) {
        let state = self.state.lock();
        (L1Height(state.height()), state.tip().hash)
    }

    /// The best block's hash, now and whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<BlockHash> {
        self.tip.subscribe()
    }

    /// Sets what [`Bitcoin::fee_rate`] answers; none to have no estimate, as a fresh node has none.
    pub fn set_fee_rate(&self, rate: Option<FeeRate>) {
        self.state.lock().fee_rate = rate;
    }

    /// Forgets a transaction of the mempool and its descendants, as a full mempool would.
    pub fn evict(&self, txid: &Txid) {
        self.state.lock().pool.evict(txid);
    }

    /// The mempool's transactions.
    pub fn pool_txids(&self) -> Vec<Txid> {
        self.state.lock().pool.txids().copied().collect()
    }

    /// How many transactions wait, and their virtual bytes.
    pub fn pool_size(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.pool.len(), state.pool.vsize())
    }

    /// What the mempool knows of a transaction.
    pub fn pool_entry(&self, txid: &Txid) -> Option<PoolEntry> {
        let state = self.state.lock();
        let entry = state.pool.get(txid)?;
        let count = |of: fn(&pool::Entry) -> Vec<&std::collections::BTreeSet<Txid>>| {
            state.pool.closure([*txid], of).len()
        };
        Some(PoolEntry {
            tx: entry.tx.clone(),
            fee: Amount::from_sat(entry.fee),
            vsize: entry.vsize,
            time: entry.time,
            height: L1Height(entry.height),
            depends: entry.parents().iter().copied().collect(),
            spent_by: entry.children().iter().copied().collect(),
            ancestors: count(|entry| vec![entry.parents()]),
            descendants: count(|entry| vec![entry.children()]),
        })
    }

    /// Where a block is in the best chain, none when it is not in it.
    pub fn place(&self, hash: &BlockHash) -> Option<Place> {
        let state = self.state.lock();
        let height = *state.heights.get(hash)?;
        let median_time = state.median_times.get(height as usize).copied()?;
        let next = state.links.get(height as usize + 1).map(|link| link.hash);
        Some(Place { height: L1Height(height), median_time, next })
    }

    /// A block by hash, on the best chain or not.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`], or when the engine fails.
    pub fn block_now(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.state.lock().block(hash)
    }

    /// A header by hash, on the best chain or not.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`], or when the engine fails.
    pub fn header_now(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.state.lock().header(hash)
    }

    /// Hands a transaction to the mempool; it is in the journal when this returns.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn submit(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        let mut state = self.state.lock();
        match state.admit(Arc::new(tx.clone())) {
            Ok(true) => {
                state.pending.append(&consensus::serialize(tx))?;
                Ok(Broadcast::Accepted)
            }
            Ok(false) => Ok(Broadcast::AlreadyKnown),
            Err(refusal) if refusal.code == code::KNOWN => Ok(Broadcast::AlreadyKnown),
            Err(refusal) => Ok(Broadcast::Rejected { code: refusal.code, reason: refusal.reason }),
        }
    }

    /// The hash of the block at a height of the best chain.
    pub fn hash_at(&self, height: L1Height) -> Option<BlockHash> {
        self.state.lock().links.get(height.0 as usize).map(|link| link.hash)
    }

    /// The height of a block, on the best chain or not.
    ///
    /// # Errors
    /// [`L1Error::BlockNotFound`], or when the engine fails.
    pub fn height_of(&self, hash: &BlockHash) -> Result<L1Height, L1Error> {
        let state = self.state.lock();
        let height = state.entry(hash)?.height();
        Ok(L1Height(u32::try_from(height).unwrap_or_default()))
    }

    /// The fee rate that [`Bitcoin::fee_rate`] answers.
    pub fn estimate(&self) -> Option<FeeRate> {
        self.state.lock().fee_rate
    }

    /// The fee of a transaction whose inputs are known, whether it is in the mempool or not.
    pub fn fee_of(&self, tx: &Transaction) -> Option<Amount> {
        let state = self.state.lock();
        let mut held = Amount::ZERO;
        for input in &tx.input {
            let outpoint = &input.previous_output;
            let value = match (state.coins.get(outpoint), state.pool.get(&outpoint.txid)) {
                (Some(coin), _) => coin.output.value,
                (None, Some(entry)) => entry.tx.output.get(outpoint.vout as usize)?.value,
                (None, None) => return None,
            };
            held = held.checked_add(value)?;
        }
        let paid = tx.output.iter().map(|output| output.value);
        held.checked_sub(paid.sum())
    }

    /// Whether outputs of this transaction are unspent on the chain.
    pub fn is_confirmed(&self, tx: &Transaction) -> bool {
        let state = self.state.lock();
        let txid = tx.compute_txid();
        let count = u32::try_from(tx.output.len()).unwrap_or(u32::MAX);
        (0..count).any(|vout| state.coins.get(&OutPoint { txid, vout }).is_some())
    }

    /// See [`Bitcoin::tx_out`].
    pub fn unspent(&self, outpoint: &OutPoint, mempool: bool) -> Option<Unspent> {
        let state = self.state.lock();
        if mempool && state.pool.spender(outpoint).is_some() {
            return None;
        }
        if let Some(coin) = state.coins.get(outpoint) {
            let confirmations = state.height() - coin.height + 1;
            let (output, coinbase) = (coin.output.clone(), coin.coinbase);
            return Some(Unspent { output, confirmations, coinbase });
        }
        let entry = state.pool.get(&outpoint.txid).filter(|_| mempool)?;
        let output: TxOut = entry.tx.output.get(outpoint.vout as usize)?.clone();
        Some(Unspent { output, confirmations: 0, coinbase: false })
    }
}

impl State {
    fn tip(&self) -> Link {
        *self.links.last().expect("there is always the genesis block")
    }

    fn height(&self) -> u32 {
        u32::try_from(self.links.len() - 1).expect("heights fit 32 bits")
    }

    fn entry(&self, hash: &BlockHash) -> Result<BlockTreeEntry<'_>, L1Error> {
        let key = bitcoinkernel::BlockHash::new(hash.as_byte_array())?;
        self.engine.get_block_tree_entry(&key).ok_or(L1Error::BlockNotFound { hash: *hash })
    }

    fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        if let Some(link) = self.heights.get(hash).and_then(|at| self.links.get(*at as usize)) {
            return Ok(link.header);
        }
        Ok(self.block(hash)?.header)
    }

    fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        decode(&self.engine.read_block_data(&self.entry(hash)?)?)
    }

    /// The time of a block on `parent` after which `left` more are to follow at once: they count up to
    /// now, so that mining many does not run ahead of the clock.
    fn next_time(&self, parent: BlockHash, left: u32) -> u32 {
        let mut times = Vec::new();
        let mut at = parent;
        while times.len() < 11 {
            let Ok(header) = self.header(&at) else { break };
            times.push(header.time);
            at = header.prev_blockhash;
        }
        median(times).saturating_add(1).max(now().saturating_sub(left))
    }

    fn make(
        &mut self,
        parent: Link,
        time: u32,
        script: &Script,
        fees: u64,
        txs: &[Arc<Transaction>],
    ) -> Result<Block, L1Error> {
        let height = u32::try_from(self.entry(&parent.hash)?.height()).unwrap_or_default() + 1;
        self.extra += 1;
        let extra = self.extra;
        let bits = parent.header.bits;
        let template = Template { parent: parent.hash, height, time, bits, script, fees, extra };
        Ok(template.block(txs.iter().map(|tx| Transaction::clone(tx))))
    }

    /// Journals a block, has the engine validate it, and follows the engine's best chain.
    fn connect(&mut self, block: &Block) -> Result<BlockHash, L1Error> {
        let hash = block.block_hash();
        let raw = consensus::serialize(block);
        self.blocks.append(&raw)?;
        match self.engine.process_block(&bitcoinkernel::Block::new(&raw)?) {
            ProcessBlockResult::NewBlock | ProcessBlockResult::Duplicate => {}
            ProcessBlockResult::Rejected => {
                return Err(L1Error::BlockRefused { reason: format!("{hash} is not valid") });
            }
        }
        let links = self.links.len();
        self.follow_engine()?;
        if self.links.len() == links && !self.heights.contains_key(&hash) {
            // A valid header whose body fails is accepted first and found out when connected.
            let best = self.tip().hash;
            if block.header.prev_blockhash == best {
                return Err(L1Error::BlockRefused { reason: format!("{hash} does not connect") });
            }
        }
        Ok(hash)
    }

    /// Brings links, coins and mempool to the engine's best chain.
    fn follow_engine(&mut self) -> Result<(), L1Error> {
        let mut returned = Vec::new();
        while let Some(link) = self.links.last().copied() {
            let height = self.height();
            if self.best_hash(height) == Some(link.hash) {
                break;
            }
            let block = self.block(&link.hash)?;
            let spent = self.spent_by(&link.hash)?;
            self.coins.disconnect(&block, spent);
            returned.push(block);
            self.links.pop();
            Arc::make_mut(&mut self.median_times).pop();
            self.heights.remove(&link.hash);
        }
        loop {
            let height = u32::try_from(self.links.len()).expect("heights fit 32 bits");
            let Some(hash) = self.best_hash(height) else { break };
            let block = self.block(&hash)?;
            self.coins.connect(&block, height);
            self.pool.confirm(&block.txdata);
            self.heights.insert(hash, height);
            self.links.push(Link { hash, header: block.header });
            let times = self.links.iter().rev().take(11).map(|link| link.header.time).collect();
            Arc::make_mut(&mut self.median_times).push(median(times));
        }
        if !returned.is_empty() {
            // What the orphaned blocks held waits again, where it still can, ahead of its descendants.
            let waiting = std::mem::take(&mut self.pool).in_order();
            let freed = returned
                .into_iter()
                .rev()
                .flat_map(|block| block.txdata.into_iter().skip(1).map(Arc::new));
            for tx in freed.chain(waiting) {
                let _ = self.admit(tx);
            }
            self.rewrite_pending()?;
        }
        Ok(())
    }

    fn best_hash(&self, height: u32) -> Option<BlockHash> {
        let entry = self.engine.active_chain().at_height(height as usize)?;
        Some(BlockHash::from_byte_array(entry.block_hash().to_bytes()))
    }

    /// The coins that a block spent, by transaction after the coinbase and input.
    fn spent_by(&self, hash: &BlockHash) -> Result<Vec<Vec<Coin>>, L1Error> {
        let spent = self.engine.read_spent_outputs(&self.entry(hash)?)?;
        let coins = |tx: bitcoinkernel::TransactionSpentOutputsRef<'_>| {
            tx.coins()
                .map(|coin| Coin {
                    output: TxOut {
                        value: Amount::from_sat(coin.output().value().unsigned_abs()),
                        script_pubkey: coin.output().script_pubkey().to_bytes().into(),
                    },
                    height: coin.confirmation_height(),
                    coinbase: coin.is_coinbase(),
                })
                .collect()
        };
        Ok(spent.iter().map(coins).collect())
    }

    fn admit(&mut self, tx: Arc<Transaction>) -> Result<bool, Refusal> {
        let tip = Tip { height: self.height(), median_times: self.median_times.clone() };
        self.pool.accept(tx, &self.coins, &tip, u64::from(now()))
    }

    fn compact(&mut self) -> Result<(), L1Error> {
        let stale = self.pool.is_empty() && self.pending.len() > 0;
        if stale || self.pending.len() > POOL_JOURNAL_LIMIT {
            self.rewrite_pending()?;
        }
        Ok(())
    }

    fn rewrite_pending(&mut self) -> Result<(), L1Error> {
        let txs = self.pool.in_order();
        self.pending.rewrite(txs.iter().map(|tx| consensus::serialize(&**tx)))
    }
}

#[async_trait]
impl Bitcoin for Embedded {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        let (height, best) = self.tip();
        let chain = "regtest".into();
        Ok(ChainInfo { chain, height, headers: height, best, ibd: false, pruned_below: None })
    }

    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        Ok(self.hash_at(height))
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.block_now(hash)
    }

    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.header_now(hash)
    }

    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        self.submit(tx)
    }

    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        Ok(self.unspent(outpoint, mempool))
    }

    async fn fee_rate(&self, _target_blocks: u16) -> Result<Option<FeeRate>, L1Error> {
        Ok(self.estimate())
    }

    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error> {
        Ok(self.state.lock().pool.get(txid).is_some())
    }

    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.tip.subscribe().wait_for(|tip| *tip != known).await;
        Ok(())
    }
}

/// The block of a journal record, when the engine has it on its best chain or beside it.
fn has_block(engine: &ChainstateManager, raw: &[u8]) -> bool {
    let Some(header) = raw.get(..80) else { return false };
    let Ok(header) = consensus::deserialize::<Header>(header) else { return false };
    let Ok(key) = bitcoinkernel::BlockHash::new(header.block_hash().as_byte_array()) else {
        return false;
    };
    let Some(entry) = engine.get_block_tree_entry(&key) else { return false };
    engine.active_chain().contains(&entry)
}

fn decode(block: &bitcoinkernel::Block) -> Result<Block, L1Error> {
    consensus::deserialize(&block.consensus_encode()?).map_err(|error| L1Error::Malformed {
        method: "the embedded engine",
        reason: error.to_string(),
    })
}

fn text(path: &Path) -> Result<String, L1Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| L1Error::Io {
        path: PathBuf::from(path),
        source: std::io::Error::other("the path is not UTF-8"),
    })
}

fn median(mut times: Vec<u32>) -> u32 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Passes the engine's log on, once per process.
fn forward_log() {
    struct Forward;
    impl bitcoinkernel::Log for Forward {
        fn log(&self, message: &str) {
            tracing::debug!(target: "bitcoinkernel", "{}", message.trim_end());
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| match bitcoinkernel::Logger::new(Forward) {
        // The connection lasts as long as it is not dropped.
        Ok(logger) => std::mem::forget(logger),
        Err(error) => tracing::warn!(%error, "the embedded bitcoin will not log"),
    });
}
