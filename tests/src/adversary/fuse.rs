//! A process that ends at a chosen moment.

use async_trait::async_trait;
use bitcoin::{Block, BlockHash, FeeRate, OutPoint, Transaction, Txid, block::Header};
use kedge::l1::{
    Bitcoin, Broadcast, ChainInfo, L1Error, RecordTable, Records, Unspent,
    records::{Record, RecordWrite},
};
use kedge_genesis::L1Height;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What a role does to the world outside of it: writing records and broadcasting. It ends before one of them:
/// that one and all after it fail, and so does asking anything.
#[derive(Debug)]
pub struct Fuse {
    /// Effects that are still to come.
    left: AtomicU32,
}

const BLOWN: u32 = u32::MAX;

impl Fuse {
    /// Lets so many effects pass.
    pub fn after(effects: u32) -> Arc<Self> {
        Arc::new(Self { left: AtomicU32::new(effects) })
    }

    /// Whether the process has ended.
    pub fn is_blown(&self) -> bool {
        self.left.load(Ordering::SeqCst) == BLOWN
    }

    /// Lets an effect pass if it may.
    fn passes(&self) -> bool {
        let next = |left: u32| (left != BLOWN).then(|| left.checked_sub(1).unwrap_or(BLOWN));
        let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        !self.is_blown()
    }

    fn answers(&self) -> Result<(), L1Error> {
        if self.is_blown() { Err(ended()) } else { Ok(()) }
    }
}

fn ended() -> L1Error {
    L1Error::Unreachable { url: "nowhere".to_owned(), reason: "the process has ended".to_owned() }
}

/// Records that fail with the fuse.
pub struct FusedRecords(pub Arc<dyn Records>, pub Arc<Fuse>);

impl Records for FusedRecords {
    fn load(&self, table: RecordTable, prefix: &[u8]) -> anyhow::Result<Vec<Record>> {
        self.1.answers()?;
        self.0.load(table, prefix)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> anyhow::Result<()> {
        anyhow::ensure!(self.1.passes(), "the process has ended");
        self.0.write(writes)
    }
}

/// A Bitcoin that fails with the fuse.
pub struct FusedBitcoin(pub Arc<dyn Bitcoin>, pub Arc<Fuse>);

#[async_trait]
impl Bitcoin for FusedBitcoin {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        self.1.answers()?;
        self.0.chain_info().await
    }

    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        self.1.answers()?;
        self.0.block_hash(height).await
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.1.answers()?;
        self.0.block(hash).await
    }

    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.1.answers()?;
        self.0.header(hash).await
    }

    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        if !self.1.passes() {
            return Err(ended());
        }
        self.0.broadcast(tx).await
    }

    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        self.1.answers()?;
        self.0.tx_out(outpoint, mempool).await
    }

    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, L1Error> {
        self.1.answers()?;
        self.0.fee_rate(target_blocks).await
    }

    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error> {
        self.1.answers()?;
        self.0.in_mempool(txid).await
    }

    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
        self.1.answers()?;
        self.0.wait_tip_change(known).await
    }
}
