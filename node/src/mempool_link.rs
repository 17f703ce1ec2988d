//! What ties the mempool to the engine and the store: the state at the head, the journal, and the news of
//! blocks that came and went.

use crate::{
    engine::{Engine, EngineEvent},
    mempool::{HeadFees, Journal, JournalChange, Journaled, Mempool, SenderState, StateView},
};
use alloy_primitives::{Address, B256, Bytes, keccak256};
use anyhow::Context;
use kedge_store::{Durability, L2Rows, Store, Table};
use kedge_vm::next_base_fee;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};
use tokio_util::sync::CancellationToken;

/// The state at the latest block.
#[derive(Debug)]
pub struct HeadState {
    engine: Arc<Engine>,
    /// What the block after the one with this hash charges.
    fees: Mutex<Option<(B256, Arc<HeadFees>)>>,
}

impl HeadState {
    /// The head of this engine.
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine, fees: Mutex::new(None) }
    }

    /// Hash of the latest block, and what the next charges.
    fn read_fees(&self) -> anyhow::Result<(B256, HeadFees)> {
        let reader = self.engine.store().reader();
        let latest = reader.latest()?.context("the store holds no block")?;
        let hash = reader.hash(latest)?.context("the latest block's hash is missing")?;
        let header = reader.header(latest)?.context("the latest header is missing")?;
        let base_fee = next_base_fee(&header).unwrap_or(self.engine.params().fees.min_base_fee);
        let mut state = reader.state_at(latest)?;
        let l1 = self.engine.evm().l1_block_info(latest.0, &mut state)?;
        Ok((hash, HeadFees { base_fee, l1 }))
    }
}

/// Code of an EIP-7702 delegation begins with this.
const DELEGATION: &[u8] = &[0xef, 0x01, 0x00];

impl StateView for HeadState {
    fn account(&self, address: Address) -> anyhow::Result<SenderState> {
        let store = self.engine.store();
        let Some(account) = store.account(address)? else { return Ok(SenderState::default()) };
        let code = store.code(account.code_hash)?.unwrap_or_default();
        let is_delegated = code.starts_with(DELEGATION);
        Ok(SenderState {
            nonce: account.nonce,
            balance: account.balance,
            is_contract: !code.is_empty() && !is_delegated,
            is_delegated,
        })
    }

    fn fees(&self) -> anyhow::Result<Arc<HeadFees>> {
        let latest = self.engine.heads().latest.hash;
        if let Some((hash, fees)) = &*self.fees.lock()
            && *hash == latest
        {
            return Ok(fees.clone());
        }
        let (hash, fees) = self.read_fees()?;
        let fees = Arc::new(fees);
        *self.fees.lock() = Some((hash, fees.clone()));
        Ok(fees)
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

    fn delete_rows(&self, keys: &[impl AsRef<[u8]>]) -> anyhow::Result<()> {
        let mut change = self.store.change();
        for key in keys {
            change.delete(Table::Mempool, key.as_ref())?;
        }
        Ok(change.commit(Durability::Buffered)?)
    }
}

impl Journal for StoreJournal {
    fn write(&self, changes: &[JournalChange]) -> anyhow::Result<()> {
        let mut change = self.store.change();
        for journaled in changes {
            match journaled {
                JournalChange::Put(hash, encoded) => {
                    change.put(Table::Mempool, hash.as_slice(), encoded.to_vec())?;
                }
                JournalChange::Delete(hash) => change.delete(Table::Mempool, hash.as_slice())?,
            }
        }
        Ok(change.commit(Durability::Buffered)?)
    }

    fn is_idle(&self) -> bool {
        !self.store.is_writing()
    }

    fn load(&self) -> anyhow::Result<Journaled> {
        let (mut transactions, mut damaged) = (Vec::new(), Vec::new());
        for row in self.store.reader().all(Table::Mempool) {
            let (key, value) = row?;
            if keccak256(&value) == *key {
                transactions.push(Bytes::from(value.into_vec()));
            } else {
                damaged.push(key);
            }
        }
        self.delete_rows(&damaged)?;
        Ok(Journaled { transactions, damaged: damaged.len() })
    }
}

/// Between looks for transactions that have waited too long.
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);

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
        let mut ticks = tokio::time::interval(EXPIRY_PAUSE);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => None,
                event = self.events.recv() => match event {
                    Err(RecvError::Closed) => anyhow::bail!("the engine stopped"),
                    event => Some(event),
                },
            };
            // Accounts are read and senders recovered: work for the disk and a processor, not for the event loop. One
            // after the other, so it takes one thread.
            let handled = tokio::task::spawn_blocking(move || {
                match event {
                    Some(Ok(event)) => self.take(&event),
                    Some(Err(_)) => self.make_up(),
                    None => {
                        self.mempool.expire(Instant::now());
                    }
                }
                self
            });
            self = handled.await.context("the mempool's thread failed")?;
        }
    }

    /// Tells the mempool of everything that has happened by now.
    pub fn step(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.take(&event),
                Err(TryRecvError::Lagged(_)) => self.make_up(),
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

    /// Makes up for news that were missed. Removed blocks may have been among them: the write that removed them
    /// put their transactions into the journal.
    fn make_up(&mut self) {
        self.resync();
        if let Err(error) = self.mempool.restore() {
            tracing::warn!("transactions of removed blocks may be missing: {error:#}");
        }
    }

    fn resync(&mut self) {
        self.mempool.on_reorg(std::mem::take(&mut self.returned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::tests::world::{GWEI, World, account},
        mempool::MempoolConfig,
    };
    use alloy_consensus::{SignableTransaction, TxEip1559, TxEip7702, TxEnvelope};
    use alloy_eips::{Encodable2718, eip7702::Authorization};
    use alloy_network::TxSignerSync;
    use alloy_primitives::{Signature, TxKind, U256};
    use alloy_signer::SignerSync;
    use alloy_signer_local::PrivateKeySigner;
    use std::thread::{self, ThreadId};

    fn sign<T: SignableTransaction<Signature>>(signer: &PrivateKeySigner, mut tx: T) -> Bytes
    where
        TxEnvelope: From<alloy_consensus::Signed<T>>,
    {
        let signature = signer.sign_transaction_sync(&mut tx).unwrap();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    fn mempool(world: &World) -> (Arc<Mempool>, Link) {
        mempool_over(world, Arc::new(HeadState::new(world.engine.clone())))
    }

    fn mempool_over(world: &World, state: Arc<dyn StateView>) -> (Arc<Mempool>, Link) {
        let engine = world.engine.clone();
        let mempool = Arc::new(Mempool::new(
            MempoolConfig::new(engine.evm()),
            state,
            Some(Arc::new(StoreJournal::new(engine.store().clone()))),
        ));
        let link = Link::new(&engine, mempool.clone());
        (mempool, link)
    }

    /// A state that remembers which threads read it.
    struct Watched(HeadState, Mutex<Vec<ThreadId>>);

    impl StateView for Watched {
        fn account(&self, address: Address) -> anyhow::Result<SenderState> {
            self.1.lock().push(thread::current().id());
            self.0.account(address)
        }

        fn fees(&self) -> anyhow::Result<Arc<HeadFees>> {
            self.1.lock().push(thread::current().id());
            self.0.fees()
        }
    }

    #[tokio::test]
    async fn transactions_of_removed_blocks_come_back_without_work_for_the_event_loop() {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let before = world.engine.heads().latest.number;
        let tx = world.plain_transfer(Address::repeat_byte(9), U256::ONE);
        world.build(vec![tx.clone()]).unwrap();
        let state = Arc::new(Watched(HeadState::new(world.engine.clone()), Mutex::default()));
        let (mempool, link) = mempool_over(&world, state.clone());
        let (mut changes, stop) = (mempool.changes(), CancellationToken::new());
        let link = tokio::spawn(link.run(stop.clone()));
        world.engine.unwind_unsafe_to(before).unwrap();
        while mempool.get(&keccak256(&tx)).is_none() {
            changes.changed().await.unwrap();
        }
        stop.cancel();
        link.await.unwrap().unwrap();
        let threads = state.1.lock();
        assert!(!threads.is_empty() && !threads.contains(&thread::current().id()));
    }

    #[test]
    fn an_authority_s_nonce_that_a_block_used_voids_its_waiting_transaction() {
        let mut world = World::new();
        let authority = PrivateKeySigner::from_bytes(&B256::repeat_byte(8)).unwrap();
        let deposits = [account().address(), authority.address()]
            .map(|address| world.deposit(address, 100_000_000));
        world.mine(deposits.to_vec());
        world.build(vec![]).unwrap();
        let (mempool, mut link) = mempool(&world);
        let chain_id = world.params.chain_id;
        let transfer = |nonce| TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: GWEI,
            to: TxKind::Call(Address::repeat_byte(9)),
            ..Default::default()
        };
        let waiting = mempool.add(sign(&authority, transfer(0))).unwrap();

        let delegation = Authorization {
            chain_id: U256::from(chain_id),
            address: Address::repeat_byte(0xc0),
            nonce: 0,
        };
        let signature = authority.sign_hash_sync(&delegation.signature_hash()).unwrap();
        let setting = sign(
            &account(),
            TxEip7702 {
                chain_id,
                gas_limit: 200_000,
                max_fee_per_gas: GWEI,
                authorization_list: vec![delegation.into_signed(signature)],
                ..Default::default()
            },
        );
        mempool.add(setting.clone()).unwrap();
        world.build(vec![setting]).unwrap();
        link.step();
        assert!(mempool.get(&waiting).is_none());
        assert_eq!(mempool.status(0).pending, 0);
        assert!(world.store().reader().all(Table::Mempool).next().is_none());
        // It is delegated now, which lets it send, one transaction at a time.
        let state = HeadState::new(world.engine.clone()).account(authority.address()).unwrap();
        assert_eq!((state.nonce, state.is_contract, state.is_delegated), (1, false, true));
        mempool.add(sign(&authority, transfer(1))).unwrap();
        mempool.add(sign(&authority, transfer(2))).unwrap_err();
    }

    #[test]
    fn what_removed_blocks_held_comes_from_the_journal_when_news_of_them_were_missed() {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        // As the write does that removes a block.
        let tx = world.plain_transfer(Address::repeat_byte(9), U256::ONE);
        let journal = StoreJournal::new(world.engine.store().clone());
        journal.write(&[JournalChange::Put(keccak256(&tx), tx.clone())]).unwrap();
        let (mempool, mut link) = mempool(&world);
        link.make_up();
        assert!(mempool.get(&keccak256(&tx)).is_some());
    }

    #[test]
    fn rows_of_the_journal_whose_key_is_not_their_hash_are_counted_and_removed() {
        let mut world = World::new();
        let deposit = world.deposit(account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let (mempool, _) = mempool(&world);
        let tx = world.plain_transfer(Address::repeat_byte(9), U256::ONE);
        mempool.add(tx.clone()).unwrap();
        let journal = StoreJournal::new(world.engine.store().clone());
        let rows: [(&[u8], &[u8]); 3] = [(&[], &[]), (b"short", &tx), (&[7; 32], &tx)];
        for (key, value) in rows {
            world.store().put(Table::Mempool, key, value.to_vec(), Durability::Buffered).unwrap();
        }
        let loaded = journal.load().unwrap();
        assert_eq!(loaded, Journaled { transactions: vec![tx.clone()], damaged: 3 });
        let loaded = journal.load().unwrap();
        assert_eq!(loaded, Journaled { transactions: vec![tx], damaged: 0 });
    }

    #[test]
    fn fees_are_those_of_the_head_of_the_moment() {
        let mut world = World::new();
        let state = HeadState::new(world.engine.clone());
        let mut seen = Vec::new();
        for _ in 0..3 {
            world.mine(vec![]);
            world.build(vec![]).unwrap();
            let fees = state.fees().unwrap();
            let (_, fresh) = state.read_fees().unwrap();
            assert_eq!((fees.base_fee, &fees.l1), (fresh.base_fee, &fresh.l1));
            assert!(Arc::ptr_eq(&fees, &state.fees().unwrap()), "read once per head");
            seen.push(fees);
        }
        assert!(!Arc::ptr_eq(&seen[0], &seen[1]));
    }
}
