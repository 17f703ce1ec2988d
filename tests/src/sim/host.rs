//! A party: the code of a node over a store of its own, opened and dropped as processes begin and end.

use super::link::Link;
use super::start::{BIRTHDAY, wallet_keys};
use alloy_primitives::keccak256;
use anyhow::{Context, Result};
use bitcoin::Txid;
use bitcoin::key::{Keypair, Secp256k1};
use kedge::batcher::Batcher;
use kedge::challenger::{Challenger, ChallengerEvent, ChallengerOptions, Reporter};
use kedge::clock::Clock;
use kedge::engine::{Engine, EngineOptions, open_store};
use kedge::follow::follow_to_tip;
use kedge::l1::{Bitcoin, Records};
use kedge::mempool::{Mempool, MempoolConfig, PoolLimits};
use kedge::mempool_link::{HeadState, Link as MempoolLink, StoreJournal};
use kedge::proposer::Proposer;
use kedge::publisher::{FeePolicy, Publisher};
use kedge::sequencer::{Sequencer, SequencerConfig};
use kedge::signer::{Peer, Signer};
use kedge::wallet::Wallet;
use kedge_genesis::Params;
use kedge_genesis::params::dev_secrets;
use kedge_store::Store;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// L1 blocks between assertions while no withdrawal waits.
const ASSERTION_INTERVAL: u32 = 8;

/// What a party does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Makes blocks, posts them, proposes assertions.
    Sequencer,
    /// Proves wrong assertions wrong.
    Challenger,
    /// Signs payouts; its place among the signers.
    Signer(usize),
    /// Follows.
    Validator,
}

/// One thing that a party can do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Follow Bitcoin.
    Follow,
    /// Make blocks.
    Sequence,
    /// Post a batch.
    Batch,
    /// Propose an assertion.
    Propose,
    /// Challenge.
    Challenge,
    /// Sign payouts and slashes.
    Sign,
}

impl Role {
    /// Everything that it can do, in the order in which a node that is told of a block does it.
    pub(super) const fn acts(self) -> &'static [Act] {
        match self {
            Self::Sequencer => &[Act::Follow, Act::Sequence, Act::Batch, Act::Propose],
            Self::Challenger => &[Act::Follow, Act::Challenge],
            Self::Signer(_) => &[Act::Follow, Act::Sign],
            Self::Validator => &[Act::Follow],
        }
    }
}

/// A key of somebody, made from the name.
pub(super) fn key(name: &str) -> Keypair {
    let secret = keccak256(format!("key of {name}"));
    Keypair::from_seckey_slice(&Secp256k1::new(), secret.as_slice())
        .expect("a hash is a key but for a chance of 2^-127")
}

/// The sequencer's key.
pub(super) fn sequencer_key() -> Keypair {
    Keypair::from_seckey_slice(&Secp256k1::new(), &dev_secrets::SEQUENCER).expect("published")
}

/// What is left of a party when its process has ended.
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) role: Role,
    params: &'static Params,
    folder: PathBuf,
    pub(super) link: Arc<Link>,
    clock: Clock,
    pub(super) live: Option<Live>,
}

/// A party's process.
pub(super) struct Live {
    pub(super) engine: Arc<Engine>,
    pub(super) sequencing: Option<Sequencing>,
    proposer: Option<Proposer>,
    challenger: Option<Challenger>,
    publishers: Vec<(&'static str, Arc<Publisher>)>,
    pub(super) wallet: Option<Arc<Wallet>>,
    pub(super) signer: Option<Arc<Signer>>,
}

/// What only the sequencer has.
pub(super) struct Sequencing {
    pub(super) mempool: Arc<Mempool>,
    link: Mutex<MempoolLink>,
    sequencer: Sequencer,
    batcher: Batcher,
}

impl Host {
    pub(super) fn new(
        name: &'static str,
        role: Role,
        params: &'static Params,
        folder: PathBuf,
        link: Arc<Link>,
        clock: Clock,
    ) -> Self {
        Self { name, role, params, folder, link, clock, live: None }
    }

    /// Starts the process.
    ///
    /// # Errors
    /// When this machine fails or the store does not open.
    pub(super) fn open(&mut self) -> Result<()> {
        let store = open_store(&self.folder, self.params)?;
        let options = EngineOptions {
            journal_removed: self.role == Role::Sequencer,
            ..EngineOptions::default()
        };
        let engine = Arc::new(Engine::open(store.clone(), self.params, options)?);
        let mut live = Live {
            engine,
            sequencing: None,
            proposer: None,
            challenger: None,
            publishers: Vec::new(),
            wallet: None,
            signer: None,
        };
        match self.role {
            Role::Sequencer => self.open_sequencer(&store, &mut live)?,
            Role::Challenger => self.open_challenger(&store, &mut live)?,
            Role::Validator => {}
            Role::Signer(place) => {
                let secret = dev_secrets::SIGNERS.get(place).context("there are three signers")?;
                let key = Keypair::from_seckey_slice(&Secp256k1::new(), secret)?;
                let bitcoin: Arc<dyn Bitcoin> = self.link.clone();
                let signer = Signer::new(self.params, key, live.engine.clone(), bitcoin)?;
                live.signer = Some(Arc::new(signer));
            }
        }
        self.live = Some(live);
        Ok(())
    }

    fn wallet(&self, store: &Arc<Store>) -> Result<Arc<Wallet>> {
        let records: Arc<dyn Records> = store.clone();
        let keys = wallet_keys(self.name);
        let wallet = Wallet::open(records, "operator", &keys, self.params.bitcoin, BIRTHDAY)?;
        Ok(Arc::new(wallet.with_clock(self.clock.clone())))
    }

    fn publisher(
        &self,
        name: &str,
        store: &Arc<Store>,
        wallet: &Arc<Wallet>,
    ) -> Result<Arc<Publisher>> {
        Ok(Arc::new(Publisher::open(
            name,
            store.clone(),
            wallet.clone(),
            self.link.clone(),
            key(self.name),
            FeePolicy::default(),
            self.params.finality_depth,
        )?))
    }

    fn open_challenger(&self, store: &Arc<Store>, live: &mut Live) -> Result<()> {
        let wallet = self.wallet(store)?;
        let publisher = self.publisher("proof", store, &wallet)?;
        live.publishers.push(("proof", publisher.clone()));
        live.wallet = Some(wallet.clone());
        live.challenger = Some(Challenger::new(
            self.params,
            live.engine.clone(),
            self.link.clone(),
            publisher,
            wallet,
            key(self.name),
            ChallengerOptions::default(),
            Reporter::default(),
        )?);
        Ok(())
    }

    fn open_sequencer(&self, store: &Arc<Store>, live: &mut Live) -> Result<()> {
        let (params, engine) = (self.params, live.engine.clone());
        let bitcoin: Arc<dyn Bitcoin> = self.link.clone();
        let (wallet, key) = (self.wallet(store)?, key(self.name));
        let batches = self.publisher("batch", store, &wallet)?;
        let assertions = self.publisher("assertion", store, &wallet)?;
        live.publishers = vec![("batch", batches.clone()), ("assertion", assertions.clone())];
        live.wallet = Some(wallet.clone());
        let mempool = Arc::new(Mempool::new(
            MempoolConfig::new(engine.evm()),
            Arc::new(HeadState::new(engine.clone())),
            Some(Arc::new(StoreJournal::new(store.clone()))),
        ));
        mempool.restore()?;
        let policy = SequencerConfig {
            origin_depth: 0,
            interval: std::time::Duration::ZERO,
            pool: PoolLimits::default(),
        };
        live.sequencing = Some(Sequencing {
            link: Mutex::new(MempoolLink::new(&engine, mempool.clone())),
            sequencer: Sequencer::new(
                params,
                policy,
                sequencer_key(),
                engine.clone(),
                mempool.clone(),
                self.clock.clone(),
            ),
            batcher: Batcher::new(
                params,
                engine.clone(),
                mempool.clone(),
                batches,
                sequencer_key(),
                policy.origin_depth,
            ),
            mempool,
        });
        live.proposer = Some(Proposer::new(
            params,
            engine.clone(),
            bitcoin,
            assertions,
            wallet,
            key,
            ASSERTION_INTERVAL,
        )?);
        Ok(())
    }
}

impl Live {
    /// What is on its way to Bitcoin and not final.
    pub(super) async fn publications(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (name, publisher) in &self.publishers {
            for status in publisher.pending().await {
                all.push(format!("{name}: {status:?}"));
            }
        }
        all
    }

    /// The commit transactions whose reveals are not final.
    pub(super) async fn open_commits(&self) -> BTreeSet<Txid> {
        let mut all = BTreeSet::new();
        for (_, publisher) in &self.publishers {
            all.extend(publisher.pending().await.iter().filter_map(|status| status.commit));
        }
        all
    }

    /// Does one thing to its end. Answers what a person would want to know of it.
    ///
    /// # Errors
    /// What the node would log and try again.
    pub(super) async fn act(&self, act: Act, link: &Link, peers: &[Peer]) -> Result<Vec<String>> {
        let mut told = Vec::new();
        match act {
            Act::Follow => {
                follow_to_tip(link, &self.engine).await?;
                if let Some(sequencing) = &self.sequencing {
                    sequencing.link.lock().step();
                }
            }
            Act::Sequence => {
                let sequencing = self.sequencing.as_ref().context("it is no sequencer")?;
                sequencing.sequencer.step().await?;
                sequencing.link.lock().step();
            }
            Act::Batch => {
                self.sequencing.as_ref().context("it is no sequencer")?.batcher.step().await?;
            }
            Act::Propose => {
                let posted = self.proposer.as_ref().context("it is no proposer")?.step().await?;
                told.extend(posted.map(|id| format!("posts assertion {}", id.0)));
            }
            Act::Challenge => {
                let challenger = self.challenger.as_ref().context("it is no challenger")?;
                let mut events = challenger.step().await?;
                for event in &mut events {
                    // The one time that is this machine's.
                    if let ChallengerEvent::ProofBuilt { millis, .. } = event {
                        *millis = 0;
                    }
                }
                told.extend(events.iter().map(|event| format!("{event:?}")));
            }
            Act::Sign => {
                let sent = self.signer.as_ref().context("it is no signer")?.step(peers).await?;
                told.extend(sent.iter().map(|txid| format!("broadcasts {txid}")));
            }
        }
        Ok(told)
    }
}
