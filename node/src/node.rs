//! A node: store, engine, follower, JSON-RPC, and the roles that it takes part in.

use crate::{
    admin::{Admin, LogFilter},
    batcher::Batcher,
    challenger::{Challenger, ChallengerOptions, Reporter},
    clock::Clock,
    engine::{Engine, EngineOptions, open_store_with},
    follow, keys,
    l1::{self, Bitcoin, MemoryRecords, Records},
    mempool::{Mempool, MempoolConfig},
    mempool_link,
    proposer::Proposer,
    pruner::{self, Prune},
    publisher::{FeePolicy, Publisher},
    rpc::{self, NodeHandle, RpcConfig, ServerHandle, Submission, types::Roles},
    sequencer::{Sequencer, SequencerConfig},
    stream::{Follower, http_url},
    wallet::{Wallet, WalletKeys},
};
use anyhow::{Context, bail};
use bitcoin::{
    key::Keypair,
    secp256k1::{SecretKey, rand::rngs::OsRng},
};
use jsonrpsee::RpcModule;
use kedge_genesis::Params;
use kedge_store::StoreOptions;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The keys of the Bitcoin wallet that pays fees and bonds, and of what is published with it.
#[derive(Clone, Debug)]
pub struct OperatorKeys {
    /// Signs reveals; an assertion's bond returns to it.
    pub publisher: Keypair,
    /// The wallet.
    pub wallet: WalletKeys,
}

impl OperatorKeys {
    /// Both from one secret.
    pub fn from_secret(params: &Params, secret: &SecretKey) -> Self {
        Self {
            publisher: keys::keypair(secret),
            wallet: WalletKeys::from_seed(params.bitcoin, &secret.secret_bytes()),
        }
    }
}

/// What makes a node a challenger.
#[derive(Debug)]
pub struct ChallengerConfig {
    /// Its wallet, and the key that its proofs are published with; only a dry run needs none.
    pub keys: Option<OperatorKeys>,
    /// How it behaves.
    pub options: ChallengerOptions,
    /// Whom it tells.
    pub report: Reporter,
}

/// What a node is to be.
pub struct NodeConfig {
    /// The network.
    pub params: &'static Params,
    /// Where the store is, created when it does not exist.
    pub datadir: PathBuf,
    /// The Bitcoin node underneath.
    pub bitcoin: Arc<dyn Bitcoin>,
    /// The engine's options.
    pub engine: EngineOptions,
    /// The store's options.
    pub store: StoreOptions,
    /// Which old states are dropped. A challenger drops none.
    pub prune: Prune,
    /// The key that signs batches: makes this node the sequencer.
    pub sequencer: Option<(Keypair, SequencerConfig)>,
    /// L1 blocks between assertions: makes this node a proposer.
    pub proposer: Option<u32>,
    /// Makes this node a challenger.
    pub challenger: Option<ChallengerConfig>,
    /// Needed by a sequencer and by a proposer.
    pub operator: Option<OperatorKeys>,
    /// Where transactions go that are sent to a node that is not the sequencer; to the nodes that it follows
    /// when there is none.
    pub sequencer_rpc: Option<String>,
    /// WebSocket addresses of the nodes that blocks are taken from before Bitcoin has them.
    pub follow: Vec<String>,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig").field("datadir", &self.datadir).finish_non_exhaustive()
    }
}

/// A node that runs. It stops when [`Node::stop`] is called.
pub struct Node {
    /// The one writer of the chain.
    pub engine: Arc<Engine>,
    /// Makes blocks, on the sequencer.
    pub sequencer: Option<Arc<Sequencer>>,
    /// Posts batches, on the sequencer.
    pub batcher: Option<Arc<Batcher>>,
    /// The operator's wallet, on a sequencer or proposer.
    pub wallet: Option<Arc<Wallet>>,
    /// Proves wrong assertions wrong, on a challenger. It begins with [`Node::run`], so that what it tells
    /// comes after what is told of the start.
    pub challenger: Option<Arc<Challenger>>,
    /// Takes blocks from other nodes, when it follows any.
    pub follower: Option<Arc<Follower>>,
    handle: NodeHandle,
    /// Tells every task to stop.
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    /// Whether the challenger has begun.
    challenges: bool,
    /// What a node without roles has yet to follow.
    to_follow: Option<Arc<dyn Bitcoin>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// The folder of the node within the data directory of a development rollup.
pub(crate) const DEV_FOLDER: &str = "rollup";

/// Creates a data directory.
///
/// # Errors
/// When it cannot be created.
pub fn create_datadir(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("cannot create the data directory {}", path.display()))
}

/// Refuses the data directory of `kedge dev`, whose node has a folder of its own in it.
fn refuse_development(datadir: &Path) -> anyhow::Result<()> {
    if datadir.join(DEV_FOLDER).join("store").exists() {
        bail!(
            "{} is the data directory of a `kedge dev`; choose another --datadir",
            datadir.display()
        );
    }
    Ok(())
}

impl Node {
    /// Opens the store, catches up with Bitcoin and starts every role. A node without roles has yet to
    /// [catch up](Self::catch_up), and can answer meanwhile.
    ///
    /// # Errors
    /// When Bitcoin cannot be followed, the data directory is not this network's, or a role cannot start.
    pub async fn start(config: NodeConfig, stop: CancellationToken) -> anyhow::Result<Self> {
        let NodeConfig {
            params,
            datadir,
            bitcoin,
            engine,
            store: options,
            prune,
            sequencer,
            proposer,
            challenger,
            operator,
            sequencer_rpc,
            follow,
        } = config;
        if params.keys.is_none() {
            bail!(
                "the network {} has not been launched: it names no sequencer and no signers",
                params.network.name()
            );
        }
        let follower =
            if follow.is_empty() { None } else { Some(Arc::new(Follower::new(&follow)?)) };
        let folder = datadir.join("store");
        if !folder.exists() {
            // What would be refused below leaves nothing behind.
            refuse_development(&datadir)?;
            l1::check_ready(&*bitcoin, params.bitcoin, params.l1_start.height).await?;
        }
        create_datadir(&datadir)?;
        let store = open_store_with(folder, params, &options)?;
        if challenger.is_some() {
            pruner::check_challenger(prune, &*store)?;
        }
        let engine = EngineOptions {
            journal_removed: sequencer.is_some(),
            prune: prune != Prune::Archive,
            ..engine
        };
        let engine = Arc::new(Engine::open(store.clone(), params, engine)?);
        l1::check_ready(&*bitcoin, params.bitcoin, engine.heads().l1_tip.height).await?;
        let mut tasks = JoinSet::new();
        let has_roles = sequencer.is_some() || proposer.is_some() || challenger.is_some();
        if has_roles {
            follow::follow_to_tip(&*bitcoin, &engine).await?;
            follow_on(bitcoin.clone(), &engine, &stop, &mut tasks);
        } else {
            follow::see_tip(&*bitcoin, &engine).await?;
        }

        let mut mempool = None;
        if let Some((_, policy)) = &sequencer {
            let pool = Arc::new(Mempool::new(
                MempoolConfig { limits: policy.pool, ..MempoolConfig::new(engine.evm()) },
                Arc::new(mempool_link::HeadState::new(engine.clone())),
                Some(Arc::new(mempool_link::StoreJournal::new(store.clone()))),
            ));
            pool.restore()?;
            let link = mempool_link::Link::new(&engine, pool.clone());
            tasks.spawn(link.run(stop.clone()));
            mempool = Some(pool);
        }
        if let Prune::Keep(blocks) = prune {
            let (engine, stop) = (engine.clone(), stop.clone());
            tasks.spawn(pruner::run(engine, blocks, stop));
        }

        let roles = Roles {
            sequencer: sequencer.is_some(),
            proposer: proposer.is_some(),
            challenger: challenger.is_some(),
        };
        if let (Some(one), Some(other)) =
            (&operator, challenger.as_ref().and_then(|of| of.keys.as_ref()))
            && one.publisher == other.publisher
        {
            bail!(
                "the challenger needs a wallet key of its own: two wallets of one key spend the same coins"
            );
        }
        let wallet = match &operator {
            Some(keys) => {
                Some(open_wallet(&engine, &bitcoin, keys, store.clone(), "operator").await?)
            }
            None => None,
        };
        let publisher = |name: &str| -> anyhow::Result<Arc<Publisher>> {
            let (keys, wallet) = operator
                .as_ref()
                .zip(wallet.as_ref())
                .context("a sequencer or proposer needs the operator's wallet")?;
            let records: Arc<dyn Records> = store.clone();
            Ok(Arc::new(Publisher::open(
                name,
                records,
                wallet.clone(),
                bitcoin.clone(),
                keys.publisher,
                FeePolicy::default(),
                params.finality_depth,
            )?))
        };

        let (mut batcher, mut maker) = (None, None);
        if let (Some((key, policy)), Some(pool)) = (sequencer, &mempool) {
            let poster = Arc::new(Batcher::new(
                params,
                engine.clone(),
                pool.clone(),
                publisher("batch")?,
                key,
                policy.origin_depth,
            ));
            batcher = Some(poster.clone());
            let halt = stop.clone();
            tasks.spawn(async move {
                poster.run(halt).await;
                Ok(())
            });
            let made = Arc::new(Sequencer::new(
                params,
                policy,
                key,
                engine.clone(),
                pool.clone(),
                Clock::system(),
            ));
            tasks.spawn(made.clone().run(stop.clone()));
            maker = Some(made);
        }
        if let (Some(interval), Some(keys), Some(wallet)) = (proposer, &operator, &wallet) {
            let proposer = Proposer::new(
                params,
                engine.clone(),
                bitcoin.clone(),
                publisher("assertion")?,
                wallet.clone(),
                keys.publisher,
                interval,
            )?;
            let halt = stop.clone();
            tasks.spawn(async move {
                proposer.run(halt).await;
                Ok(())
            });
        }

        let challenger = match challenger {
            Some(config) => Some(Arc::new(open_challenger(&engine, &bitcoin, config).await?)),
            None => None,
        };

        let submission = match (mempool, sequencer_rpc) {
            (Some(pool), _) => Submission::Mempool(pool),
            (None, Some(url)) => Submission::Forward(rpc::Sequencer::new(&[url])?),
            (None, None) if follow.is_empty() => Submission::Refused,
            (None, None) => {
                let urls = follow.iter().map(|url| http_url(url)).collect::<Result<Vec<_>, _>>()?;
                Submission::Forward(rpc::Sequencer::new(&urls)?)
            }
        };
        let handle = NodeHandle {
            params,
            store,
            engine: engine.clone(),
            submission,
            roles,
            follower: follower.clone(),
        };
        if let Some(follower) = follower.as_ref().filter(|_| has_roles) {
            follower.start(&engine, &stop, &mut tasks);
        }
        Ok(Self {
            engine,
            sequencer: maker,
            batcher,
            wallet,
            challenger,
            follower,
            handle,
            stop,
            tasks,
            challenges: false,
            to_follow: (!has_roles).then_some(bitcoin),
        })
    }

    /// Follows Bitcoin up to its tip, and from there on in the background, together with the nodes to follow.
    ///
    /// # Errors
    /// When Bitcoin cannot be followed.
    pub async fn catch_up(&mut self) -> anyhow::Result<()> {
        let Some(bitcoin) = self.to_follow.take() else { return Ok(()) };
        follow::follow_to_tip(&*bitcoin, &self.engine).await?;
        if let Some(follower) = &self.follower {
            follower.start(&self.engine, &self.stop, &mut self.tasks);
        }
        follow_on(bitcoin, &self.engine, &self.stop, &mut self.tasks);
        Ok(())
    }

    /// Serves JSON-RPC, with methods besides the node's own.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(
        &self,
        config: RpcConfig,
        extra: RpcModule<()>,
    ) -> anyhow::Result<ServerHandle> {
        rpc::serve(config, self.handle.clone(), extra).await
    }

    /// What an operator can do to it, with what changes its log.
    pub fn admin(&self, log: LogFilter) -> Admin {
        Admin {
            params: self.handle.params,
            engine: self.engine.clone(),
            roles: self.handle.roles,
            sequencer: self.sequencer.clone(),
            batcher: self.batcher.clone(),
            log,
        }
    }

    /// Waits until a task fails or the node is told to stop.
    ///
    /// # Errors
    /// What made the task fail.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let outcome = self.attend().await;
        if let (Err(error), Some(challenger)) = (&outcome, &self.challenger) {
            challenger.report_end(error).await;
        }
        outcome
    }

    async fn attend(&mut self) -> anyhow::Result<()> {
        if let Some(challenger) = self.challenger.clone().filter(|_| !self.challenges) {
            let halt = self.stop.clone();
            self.tasks.spawn(async move {
                challenger.run(halt).await;
                Ok(())
            });
            self.challenges = true;
        }
        while let Some(done) = self.tasks.join_next().await {
            done.context("a task panicked")??;
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Stops every task and waits for it. What they wrote is on disk.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(done) = self.tasks.join_next().await {
            if let Ok(Err(error)) = done {
                tracing::warn!("while stopping: {error:#}");
            }
        }
    }
}

/// Follows Bitcoin in the background.
fn follow_on(
    bitcoin: Arc<dyn Bitcoin>,
    engine: &Arc<Engine>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    let (engine, stop) = (engine.clone(), stop.clone());
    tasks.spawn(async move { Ok(follow::follow(bitcoin, engine, stop).await?) });
}

/// Opens and synchronises the wallet of that name.
async fn open_wallet(
    engine: &Arc<Engine>,
    bitcoin: &Arc<dyn Bitcoin>,
    keys: &OperatorKeys,
    records: Arc<dyn Records>,
    name: &str,
) -> anyhow::Result<Arc<Wallet>> {
    let params = engine.params();
    let birthday = params.l1_start.height;
    let wallet = Wallet::open(records, name, &keys.wallet, params.bitcoin, birthday)?;
    wallet.sync(&**bitcoin).await?;
    let address = wallet.address()?;
    let balance = wallet.balance().confirmed;
    tracing::info!(%address, %balance, "the {name}'s wallet");
    if balance == bitcoin::Amount::ZERO {
        tracing::warn!(%address, "the {name}'s wallet is empty: pay bitcoin to this address");
    }
    Ok(Arc::new(wallet))
}

async fn open_challenger(
    engine: &Arc<Engine>,
    bitcoin: &Arc<dyn Bitcoin>,
    config: ChallengerConfig,
) -> anyhow::Result<Challenger> {
    let params = engine.params();
    let ChallengerConfig { keys, options, report } = config;
    let (keys, records, wallet) = if options.dry_run {
        // A dry run pays nothing and leaves nothing behind.
        let keys = OperatorKeys::from_secret(params, &SecretKey::new(&mut OsRng));
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::default());
        let birthday = engine.heads().l1_tip.height;
        let wallet =
            Wallet::open(records.clone(), "challenger", &keys.wallet, params.bitcoin, birthday)?;
        (keys, records, Arc::new(wallet))
    } else {
        let keys = keys.context("a challenger needs a wallet key, or --dry-run")?;
        let records: Arc<dyn Records> = engine.store().clone();
        let wallet = open_wallet(engine, bitcoin, &keys, records.clone(), "challenger").await?;
        (keys, records, wallet)
    };
    let publisher = Publisher::open(
        "proof",
        records,
        wallet.clone(),
        bitcoin.clone(),
        keys.publisher,
        options.fees,
        params.finality_depth,
    )?;
    Challenger::new(
        params,
        engine.clone(),
        bitcoin.clone(),
        Arc::new(publisher),
        wallet,
        keys.publisher,
        options,
        report,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_of_a_development_rollup_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        refuse_development(dir.path()).unwrap();
        create_datadir(&dir.path().join(DEV_FOLDER).join("store")).unwrap();
        let error = refuse_development(dir.path()).unwrap_err().to_string();
        assert!(error.contains("choose another --datadir"), "{error}");
        assert!(!dir.path().join("store").exists());
    }
}
