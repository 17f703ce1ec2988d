//! The follower: keeps the engine on Bitcoin's best chain.
//!
//! All that it remembers is in the engine's store, so it continues wherever a killed process stopped.

use crate::engine::{Engine, EngineError, L1Outcome};
use crate::l1::{Bitcoin, L1Error};
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash};
use kedge_genesis::{L1Height, L1Ref};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pauses between attempts while Bitcoin does not answer: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Why following stopped.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// This machine failed, or Bitcoin was reorganised past finality.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Bitcoin does not answer, or not with what is needed.
    #[error(transparent)]
    Bitcoin(#[from] L1Error),
    /// The Bitcoin node is on a chain without the block at which the network starts.
    #[error(
        "this Bitcoin node has block {found} at height {}, the network starts at {expected}; \
         check --network and --l1-rpc", height.0
    )]
    OtherStart {
        /// The start's height.
        height: L1Height,
        /// The network's start.
        expected: BlockHash,
        /// What the node has there; none when its chain is shorter.
        found: String,
    },
    /// Bitcoin's best chain ends below what this node knows to be final: the Bitcoin node lost blocks
    /// that it will get again, as after a crash.
    #[error(
        "this Bitcoin node has no block at height {} yet, which is final here; it has to catch up first",
        height.0
    )]
    Behind {
        /// The lowest height that cannot be given up.
        height: L1Height,
    },
    /// A worker thread panicked.
    #[error("the engine's thread failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl FollowError {
    const fn is_temporary(&self) -> bool {
        match self {
            // A node, or what stands before it, that answers nonsense now may have answered well for months.
            Self::Bitcoin(error) => {
                error.is_temporary()
                    || matches!(
                        error,
                        L1Error::BlockNotFound { .. }
                            | L1Error::Malformed { .. }
                            | L1Error::Rpc { .. }
                    )
            }
            Self::Behind { .. } => true,
            Self::Engine(_) | Self::OtherStart { .. } | Self::Thread(_) => false,
        }
    }
}

/// What one step towards Bitcoin's tip did.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Processed a block.
    Connected(Arc<L1Outcome>),
    /// Took a block back.
    Disconnected(L1Ref),
    /// The processed tip is Bitcoin's.
    AtTip(L1Ref),
}

/// Makes one step towards Bitcoin's tip.
///
/// # Errors
/// When Bitcoin does not answer or the engine fails.
pub async fn follow_step(
    bitcoin: &dyn Bitcoin,
    engine: &Arc<Engine>,
) -> Result<Followed, FollowError> {
    let tip = engine.heads().l1_tip;
    let next = tip.height.next();
    // One question in the usual case: the block after the tip names the tip as its parent.
    if let Some(hash) = bitcoin.block_hash(next).await? {
        let block = bitcoin.block(&hash).await?;
        if block.header.prev_blockhash == block_hash(tip) {
            return connect(engine, next, block).await.map(Followed::Connected);
        }
    }
    match bitcoin.block_hash(tip.height).await? {
        // The next block came or went while we asked.
        Some(hash) if hash == block_hash(tip) => Ok(Followed::AtTip(tip)),
        found => {
            let start = engine.params().l1_start;
            if tip == start {
                return Err(FollowError::OtherStart {
                    height: start.height,
                    expected: block_hash(start),
                    found: found.map_or_else(|| "no block".to_owned(), |hash| hash.to_string()),
                });
            }
            let engine = engine.clone();
            match tokio::task::spawn_blocking(move || engine.disconnect_l1()).await? {
                // A chain that only ends early contradicts nothing.
                Err(EngineError::PastFinality { .. }) if found.is_none() => {
                    Err(FollowError::Behind { height: tip.height })
                }
                outcome => outcome.map(|_| Followed::Disconnected(tip)).map_err(Into::into),
            }
        }
    }
}

/// Takes note of Bitcoin's tip, without following up to it.
///
/// # Errors
/// When Bitcoin does not answer.
pub async fn see_tip(bitcoin: &dyn Bitcoin, engine: &Engine) -> Result<BlockHash, FollowError> {
    let info = bitcoin.chain_info().await?;
    engine.set_l1_best(L1Ref { height: info.height, hash: info.best.to_byte_array().into() });
    Ok(info.best)
}

/// Follows Bitcoin up to the tip that it has now.
///
/// # Errors
/// When Bitcoin does not answer or the engine fails.
pub async fn follow_to_tip(
    bitcoin: &dyn Bitcoin,
    engine: &Arc<Engine>,
) -> Result<L1Ref, FollowError> {
    loop {
        let best = see_tip(bitcoin, engine).await?;
        loop {
            if let Followed::AtTip(tip) = follow_step(bitcoin, engine).await? {
                if block_hash(tip) == best {
                    return Ok(tip);
                }
                break;
            }
        }
    }
}

/// Follows Bitcoin until `stop`. Waits while Bitcoin does not answer.
///
/// # Errors
/// When the engine fails, or Bitcoin answers what no waiting will mend.
pub async fn follow(
    bitcoin: Arc<dyn Bitcoin>,
    engine: Arc<Engine>,
    stop: CancellationToken,
) -> Result<(), FollowError> {
    let mut pause = RETRY.0;
    loop {
        let round = async {
            let tip = follow_to_tip(&*bitcoin, &engine).await?;
            bitcoin.wait_tip_change(block_hash(tip)).await?;
            Ok::<(), FollowError>(())
        };
        // A write that is under way finishes on its own thread; it is atomic either way.
        let result = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            result = round => result,
        };
        match result {
            Ok(()) => pause = RETRY.0,
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, "Bitcoin does not answer; trying again");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(pause) => {}
                }
                pause = pause.saturating_mul(2).min(RETRY.1);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn connect(
    engine: &Arc<Engine>,
    height: L1Height,
    block: Block,
) -> Result<Arc<L1Outcome>, FollowError> {
    let engine = engine.clone();
    Ok(tokio::task::spawn_blocking(move || engine.connect_l1(height, block)).await??)
}

fn block_hash(at: L1Ref) -> BlockHash {
    BlockHash::from_byte_array(at.hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::{World, open};
    use crate::l1::{Broadcast, ChainInfo, Unspent};
    use async_trait::async_trait;
    use bitcoin::block::Header;
    use bitcoin::{FeeRate, OutPoint, Transaction, Txid};
    use parking_lot::Mutex;
    use tempfile::TempDir;
    use tokio::sync::watch;

    /// A best chain in memory; asked for a height that it does not have, it says so.
    struct Chain {
        start: L1Ref,
        blocks: Mutex<Vec<Block>>,
        tip: watch::Sender<BlockHash>,
        fails: Mutex<u32>,
    }

    impl Chain {
        fn new(start: L1Ref) -> Arc<Self> {
            let tip = watch::Sender::new(block_hash(start));
            Arc::new(Self { start, blocks: Mutex::default(), tip, fails: Mutex::new(0) })
        }

        fn set(&self, blocks: &[Block]) {
            *self.blocks.lock() = blocks.to_vec();
            self.tip.send_replace(
                blocks.last().map_or_else(|| block_hash(self.start), Block::block_hash),
            );
        }
    }

    #[async_trait]
    impl Bitcoin for Chain {
        async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
            let fails = {
                let mut fails = self.fails.lock();
                *fails = fails.saturating_sub(1);
                *fails
            };
            let method = "getblockchaininfo";
            match fails {
                0 => {}
                1 => {
                    let (url, reason) = ("http://nowhere".to_owned(), "refused".to_owned());
                    return Err(L1Error::Unreachable { url, reason });
                }
                2 => {
                    return Err(L1Error::Malformed { method, reason: "HTTP 502".to_owned() });
                }
                _ => {
                    let message = "disk read error".to_owned();
                    return Err(L1Error::Rpc { method, code: -1, message });
                }
            }
            let height = L1Height(u32::try_from(self.blocks.lock().len()).unwrap());
            Ok(ChainInfo {
                chain: "regtest".to_owned(),
                height,
                headers: height,
                best: *self.tip.borrow(),
                ibd: false,
                pruned_below: None,
            })
        }
        async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
            Ok(match height.prev() {
                None => Some(block_hash(self.start)),
                Some(index) => self.blocks.lock().get(index.0 as usize).map(Block::block_hash),
            })
        }
        async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
            let blocks = self.blocks.lock();
            Ok(blocks.iter().find(|block| block.block_hash() == *hash).unwrap().clone())
        }
        async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
            Ok(self.block(hash).await?.header)
        }
        async fn broadcast(&self, _: &Transaction) -> Result<Broadcast, L1Error> {
            Ok(Broadcast::Accepted)
        }
        async fn tx_out(&self, _: &OutPoint, _: bool) -> Result<Option<Unspent>, L1Error> {
            Ok(None)
        }
        async fn fee_rate(&self, _: u16) -> Result<Option<FeeRate>, L1Error> {
            Ok(None)
        }
        async fn in_mempool(&self, _: &Txid) -> Result<bool, L1Error> {
            Ok(false)
        }
        async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
            let _ = self.tip.subscribe().wait_for(|tip| *tip != known).await;
            Ok(())
        }
    }

    /// Two chains of 8 and 10 blocks that part after block 5.
    fn fork() -> (World, Vec<Block>, Vec<Block>) {
        let mut world = World::new();
        (0..8).for_each(|_| world.extend());
        let one = world.chain.clone();
        world.chain.truncate(5);
        (0..5).for_each(|_| world.extend());
        let two = world.chain.clone();
        (world, one, two)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reorganisation_is_followed_to_the_new_tip_also_after_a_restart() {
        let (world, one, two) = fork();
        let dir = TempDir::new().unwrap();
        let bitcoin = Chain::new(world.params.l1_start);
        let mut engine = open(&dir, world.params);
        for (round, chain) in [&one, &two, &one].into_iter().enumerate() {
            bitcoin.set(chain);
            let tip = follow_to_tip(&*bitcoin, &engine).await.unwrap();
            assert_eq!(block_hash(tip), chain.last().unwrap().block_hash(), "round {round}");
            assert_eq!(engine.heads().l1_best, tip);
            // The process ends here; the store alone says where to go on.
            drop(engine);
            engine = open(&dir, world.params);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_follower_waits_for_blocks_and_for_bitcoin_to_make_sense_and_stops_when_told() {
        let (world, one, two) = fork();
        let dir = TempDir::new().unwrap();
        let bitcoin = Chain::new(world.params.l1_start);
        *bitcoin.fails.lock() = 4;
        let engine = open(&dir, world.params);
        let stop = CancellationToken::new();
        let task = tokio::spawn(follow(bitcoin.clone(), engine.clone(), stop.clone()));
        let mut heads = engine.watch_heads();
        for chain in [&one, &two] {
            bitcoin.set(chain);
            let tip = chain.last().unwrap().block_hash();
            heads.wait_for(|heads| block_hash(heads.l1_tip) == tip).await.unwrap();
        }
        stop.cancel();
        task.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_bitcoin_node_that_lost_final_blocks_is_waited_for() {
        let mut world = World::new();
        // Long enough that derivation itself made blocks and some of them are final.
        (0..30).for_each(|_| world.extend());
        let bitcoin = Chain::new(world.params.l1_start);
        bitcoin.set(&world.chain);
        let tip = follow_to_tip(&*bitcoin, &world.engine).await.unwrap();
        assert!(world.engine.heads().finalized.number.0 > 0);
        bitcoin.set(&world.chain[..5]);
        let error = follow_to_tip(&*bitcoin, &world.engine).await.unwrap_err();
        assert!(matches!(error, FollowError::Behind { .. }) && error.is_temporary(), "{error}");
        bitcoin.set(&world.chain);
        assert_eq!(follow_to_tip(&*bitcoin, &world.engine).await.unwrap(), tip);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_chain_without_the_networks_start_is_refused() {
        let world = World::new();
        let bitcoin = Chain::new(L1Ref { hash: [9; 32].into(), ..world.params.l1_start });
        let error = follow_to_tip(&*bitcoin, &world.engine).await.unwrap_err();
        assert!(matches!(error, FollowError::OtherStart { .. }), "{error}");
    }
}
