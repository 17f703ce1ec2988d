//! The commands that run until they are told to stop.

use super::{ChallengerArgs, Challenging, DevArgs, L1Args, NodeArgs, SignerArgs, amount::show_btc};
use crate::{
    admin::{self, LogFilter, Token},
    challenger::{Challenger, ChallengerOptions, Reporter, Webhook},
    console,
    dev::{Dev, DevOptions, FUNDS},
    engine::EngineOptions,
    keys::{self, Role},
    l1::{Bitcoin, RpcClient, rust_network},
    metrics,
    node::{ChallengerConfig, Node, NodeConfig, OperatorKeys},
    pruner::Prune,
    publisher::FeePolicy,
    rpc::RpcConfig,
    sequencer::SequencerConfig,
    signer::{Peer, Signer, SigningApiServer, SigningService},
};
use anyhow::{Context, bail};
use bitcoin::FeeRate;
use jsonrpsee::{RpcModule, server::Server};
use kedge_bridge::vault::Vault;
use kedge_genesis::{Network, Params};
use prometheus::Registry;
use serde_json::json;
use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long an orderly end may take.
const STOP_PATIENCE: Duration = Duration::from_millis(1_500);

/// Logs go to stderr; `KEDGE_LOG` selects them as `RUST_LOG` does elsewhere. What is returned selects others.
fn init_logs(default: &str) -> LogFilter {
    let filter = EnvFilter::try_from_env("KEDGE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would print that a line cannot be written, and panic because that cannot be written either.
        .log_internal_errors(false)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A second initialisation, as in tests, changes nothing.
    let _ = builder.try_init();
    LogFilter::new(move |filter| {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        handle.reload(filter).map_err(|error| error.to_string())
    })
}

/// A token that Ctrl-C and SIGTERM cancel.
fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(stop)
}

/// Runs what never ends by itself, until it fails or `stop`; an end without either is a failure.
async fn until_stopped(
    run: impl Future<Output = anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        done = run => {
            done?;
            if stop.is_cancelled() { Ok(()) } else { bail!("a part stopped without a reason") }
        }
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

pub(super) async fn dev(args: DevArgs) -> anyhow::Result<()> {
    let _ = init_logs("warn,kedge=info");
    let stop = stop_on_signals()?;
    let (datadir, temporary) = match args.datadir {
        Some(path) => (path, None),
        None => {
            let folder = tempfile::Builder::new().prefix("kedge-dev-").tempdir()?;
            (folder.path().to_owned(), Some(folder))
        }
    };
    let options = DevOptions {
        datadir,
        rpc: args.rpc_limits.apply(RpcConfig::new((Ipv4Addr::LOCALHOST, args.rpc_port).into())),
        txpool: args.txpool_limits.limits(),
        block_interval: args.block_interval,
        l1_rpc_port: args.l1_rpc_port,
        block_time: (args.l1_block_time > 0).then(|| Duration::from_secs(args.l1_block_time)),
        dishonest_proposer: args.dishonest_proposer,
        engine: EngineOptions { verify_witness: args.verify_witness, ..EngineOptions::default() },
        store: args.cache.options(),
    };
    let started = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = Dev::start(options, stop.clone()) => started?,
    };
    let mut dev = started;
    if args.json {
        console::line(ready(&dev));
    } else {
        greet(&dev);
    }
    let (_, nothing) = mpsc::unbounded_channel();
    let mut disputes = std::mem::replace(&mut dev.disputes, nothing);
    tokio::spawn(async move {
        while let Some(event) = disputes.recv().await {
            if args.json {
                console::line(json!(event));
            } else {
                console::line(event);
            }
        }
    });
    let outcome = until_stopped(dev.run(), &stop).await;
    finish(dev.stop()).await;
    drop(temporary);
    outcome
}

/// Lets an orderly end take its time, but not more than there is: all state is on disk at any moment.
async fn finish(end: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP_PATIENCE, end).await.is_err() {
        tracing::warn!("a part did not stop in time");
    }
}

fn ready(dev: &Dev) -> serde_json::Value {
    let accounts: Vec<_> = dev
        .accounts
        .iter()
        .map(|account| json!({ "address": account.address, "privateKey": account.private_key }))
        .collect();
    json!({
        "event": "ready",
        "rpc": url(dev.rpc),
        "l1Rpc": url(dev.l1_rpc),
        "chainId": dev.params.chain_id,
        "vault": dev.vault.to_string(),
        "accounts": accounts,
    })
}

fn greet(dev: &Dev) {
    console::line("Kedge development rollup");
    console::line("");
    console::line(format_args!("  JSON-RPC     {} (HTTP and WebSocket)", url(dev.rpc)));
    console::line(format_args!("  Bitcoin RPC  {}", url(dev.l1_rpc)));
    console::line(format_args!("  chain id     {}", dev.params.chain_id));
    console::line(format_args!("  vault        {}", dev.vault));
    console::line("");
    console::line(format_args!("Accounts, each funded by a deposit of {}:", show_btc(FUNDS)));
    for account in &dev.accounts {
        console::line(format_args!("  {}  {}", account.address, account.private_key));
    }
    console::line(format_args!(
        "  (public keys of the mnemonic \"{}\")",
        kedge_genesis::params::dev_secrets::MNEMONIC
    ));
    console::line("");
    console::line("Next:");
    if let [first, second, ..] = dev.accounts.as_slice() {
        let rpc = url(dev.rpc);
        console::line(format_args!(
            "  cast send --rpc-url {rpc} --private-key {} --value 0.01ether {}",
            first.private_key, second.address
        ));
        console::line(format_args!(
            "  kedge bridge deposit --rpc {rpc} --to {} --amount 0.5btc",
            second.address
        ));
        console::line(format_args!("  kedge status --rpc {rpc}"));
    }
}

fn connect(args: &L1Args) -> anyhow::Result<Arc<dyn Bitcoin>> {
    Ok(Arc::new(RpcClient::new(&args.l1_rpc, args.credentials.auth()?)?))
}

/// The sequencer's policy on a network: how deep an L1 block must be to become an origin, and the least time
/// between blocks. On chains that are mined by hand, at once.
const fn policy(network: Network) -> (u32, Duration) {
    match network {
        Network::Dev | Network::Regtest => (0, Duration::ZERO),
        Network::Signet | Network::Mainnet => (2, Duration::from_secs(1)),
    }
}

pub(super) async fn node(args: NodeArgs) -> anyhow::Result<()> {
    let log = init_logs("warn,kedge=info");
    let stop = stop_on_signals()?;
    let params = args.network.params();
    let sequencer = if args.sequencer {
        let file = args.sequencer_key_file.as_deref();
        let secret = keys::load(file, args.network, Role::Sequencer, "--sequencer-key-file")?;
        let key = keys::keypair(&secret);
        check_sequencer_key(params, &key)?;
        let (origin_depth, interval) = policy(args.network);
        let interval = args.block_interval.unwrap_or(interval);
        let pool = args.txpool_limits.limits();
        Some((key, SequencerConfig { origin_depth, interval, pool }))
    } else {
        None
    };
    let operator = if args.sequencer || args.proposer {
        let file = args.wallet_key_file.as_deref();
        let secret = keys::load(file, args.network, Role::Operator, "--wallet-key-file")?;
        Some(OperatorKeys::from_secret(params, &secret))
    } else {
        None
    };
    let mut metrics = None;
    let challenger = if args.challenger {
        let key = args.challenger_key_file.as_deref();
        let (config, exporter) =
            challenging(&args.challenging, args.network, key, "--challenger-key-file", args.json)
                .await?;
        metrics = exporter;
        Some(config)
    } else if let Some(option) = args.challenging.given() {
        bail!("{option} is an option of a challenger; add --challenger")
    } else {
        match args.challenging.metrics_port {
            Some(_) if args.follow.is_empty() => {
                bail!(
                    "there are metrics of a challenger and of a follower; add --challenger or --follow"
                )
            }
            Some(port) => metrics = Some(Exporter::listen(port).await?),
            None => {}
        }
        None
    };
    let token_file = args.admin_token_file.unwrap_or_else(|| args.datadir.join("admin-token"));
    let config = NodeConfig {
        params,
        datadir: args.datadir,
        bitcoin: connect(&args.l1)?,
        engine: EngineOptions { verify_witness: args.verify_witness, ..EngineOptions::default() },
        store: args.cache.options(),
        prune: args.prune,
        sequencer,
        proposer: args.proposer.then_some(args.assertion_interval),
        challenger,
        operator,
        sequencer_rpc: args.sequencer_rpc,
        follow: args.follow,
    };
    let listen = SocketAddr::new(args.rpc_host, args.rpc_port);
    let rpc = args.rpc_limits.apply(RpcConfig::new(listen));
    let (mut node, server, admin) = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = async {
            let mut node = Node::start(config, stop.clone()).await?;
            if let (Some(follower), Some(exporter)) = (&node.follower, &metrics) {
                follower.register(&exporter.registry)?;
            }
            let server = node.serve(rpc, RpcModule::new(())).await?;
            let admin = match args.admin_port {
                Some(port) => {
                    let (token, listen) = (Token::open(&token_file)?, (Ipv4Addr::LOCALHOST, port));
                    Some(admin::serve(listen.into(), token, node.admin(log)).await?)
                }
                None => None,
            };
            // It can be asked meanwhile how far it is.
            node.catch_up().await?;
            anyhow::Ok((node, server, admin))
        } => started?,
    };
    let rpc = url(server.address());
    let mut ready = json!({ "event": "ready", "rpc": rpc, "chainId": params.chain_id });
    let mut lines = vec![format!("following {}; JSON-RPC at {rpc}", params.network.name())];
    if let (Some(exporter), Some(sequencer)) = (&metrics, &node.sequencer) {
        metrics::PoolMetrics::register(&exporter.registry, sequencer.mempool().clone())?;
    }
    if let Some(admin) = &admin {
        let address = url(admin.address());
        lines.push(format!("admin_* at {address}, token in {}", token_file.display()));
        ready["admin"] = json!({ "rpc": address, "tokenFile": token_file });
    }
    if let Some(challenger) = &node.challenger {
        introduce(challenger, &mut ready, &mut lines)?;
    }
    introduce_metrics(metrics.as_ref(), &mut ready, &mut lines)?;
    announce(args.json, &ready, &lines);
    let outcome = until_stopped(with_metrics(&mut node, metrics, &stop), &stop).await;
    finish(async {
        if let Some(admin) = admin {
            admin.stop().await;
        }
        server.stop().await;
        node.stop().await;
    })
    .await;
    outcome
}

/// Metrics, and where they are served.
struct Exporter {
    listener: TcpListener,
    registry: Registry,
}

impl Exporter {
    /// No metrics yet, served on this port of the machine's loopback.
    async fn listen(port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; is another program using the port? choose one with --metrics-port")
        })?;
        Ok(Self { listener, registry: Registry::new() })
    }
}

/// What the options make of a challenger, and where its metrics are served.
async fn challenging(
    options: &Challenging,
    network: Network,
    key_file: Option<&Path>,
    flag: &'static str,
    json: bool,
) -> anyhow::Result<(ChallengerConfig, Option<Exporter>)> {
    let params = network.params();
    let keys = if options.dry_run {
        None
    } else {
        let secret = keys::load(key_file, network, Role::Challenger, flag)?;
        Some(OperatorKeys::from_secret(params, &secret))
    };
    let mut report = Reporter::default();
    if json {
        report = report.with_json();
    }
    if let Some(address) = &options.alert_webhook {
        report = report.with_webhook(Webhook::new(address)?);
    }
    let mut exporter = None;
    if let Some(port) = options.metrics_port {
        let listening = Exporter::listen(port).await?;
        report = report.with_metrics(&listening.registry)?;
        exporter = Some(listening);
    }
    let mut fees = FeePolicy::default();
    if let Some(rate) = options.max_fee_rate {
        fees.ceiling = FeeRate::from_sat_per_vb_u32(rate);
    }
    let options = ChallengerOptions { dry_run: options.dry_run, fees };
    Ok((ChallengerConfig { keys, options, report }, exporter))
}

/// Adds what there is to know of a challenger to what is told at the start.
fn introduce(
    challenger: &Challenger,
    ready: &mut serde_json::Value,
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    if challenger.is_dry_run() {
        ready["challenger"] = json!({ "dryRun": true });
        lines.push("challenging as a dry run: nothing is published".into());
    } else {
        let wallet = challenger.address()?.to_string();
        let key = challenger.public_key().to_string();
        lines.push(format!("challenging as {key}; its wallet is {wallet}"));
        ready["challenger"] = json!({ "dryRun": false, "publicKey": key, "wallet": wallet });
    }
    Ok(())
}

/// Adds where metrics are.
fn introduce_metrics(
    metrics: Option<&Exporter>,
    ready: &mut serde_json::Value,
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Some(exporter) = metrics {
        let address = format!("{}/metrics", url(exporter.listener.local_addr()?));
        lines.push(format!("metrics at {address}"));
        ready["metrics"] = json!(address);
    }
    Ok(())
}

fn announce(as_json: bool, ready: &serde_json::Value, lines: &[String]) {
    if as_json {
        console::line(ready);
    } else {
        lines.iter().for_each(console::line);
    }
}

/// Runs a node, and serves metrics meanwhile.
async fn with_metrics(
    node: &mut Node,
    metrics: Option<Exporter>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(Exporter { listener, registry }) = metrics else { return node.run().await };
    tokio::select! {
        done = node.run() => done,
        done = metrics::serve(listener, registry, stop.clone()) => Ok(done?),
    }
}

pub(super) async fn challenger(args: ChallengerArgs) -> anyhow::Result<()> {
    let _ = init_logs("warn,kedge=info");
    let stop = stop_on_signals()?;
    let params = args.network.params();
    let key = args.wallet_key_file.as_deref();
    let (config, metrics) =
        challenging(&args.challenging, args.network, key, "--wallet-key-file", args.json).await?;
    let config = NodeConfig {
        params,
        datadir: args.datadir,
        bitcoin: connect(&args.l1)?,
        engine: EngineOptions::default(),
        store: args.cache.options(),
        prune: Prune::Archive,
        sequencer: None,
        proposer: None,
        challenger: Some(config),
        operator: None,
        sequencer_rpc: None,
        follow: Vec::new(),
    };
    let mut node = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = Node::start(config, stop.clone()) => started?,
    };
    let mut ready = json!({ "event": "ready", "chainId": params.chain_id });
    let mut lines = vec![format!("following {}", params.network.name())];
    let server = match args.rpc_port {
        Some(port) => {
            let listen = SocketAddr::new(args.rpc_host, port);
            let rpc = args.rpc_limits.apply(RpcConfig::new(listen));
            let server = node.serve(rpc, RpcModule::new(())).await?;
            let rpc = url(server.address());
            lines.push(format!("JSON-RPC at {rpc}"));
            ready["rpc"] = json!(rpc);
            Some(server)
        }
        None => None,
    };
    if let Some(challenger) = &node.challenger {
        introduce(challenger, &mut ready, &mut lines)?;
    }
    introduce_metrics(metrics.as_ref(), &mut ready, &mut lines)?;
    announce(args.json, &ready, &lines);
    let outcome = until_stopped(with_metrics(&mut node, metrics, &stop), &stop).await;
    finish(async {
        if let Some(server) = server {
            server.stop().await;
        }
        node.stop().await;
    })
    .await;
    outcome
}

fn check_sequencer_key(params: &Params, key: &bitcoin::key::Keypair) -> anyhow::Result<()> {
    let own = key.x_only_public_key().0.serialize();
    if params.keys.is_some_and(|keys| keys.sequencer != own) {
        bail!(
            "the key of --sequencer-key-file is not the sequencer's key of {}",
            params.network.name()
        );
    }
    Ok(())
}

pub(super) async fn signer(args: SignerArgs) -> anyhow::Result<()> {
    let _ = init_logs("warn,kedge=info");
    let stop = stop_on_signals()?;
    let params = args.network.params();
    let role = Role::Signer(args.dev_key.unwrap_or_default());
    let secret = keys::load(args.key_file.as_deref(), args.network, role, "--key-file")?;
    let bitcoin = connect(&args.l1)?;
    let peers =
        args.peers.iter().map(|url| Peer::remote(url)).collect::<anyhow::Result<Vec<_>>>()?;
    let config = NodeConfig {
        params,
        datadir: args.datadir,
        bitcoin: bitcoin.clone(),
        engine: EngineOptions::default(),
        store: args.cache.options(),
        prune: Prune::Archive,
        sequencer: None,
        proposer: None,
        challenger: None,
        operator: None,
        sequencer_rpc: None,
        follow: Vec::new(),
    };
    let mut node = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        started = async {
            let mut node = Node::start(config, stop.clone()).await?;
            node.catch_up().await.map(|()| node)
        } => started?,
    };
    let signer =
        Arc::new(Signer::new(params, keys::keypair(&secret), node.engine.clone(), bitcoin)?);
    let listen = SocketAddr::new(args.listen_host, args.listen_port);
    let server = Server::builder().set_config(SigningService::limits()).build(listen).await.with_context(|| {
        format!("cannot listen on {listen}; is another program using the port? choose one with --listen-port")
    })?;
    let address = server.local_addr()?;
    let service = server.start(SigningService(signer.clone()).into_rpc());
    let vault = Vault::of(params).context("the network has no vault")?;
    let vault = vault.address(rust_network(params.bitcoin));
    if args.json {
        let place = signer.place();
        console::line(
            json!({ "event": "ready", "signer": url(address), "place": place, "vault": vault.to_string() }),
        );
    } else {
        console::line(format_args!(
            "signer {} of the vault {vault}; signing service at {}",
            signer.place(),
            url(address)
        ));
    }
    let halt = stop.clone();
    let leading = signer.run(&peers, halt);
    let outcome = tokio::select! {
        outcome = until_stopped(node.run(), &stop) => outcome,
        () = leading => Ok(()),
    };
    finish(async {
        // Fails only when it has stopped already.
        let _ = service.stop();
        node.stop().await;
    })
    .await;
    outcome
}
