//! The command line.

pub mod amount;
mod assertions;
mod client;
mod db;
mod heavy;
mod key;
mod l1;
mod limits;
mod proof;
mod run;
mod txpool;

use crate::{
    l1::{Auth, L1Error},
    proposer::DEFAULT_INTERVAL,
    pruner::Prune,
};
use alloy_primitives::Address;
use clap::{Args, Parser, Subcommand, ValueEnum};
use kedge_genesis::{Network, Sats};
use kedge_store::StoreOptions;
use limits::RpcLimits;
use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};
use txpool::TxPoolLimits;

/// An optimistic rollup anchored to Bitcoin.
#[derive(Debug, Parser)]
#[command(name = "kedge", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole rollup in one process, with a Bitcoin of its own, for development
    Dev(DevArgs),
    /// Run a node: a validator, with --sequencer, --proposer and --challenger also those roles
    Node(NodeArgs),
    /// Run a challenger: proves every wrong assertion wrong before it settles
    Challenger(ChallengerArgs),
    /// Run one signer of the vault: checks every payout against its own node, then signs
    Signer(SignerArgs),
    /// Show the heads, the L1 tip and how far the node is
    Status(Client),
    /// Move bitcoin in and out
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// Show the tree of assertions about the chain and what became of them
    Assertions(AssertionsArgs),
    /// Build, check and look into fraud proofs
    #[command(subcommand)]
    Proof(proof::ProofCommand),
    /// Look after the database of a node that is stopped
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Write the L2 blocks of a node that is stopped into a file
    Export(db::ExportArgs),
    /// Compare the L2 blocks of a file with a node that is stopped, and add those that follow its latest
    Import(db::ImportArgs),
    /// Mine in `kedge dev`, and export Bitcoin blocks
    #[command(subcommand)]
    L1(L1Command),
    /// Make key files and show what belongs to them
    #[command(subcommand)]
    Key(KeyCommand),
}

/// How to reach a node, and how to print.
#[derive(Args, Clone, Debug)]
struct Client {
    /// JSON-RPC endpoint of a node
    #[arg(long, value_name = "URL", env = "KEDGE_RPC", default_value = "http://127.0.0.1:8545")]
    rpc: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct AssertionsArgs {
    #[command(flatten)]
    client: Client,
    /// Go on with every change until stopped; with --json one a line
    #[arg(long)]
    watch: bool,
}

#[derive(Args, Debug)]
struct DevArgs {
    /// Where to keep the chain; without it a fresh temporary folder, removed at the end
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Port of the JSON-RPC server, HTTP and WebSocket; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8545)]
    rpc_port: u16,
    /// Port of the Bitcoin RPC server; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 18443)]
    l1_rpc_port: u16,
    /// Seconds between Bitcoin blocks; 0 mines only on demand (`kedge l1 mine`)
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    l1_block_time: u64,
    /// Least seconds between L2 blocks; 0 makes one as soon as there is something to put in it
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    block_interval: Duration,
    /// Post a wrong assertion now and then, to watch how it is proven wrong
    #[arg(long)]
    dishonest_proposer: bool,
    #[command(flatten)]
    cache: CacheArgs,
    /// Re-execute every block on its own state witness and stop on a difference
    #[arg(long)]
    verify_witness: bool,
    /// Print events as JSON, one a line; the first is `ready`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rpc_limits: RpcLimits,
    #[command(flatten)]
    txpool_limits: TxPoolLimits,
}

/// How much memory the database takes.
#[derive(Args, Clone, Copy, Debug)]
struct CacheArgs {
    /// Megabytes for the database's caches
    #[arg(long, value_name = "MB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    cache_mb: u32,
}

impl CacheArgs {
    const fn options(self) -> StoreOptions {
        StoreOptions { cache_bytes: (self.cache_mb as usize) << 20 }
    }
}

/// The Bitcoin node underneath.
#[derive(Args, Clone, Debug)]
struct L1Args {
    /// Bitcoin Core's RPC endpoint
    #[arg(long, value_name = "URL")]
    l1_rpc: String,
    #[command(flatten)]
    credentials: L1Credentials,
}

/// What Bitcoin Core's RPC asks for.
#[derive(Args, Clone, Debug)]
struct L1Credentials {
    /// Bitcoin Core's cookie file
    #[arg(long, value_name = "FILE", requires = "l1_rpc", conflicts_with_all = ["l1_user", "l1_password_file"])]
    l1_cookie_file: Option<PathBuf>,
    /// RPC user name
    #[arg(long, value_name = "USER", requires = "l1_password_file")]
    l1_user: Option<String>,
    /// File that holds the RPC password
    #[arg(long, value_name = "FILE", requires = "l1_user")]
    l1_password_file: Option<PathBuf>,
}

impl L1Credentials {
    fn auth(&self) -> Result<Auth, L1Error> {
        let cookie = self.l1_cookie_file.as_deref();
        Auth::from_files(cookie, self.l1_user.as_deref(), self.l1_password_file.as_deref())
    }
}

#[derive(Args, Debug)]
struct NodeArgs {
    /// Where to keep the chain
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Which network
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = network)]
    network: Network,
    #[command(flatten)]
    l1: L1Args,
    /// Address that the JSON-RPC server listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    rpc_host: IpAddr,
    /// Port of the JSON-RPC server, HTTP and WebSocket; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8545)]
    rpc_port: u16,
    /// Take blocks before Bitcoin has them from this node, the sequencer or any other; repeat for several
    #[arg(long, value_name = "WS_URL", conflicts_with = "sequencer")]
    follow: Vec<String>,
    /// Where to pass transactions on to that are sent to this node; by default to the nodes that it follows
    #[arg(long, value_name = "URL", conflicts_with = "sequencer")]
    sequencer_rpc: Option<String>,
    /// Make blocks and post them to Bitcoin
    #[arg(long)]
    sequencer: bool,
    /// Least seconds between blocks, unless the rules demand one; 0 makes one as soon as there is something to put
    /// in it (by default 1, on dev and regtest 0)
    #[arg(long, value_name = "SECONDS", requires = "sequencer", value_parser = seconds)]
    block_interval: Option<Duration>,
    /// Post assertions to Bitcoin
    #[arg(long)]
    proposer: bool,
    /// Key that signs batches (on dev and regtest: the network's public one)
    #[arg(long, value_name = "FILE", requires = "sequencer")]
    sequencer_key_file: Option<PathBuf>,
    /// Key of the wallet that pays Bitcoin's fees and bonds (on dev and regtest: a public one)
    #[arg(long, value_name = "FILE")]
    wallet_key_file: Option<PathBuf>,
    /// Bitcoin blocks between assertions while no withdrawal waits
    #[arg(long, value_name = "BLOCKS", default_value_t = DEFAULT_INTERVAL, requires = "proposer")]
    assertion_interval: u32,
    /// Prove every wrong assertion wrong before it settles
    #[arg(long)]
    challenger: bool,
    /// Key of the challenger's wallet, another than --wallet-key-file's (on dev and regtest: a public one)
    #[arg(long, value_name = "FILE", requires = "challenger")]
    challenger_key_file: Option<PathBuf>,
    /// Drop the state before old blocks: archive keeps all, a number that many blocks, minimal what proofs need
    #[arg(long, value_name = "MODE", default_value = "archive", conflicts_with = "challenger")]
    prune: Prune,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    challenging: Challenging,
    /// Serve admin_* on this port of the loopback, to who shows the token; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// File with the token for admin_*, made when there is none; DATADIR/admin-token by default
    #[arg(long, value_name = "FILE", requires = "admin_port")]
    admin_token_file: Option<PathBuf>,
    /// Re-execute every block on its own state witness and stop on a difference
    #[arg(long)]
    verify_witness: bool,
    /// Print events as JSON, one a line; the first is `ready`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rpc_limits: RpcLimits,
    #[command(flatten)]
    txpool_limits: TxPoolLimits,
}

/// How a challenger behaves and whom it tells.
#[derive(Args, Clone, Debug)]
struct Challenging {
    /// Report what would be published, publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Address that every alert is posted to as JSON, http only
    #[arg(long, value_name = "URL")]
    alert_webhook: Option<String>,
    /// Port for metrics in Prometheus' text format, on this machine's loopback; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Highest fee rate for a proof, reached only in the last blocks before its deadline; 500 by default
    #[arg(long, value_name = "SAT_PER_VB", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_fee_rate: Option<u32>,
}

impl Challenging {
    /// The first of these options that was given and that only a challenger has.
    fn given(&self) -> Option<&'static str> {
        let options = [
            ("--dry-run", self.dry_run),
            ("--alert-webhook", self.alert_webhook.is_some()),
            ("--max-fee-rate", self.max_fee_rate.is_some()),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }
}

#[derive(Args, Debug)]
struct ChallengerArgs {
    /// Where to keep the chain that assertions are compared with
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Which network
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = network)]
    network: Network,
    #[command(flatten)]
    l1: L1Args,
    /// Key of the wallet that pays for proofs and takes rewards (on dev and regtest: a public one)
    #[arg(long, value_name = "FILE")]
    wallet_key_file: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    challenging: Challenging,
    /// Address that the JSON-RPC server listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", requires = "rpc_port")]
    rpc_host: IpAddr,
    /// Serve JSON-RPC too, HTTP and WebSocket, on this port; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    rpc_port: Option<u16>,
    /// Print events as JSON, one a line; the first is `ready`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    rpc_limits: RpcLimits,
}

#[derive(Args, Debug)]
struct SignerArgs {
    /// Where to keep the chain that this signer checks against
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Which network
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = network)]
    network: Network,
    #[command(flatten)]
    l1: L1Args,
    /// This signer's key
    #[arg(long, value_name = "FILE", conflicts_with = "dev_key")]
    key_file: Option<PathBuf>,
    /// Use the public key number N of dev and regtest, from 0
    #[arg(long, value_name = "N", required_unless_present = "key_file")]
    dev_key: Option<u8>,
    #[command(flatten)]
    cache: CacheArgs,
    /// Address that the signing service listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen_host: IpAddr,
    /// Port of the signing service; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9545)]
    listen_port: u16,
    /// Signing service of another signer; repeat for each
    #[arg(long = "peer", value_name = "URL")]
    peers: Vec<String>,
    /// Print events as JSON, one a line; the first is `ready`
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BridgeCommand {
    /// Pay bitcoin into the vault, to be credited to an address on L2
    Deposit(DepositArgs),
    /// Burn bitcoin on L2, to be paid out to a Bitcoin address
    Withdraw(WithdrawArgs),
    /// Show the vault, the deposits and how far each withdrawal is
    Status(Client),
}

#[derive(Args, Debug)]
struct DepositArgs {
    #[command(flatten)]
    client: Client,
    /// Who is credited on L2
    #[arg(long, value_name = "ADDRESS")]
    to: Address,
    /// How much, in btc or sat: 0.5btc, 25000sat
    #[arg(long, value_parser = amount::parse)]
    amount: Sats,
    /// Pay through this Bitcoin node from the wallet of --wallet-key-file, not from the dev wallet
    #[arg(long, value_name = "URL")]
    l1_rpc: Option<String>,
    #[command(flatten)]
    credentials: L1Credentials,
    /// Key of the wallet that pays (on regtest: the public dev wallet)
    #[arg(long, value_name = "FILE", requires = "l1_rpc")]
    wallet_key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct WithdrawArgs {
    #[command(flatten)]
    client: Client,
    /// Bitcoin address to pay
    #[arg(long, value_name = "BITCOIN_ADDRESS")]
    to: String,
    /// How much leaves L2, in btc or sat; the payout fee is taken from it
    #[arg(long, value_parser = amount::parse)]
    amount: Sats,
    /// Key of the L2 account that pays (on dev and regtest: the first test account)
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum L1Command {
    /// Write the blocks of a network's Bitcoin into a folder, for `kedge proof verify --blocks`
    ExportBlocks(l1::ExportArgs),
    /// Mine blocks now, in `kedge dev`
    Mine {
        #[command(flatten)]
        client: Client,
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
        blocks: u32,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Write a fresh secret key to a new file
    New {
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show what belongs to a key: x-only public key, L2 address, first Bitcoin wallet address
    Show {
        /// Which network
        #[arg(long, value_name = "NAME", default_value = "regtest", value_parser = network)]
        network: Network,
        /// The key file
        #[arg(long, value_name = "FILE", conflicts_with = "dev", required_unless_present = "dev")]
        key_file: Option<PathBuf>,
        /// A public key of dev and regtest
        #[arg(long, value_enum)]
        dev: Option<DevKey>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The public keys of dev and regtest by role.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DevKey {
    /// Signs batches
    Sequencer,
    /// Pays fees and bonds
    Operator,
    /// Pays for fraud proofs
    Challenger,
    /// Pays deposits
    Wallet,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let longest = Duration::from_secs(3_600);
    seconds
        .filter(|seconds| *seconds <= longest)
        .ok_or_else(|| "expected seconds, with a fraction if need be, from 0 to 3600".to_owned())
}

fn network(name: &str) -> Result<Network, String> {
    Network::from_name(name).ok_or_else(|| {
        let names = Network::ALL.map(Network::name).join(", ");
        format!("no such network; there are: {names}")
    })
}

/// Runs the command that the process was started with. 0 only when the thing was done; `kedge proof verify`
/// has statuses of its own, and `kedge db verify` fails where something is wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(dispatch(cli.command));
    // What still runs in the background has been told to stop; it gets the rest of two seconds.
    runtime.shutdown_timeout(std::time::Duration::from_millis(1_500));
    match done {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // Its status is the verdict.
        Command::Proof(command) => return proof::run(command).await,
        Command::Db(command) => return db::run(command).await,
        Command::Export(args) => db::export(args).await,
        Command::Import(args) => db::import(args).await,
        Command::Dev(args) => run::dev(args).await,
        Command::Node(args) => run::node(args).await,
        Command::Challenger(args) => run::challenger(args).await,
        Command::Signer(args) => run::signer(args).await,
        Command::Status(client) => client::status(&client).await,
        Command::Bridge(BridgeCommand::Deposit(args)) => client::deposit(args).await,
        Command::Bridge(BridgeCommand::Withdraw(args)) => client::withdraw(args).await,
        Command::Bridge(BridgeCommand::Status(client)) => client::bridge_status(&client).await,
        Command::Assertions(args) => assertions::show(&args).await,
        Command::L1(L1Command::ExportBlocks(args)) => l1::export(args).await,
        Command::L1(L1Command::Mine { client, blocks }) => client::mine(&client, blocks).await,
        Command::Key(KeyCommand::New { out }) => key::new(&out),
        Command::Key(KeyCommand::Show { network, key_file, dev, json }) => {
            key::show(network, key_file.as_deref(), dev, json)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_option_of_a_challenger_is_recognised_where_there_is_none() {
        let node = ["kedge", "node", "--datadir", "d", "--l1-rpc", "http://127.0.0.1:1"];
        let given = |more: &[&'static str]| {
            let cli = Cli::try_parse_from(node.iter().chain(more)).unwrap();
            let Command::Node(args) = cli.command else { unreachable!() };
            args.challenging.given()
        };
        assert_eq!(given(&[]), None);
        assert_eq!(given(&["--metrics-port", "0"]), None, "a follower has metrics too");
        for option in
            [&["--dry-run"][..], &["--alert-webhook", "http://a"], &["--max-fee-rate", "9"]]
        {
            assert_eq!(given(option), Some(option[0]));
        }
    }

    #[test]
    fn a_challenger_cannot_prune_and_other_nodes_can() {
        let parse = |more: &[&'static str]| {
            let node = ["kedge", "node", "--datadir", "d", "--l1-rpc", "http://127.0.0.1:1"];
            Cli::try_parse_from(node.iter().chain(more)).map(|cli| {
                let Command::Node(args) = cli.command else { unreachable!() };
                (args.prune, args.cache.options().cache_bytes)
            })
        };
        assert_eq!(parse(&[]).unwrap(), (Prune::Archive, 256 << 20));
        assert_eq!(parse(&["--challenger"]).unwrap().0, Prune::Archive);
        let chosen = parse(&["--prune", "1000", "--cache-mb", "64"]).unwrap();
        assert_eq!(chosen, (Prune::Keep(1_000), 64 << 20));
        for refused in [
            &["--prune", "minimal", "--challenger"][..],
            &["--prune", "some"],
            &["--cache-mb", "1"],
        ] {
            assert!(parse(refused).is_err(), "{refused:?}");
        }
    }
}
