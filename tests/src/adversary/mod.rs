//! One Bitcoin, honest people on it, and adversaries.
//!
//! An [`Arena`] is driven step by step: nothing in it runs by itself, and no step waits for time to pass. The
//! honest node is an engine that follows Bitcoin; what it asserts, challenges and signs is done by the roles'
//! own steps. Adversaries put on Bitcoin whatever they like: see [`Arena::assertion`], [`Arena::envelopes`]
//! and [`Arena::mine`], which stands for a miner who takes exactly these transactions.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `ground` | the two Bitcoins: simulated, and Bitcoin Core |
//! | `l2` | the honest sequencer and the users |
//! | `hand` | putting envelopes on Bitcoin |
//! | `lies` | claims about a chain that is not |
//! | `defence` | what the honest do against lies |
//! | `roles` | the honest roles: the node's own code, one step at a time |
//! | `fuse` | a process that ends at a chosen moment |
//! | `ending` | what has to hold in the end |

mod defence;
mod ending;
mod fuse;
mod ground;
mod hand;
mod l2;
mod lies;
mod roles;

pub use ending::End;
pub use fuse::{Fuse, FusedBitcoin, FusedRecords};
pub use ground::Ground;
pub use hand::{Hand, key};
pub use l2::{User, deployer, sequencer};
pub use lies::Lie;
pub use roles::Role;

use crate::{l1::TestBitcoin, wallet::Wallet};
use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, Block, ScriptBuf, Transaction, TxOut, WScriptHash, hashes::Hash as _};
use kedge::{
    engine::{Engine, EngineOptions, open_store},
    follow::{Followed, follow_step},
    l1::Bitcoin,
    signer::{Peer, Signer},
};
use kedge_bridge::assertion::AssertionBody;
use kedge_fraud_proof::{AssertionEvent, AssertionNode, AssertionTracker, Claim};
use kedge_genesis::{L1Height, L1Ref, L2Number, Network, Params};
use kedge_store::{L1Rows, L2Rows, OwnClaims};
use kedge_vm::Payload;
use std::sync::Arc;
use tempfile::TempDir;

/// Coinbase outputs that pay for everything.
const COINS: u32 = 5;
/// Coins of each honest role.
const ROLE_COINS: usize = 5;
/// What a coin of a role holds: a bond and fees.
const COIN: Amount = Amount::from_sat(120_000_000);

/// Everything that a scenario needs.
pub struct Arena {
    /// The rules: those of regtest with short windows, from the block below the scenario's first on.
    pub params: &'static Params,
    /// Bitcoin.
    pub bitcoin: Arc<dyn TestBitcoin>,
    /// The honest node.
    pub engine: Arc<Engine>,
    /// A user with coins on L2.
    pub alice: User,
    /// Another.
    pub bob: User,
    /// Pays for what is put on Bitcoin by hand.
    pub purse: Wallet,
    challenger: Role,
    proposer: Role,
    signers: Vec<(Arc<Signer>, Vec<Peer>)>,
    _dir: TempDir,
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("tip", &self.tip()).finish_non_exhaustive()
    }
}

/// Where miners are paid. Nobody spends it.
fn miner() -> ScriptBuf {
    ScriptBuf::new_p2wsh(&WScriptHash::from_byte_array([0xa5; 32]))
}

impl Arena {
    /// An arena with nothing on L2 yet. `adjust` changes the rules before anything follows from them.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn bare(ground: Ground, adjust: impl FnOnce(&mut Params)) -> Result<Self> {
        let mut purse = Wallet::from_secret(&[0x50; 32])?;
        let bitcoin = ground.start(&purse.script(), COINS).await?;
        let client = bitcoin.client();
        for height in 1..=COINS {
            let hash = client.block_hash(L1Height(height)).await?.context("it was mined")?;
            purse.add_coinbase(&client.block(&hash).await?);
        }
        let (challenger, proposer) = (Role::new("challenger"), Role::new("proposer"));
        let mut coins = Vec::new();
        for role in [&challenger, &proposer] {
            let coin = TxOut { value: COIN, script_pubkey: role.script()? };
            coins.extend(vec![coin; ROLE_COINS]);
        }
        let tx = purse.pay(coins, Amount::from_sat(10_000))?;
        bitcoin.mine_exactly(&miner(), &[tx]).await?;
        let info = client.chain_info().await?;
        let header = client.header(&info.best).await?;
        let mut params = Params {
            l1_start: L1Ref { height: info.height, hash: info.best.to_byte_array().into() },
            l1_start_time: header.time,
            segment_target_gas: 200_000,
            ..*Network::Regtest.params()
        };
        adjust(&mut params);
        let params: &'static Params = Box::leak(Box::new(params));
        let (engine, dir) = node(params)?;
        let signers = roles::signers(params, &engine, &client)?;
        Ok(Self {
            challenger,
            proposer,
            signers,
            params,
            bitcoin,
            engine,
            alice: User::new(params, 1)?,
            bob: User::new(params, 2)?,
            purse,
            _dir: dir,
        })
    }

    /// An arena whose chain has deposits, transfers, contract calls and a withdrawal in several segments of
    /// several Bitcoin blocks.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn busy(ground: Ground) -> Result<Self> {
        Self::busy_with(ground, |_| {}).await
    }

    /// The same under other rules.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn busy_with(ground: Ground, adjust: impl FnOnce(&mut Params)) -> Result<Self> {
        let mut arena = Self::bare(ground, adjust).await?;
        arena.fund().await?;
        arena.busy_blocks(4).await?;
        Ok(arena)
    }

    /// The client of Bitcoin.
    pub fn client(&self) -> Arc<dyn Bitcoin> {
        self.bitcoin.client()
    }

    /// The last Bitcoin block that the honest node has processed.
    pub fn tip(&self) -> L1Height {
        self.engine.heads().l1_tip.height
    }

    /// Mines one block of exactly these transactions and lets the node follow.
    ///
    /// # Errors
    /// When no such block is valid, or this machine fails.
    pub async fn mine(&mut self, txs: &[Transaction]) -> Result<Vec<AssertionEvent>> {
        self.bitcoin.mine_exactly(&miner(), txs).await?;
        self.follow().await
    }

    /// Mines one block of what waits in the mempool and lets the node follow.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn mine_waiting(&mut self) -> Result<Vec<AssertionEvent>> {
        self.bitcoin.mine(&miner()).await?;
        self.follow().await
    }

    /// Mines empty blocks until the tip has that height.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn mine_until(&mut self, height: L1Height) -> Result<Vec<AssertionEvent>> {
        let mut events = Vec::new();
        while self.tip() < height {
            events.extend(self.mine(&[]).await?);
        }
        Ok(events)
    }

    /// Takes the last blocks back and lets the node follow.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn take_back(&mut self, depth: u32) -> Result<()> {
        self.bitcoin.take_back(depth).await?;
        self.follow().await.map(drop)
    }

    /// Lets the node follow to Bitcoin's tip, and checks what always holds.
    ///
    /// # Errors
    /// When it does not hold, or this machine fails.
    pub async fn follow(&mut self) -> Result<Vec<AssertionEvent>> {
        let events = follow(&*self.client(), &self.engine).await?;
        let heads = self.engine.heads();
        let numbers =
            [heads.latest, heads.safe, heads.finalized, heads.settled].map(|head| head.number);
        ensure!(
            numbers.is_sorted_by(|one, next| one >= next),
            "the heads are out of order: {numbers:?}"
        );
        let solvency = self.engine.store().reader().solvency()?;
        ensure!(solvency.holds(), "the vault does not cover what it owes: {solvency:?}");
        Ok(events)
    }

    /// The assertions as the honest node sees them.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn tracker(&self) -> Result<AssertionTracker> {
        Ok(self.engine.tracker()?)
    }

    /// One assertion.
    ///
    /// # Errors
    /// When the node does not count it.
    pub fn node(&self, id: B256) -> Result<AssertionNode> {
        let tracker = self.tracker()?;
        tracker.get(&id).cloned().with_context(|| format!("assertion {id} does not count"))
    }

    /// What an honest proposer would assert now.
    ///
    /// # Errors
    /// When there is nothing to assert.
    pub fn truth(&self) -> Result<AssertionBody> {
        let reader = self.engine.store().reader();
        let body = self.tracker()?.build_assertion(self.params, &OwnClaims(&reader))?;
        body.context("there is nothing to assert")
    }

    /// The true claims of the Bitcoin blocks above `from` up to `to`.
    ///
    /// # Errors
    /// When the node has not processed them.
    pub fn claims(&self, from: L1Height, to: L1Height) -> Result<Vec<Claim>> {
        let reader = self.engine.store().reader();
        let mut claims = Vec::new();
        for height in from.next().0..=to.0 {
            let of_block = reader.claims(L1Height(height))?;
            claims.extend(of_block.with_context(|| format!("no claims of block {height}"))?);
        }
        Ok(claims)
    }

    /// The payload of an L2 block.
    ///
    /// # Errors
    /// When there is no such block.
    pub fn payload(&self, number: L2Number) -> Result<Payload> {
        let payload = self.engine.store().payload(number)?;
        payload.with_context(|| format!("no block {number}"))
    }

    /// The output root after an L2 block.
    ///
    /// # Errors
    /// When there is no such block.
    pub fn output_root(&self, number: L2Number) -> Result<B256> {
        let info = self.engine.store().block_info(number)?;
        Ok(info.with_context(|| format!("no block {number}"))?.output_root)
    }

    /// A block of Bitcoin.
    ///
    /// # Errors
    /// When there is none at that height.
    pub async fn block(&self, height: L1Height) -> Result<Block> {
        let client = self.client();
        let hash = client.block_hash(height).await?;
        Ok(client.block(&hash.with_context(|| format!("no block {height}"))?).await?)
    }

    /// A node that knows nothing and reads all of it from Bitcoin.
    ///
    /// # Errors
    /// When this machine fails.
    pub async fn fresh_node(&self) -> Result<(Arc<Engine>, TempDir)> {
        let (engine, dir) = node(self.params)?;
        follow(&*self.client(), &engine).await?;
        Ok((engine, dir))
    }
}

fn node(params: &'static Params) -> Result<(Arc<Engine>, TempDir)> {
    let dir = tempfile::tempdir()?;
    let store = open_store(dir.path(), params)?;
    Ok((Arc::new(Engine::open(store, params, EngineOptions::default())?), dir))
}

/// Follows to Bitcoin's tip and gives what happened to assertions on the way.
async fn follow(bitcoin: &dyn Bitcoin, engine: &Arc<Engine>) -> Result<Vec<AssertionEvent>> {
    let mut events = Vec::new();
    loop {
        match follow_step(bitcoin, engine).await? {
            Followed::Connected(outcome) => events.extend(outcome.assertions.iter().copied()),
            Followed::Disconnected(_) => {}
            Followed::AtTip(tip) => {
                engine.set_l1_best(tip);
                return Ok(events);
            }
        }
    }
}
