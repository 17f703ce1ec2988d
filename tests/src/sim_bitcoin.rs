//! A regtest Bitcoin in memory: blocks that need no validation by a node of their own because they are made
//! here, with the mempool, the relay policies and the script checks of the embedded chain. What it does
//! depends on the calls alone, so the same calls make the same chain.

use crate::l1::TestBitcoin;
use anyhow::{Result, anyhow, ensure};
use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{
    Block, BlockHash, FeeRate, Network, OutPoint, Script, Transaction, TxOut, Txid,
    blockdata::constants::genesis_block,
};
use kedge::l1::embedded::coins::{Coin, Coins};
use kedge::l1::embedded::pool::Pool;
use kedge::l1::embedded::rules::{Refusal, Tip, check_consensus, code};
use kedge::l1::embedded::template::{MAX_TXS_WEIGHT, Template};
use kedge::l1::{Bitcoin, Broadcast, ChainInfo, L1Error, Unspent};
use kedge_genesis::{L1Height, L1Ref};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Seconds between the times of two blocks.
pub const BLOCK_INTERVAL: u32 = 600;

/// The simulated chain. Share it as an `Arc`; it is its own client.
pub struct SimBitcoin {
    state: Mutex<State>,
    tip: watch::Sender<BlockHash>,
}

struct State {
    /// The best chain, by height.
    links: Vec<Link>,
    /// Every block ever made, orphaned ones included.
    blocks: HashMap<BlockHash, Arc<Block>>,
    /// Median time past, by height.
    median_times: Arc<Vec<u32>>,
    coins: Coins,
    pool: Pool,
    fee_rate: Option<FeeRate>,
    /// Blocks made so far, which makes those of the same height differ.
    made: u64,
}

/// A block of the best chain.
struct Link {
    hash: BlockHash,
    header: Header,
    /// The coins that it spent, by transaction after the coinbase and input.
    spent: Vec<Vec<Coin>>,
}

impl std::fmt::Debug for SimBitcoin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimBitcoin").field("tip", &self.tip()).finish_non_exhaustive()
    }
}

impl Default for SimBitcoin {
    fn default() -> Self {
        Self::new()
    }
}

impl SimBitcoin {
    /// Regtest's genesis block and nothing else.
    pub fn new() -> Self {
        let genesis = genesis_block(Network::Regtest);
        let hash = genesis.block_hash();
        let header = genesis.header;
        let state = State {
            links: vec![Link { hash, header, spent: Vec::new() }],
            blocks: HashMap::from([(hash, Arc::new(genesis))]),
            median_times: Arc::new(vec![header.time]),
            coins: Coins::default(),
            pool: Pool::default(),
            fee_rate: Some(FeeRate::BROADCAST_MIN),
            made: 0,
        };
        Self { state: Mutex::new(state), tip: watch::Sender::new(hash) }
    }

    /// The best block.
    pub fn tip(&self) -> L1Ref {
        let state = self.state.lock();
        let hash = bitcoin::hashes::Hash::to_byte_array(state.tip().hash);
        L1Ref { height: L1Height(state.height()), hash: hash.into() }
    }

    /// The block at a height of the best chain.
    pub fn block_at(&self, height: L1Height) -> Option<Arc<Block>> {
        let state = self.state.lock();
        let link = state.links.get(usize::try_from(height.0).ok()?)?;
        state.blocks.get(&link.hash).cloned()
    }

    /// Mines one block of what the mempool holds, best fee rate first; its reward goes to `to`.
    ///
    /// # Errors
    /// Never, as long as the mempool holds only what can be mined.
    pub fn mine_now(&self, to: &Script) -> Result<Arc<Block>> {
        let state = self.state.lock();
        let (txs, _) = state.pool.select(MAX_TXS_WEIGHT);
        let txs = txs.iter().map(|tx| Transaction::clone(tx)).collect();
        self.extend(state, to, txs)
    }

    /// Mines one block of exactly these transactions in this order.
    ///
    /// # Errors
    /// When one of them is not valid there by consensus.
    pub fn mine_exactly_now(&self, to: &Script, txs: &[Transaction]) -> Result<Arc<Block>> {
        self.extend(self.state.lock(), to, txs.to_vec())
    }

    fn extend(
        &self,
        mut state: MutexGuard<'_, State>,
        to: &Script,
        txs: Vec<Transaction>,
    ) -> Result<Arc<Block>> {
        let block = Arc::new(state.extend(to, txs)?);
        drop(state);
        self.tip.send_replace(block.block_hash());
        Ok(block)
    }

    /// Takes the last `depth` blocks back; their transactions return to the mempool where they can, before
    /// those that wait.
    ///
    /// # Errors
    /// When there are no more than `depth` blocks.
    pub fn take_back_now(&self, depth: u32) -> Result<()> {
        let mut state = self.state.lock();
        ensure!(depth <= state.height(), "the chain has no {depth} blocks above its first");
        let mut freed = Vec::new();
        for _ in 0..depth {
            freed.push(state.disconnect());
        }
        let waiting = std::mem::take(&mut state.pool).in_order();
        let freed = freed.iter().rev().flat_map(|block| block.txdata.iter().skip(1));
        for tx in freed.cloned().map(Arc::new).chain(waiting) {
            // Those that cannot wait any more are lost, as on a real node.
            let _ = state.admit(tx);
        }
        let tip = state.tip().hash;
        drop(state);
        self.tip.send_replace(tip);
        Ok(())
    }

    /// Hands a transaction to the mempool.
    pub fn submit(&self, tx: &Transaction) -> Broadcast {
        match self.state.lock().admit(Arc::new(tx.clone())) {
            Ok(true) => Broadcast::Accepted,
            Ok(false) => Broadcast::AlreadyKnown,
            Err(refusal) if refusal.code == code::KNOWN => Broadcast::AlreadyKnown,
            Err(refusal) => Broadcast::Rejected { code: refusal.code, reason: refusal.reason },
        }
    }

    /// Sets what the node estimates; none to have no estimate.
    pub fn set_fee_rate(&self, rate: Option<FeeRate>) {
        self.state.lock().fee_rate = rate;
    }

    /// Forgets a transaction of the mempool and its descendants.
    pub fn evict(&self, txid: &Txid) {
        self.state.lock().pool.evict(txid);
    }

    /// What waits in the mempool, in the order of arrival.
    pub fn waiting(&self) -> Vec<Arc<Transaction>> {
        self.state.lock().pool.in_order()
    }
}

impl State {
    fn tip(&self) -> &Link {
        self.links.last().expect("the genesis block is never taken back")
    }

    fn height(&self) -> u32 {
        u32::try_from(self.links.len() - 1).expect("heights fit 32 bits")
    }

    fn rules(&self) -> Tip {
        Tip { height: self.height(), median_times: self.median_times.clone() }
    }

    fn admit(&mut self, tx: Arc<Transaction>) -> Result<bool, Refusal> {
        let tip = self.rules();
        let now = u64::from(self.tip().header.time);
        self.pool.accept(tx, &self.coins, &tip, now)
    }

    /// Makes the next block and moves to it.
    fn extend(&mut self, to: &Script, txs: Vec<Transaction>) -> Result<Block> {
        let (rules, height) = (self.rules(), self.height() + 1);
        let (mut spent, mut fees) = (Vec::new(), 0);
        let mut fault = None;
        for tx in &txs {
            match check_consensus(tx, &self.coins, &rules) {
                Ok((coins, fee)) => {
                    self.coins.apply(tx, height);
                    spent.push(coins);
                    fees += fee;
                }
                Err(refusal) => {
                    fault = Some(anyhow!("{}: {}", tx.compute_txid(), refusal.reason));
                    break;
                }
            }
        }
        self.made += 1;
        let parent = self.tip();
        let template = Template {
            parent: parent.hash,
            height,
            time: parent.header.time + BLOCK_INTERVAL,
            bits: parent.header.bits,
            script: to,
            fees,
            extra: self.made,
        };
        if let Some(fault) = fault {
            let done = txs.into_iter().take(spent.len());
            self.coins.disconnect(&template.block(done), spent);
            return Err(fault);
        }
        let block = template.block(txs.into_iter());
        let coinbase = block.txdata.first().expect("every block begins with its coinbase");
        self.coins.apply(coinbase, height);
        self.pool.confirm(&block.txdata);
        let (hash, header) = (block.block_hash(), block.header);
        self.links.push(Link { hash, header, spent });
        self.blocks.insert(hash, Arc::new(block.clone()));
        let mut times: Vec<u32> =
            self.links.iter().rev().take(11).map(|link| link.header.time).collect();
        times.sort_unstable();
        Arc::make_mut(&mut self.median_times).push(times[times.len() / 2]);
        Ok(block)
    }

    /// Takes the last block back.
    fn disconnect(&mut self) -> Arc<Block> {
        let link = self.links.pop().expect("the caller counted");
        Arc::make_mut(&mut self.median_times).pop();
        let block = self.blocks[&link.hash].clone();
        self.coins.disconnect(&block, link.spent);
        block
    }

    fn unspent(&self, outpoint: &OutPoint, mempool: bool) -> Option<Unspent> {
        if mempool && self.pool.spender(outpoint).is_some() {
            return None;
        }
        if let Some(coin) = self.coins.get(outpoint) {
            let confirmations = self.height() - coin.height + 1;
            let (output, coinbase) = (coin.output.clone(), coin.coinbase);
            return Some(Unspent { output, confirmations, coinbase });
        }
        let entry = self.pool.get(&outpoint.txid).filter(|_| mempool)?;
        let output: TxOut = entry.tx.output.get(outpoint.vout as usize)?.clone();
        Some(Unspent { output, confirmations: 0, coinbase: false })
    }
}

#[async_trait]
impl Bitcoin for SimBitcoin {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        let state = self.state.lock();
        let height = L1Height(state.height());
        Ok(ChainInfo {
            chain: "regtest".to_owned(),
            height,
            headers: height,
            best: state.tip().hash,
            ibd: false,
            pruned_below: None,
        })
    }

    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        Ok(self.state.lock().links.get(height.0 as usize).map(|link| link.hash))
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        let found = self.state.lock().blocks.get(hash).cloned();
        found.map(|block| Block::clone(&block)).ok_or(L1Error::BlockNotFound { hash: *hash })
    }

    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        let found = self.state.lock().blocks.get(hash).map(|block| block.header);
        found.ok_or(L1Error::BlockNotFound { hash: *hash })
    }

    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        Ok(self.submit(tx))
    }

    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        Ok(self.state.lock().unspent(outpoint, mempool))
    }

    async fn fee_rate(&self, _target_blocks: u16) -> Result<Option<FeeRate>, L1Error> {
        Ok(self.state.lock().fee_rate)
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

#[async_trait]
impl TestBitcoin for Arc<SimBitcoin> {
    fn client(&self) -> Arc<dyn Bitcoin> {
        self.clone()
    }

    async fn mine(&self, to: &Script) -> Result<BlockHash> {
        Ok(self.mine_now(to)?.block_hash())
    }

    async fn mine_exactly(&self, to: &Script, txs: &[Transaction]) -> Result<BlockHash> {
        Ok(self.mine_exactly_now(to, txs)?.block_hash())
    }

    async fn take_back(&self, depth: u32) -> Result<()> {
        self.take_back_now(depth)
    }
}
