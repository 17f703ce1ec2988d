//! A whole rollup in one process: Bitcoin, sequencer, batcher, proposer, challenger, signers, JSON-RPC. On
//! demand a dishonest proposer besides.

mod api;
pub mod dishonest;
mod disputes;
mod liar;

pub use api::DevApiClient;
pub use disputes::Dispute;

use crate::{
    accounts::{self, DevAccount},
    challenger::{ChallengerOptions, Reporter},
    engine::{Engine, EngineOptions},
    keys::{self, Role},
    l1::{Embedded, Records, facade, rust_network},
    mempool::PoolLimits,
    node::{ChallengerConfig, Node, NodeConfig, OperatorKeys},
    proposer::DEFAULT_INTERVAL,
    pruner::Prune,
    rpc::{RpcConfig, ServerHandle},
    sequencer::SequencerConfig,
    signer::{Peer, Signer},
    wallet::{Wallet, WalletKeys},
};
use anyhow::Context;
use api::{DevApiServer as _, DevMethods};
use bitcoin::secp256k1::SecretKey;
use disputes::Disputes;
use jsonrpsee::RpcModule;
use kedge_bridge::vault::Vault;
use kedge_genesis::{L1Height, Network, Params, Sats};
use kedge_store::{L1Rows, StoreOptions};
use liar::DishonestProposer;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Blocks mined at first to the operator's wallet: its coins for fees and bonds.
const OPERATOR_BLOCKS: u32 = 4;
/// Blocks mined then to the challenger's wallet.
const CHALLENGER_BLOCKS: u32 = 1;
/// Blocks mined then to the dev wallet: a coinbase can be spent 100 blocks later.
const WALLET_BLOCKS: u32 = 107;
/// What each account gets at the start.
pub const FUNDS: Sats = Sats(1_000_000_000);
/// How long mining waits for the rollup to react to the last block.
const QUIET_PATIENCE: Duration = Duration::from_secs(5);

/// What a person can choose.
#[derive(Clone, Debug)]
pub struct DevOptions {
    /// Where both chains are kept.
    pub datadir: PathBuf,
    /// The JSON-RPC server; port 0 for a free one.
    pub rpc: RpcConfig,
    /// How much the mempool holds.
    pub txpool: PoolLimits,
    /// The least time between L2 blocks.
    pub block_interval: Duration,
    /// Port of the Bitcoin RPC, 0 for a free one.
    pub l1_rpc_port: u16,
    /// Time between Bitcoin blocks; none mines on demand only.
    pub block_time: Option<Duration>,
    /// Whether to post wrong assertions now and then.
    pub dishonest_proposer: bool,
    /// The engine's options.
    pub engine: EngineOptions,
    /// The database's options.
    pub store: StoreOptions,
}

/// A development rollup that runs.
#[derive(Debug)]
pub struct Dev {
    /// Address of JSON-RPC.
    pub rpc: SocketAddr,
    /// Address of the Bitcoin RPC.
    pub l1_rpc: SocketAddr,
    /// The network.
    pub params: &'static Params,
    /// The vault's address.
    pub vault: bitcoin::Address,
    /// The funded accounts.
    pub accounts: Vec<DevAccount>,
    /// What happens in disputes from the start on.
    pub disputes: mpsc::UnboundedReceiver<Dispute>,
    node: Node,
    server: ServerHandle,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Dev {
    /// Starts everything. When this returns, everything answers and the accounts are funded.
    ///
    /// # Errors
    /// When a port is taken, the data directory is in use or another network's, or this machine fails.
    pub async fn start(options: DevOptions, stop: CancellationToken) -> anyhow::Result<Self> {
        let params = Network::Dev.params();
        let network = rust_network(params.bitcoin);
        // The ports first: a clash is told before anything is written.
        let l1_listener = listen(options.l1_rpc_port, "--l1-rpc-port").await?;
        let rpc_listener = listen(options.rpc.listen.port(), "--rpc-port").await?;
        let l1_rpc = l1_listener.local_addr()?;

        let operator = OperatorKeys::from_secret(params, &secret(Role::Operator)?);
        let wallet_keys =
            WalletKeys::from_seed(params.bitcoin, &secret(Role::Wallet)?.secret_bytes());
        let challenger = OperatorKeys::from_secret(params, &secret(Role::Challenger)?);
        let chain = open_bitcoin(&options.datadir.join("bitcoin")).await?;
        if chain.tip().0 == L1Height(0) {
            let shares = [
                (OPERATOR_BLOCKS, &operator.wallet),
                (CHALLENGER_BLOCKS, &challenger.wallet),
                (WALLET_BLOCKS, &wallet_keys),
            ];
            for (blocks, keys) in shares {
                let script = keys.first_address(params.bitcoin)?.script_pubkey();
                let chain = chain.clone();
                tokio::task::spawn_blocking(move || chain.mine(blocks, &script)).await??;
            }
        }

        let (heard, from_challenger) = mpsc::unbounded_channel();
        let challenger = ChallengerConfig {
            keys: Some(challenger),
            options: ChallengerOptions::default(),
            report: Reporter::default().with_listener(heard),
        };
        let sequencer = keys::keypair(&secret(Role::Sequencer)?);
        let node = Node::start(
            NodeConfig {
                params,
                datadir: options.datadir.join(crate::node::DEV_FOLDER),
                bitcoin: chain.clone(),
                engine: options.engine,
                store: options.store,
                prune: Prune::Archive,
                sequencer: Some((
                    sequencer,
                    SequencerConfig {
                        origin_depth: 0,
                        interval: options.block_interval,
                        pool: options.txpool,
                    },
                )),
                proposer: Some(DEFAULT_INTERVAL),
                challenger: Some(challenger),
                operator: Some(operator),
                sequencer_rpc: None,
                follow: Vec::new(),
            },
            stop.clone(),
        )
        .await?;

        let vault = Vault::of(params).context("dev names its signers")?;
        let records: Arc<dyn Records> = node.engine.store().clone();
        let birthday = params.l1_start.height;
        let wallet =
            Arc::new(Wallet::open(records, "dev", &wallet_keys, params.bitcoin, birthday)?);
        let batcher = node.batcher.clone().context("dev is a sequencer")?;
        let methods = Arc::new(DevMethods {
            chain: chain.clone(),
            wallet,
            vault: vault.script(),
            least: params.min_deposit,
            engine: node.engine.clone(),
            batcher,
            mining: tokio::sync::Mutex::new(()),
        });
        let (teller, disputes) = Disputes::channel();
        let liar = options
            .dishonest_proposer
            .then(|| {
                let secret = secret(Role::DishonestProposer)?;
                let (engine, methods) = (node.engine.clone(), methods.clone());
                DishonestProposer::new(params, engine, &secret, methods, teller.clone())
            })
            .transpose()?;
        let wallets =
            [node.challenger.as_ref().map(|it| it.wallet()), liar.as_ref().map(|it| it.wallet())];
        for wallet in wallets.into_iter().flatten() {
            wallet.sync(&*chain).await?;
            methods.provide(wallet).await?;
        }
        let accounts = accounts::all()?;
        fund(&methods, &accounts).await?;

        let mut tasks = JoinSet::new();
        let engine = node.engine.clone();
        let listening = teller.clone().listen(engine.clone(), from_challenger);
        tasks.spawn(async move {
            listening.await;
            Ok(())
        });
        tasks.spawn(teller.follow(engine, stop.clone()));
        if let Some(liar) = liar {
            let halt = stop.clone();
            tasks.spawn(async move {
                liar.run(halt).await;
                Ok(())
            });
        }
        start_signers(params, &node.engine, &chain, &stop, &mut tasks)?;
        let facade_stop = stop.clone();
        tasks.spawn(async move { Ok(facade::serve(chain, l1_listener, facade_stop).await?) });
        if let Some(pause) = options.block_time {
            tasks.spawn(mine_regularly(methods.clone(), pause, stop.clone()));
        }
        let mut extra = RpcModule::new(());
        extra.merge(api::Shared(methods).into_rpc())?;
        let address = rpc_listener.local_addr()?;
        drop(rpc_listener);
        let server = node.serve(RpcConfig { listen: address, ..options.rpc }, extra).await?;
        Ok(Self {
            rpc: server.address(),
            l1_rpc,
            params,
            vault: vault.address(network),
            accounts,
            disputes,
            node,
            server,
            tasks,
            stop,
        })
    }

    /// Waits until a part fails or the rollup is told to stop.
    ///
    /// # Errors
    /// What made the part fail.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            done = self.node.run() => done,
            Some(done) = self.tasks.join_next() => done.context("a task panicked")?,
        }
    }

    /// Stops every part.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.server.stop().await;
        self.node.stop().await;
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn listen(port: u16, flag: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; is another program using the port? choose one with {flag}"
        )
    })
}

fn secret(role: Role) -> anyhow::Result<SecretKey> {
    role.dev_secret().context("dev's keys are public")
}

async fn open_bitcoin(path: &Path) -> anyhow::Result<Arc<Embedded>> {
    let path = path.to_owned();
    crate::node::create_datadir(&path)?;
    Ok(tokio::task::spawn_blocking(move || Embedded::open(&path)).await??)
}

/// Pays the accounts' first deposits, unless an earlier run did, and waits until they are credited and what
/// there is of the chain is in batches.
async fn fund(methods: &DevMethods, accounts: &[DevAccount]) -> anyhow::Result<()> {
    methods.quiet().await;
    if methods.engine.store().reader().l1_sums()?.deposits > 0 {
        return Ok(());
    }
    let deposits: Vec<_> = accounts.iter().map(|account| (account.address, FUNDS)).collect();
    // After a crash in between, the deposit is in the mempool already.
    if !methods.deposit_is_waiting() {
        methods.pay(&deposits).await?;
    }
    // The blocks mined at first are more epochs than one batch begins. All but the newest are to be on Bitcoin.
    for _ in 0..methods.engine.params().sequencing_window {
        methods.mine_blocks(1).await?;
        methods.quiet().await;
        let heads = methods.engine.heads();
        if heads.safe.origin.height.next() >= heads.l1_tip.height {
            break;
        }
    }
    Ok(())
}

fn start_signers(
    params: &'static Params,
    engine: &Arc<Engine>,
    chain: &Arc<Embedded>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let count = params.keys.map_or(0, |keys| keys.signers.len());
    let mut signers = Vec::new();
    for index in 0..count {
        let key = keys::keypair(&secret(Role::Signer(u8::try_from(index)?))?);
        signers.push(Arc::new(Signer::new(params, key, engine.clone(), chain.clone())?));
    }
    for signer in &signers {
        let peers: Vec<Peer> = signers
            .iter()
            .filter(|other| other.place() != signer.place())
            .map(|other| Peer::Local(other.clone()))
            .collect();
        let (signer, stop) = (signer.clone(), stop.clone());
        tasks.spawn(async move {
            signer.run(&peers, stop).await;
            Ok(())
        });
    }
    Ok(())
}

async fn mine_regularly(
    methods: Arc<DevMethods>,
    pause: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        methods.mine_blocks(1).await?;
    }
}

impl DevMethods {
    /// Waits until the rollup has reacted to Bitcoin's tip: processed it, made its epoch, and put what is
    /// unposted on its way. Gives up after a while, since mining must go on in any case.
    async fn quiet(&self) {
        let wait = async {
            let mut heads = self.engine.watch_heads();
            loop {
                heads.mark_unchanged();
                if self.is_quiet().await {
                    return;
                }
                tokio::select! {
                    changed = heads.changed() => if changed.is_err() { return },
                    // The batcher does not move the heads.
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        };
        if tokio::time::timeout(QUIET_PATIENCE, wait).await.is_err() {
            tracing::warn!("the rollup has not caught up with the last Bitcoin block");
        }
    }

    async fn is_quiet(&self) -> bool {
        let (height, _) = self.chain.tip();
        let heads = self.engine.heads();
        heads.l1_tip.height == height
            && heads.latest.origin.height == height
            && self.batcher.is_idle().await
    }
}
