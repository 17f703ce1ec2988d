//! The engine: the one writer of the chain. Bitcoin blocks and the sequencer's payloads in, blocks and
//! heads out.
//!
//! Every call is one atomic, synchronised write of the store (a long run of signed blocks is several), so a process
//! that is killed at any moment continues from the last write, or from the one before it. Events are sent after the
//! write.
//!
//! | file | the question it answers |
//! | --- | --- |
//! | `connect` | what a Bitcoin block does, and what it takes to undo it |
//! | `sequence` | how the sequencer adds unsafe blocks |
//! | `append` | how blocks of a file are added |
//! | `adopt` | which of the sequencer's blocks another node adds |
//! | `execute` | how a payload is promoted or executed |
//! | `bridge` | what a Bitcoin block does to deposits, vault and payouts |
//! | `bonds` | what a Bitcoin block does to bonds, and which are to be slashed |
//! | `heads` | where the chain stands |
//! | `prove` | how an assertion is proven wrong |
//! | `rollback` | how an operator takes blocks back |
//! | `senders` | who sent a block's transactions |
//! | `cores` | how work is divided among cores |

mod adopt;
mod append;
mod bonds;
mod bridge;
mod connect;
mod cores;
mod error;
mod event;
mod execute;
mod heads;
mod prove;
mod records;
mod rollback;
mod senders;
mod sequence;
#[cfg(test)]
pub(crate) mod tests;

pub use adopt::{Adoption, InvalidBlock, NotAdopted};
pub(crate) use append::Appender;
pub use bonds::Slashable;
pub use error::{EngineError, WitnessFailure};
pub use event::{EngineEvent, L1Outcome, RemovedBlock};
pub use heads::{BlockRef, Heads};
pub use prove::NoProof;
pub(crate) use senders::recover_senders;
pub use sequence::Position;

use alloy_primitives::B256;
use execute::Tries;
use kedge_bridge::derive::DeriveState;
use kedge_bridge::payout::Withdrawal;
use kedge_bridge::vault::{VaultHead, vault_script};
use kedge_fraud_proof::AssertionTracker;
use kedge_genesis::{L1Ref, L2Number, Params, Sats, alloc};
use kedge_store::{
    Change, Domain, Durability, Identity, L1Row, L1Rows, L2Rows, Store, StoreError, StoreOptions,
    Table,
};
use kedge_vm::{EvmConfig, GenesisBlock, genesis_block};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// How many events a slow subscriber may lag behind before it is told that it missed some.
const EVENTS_KEPT: usize = 4_096;

/// What an operator can choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Record a witness for every executed block, execute on it, and fail if the result differs.
    pub verify_witness: bool,
    /// Put the users' transactions of removed blocks into the mempool's journal, in the write that removes
    /// them: where there is a mempool, what it acknowledged is not lost with the process.
    pub journal_removed: bool,
    /// Old states are pruned here: the undo records of final blocks stay until then and tell what each block
    /// changed.
    pub prune: bool,
}

/// The one writer of the chain. Shared as `Arc<Engine>`. Calls block the thread for as long as execution
/// and the disk take: from async code use `spawn_blocking`. Reading heads never blocks.
#[derive(Debug)]
pub struct Engine {
    params: &'static Params,
    evm: EvmConfig,
    options: EngineOptions,
    store: Arc<Store>,
    /// Held by whoever writes.
    live: Mutex<Live>,
    heads: watch::Sender<Heads>,
    events: broadcast::Sender<EngineEvent>,
}

/// What the writer keeps at hand, besides the tries always as the store has it.
#[derive(Debug)]
struct Live {
    /// Derivation's state after the processed tip.
    derive: DeriveState,
    /// The payload planned last and the hash of the block that it was planned on.
    planned: Option<(B256, B256)>,
    /// Tries of the state after the last block that was executed.
    tries: Tries,
}

/// What the vault can pay now: the settled and unpaid withdrawals, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payable {
    /// The vault's head.
    pub head: VaultHead,
    /// Its other outputs under the same script that can be spent.
    pub coins: Vec<VaultHead>,
    /// Withdrawals that an assertion covers which settled finality-depth blocks ago and equals this node's
    /// own derivation, from the next unpaid one on. Empty when none is due.
    pub unpaid: Vec<Withdrawal>,
    /// What the vault holds beyond what it owes.
    pub surplus: Sats,
}

/// Blocks for which Bitcoin does not let a coinbase's outputs be spent (`COINBASE_MATURITY`).
const COINBASE_MATURITY: u32 = 100;

/// Most withdrawals that [`Payable`] lists.
const PAYABLE: usize = 4 * kedge_bridge::payout::MAX_RUN;

/// Block 0 of a network.
///
/// # Errors
/// When this machine fails.
pub fn genesis_of(params: &Params) -> Result<GenesisBlock, EngineError> {
    let vault = vault_script(params).map(|script| script.to_bytes()).unwrap_or_default();
    genesis_block(params, &alloc(params, &vault))
        .map_err(|error| EngineError::Genesis(Box::new(error)))
}

/// Opens the store of a network in directory `path`, creating it when there is none.
///
/// # Errors
/// When the directory holds another chain or a newer version's store, is in use, or the disk fails.
pub fn open_store(path: impl AsRef<Path>, params: &Params) -> Result<Arc<Store>, EngineError> {
    open_store_with(path, params, &StoreOptions::default())
}

/// The same, with what an operator chose.
///
/// # Errors
/// As [`open_store`].
pub fn open_store_with(
    path: impl AsRef<Path>,
    params: &Params,
    options: &StoreOptions,
) -> Result<Arc<Store>, EngineError> {
    Ok(Arc::new(Store::open_with(path, &identity_of(params)?, options)?))
}

/// What the store of a network is known by.
///
/// # Errors
/// When this machine fails.
pub fn identity_of(params: &Params) -> Result<Identity, EngineError> {
    let genesis = genesis_of(params)?.hash;
    Ok(Identity { network: params.network, params: params.hash(), genesis })
}

impl Engine {
    /// The engine over a store; writes block 0 into a new one.
    ///
    /// # Errors
    /// When the network names no keys, and when the store fails.
    pub fn open(
        store: Arc<Store>,
        params: &'static Params,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        if store.latest()?.is_none() {
            write_genesis(&store, params)?;
        }
        let mut heads = heads::load(&*store, L1Ref::default())?;
        heads.l1_best = heads.l1_tip;
        let derive = derive_state(&*store, heads.l1_tip)?;
        Ok(Self {
            params,
            evm: EvmConfig::from_params(params),
            options,
            store,
            live: Mutex::new(Live { derive, planned: None, tries: Tries::default() }),
            heads: watch::Sender::new(heads),
            events: broadcast::Sender::new(EVENTS_KEPT),
        })
    }

    /// The parameters of the network.
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The rules of execution.
    pub const fn evm(&self) -> &EvmConfig {
        &self.evm
    }

    /// The store. Read from it as you like; what follows a chain is written by the engine alone.
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Where the chain stands.
    pub fn heads(&self) -> Heads {
        *self.heads.borrow()
    }

    /// Where the chain stands, to wait on.
    pub fn watch_heads(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<EngineEvent> {
        self.events.subscribe()
    }

    /// Takes note of the tip that the Bitcoin node reports.
    pub fn set_l1_best(&self, best: L1Ref) {
        self.heads.send_if_modified(|heads| {
            let changed = heads.l1_best != best;
            heads.l1_best = best;
            changed
        });
    }

    /// The assertions as of the processed tip.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tracker(&self) -> Result<AssertionTracker, EngineError> {
        Ok(self.store.reader().tracker()?)
    }

    /// What the vault can pay now; none before its first deposit.
    ///
    /// # Errors
    /// When the store fails.
    pub fn payable(&self) -> Result<Option<Payable>, EngineError> {
        let reader = self.store.reader();
        let Some(tip) = reader.l1_tip()? else { return Ok(None) };
        let derive = derive_state(&reader, tip)?;
        let Some(head) = derive.vault_head else { return Ok(None) };
        let spendable: Vec<VaultHead> = reader
            .vault_utxos()?
            .into_iter()
            .filter(|utxo| utxo.script == derive.vault.current)
            .filter(|utxo| !utxo.coinbase || utxo.height.plus(COINBASE_MATURITY) <= tip.height)
            .map(|utxo| VaultHead { outpoint: utxo.outpoint, value: utxo.amount })
            .collect();
        let Some(head) = spendable.iter().find(|coin| coin.outpoint == head).copied() else {
            return Ok(None);
        };
        let through = match reader.tracker()?.settled_since(self.params.finality_depth) {
            Some(settled) => reader.safe_at(settled.l1.height)?,
            None => L2Number(0),
        };
        let next = reader.l1_sums()?.next_payout;
        let queued = reader.withdrawals_from(next, PAYABLE)?;
        Ok(Some(Payable {
            head,
            coins: spendable.into_iter().filter(|coin| *coin != head).collect(),
            unpaid: queued
                .into_iter()
                .take_while(|withdrawal| withdrawal.block <= through)
                .map(Withdrawal::from)
                .collect(),
            surplus: reader.solvency()?.surplus(),
        }))
    }

    /// Makes a finished change durable, then lets everybody know.
    fn commit(
        &self,
        live: &mut Live,
        change: Change<'_>,
        events: Vec<EngineEvent>,
    ) -> Result<(), EngineError> {
        let mut heads = heads::load(&change, self.heads().l1_best)?;
        if heads.l1_tip.height > live.derive.l1.height.max(heads.l1_best.height) {
            heads.l1_best = heads.l1_tip;
        }
        let derive = (heads.l1_tip != live.derive.l1)
            .then(|| derive_state(&change, heads.l1_tip))
            .transpose()?;
        change.commit(Durability::Synced)?;
        if let Some(derive) = derive {
            live.derive = derive;
        }
        self.announce(live, heads, events);
        Ok(())
    }

    /// Lets everybody know of what is on disk.
    fn announce(&self, live: &mut Live, heads: Heads, events: Vec<EngineEvent>) {
        live.planned = None;
        // Nobody listening is fine.
        for event in events {
            let _ = self.events.send(event);
        }
        self.heads.send_replace(heads);
        let _ = self.events.send(EngineEvent::Heads(Box::new(heads)));
    }
}

fn derive_state(rows: &impl kedge_store::Rows, at: L1Ref) -> Result<DeriveState, EngineError> {
    let missing =
        StoreError::Missing { table: Table::DeriveStates.name(), key: at.height.to_string() };
    Ok(rows.derive_state(at.height)?.ok_or(missing)?)
}

fn write_genesis(store: &Store, params: &Params) -> Result<(), EngineError> {
    let derive = DeriveState::genesis(params)
        .ok_or(EngineError::NotLaunched { network: params.network.name() })?;
    let mut change = store.change();
    change.write_genesis(&genesis_of(params)?, &derive.cursor)?;
    let start = u64::from(params.l1_start.height.0);
    change.begin(Domain::L1, start)?;
    let row = L1Row {
        hash: params.l1_start.hash,
        time: params.l1_start_time,
        safe: L2Number(0),
        deposits: 0,
        notes: 0,
    };
    change.put_l1_block(params.l1_start, None, &row)?;
    change.put_derived(&derive, &[])?;
    change.put_tracker(&AssertionTracker::genesis(params))?;
    change.end(Domain::L1)?;
    // Nothing ever undoes the start.
    change.forget(Domain::L1, start);
    Ok(change.commit(Durability::Synced)?)
}
