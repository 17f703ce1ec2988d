//! What lies between a party and Bitcoin: a connection that fails, lags and loses, and the points at which
//! the party's process can end.

use crate::sim_bitcoin::SimBitcoin;
use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, FeeRate, OutPoint, Transaction, Txid};
use kedge::l1::{Bitcoin, Broadcast, ChainInfo, L1Error, Unspent};
use kedge_genesis::L1Height;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

/// Requests of one step: no step needs a hundredth of them, so one that makes them all has no end.
pub(super) const MAX_REQUESTS: u32 = 50_000;

/// How a party is connected to Bitcoin.
#[derive(Clone, Debug, Default)]
pub(super) enum Net {
    /// As it should be.
    #[default]
    Up,
    /// Nothing is answered.
    Down,
    /// Its Bitcoin node does not see new blocks: this is its chain, by height, on the best chain or not.
    Stuck(Arc<Vec<BlockHash>>),
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process that makes it ends before it is sent.
    DieBefore,
    /// The process that makes it ends once it was carried out.
    DieAfter,
    /// It does not arrive.
    LoseRequest,
    /// It is carried out, but the answer does not arrive.
    LoseAnswer,
}

impl Fault {
    pub(super) const ALL: [Self; 4] =
        [Self::DieBefore, Self::DieAfter, Self::LoseRequest, Self::LoseAnswer];
}

/// A fault that waits for its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trap {
    /// The party that it waits for.
    pub(super) party: &'static str,
    /// The kind of request; any when there is none.
    pub(super) act: Option<&'static str>,
    /// How many such requests pass before.
    pub(super) skip: u32,
    pub(super) fault: Fault,
}

/// What the links of all parties share.
#[derive(Debug, Default)]
pub(super) struct Control(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The party whose step it is.
    stepping: &'static str,
    traps: Vec<Trap>,
    /// Parties whose process ended during this step.
    dead: Vec<&'static str>,
    /// What became of traps during this step.
    sprung: Vec<String>,
    /// Requests during this step.
    requests: u32,
    /// Transactions that Bitcoin took from each party.
    sent: BTreeMap<&'static str, BTreeSet<Txid>>,
}

/// How a step ended.
pub(super) struct Stepped<T> {
    /// What it answered; none when its process ended.
    pub(super) outcome: Option<T>,
    /// Parties whose process ended: its own, or one that it asked.
    pub(super) dead: Vec<&'static str>,
    /// What became of traps.
    pub(super) sprung: Vec<String>,
    /// Whether it was broken off because it had no end.
    pub(super) endless: bool,
}

impl Control {
    /// Sets a trap.
    pub(super) fn set(&self, trap: Trap) {
        self.0.lock().traps.push(trap);
    }

    /// Removes the traps of a party.
    pub(super) fn clear(&self, party: &'static str) {
        self.0.lock().traps.retain(|trap| trap.party != party);
    }

    /// Runs a step of a party up to its end or the end of its process.
    pub(super) async fn step<T>(
        &self,
        party: &'static str,
        step: impl Future<Output = T>,
    ) -> Stepped<T> {
        {
            let mut state = self.0.lock();
            (state.stepping, state.requests) = (party, 0);
        }
        let mut step = pin!(step);
        let outcome = poll_fn(|context| match step.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => {
                let state = self.0.lock();
                // Dropped at the request that it died at, it does nothing more.
                let over = state.dead.contains(&party) || state.requests >= MAX_REQUESTS;
                if over { Poll::Ready(None) } else { Poll::Pending }
            }
        })
        .await;
        let mut state = self.0.lock();
        let (dead, sprung) = (std::mem::take(&mut state.dead), std::mem::take(&mut state.sprung));
        let endless = outcome.is_none() && state.requests >= MAX_REQUESTS;
        Stepped { outcome, dead, sprung, endless }
    }

    /// The transactions that Bitcoin took from a party.
    pub(super) fn sent(&self, party: &'static str) -> BTreeSet<Txid> {
        self.0.lock().sent.get(party).cloned().unwrap_or_default()
    }

    /// Counts a request. One too many never returns.
    async fn count(&self) {
        let too_many = {
            let mut state = self.0.lock();
            state.requests += 1;
            state.requests >= MAX_REQUESTS
        };
        if too_many {
            std::future::pending().await
        }
    }

    /// The fault of this request of `party`, if a trap waits for it.
    fn spring(&self, party: &'static str, act: &'static str) -> Option<Fault> {
        let mut state = self.0.lock();
        let found = state
            .traps
            .iter()
            .position(|trap| trap.party == party && trap.act.is_none_or(|waited| waited == act))?;
        let trap = state.traps.get_mut(found)?;
        if let Some(less) = trap.skip.checked_sub(1) {
            trap.skip = less;
            return None;
        }
        let fault = state.traps.remove(found).fault;
        state.sprung.push(format!("{party}.{act}: {fault:?}"));
        Some(fault)
    }

    /// Whether `party` is gone since this step began.
    fn is_dead(&self, party: &'static str) -> bool {
        self.0.lock().dead.contains(&party)
    }

    /// Ends the process of `party`. When it is the one that steps this never returns; for one that is
    /// asked the question breaks off.
    async fn die(&self, party: &'static str) {
        let stepping = {
            let mut state = self.0.lock();
            state.dead.push(party);
            state.stepping
        };
        if party == stepping {
            std::future::pending().await
        }
    }
}

/// A party's client of Bitcoin.
#[derive(Debug)]
pub(super) struct Link {
    party: &'static str,
    bitcoin: Arc<SimBitcoin>,
    control: Arc<Control>,
    net: Mutex<Net>,
}

impl Link {
    pub(super) fn new(
        party: &'static str,
        bitcoin: Arc<SimBitcoin>,
        control: Arc<Control>,
    ) -> Arc<Self> {
        Arc::new(Self { party, bitcoin, control, net: Mutex::default() })
    }

    pub(super) fn set(&self, net: Net) {
        *self.net.lock() = net;
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.net.lock(), Net::Up)
    }

    /// Carries a request out, or not.
    async fn pass<T>(
        &self,
        act: &'static str,
        request: impl Future<Output = Result<T, L1Error>>,
    ) -> Result<T, L1Error> {
        self.control.count().await;
        if matches!(*self.net.lock(), Net::Down) || self.control.is_dead(self.party) {
            return Err(unreachable());
        }
        let asking = self.control.0.lock().stepping;
        if asking != self.party {
            // Another party asks this one to do something, which begins with this request.
            self.through(asking, "ask", async { Ok(()) }).await?;
        }
        self.through(self.party, act, request).await
    }

    async fn through<T>(
        &self,
        party: &'static str,
        act: &'static str,
        request: impl Future<Output = Result<T, L1Error>>,
    ) -> Result<T, L1Error> {
        match self.control.spring(party, act) {
            None => request.await,
            Some(Fault::LoseRequest) => Err(unreachable()),
            Some(Fault::LoseAnswer) => {
                request.await?;
                Err(unreachable())
            }
            Some(Fault::DieBefore) => {
                self.control.die(party).await;
                Err(unreachable())
            }
            Some(Fault::DieAfter) => {
                request.await?;
                self.control.die(party).await;
                Err(unreachable())
            }
        }
    }

    fn stuck(&self) -> Option<Arc<Vec<BlockHash>>> {
        match &*self.net.lock() {
            Net::Stuck(chain) => Some(chain.clone()),
            Net::Up | Net::Down => None,
        }
    }
}

fn unreachable() -> L1Error {
    L1Error::Unreachable { url: "the simulation".to_owned(), reason: "no answer".to_owned() }
}

#[async_trait]
impl Bitcoin for Link {
    async fn chain_info(&self) -> Result<ChainInfo, L1Error> {
        self.pass("chain_info", async {
            let info = self.bitcoin.chain_info().await?;
            let Some(chain) = self.stuck() else { return Ok(info) };
            let height = L1Height(u32::try_from(chain.len()).unwrap_or_default().saturating_sub(1));
            let best = chain.last().copied().unwrap_or(info.best);
            Ok(ChainInfo { height, headers: height, best, ..info })
        })
        .await
    }

    async fn block_hash(&self, height: L1Height) -> Result<Option<BlockHash>, L1Error> {
        self.pass("block_hash", async {
            match self.stuck() {
                Some(chain) => Ok(chain.get(height.0 as usize).copied()),
                None => self.bitcoin.block_hash(height).await,
            }
        })
        .await
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, L1Error> {
        self.pass("block", self.bitcoin.block(hash)).await
    }

    async fn header(&self, hash: &BlockHash) -> Result<Header, L1Error> {
        self.pass("header", self.bitcoin.header(hash)).await
    }

    async fn broadcast(&self, tx: &Transaction) -> Result<Broadcast, L1Error> {
        let broadcast = async {
            let outcome = self.bitcoin.broadcast(tx).await?;
            if outcome == Broadcast::Accepted {
                let mut state = self.control.0.lock();
                state.sent.entry(self.party).or_default().insert(tx.compute_txid());
            }
            Ok(outcome)
        };
        self.pass("broadcast", broadcast).await
    }

    async fn tx_out(&self, outpoint: &OutPoint, mempool: bool) -> Result<Option<Unspent>, L1Error> {
        self.pass("tx_out", self.bitcoin.tx_out(outpoint, mempool)).await
    }

    async fn fee_rate(&self, target_blocks: u16) -> Result<Option<FeeRate>, L1Error> {
        self.pass("fee_rate", self.bitcoin.fee_rate(target_blocks)).await
    }

    async fn in_mempool(&self, txid: &Txid) -> Result<bool, L1Error> {
        self.pass("in_mempool", self.bitcoin.in_mempool(txid)).await
    }

    async fn wait_tip_change(&self, known: BlockHash) -> Result<(), L1Error> {
        self.bitcoin.wait_tip_change(known).await
    }
}
