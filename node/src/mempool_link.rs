//! What ties the mempool to the engine and the store: the state at the head, the journal, and the news of
//! blocks that came and went.

use crate::{
    engine::{Engine, EngineEvent},
    mempool::{HeadFees, Journal, Mempool, SenderState, StateView},
};
use alloy_primitives::{Address, B256, Bytes};
use anyhow::Context;
use kedge_store::{Durability, L2Rows, Store, Table};
use kedge_vm::next_base_fee;
use std::sync::Arc;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

/// The state at the latest block.
#[derive(Debug)]
pub struct HeadState {
    engine: Arc<Engine>,
}

impl HeadState {
    /// The head of this engine.
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

/// Code of an EIP-7702 delegation begins with this.
const DELEGATION: &[u8] = &[0xef, 0x01, 0x00];

impl StateView for HeadState {
    fn account(&self, address: Address) -> anyhow::Result<SenderState> {
        let reader = self.engine.store().reader();
        let Some(account) = reader.account(address)? else { return Ok(SenderState::default()) };
        let code = reader.code(account.code_hash)?.unwrap_or_default();
        Ok(SenderState {
            nonce: account.nonce,
            balance: account.balance,
            is_contract: !code.is_empty() && !code.starts_with(DELEGATION),
        })
    }

    fn fees(&self) -> anyhow::Result<HeadFees> {
        let reader = self.engine.store().reader();
        let latest = reader.latest()?.context("the store holds no block")?;
        let header = reader.header(latest)?.context("the latest header is missing")?;
        let base_fee = next_base_fee(&header).unwrap_or(self.engine.params().fees.min_base_fee);
        let mut state = reader.state_at(latest)?;
        let l1 = self.engine.evm().l1_block_info(latest.0, &mut state)?;
        Ok(HeadFees { base_fee, l1 })
    }
}

/// The mempool's journal in the store.
#[derive(Debug)]
pub struct StoreJournal {
    store: Arc<Store>,
}

impl StoreJournal {
    /// The journal in this store.
    pub const fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Journal for StoreJournal {
    fn put(&self, hash: B256, encoded: &[u8]) -> anyhow::Result<()> {
        let (key, value) = (hash.as_slice(), encoded.to_vec());
        Ok(self.store.put(Table::Mempool, key, value, Durability::Buffered)?)
    }

    fn delete(&self, hashes: &[B256]) -> anyhow::Result<()> {
        for hash in hashes {
            self.store.delete(Table::Mempool, hash.as_slice(), Durability::Buffered)?;
        }
        Ok(())
    }

    fn load(&self) -> anyhow::Result<Vec<Bytes>> {
        let reader = self.store.reader();
        reader
            .all(Table::Mempool)
            .map(|row| Ok(row.map(|(_, value)| Bytes::from(value.into_vec()))?))
            .collect()
    }
}

/// Tells the mempool of blocks that came and went since it was made.
#[derive(Debug)]
pub struct Link {
    events: Receiver<EngineEvent>,
    mempool: Arc<Mempool>,
    /// Transactions of removed blocks, until the write that removed them has ended.
    returned: Vec<Bytes>,
}

impl Link {
    /// The link between this engine and this mempool.
    pub fn new(engine: &Engine, mempool: Arc<Mempool>) -> Self {
        Self { events: engine.subscribe(), mempool, returned: Vec::new() }
    }

    /// Follows the engine until `stop`.
    ///
    /// # Errors
    /// When the engine is gone before `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = self.events.recv() => event,
            };
            match event {
                Ok(event) => self.take(&event),
                Err(RecvError::Lagged(_)) => self.resync(),
                Err(RecvError::Closed) => anyhow::bail!("the engine stopped"),
            }
        }
    }

    /// Tells the mempool of everything that has happened by now.
    pub fn step(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Lagged(_)) => self.resync(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn take(&mut self, event: &EngineEvent) {
        match event {
            EngineEvent::NewBlock(block) => {
                self.mempool.on_block(block.state.accounts.keys().copied());
            }
            EngineEvent::Removed(block) => {
                self.returned.extend(block.user_transactions.iter().cloned());
            }
            // Ends every write: all that was removed by it is known.
            EngineEvent::Heads(_) if !self.returned.is_empty() => self.resync(),
            EngineEvent::Heads(_)
            | EngineEvent::L1Connected(_)
            | EngineEvent::L1Disconnected(_) => {}
        }
    }

    fn resync(&mut self) {
        self.mempool.on_reorg(std::mem::take(&mut self.returned));
    }
}
