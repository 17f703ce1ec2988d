//! An embedded Bitcoin, a proposer who lies, and nodes that challenge him.

use crate::{
    challenger::{Challenger, ChallengerEvent, ChallengerOptions, Reporter},
    engine::{Engine, EngineOptions, open_store},
    follow::follow_to_tip,
    l1::{
        Bitcoin, Broadcast, ChainInfo, Embedded, L1Error, MemoryRecords, Records, Unspent,
        records::{Record, RecordTable, RecordWrite},
    },
    publisher::{FeePolicy, Part, Publisher},
    wallet::{Wallet, WalletKeys},
};
use alloy_primitives::B256;
use async_trait::async_trait;
use bitcoin::{
    Block, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid,
    block::Header,
    key::{Keypair, Secp256k1},
};
use kedge_bridge::{
    bond::Bond,
    envelope::{Kind, envelopes, split},
};
use kedge_fraud_proof::{AssertionNode, ProofHead};
use kedge_genesis::{L1Height, Network, Params, Sats};
use kedge_store::{OwnClaims, Store};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tempfile::TempDir;

/// Blocks of a challenge window here.
pub(super) const WINDOW: u32 = 14;
pub(super) const FINALITY: u32 = 6;

fn params() -> &'static Params {
    Box::leak(Box::new(Params {
        challenge_window: WINDOW,
        finality_depth: FINALITY,
        proposer_bond: Sats(100_000),
        ..*Network::Dev.params()
    }))
}

fn nobody() -> ScriptBuf {
    ScriptBuf::from_hex("00140000000000000000000000000000000000000005").unwrap()
}

fn keypair(secret: u8) -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &[secret; 32]).unwrap()
}

/// The point at which a process dies: before or after a write or a broadcast, counted together. From there on
/// nothing of it reaches the disk or the network.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Points that are still passed; none for a process that lives on.
    left: Mutex<Option<u32>>,
    dead: AtomicBool,
}

impl Fate {
    pub(super) fn dies_after(points: u32) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(Some(points)), dead: AtomicBool::new(false) })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Passes a point, or dies there.
    fn pass(&self) -> bool {
        let mut left = self.left.lock();
        match &mut *left {
            Some(0) => self.dead.store(true, Ordering::SeqCst),
            Some(points) => *points -= 1,
            None => {}
        }
        !self.is_dead()
    }
}

/// A store that a process writes while it lives.
struct Disk {
    store: Arc<Store>,
    fate: Arc<Fate>,
}

impl Records for Disk {
    fn load(&self, table: RecordTable, prefix: &[u8]) -> anyhow::Result<Vec<Record>> {
        self.store.load(table, prefix)
    }

    fn write(&self, writes: Vec<RecordWrite>) -> anyhow::Result<()> {
        anyhow::ensure!(self.fate.pass(), "dead before a write");
        Records::write(&*self.store, writes)?;
        anyhow::ensure!(self.fate.pass(), "dead after a write");
        Ok(())
    }
}

/// The connection of one node to Bitcoin, which can be cut.
pub(super) struct Line {
    chain: Arc<Embedded>,
    fate: Arc<Fate>,
    pub(super) cut: AtomicBool,
}

impl Line {
    fn up(&self) -> Result<&Embedded, L1Error> {
        if self.cut.load(Ordering::SeqCst) || self.fate.is_dead() {
            let (url, reason) = ("http://town".to_owned(), "connection refused".to_owned());
            return Err(L1Error::Unreachable { url, reason });
        }
        Ok(&self.chain)
    }
}

#[async_trait]
impl Bitcoin for Line {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        self.up()?.chain_info().await
    }
    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        self.up()?.block_hash(height).await
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.up()?.block(hash).await
    }
    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.up()?.header(hash).await
    }
    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        self.up()?;
        self.fate.pass();
        let answer = self.up()?.broadcast(tx).await;
        self.fate.pass();
        self.up()?;
        answer
    }
    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        self.up()?.tx_out(outpoint, mempool).await
    }
    async fn fee_rate(&self, target: u16) -> Result<Option<FeeRate>, L1Error> {
        self.up()?.fee_rate(target).await
    }
    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error> {
        self.up()?.in_mempool(txid).await
    }
    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
        self.up()?.wait_tip_change(known).await
    }
}

/// How a challenger is run.
#[derive(Default)]
pub(super) struct How {
    pub(super) options: ChallengerOptions,
    pub(super) report: Reporter,
    pub(super) fate: Arc<Fate>,
}

/// A running challenger with its node.
pub(super) struct Running {
    pub(super) engine: Arc<Engine>,
    pub(super) challenger: Arc<Challenger>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) wallet: Arc<Wallet>,
    pub(super) line: Arc<Line>,
}

/// Somebody with a data directory and a key.
pub(super) struct Party {
    dir: TempDir,
    secret: u8,
}

pub(super) struct Town {
    pub(super) params: &'static Params,
    pub(super) chain: Arc<Embedded>,
    _dir: TempDir,
    liar: Liar,
}

/// A proposer who has a node of his own and does not say what it says.
struct Liar {
    engine: Arc<Engine>,
    publisher: Publisher,
    _dir: TempDir,
}

impl Party {
    pub(super) fn new(secret: u8) -> Self {
        Self { dir: TempDir::new().unwrap(), secret }
    }

    pub(super) fn key(&self) -> Keypair {
        keypair(self.secret)
    }

    fn wallet_keys(&self, params: &Params) -> WalletKeys {
        WalletKeys::from_seed(params.bitcoin, &[self.secret; 32])
    }

    /// Opens its store and starts a challenger on it.
    pub(super) async fn run(&self, town: &Town, how: How) -> anyhow::Result<Running> {
        let How { options, report, fate } = how;
        let params = town.params;
        let store = open_store(self.dir.path(), params)?;
        let engine = Arc::new(Engine::open(store.clone(), params, EngineOptions::default())?);
        let cut = AtomicBool::new(false);
        let line = Arc::new(Line { chain: town.chain.clone(), fate: fate.clone(), cut });
        let records: Arc<dyn Records> = Arc::new(Disk { store, fate });
        let keys = self.wallet_keys(params);
        let birthday = params.l1_start.height;
        let wallet = Wallet::open(records.clone(), "challenger", &keys, params.bitcoin, birthday)?;
        let wallet = Arc::new(wallet);
        let publisher = Arc::new(Publisher::open(
            "proof",
            records,
            wallet.clone(),
            line.clone(),
            self.key(),
            options.fees,
            params.finality_depth,
        )?);
        let challenger = Arc::new(Challenger::new(
            params,
            engine.clone(),
            line.clone(),
            publisher.clone(),
            wallet.clone(),
            self.key(),
            options,
            report,
        )?);
        Ok(Running { engine, challenger, publisher, wallet, line })
    }
}

impl Running {
    /// Follows Bitcoin, then challenges.
    pub(super) async fn step(&self, town: &Town) -> anyhow::Result<Vec<ChallengerEvent>> {
        follow_to_tip(&*town.chain, &self.engine).await?;
        self.challenger.step().await
    }

    /// The names of what a step tells.
    pub(super) async fn names(&self, town: &Town) -> Vec<&'static str> {
        let events = self.step(town).await.unwrap();
        events.iter().map(ChallengerEvent::label).collect()
    }

    pub(super) fn assertion(&self, id: B256) -> AssertionNode {
        self.engine.tracker().unwrap().get(&id).cloned().expect("it counts")
    }
}

impl Town {
    /// A chain on which these parties have so many coins each, and the liar one.
    pub(super) async fn new(parties: &[(&Party, u32)]) -> Self {
        let dir = TempDir::new().unwrap();
        let (params, chain) = (params(), Embedded::open(dir.path()).unwrap());
        let liar = Party::new(66);
        for (party, coins) in parties.iter().copied().chain([(&liar, 1)]) {
            let address = party.wallet_keys(params).first_address(params.bitcoin).unwrap();
            chain.mine(coins, &address.script_pubkey()).unwrap();
        }
        chain.mine(100, &nobody()).unwrap();
        let store = open_store(liar.dir.path(), params).unwrap();
        let engine = Engine::open(store.clone(), params, EngineOptions::default()).unwrap();
        let keys = liar.wallet_keys(params);
        let birthday = params.l1_start.height;
        let wallet = Wallet::open(store.clone(), "liar", &keys, params.bitcoin, birthday).unwrap();
        let publisher = Publisher::open(
            "assertion",
            store,
            Arc::new(wallet),
            chain.clone(),
            liar.key(),
            FeePolicy::default(),
            params.finality_depth,
        )
        .unwrap();
        let liar = Liar { engine: Arc::new(engine), publisher, _dir: liar.dir };
        Self { params, chain, _dir: dir, liar }
    }

    /// Sends `outputs` from the first coins of `payer`.
    pub(super) async fn pay(&self, payer: &Party, outputs: &[TxOut], rate: FeeRate) {
        let (keys, records) = (payer.wallet_keys(self.params), Arc::new(MemoryRecords::default()));
        let birthday = self.params.l1_start.height;
        let wallet = Wallet::open(records, "payer", &keys, self.params.bitcoin, birthday).unwrap();
        wallet.sync(&*self.chain).await.unwrap();
        wallet.send(&*self.chain, outputs, rate).await.unwrap();
    }

    pub(super) fn mine(&self, count: u32) {
        self.chain.mine(count, &nobody()).unwrap();
    }

    /// Replaces the last `depth` blocks by one more without transactions.
    pub(super) fn reorg(&self, depth: u32) {
        let fork = L1Height(self.chain.tip().0.0 - depth);
        let parent = self.chain.hash_at(fork).unwrap();
        self.chain.mine_on(parent, depth + 1, &nobody()).unwrap();
    }

    /// A block that takes nothing from the mempool.
    pub(super) fn mine_empty(&self) {
        self.reorg(0);
    }

    /// Publishes an assertion with other claims than the true ones, and mines it. Its id.
    pub(super) async fn lie(&self, spoil: impl FnOnce(&mut Vec<B256>)) -> B256 {
        follow_to_tip(&*self.chain, &self.liar.engine).await.unwrap();
        let mut body = {
            let reader = self.liar.engine.store().reader();
            let tracker = self.liar.engine.tracker().unwrap();
            tracker.build_assertion(self.params, &OwnClaims(&reader)).unwrap().expect("due")
        };
        spoil(&mut body.claims);
        let id = self.params.chain_id;
        let parts = split(Kind::Assertion, id, 0, B256::ZERO, &body.encode(), self.params).unwrap();
        let bond = Bond::of(self.params, self.liar.publisher.key()).unwrap();
        let parts = parts.into_iter().map(|part| Part {
            output: Some(bond.tx_out(self.params.proposer_bond)),
            ..Part::from(part)
        });
        self.liar.publisher.tick().await.unwrap();
        let publication = self.liar.publisher.publish(Kind::Assertion, parts.collect()).await;
        self.mine(1);
        follow_to_tip(&*self.chain, &self.liar.engine).await.unwrap();
        self.liar.publisher.tick().await.unwrap();
        let status = self.liar.publisher.status(publication.unwrap()).await.unwrap();
        let reveal = status.reveals[0].txid.expect("signed");
        assert!(status.confirmed().is_some(), "{status:?}");
        kedge_bridge::assertion::assertion_id(&OutPoint::new(reveal, 0))
    }

    /// How many proofs, or first chunks of one, against a recent assertion are in the chain.
    pub(super) fn proofs(&self, assertion: B256) -> usize {
        let mut count = 0;
        let tip = self.chain.tip().0.0;
        for height in tip.saturating_sub(4 * WINDOW)..=tip {
            let hash = self.chain.hash_at(L1Height(height)).unwrap();
            for tx in self.chain.block_now(&hash).unwrap().txdata {
                count += envelopes(&tx)
                    .iter()
                    .filter(|(_, of)| of.kind == Kind::Proof && of.header.chunk == 0)
                    .filter_map(|(_, of)| ProofHead::decode(&of.body).ok())
                    .filter(|head| head.assertion == assertion)
                    .count();
            }
        }
        count
    }
}

/// Spoils the claim of that number.
pub(super) fn wrong(segment: usize) -> impl FnOnce(&mut Vec<B256>) {
    move |claims| claims[segment] = B256::repeat_byte(0xee)
}
