//! What can go wrong between the node and its Bitcoin, each with what to do about it.

use bitcoin::BlockHash;
use kedge_genesis::L1Height;
use std::path::PathBuf;

/// Why a question to Bitcoin went unanswered.
#[derive(Debug, thiserror::Error)]
pub enum L1Error {
    /// No connection, or it broke, or no answer in time.
    #[error(
        "cannot reach bitcoind at {url}: {reason}; start it with -server=1 and check the address of --l1-rpc"
    )]
    Unreachable {
        /// The address asked, without credentials.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// HTTP status 401 or 403.
    #[error(
        "bitcoind at {url} refuses our credentials (HTTP {status}); check --l1-cookie-file or --l1-user and --l1-password-file"
    )]
    Unauthorized {
        /// The address asked, without credentials.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The cookie file cannot be read or is none.
    #[error(
        "cannot use the cookie file {}: {reason}; bitcoind writes it as .cookie into its data directory while it runs",
        path.display()
    )]
    CookieFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The password file cannot be read.
    #[error("cannot use the password file `{}`: {reason}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The address is not an HTTP URL.
    #[error("{url} is not an address of a bitcoind: {reason}; expected http://host:port")]
    BadUrl {
        /// The text given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The node is on another network.
    #[error(
        "bitcoind is on `{found}` but this network is anchored to `{expected}`; point --l1-rpc at a `{expected}` node or choose another --network"
    )]
    WrongNetwork {
        /// Bitcoin Core's name of the network needed.
        expected: &'static str,
        /// The name that the node answered.
        found: String,
    },
    /// The node is in its initial block download.
    #[error(
        "bitcoind is still syncing: block {height} of {headers}; wait until `bitcoin-cli getblockchaininfo` says initialblockdownload false"
    )]
    Syncing {
        /// Best validated height.
        height: L1Height,
        /// Best header's height.
        headers: L1Height,
    },
    /// The node has thrown away blocks that are needed.
    #[error(
        "bitcoind has pruned its blocks below {first} but block {needed} is needed; run it with -prune=0 and -reindex, or point --l1-rpc at an unpruned node"
    )]
    Pruned {
        /// The first height needed.
        needed: L1Height,
        /// The first height at hand.
        first: L1Height,
    },
    /// This block has been pruned.
    #[error("bitcoind has pruned block {hash}; point --l1-rpc at a node that has it")]
    BlockPruned {
        /// The block.
        hash: BlockHash,
    },
    /// The node does not know this block.
    #[error("bitcoin block {hash} is not known to the node")]
    BlockNotFound {
        /// The block.
        hash: BlockHash,
    },
    /// Bitcoin Core's error −28.
    #[error("bitcoind is starting: {message}; try again shortly")]
    WarmingUp {
        /// What it is doing.
        message: String,
    },
    /// Any other error that the node answered.
    #[error("bitcoind answered {method} with error {code}: {message}")]
    Rpc {
        /// The method called.
        method: &'static str,
        /// Bitcoin Core's error code.
        code: i64,
        /// Bitcoin Core's message.
        message: String,
    },
    /// The answer is not what the method answers.
    #[error("bitcoind's answer to {method} makes no sense: {reason}; is this a Bitcoin Core?")]
    Malformed {
        /// The method called.
        method: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The embedded chain's engine failed.
    #[error("the embedded bitcoin failed: {0}")]
    Kernel(#[from] bitcoinkernel::KernelError),
    /// The embedded chain's engine refused a block that was made here.
    #[error("the embedded bitcoin refused its own block: {reason}")]
    BlockRefused {
        /// What the engine said.
        reason: String,
    },
    /// The embedded chain's files cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the embedded chain open.
    #[error("{} is in use by another process; stop it first or choose another --datadir", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The embedded chain's journal does not read back.
    #[error("{} is damaged at byte {offset}: {reason}; delete the data directory to start over", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

impl L1Error {
    /// Whether trying again later may help, without anybody changing the configuration.
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::WarmingUp { .. }
                | Self::Syncing { .. }
                | Self::Unauthorized { .. }
        )
    }
}
