//! A chain of Bitcoin blocks above a network's start, walked once from its first to its last. Only the hashes
//! of the blocks passed and a few blocks are in memory; what is needed again is read again.

use crate::l1::{self, Bitcoin, L1Error};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash};
use kedge_bridge::derive::{L1Block, L1Lookup};
use kedge_fraud_proof::{OwnBlock, OwnChain};
use kedge_genesis::{L1Height, L1Ref, Params};
use parking_lot::Mutex;
use std::{collections::VecDeque, path::PathBuf, sync::Arc};
use tokio::runtime::Handle;

/// How many blocks are kept, some 10 MB each at most: a segment reads those of its epochs and its channel.
const RECENT: usize = 8;

/// Why Bitcoin's blocks could not be read. Says nothing about a proof.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The Bitcoin node does not answer, or not with what is needed.
    #[error(transparent)]
    Bitcoin(#[from] L1Error),
    /// The Bitcoin node is on another chain than the one that the network starts on.
    #[error(
        "the block at height {} does not follow {expected}, at which the network starts; check \
         --network and --l1-rpc", height.0
    )]
    OtherStart {
        /// Height of the first block.
        height: L1Height,
        /// Hash of the network's start.
        expected: BlockHash,
    },
    /// Bitcoin's chain changed while it was read.
    #[error("Bitcoin was reorganised at height {} while its blocks were read; run it again", height.0)]
    Reorganised {
        /// The first height that is another.
        height: L1Height,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is no block.
    #[error(
        "{} is not a Bitcoin block: {reason}; the folder must hold one serialised block a file, in \
         hexadecimal or as bytes, and nothing else", path.display()
    )]
    NotABlock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No file of the folder continues the network's start.
    #[error(
        "none of the {files} blocks in {} follows {start}, the block at height {} at which {network} \
         starts; is it the network's Bitcoin, from that block on?", path.display(), height.0
    )]
    NoStart {
        /// The folder.
        path: PathBuf,
        /// How many blocks it holds.
        files: usize,
        /// Name of the network.
        network: &'static str,
        /// Height of the network's start.
        height: L1Height,
        /// Its hash.
        start: BlockHash,
    },
    /// A block between others is not there.
    #[error("block {missing} is missing: {} holds the block after it", path.display())]
    Missing {
        /// The block.
        missing: BlockHash,
        /// The file that continues it.
        path: PathBuf,
    },
}

/// Where the blocks are.
pub trait BlockSource: Send {
    /// Height of the last block.
    fn tip(&self) -> L1Height;

    /// The block at a height above the network's start and not above the tip. `hash` is given when it was read
    /// before.
    ///
    /// # Errors
    /// When it cannot be read.
    fn block(&self, height: L1Height, hash: Option<BlockHash>) -> Result<Block, BlocksError>;
}

/// The blocks of a Bitcoin node, up to the tip that it had at the start.
pub struct NodeBlocks {
    bitcoin: Arc<dyn Bitcoin>,
    tip: L1Height,
    runtime: Handle,
}

impl NodeBlocks {
    /// The chain of a node that has all blocks of the network. Its blocks are then to be read from a thread
    /// that may block.
    ///
    /// # Errors
    /// When the node does not answer, is on another Bitcoin, or does not have the blocks.
    pub async fn open(bitcoin: Arc<dyn Bitcoin>, params: &Params) -> Result<Self, BlocksError> {
        let needed = params.l1_start.height.next();
        let info = l1::check_ready(&*bitcoin, params.bitcoin, needed).await?;
        Ok(Self { bitcoin, tip: info.height, runtime: Handle::current() })
    }
}

impl BlockSource for NodeBlocks {
    fn tip(&self) -> L1Height {
        self.tip
    }

    fn block(&self, height: L1Height, hash: Option<BlockHash>) -> Result<Block, BlocksError> {
        self.runtime.block_on(async {
            let hash = match hash {
                Some(hash) => hash,
                None => {
                    let hash = self.bitcoin.block_hash(height).await?;
                    hash.ok_or(BlocksError::Reorganised { height })?
                }
            };
            Ok(self.bitcoin.block(&hash).await?)
        })
    }
}

/// A walk over a chain, which knows the blocks that it has passed. To a tracker of assertions it is a node
/// that derives nothing: it agrees with no assertion, so every proof is judged by execution.
pub struct BitcoinChain {
    start: L1Ref,
    source: Box<dyn BlockSource>,
    /// Hashes of the blocks passed, from the one after the start on.
    passed: Vec<BlockHash>,
    recent: Mutex<VecDeque<(L1Height, Arc<Block>)>>,
}

impl BitcoinChain {
    /// At the start of a network.
    pub fn new(params: &Params, source: Box<dyn BlockSource>) -> Self {
        Self { start: params.l1_start, source, passed: Vec::new(), recent: Mutex::default() }
    }

    /// Height of the last block that there is.
    pub fn tip(&self) -> L1Height {
        self.source.tip()
    }

    /// The last block passed; the network's start before the first.
    pub fn at(&self) -> L1Ref {
        let hash = self.passed.last().map_or(self.start.hash, |hash| hash.to_byte_array().into());
        let passed = u32::try_from(self.passed.len()).unwrap_or(u32::MAX);
        L1Ref { height: self.start.height.plus(passed), hash }
    }

    /// Passes the next block, none after the last.
    ///
    /// # Errors
    /// When it cannot be read or does not follow the one before.
    pub fn advance(&mut self) -> Result<Option<L1Block>, BlocksError> {
        let before = self.at();
        if before.height >= self.source.tip() {
            return Ok(None);
        }
        let height = before.height.next();
        let block = self.source.block(height, None)?;
        if block.header.prev_blockhash.to_byte_array() != before.hash.0 {
            return Err(if before == self.start {
                let expected = BlockHash::from_byte_array(self.start.hash.0);
                BlocksError::OtherStart { height, expected }
            } else {
                BlocksError::Reorganised { height: before.height }
            });
        }
        let l1 = L1Block::new(height, Arc::new(block));
        self.passed.push(BlockHash::from_byte_array(l1.at.hash.0));
        self.keep(height, &l1.block);
        Ok(Some(l1))
    }

    fn hash(&self, height: L1Height) -> Option<BlockHash> {
        let above = height.0.checked_sub(self.start.height.0)?.checked_sub(1)?;
        self.passed.get(above as usize).copied()
    }

    fn keep(&self, height: L1Height, block: &Arc<Block>) {
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back((height, block.clone()));
    }
}

impl L1Lookup for BitcoinChain {
    type Error = BlocksError;

    fn l1_block(&self, height: L1Height) -> Result<Arc<Block>, BlocksError> {
        let kept = self.recent.lock().iter().find(|(at, _)| *at == height).cloned();
        if let Some((_, block)) = kept {
            return Ok(block);
        }
        // Nothing asks for what was not passed.
        let hash = self.hash(height).ok_or(BlocksError::Reorganised { height })?;
        let block = self.source.block(height, Some(hash))?;
        if block.block_hash() != hash {
            return Err(BlocksError::Reorganised { height });
        }
        let block = Arc::new(block);
        self.keep(height, &block);
        Ok(block)
    }
}

impl OwnChain for BitcoinChain {
    type Error = BlocksError;

    fn own_block(&self, height: L1Height) -> Result<Option<OwnBlock>, BlocksError> {
        let hash = self.hash(height);
        Ok(hash.map(|hash| OwnBlock { hash: hash.to_byte_array().into(), claims: Vec::new() }))
    }
}
