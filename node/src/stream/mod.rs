//! The sequencer's blocks, signed, from node to node.
//!
//! A node that is asked for `latest` needs blocks before Bitcoin has them. The sequencer signs each block that
//! it makes ([`SignedBlock`]); every node that has a signed block passes it on, over its JSON-RPC:
//! `kedge_subscribe("signedBlocks")` pushes what is new, `kedge_signedBlocks` gives what was missed. A
//! [`Follower`] takes them from any number of sources, of which none is trusted: a block is added when the
//! sequencer signed it, the rules allow it after the block before it, and it executes to the hash that was
//! signed ([`crate::engine::Engine::adopt`]). Whatever else a source does costs it its connection, is counted,
//! and leaves the node where Bitcoin has it. What is derived from Bitcoin is never given up for a signed block.
//!
//! Memory is bounded for each source: messages by [`MAX_MESSAGE`], what was sent and not looked at yet by reading no
//! further, what waits to be executed by a queue that drops what does not fit (it is asked for again), and what waits
//! for a Bitcoin block is not kept at all.

mod backlog;
mod block;
mod pause;
mod queue;
mod source;
mod verdict;

pub use block::{MAX_BLOCK_BYTES, SignatureFault, SignedBlock, VERSION, VerifiedBlock};
pub use source::{MAX_MESSAGE, PAGE_BLOCKS, PAGE_BYTES};
pub use verdict::Verdict;

use crate::{engine::Engine, rpc::types::SourceStatus};
use anyhow::Context as _;
use prometheus::{IntCounterVec, Opts, Registry};
use source::Source;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Takes `latest` from other nodes.
#[derive(Debug)]
pub struct Follower {
    sources: Vec<Arc<Source>>,
    counts: IntCounterVec,
}

impl Follower {
    /// A follower of the nodes at these WebSocket addresses.
    ///
    /// # Errors
    /// When an address is none, or there twice.
    pub fn new(urls: &[String]) -> anyhow::Result<Self> {
        let options = Opts::new(
            "kedge_follow_blocks_total",
            "What became of blocks from other nodes, and of the connections to them",
        );
        let counts = IntCounterVec::new(options, &["source", "verdict"])?;
        let mut sources = Vec::new();
        let mut times = BTreeMap::<String, usize>::new();
        for url in urls {
            http_url(url)?;
            let shown =
                shown_url(url).context("--follow takes an address such as ws://127.0.0.1:8545")?;
            let times = times.entry(shown.clone()).or_default();
            *times += 1;
            let name = if *times == 1 { shown } else { format!("{shown}#{times}") };
            sources.push(Arc::new(Source::new(url, name, counts.clone())));
        }
        let distinct: BTreeSet<_> = urls.iter().collect();
        anyhow::ensure!(distinct.len() == urls.len(), "--follow names the same node twice");
        Ok(Self { sources, counts })
    }

    /// Shows the counts in a registry of metrics.
    ///
    /// # Errors
    /// When the registry has metrics of that name already.
    pub fn register(&self, registry: &Registry) -> anyhow::Result<()> {
        registry.register(Box::new(self.counts.clone())).context("metrics of --follow")
    }

    /// The sources as they are now.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources.iter().map(|source| source.status()).collect()
    }

    /// Follows all sources until `stop`.
    pub(crate) fn start(
        &self,
        engine: &Arc<Engine>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) {
        for source in &self.sources {
            tasks.spawn(source.clone().run(engine.clone(), stop.clone()));
        }
    }
}

/// Scheme, host and port of a URL: what of it can be shown. Paths and parameters may hold secrets too.
pub fn shown_url(url: &str) -> Option<String> {
    let parsed = reqwest::Url::parse(url).ok()?;
    let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", parsed.scheme(), parsed.host_str()?))
}

/// The address at which the node behind a WebSocket address answers requests.
///
/// # Errors
/// When the address is none.
pub fn http_url(url: &str) -> anyhow::Result<String> {
    match url.split_once("://") {
        Some(("ws", rest)) => Ok(format!("http://{rest}")),
        Some(("wss", rest)) => Ok(format!("https://{rest}")),
        _ => anyhow::bail!("--follow takes a WebSocket address, ws://… or wss://…"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_websocket_addresses_each_named_once_and_shown_without_what_may_be_secret() {
        let urls = ["ws://127.0.0.1:8545", "wss://user:word@node.example/key?token=1"];
        let follower = Follower::new(&urls.map(str::to_owned)).unwrap();
        let shown: Vec<_> = follower.status().into_iter().map(|status| status.url).collect();
        assert_eq!(shown, ["ws://127.0.0.1:8545", "wss://node.example"]);
        for bad in ["http://127.0.0.1:8545", "127.0.0.1:8545", "ws://", "ftp://secret@there"] {
            let error = Follower::new(&[bad.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("ws://"), "{bad}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let twice = ["ws://one", "ws://one"].map(str::to_owned);
        assert!(Follower::new(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn sources_of_one_host_are_shown_and_counted_apart() {
        let urls = ["ws://a:1/key", "ws://b:1", "ws://a:1/other", "ws://me:word@a:1"];
        let follower = Follower::new(&urls.map(str::to_owned)).unwrap();
        follower.sources[2].note(Verdict::Adopted, 3);
        let status = follower.status();
        let shown: Vec<_> = status.iter().map(|status| status.url.as_str()).collect();
        assert_eq!(shown, ["ws://a:1", "ws://b:1", "ws://a:1#2", "ws://a:1#3"]);
        let adopted = status.iter().map(|status| status.verdicts.get("adopted").copied());
        assert_eq!(adopted.collect::<Vec<_>>(), [None, None, Some(3), None]);
    }

    #[test]
    fn requests_go_to_the_same_port_over_http() {
        assert_eq!(http_url("ws://a:1/b").unwrap(), "http://a:1/b");
        assert_eq!(http_url("wss://a").unwrap(), "https://a");
        assert!(http_url("http://a").is_err());
    }
}
