//! `eth_newFilter` and its kind: what happened since the client asked last.
//!
//! Each filter has a task that collects for it. A filter that nobody asks for [`EXPIRY`], and one that
//! collects more than [`MAX_COLLECTED`] between two questions, or more than its share of
//! [`MAX_COLLECTED_BY_ALL`] when there is so much, is gone: the client is told that there is none, and installs
//! it again.

use super::{
    block::{FullBlock, pending_transaction},
    chain::Chain,
    error::RpcError,
    heavy::HeavyPool,
    logs::LogLimits,
    server::RpcConfig,
    submit::Submission,
};
use crate::{engine::EngineEvent, mempool::PooledTransaction};
use alloy_primitives::{B256, U256};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, FilterChanges, Log};
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use op_alloy_rpc_types::Transaction;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::broadcast::Receiver, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a filter stays that nobody asks, as in go-ethereum.
pub(super) const EXPIRY: Duration = Duration::from_secs(300);
/// Most logs or hashes that wait for one filter's next question.
const MAX_COLLECTED: usize = 100_000;
/// About the most that waits for all filters together.
const MAX_COLLECTED_BY_ALL: usize = 1_000_000;

/// Filters that are polled.
#[rpc(server, namespace = "eth")]
pub trait EthFilterApi {
    /// Installs a filter for logs.
    #[method(name = "newFilter")]
    async fn new_filter(&self, filter: Filter) -> RpcResult<U256>;

    /// Installs a filter for blocks.
    #[method(name = "newBlockFilter")]
    async fn new_block_filter(&self) -> RpcResult<U256>;

    /// Installs a filter for transactions that arrive; with true, for whole ones.
    #[method(name = "newPendingTransactionFilter")]
    async fn new_pending_filter(&self, full: Option<bool>) -> RpcResult<U256>;

    /// What came since the last question.
    #[method(name = "getFilterChanges")]
    fn changes(&self, id: U256) -> RpcResult<FilterChanges<Transaction>>;

    /// All logs that a filter for logs matches.
    #[method(name = "getFilterLogs")]
    async fn all_logs(&self, id: U256) -> RpcResult<Vec<Log>>;

    /// Removes a filter; false when there is none.
    #[method(name = "uninstallFilter")]
    fn uninstall(&self, id: U256) -> RpcResult<bool>;
}

/// What a filter looks for, and what it found.
#[derive(Debug)]
enum Collected {
    Logs { filter: Box<Filter>, logs: Vec<Log> },
    Hashes(Vec<B256>),
    Transactions(Vec<Transaction>),
}

impl Collected {
    fn len(&self) -> usize {
        match self {
            Self::Logs { logs, .. } => logs.len(),
            Self::Hashes(hashes) => hashes.len(),
            Self::Transactions(transactions) => transactions.len(),
        }
    }

    /// Takes what was found; the filter goes on.
    fn take(&mut self) -> FilterChanges<Transaction> {
        match self {
            Self::Logs { logs, .. } => FilterChanges::Logs(std::mem::take(logs)),
            Self::Hashes(hashes) => FilterChanges::Hashes(std::mem::take(hashes)),
            Self::Transactions(all) => FilterChanges::Transactions(std::mem::take(all)),
        }
    }

    fn on_event(&mut self, event: &EngineEvent) {
        match (self, event) {
            (Self::Logs { filter, logs }, EngineEvent::NewBlock(block))
                if in_range(filter, block.header.number) =>
            {
                logs.extend(FullBlock::new_logs(block, filter));
            }
            (Self::Logs { filter, logs }, EngineEvent::Removed(block))
                if in_range(filter, block.header.number) =>
            {
                logs.extend(FullBlock::removed_logs(block, filter));
            }
            (Self::Hashes(hashes), EngineEvent::NewBlock(block)) => hashes.push(block.hash),
            _ => {}
        }
    }

    fn on_arrival(&mut self, tx: &PooledTransaction) {
        match self {
            Self::Hashes(hashes) => hashes.push(tx.hash),
            Self::Transactions(all) => all.push(pending_transaction(tx)),
            Self::Logs { .. } => {}
        }
    }
}

/// Whether a filter's range, as far as it is given in numbers, holds a new block.
fn in_range(filter: &Filter, number: u64) -> bool {
    match filter.block_option {
        FilterBlockOption::AtBlockHash(_) => false,
        FilterBlockOption::Range { from_block, to_block } => {
            let below =
                from_block.and_then(|tag| tag.as_number()).is_some_and(|from| number < from);
            let above = to_block.and_then(|tag| tag.as_number()).is_some_and(|to| number > to);
            !below && !above
        }
    }
}

#[derive(Debug)]
struct Installed {
    collected: Collected,
    asked: Instant,
    /// Ends the task.
    _task: DropGuard,
}

type Map = Arc<Mutex<HashMap<U256, Installed>>>;

/// Implements [`EthFilterApiServer`].
#[derive(Clone, Debug)]
pub(super) struct Filters {
    chain: Arc<Chain>,
    submission: Submission,
    heavy: HeavyPool,
    limits: LogLimits,
    max_filters: usize,
    expiry: Duration,
    installed: Map,
}

impl Filters {
    pub(super) fn new(chain: Arc<Chain>, submission: Submission, config: &RpcConfig) -> Self {
        Self {
            chain,
            submission,
            heavy: config.heavy.clone(),
            limits: config.into(),
            max_filters: config.max_filters,
            expiry: config.filter_expiry,
            installed: Map::default(),
        }
    }

    /// Installs a filter whose task adds what `add` makes of every event.
    fn install<E: Clone + Send + 'static>(
        &self,
        collected: Collected,
        events: Receiver<E>,
        add: impl Fn(&mut Collected, E) + Send + 'static,
    ) -> RpcResult<U256> {
        let id = U256::from(rand::random::<u128>());
        let stop = CancellationToken::new();
        {
            let mut installed = self.installed.lock();
            if installed.len() >= self.max_filters {
                let text = format!("too many filters (max {}), try again later", self.max_filters);
                return Err(RpcError::Limit(text).into());
            }
            let guard = stop.clone().drop_guard();
            installed.insert(id, Installed { collected, asked: Instant::now(), _task: guard });
        }
        tokio::spawn(collect(id, self.installed.clone(), self.expiry, stop, events, add));
        Ok(id)
    }

    fn with<T>(
        &self,
        id: U256,
        use_it: impl FnOnce(&mut Installed) -> Option<T>,
    ) -> Result<T, RpcError> {
        let mut installed = self.installed.lock();
        let found = installed.get_mut(&id).and_then(|filter| {
            filter.asked = Instant::now();
            use_it(filter)
        });
        found.ok_or_else(|| RpcError::Execution("filter not found".into()))
    }
}

/// Collects for a filter until it is uninstalled, expires, or has missed something.
async fn collect<E: Clone>(
    id: U256,
    installed: Map,
    expiry: Duration,
    stop: CancellationToken,
    mut events: Receiver<E>,
    add: impl Fn(&mut Collected, E),
) {
    let mut deadline = Instant::now() + expiry;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(deadline) => {
                let mut installed = installed.lock();
                let Some(filter) = installed.get(&id) else { return };
                deadline = filter.asked + expiry;
                if deadline <= Instant::now() {
                    installed.remove(&id);
                    return;
                }
            }
            event = events.recv() => {
                let mut installed = installed.lock();
                let Some(filter) = installed.get_mut(&id) else { return };
                let complete = event.map(|event| add(&mut filter.collected, event)).is_ok();
                let own = filter.collected.len();
                let all: usize = installed.values().map(|filter| filter.collected.len()).sum();
                let hoards = all > MAX_COLLECTED_BY_ALL
                    && own.saturating_mul(installed.len()) > MAX_COLLECTED_BY_ALL;
                if !complete || own > MAX_COLLECTED || hoards {
                    tracing::debug!(%id, "filter fell behind and is removed");
                    installed.remove(&id);
                    return;
                }
            }
        }
    }
}

#[jsonrpsee::core::async_trait]
impl EthFilterApiServer for Filters {
    async fn new_filter(&self, filter: Filter) -> RpcResult<U256> {
        let events = self.chain.engine.subscribe();
        let collected = Collected::Logs { filter: Box::new(filter), logs: Vec::new() };
        self.install(collected, events, |collected, event| collected.on_event(&event))
    }

    async fn new_block_filter(&self) -> RpcResult<U256> {
        let events = self.chain.engine.subscribe();
        let collected = Collected::Hashes(Vec::new());
        self.install(collected, events, |collected, event| collected.on_event(&event))
    }

    async fn new_pending_filter(&self, full: Option<bool>) -> RpcResult<U256> {
        let Some(mempool) = self.submission.mempool() else {
            return Err(RpcError::NoSequencer("this node has no mempool".into()).into());
        };
        let collected = if full == Some(true) {
            Collected::Transactions(Vec::new())
        } else {
            Collected::Hashes(Vec::new())
        };
        self.install(collected, mempool.subscribe(), |collected, tx| collected.on_arrival(&tx))
    }

    fn changes(&self, id: U256) -> RpcResult<FilterChanges<Transaction>> {
        Ok(self.with(id, |filter| Some(filter.collected.take()))?)
    }

    async fn all_logs(&self, id: U256) -> RpcResult<Vec<Log>> {
        let filter = self.with(id, |installed| match &installed.collected {
            Collected::Logs { filter, .. } => Some(filter.clone()),
            _ => None,
        })?;
        let (chain, limits) = (self.chain.clone(), self.limits);
        Ok(self.heavy.run(move || chain.view().logs(&filter, limits)).await?)
    }

    fn uninstall(&self, id: U256) -> RpcResult<bool> {
        Ok(self.installed.lock().remove(&id).is_some())
    }
}
