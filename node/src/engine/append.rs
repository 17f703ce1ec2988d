//! Blocks that come one after the other, as from a file: while one is written, the next is executed.

use super::execute::run;
use super::heads::{Heads, load};
use super::{BlockRef, Engine, EngineError, EngineEvent, Live, heads::block_ref};
use alloy_primitives::{B256, Bytes};
use kedge_bridge::derive::{L2Cursor, next_payload};
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::{Change, Durability, FinishedChange, L2Rows, StoreError, Table};
use kedge_vm::{ExecutedBlock, Known, Payload, Senders};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};

/// Adds unsafe blocks to the chain, from [`Engine::append_all`]. Nothing else is added meanwhile.
#[derive(Debug)]
pub(crate) struct Appender<'scope, 'env> {
    engine: &'env Engine,
    scope: &'scope Scope<'scope, 'env>,
    live: MutexGuard<'env, Live>,
    latest: BlockRef,
    cursor: L2Cursor,
    /// The block before, which is being written.
    written: Option<Writing<'scope, 'env>>,
}

/// A block that is being written.
#[derive(Debug)]
struct Writing<'scope, 'env> {
    change: Arc<FinishedChange<'env>>,
    thread: ScopedJoinHandle<'scope, kedge_store::Result<()>>,
    heads: Heads,
    block: Arc<ExecutedBlock>,
}

impl Engine {
    /// Has `work` add unsafe blocks. When this returns, all that it added are on disk, whether it failed or
    /// not, unless the disk failed. Until then it is the operating system that has them.
    ///
    /// # Errors
    /// Those of `work`, and when a block cannot be written; the blocks before it are.
    pub(crate) fn append_all<T>(
        &self,
        work: impl FnOnce(&mut Appender<'_, '_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let live = self.live.lock();
            let latest = self.heads().latest;
            let info = self.store.block_info(latest.number)?;
            let cursor = info.ok_or_else(|| missing(latest.number))?.cursor;
            let mut appender =
                Appender { engine: self, scope, live, latest, cursor, written: None };
            let done = work(&mut appender);
            appender.settle()?;
            self.store.sync()?;
            done
        })
    }
}

fn missing(number: L2Number) -> StoreError {
    StoreError::Missing { table: Table::Blocks.name(), key: number.to_string() }
}

impl<'env> Appender<'_, 'env> {
    /// The latest block, on disk or not.
    pub(crate) const fn latest(&self) -> BlockRef {
        self.latest
    }

    /// The safe block: nothing that is added here changes it.
    pub(crate) fn safe(&self) -> BlockRef {
        self.engine.heads().safe
    }

    /// The last processed L1 block.
    pub(crate) fn l1_tip(&self) -> L1Ref {
        self.live.derive.l1
    }

    /// The hash of a block that the chain has.
    pub(crate) fn hash(&self, number: L2Number) -> Result<Option<B256>, EngineError> {
        Ok(self.change().hash(number)?)
    }

    /// The payload that follows the latest block, and the cursor after it: see [`Engine::plan`].
    pub(crate) fn plan(
        &self,
        step: bool,
        timestamp: u64,
        user: Vec<Bytes>,
    ) -> Result<Option<(Payload, L2Cursor)>, EngineError> {
        let (params, store) = (self.engine.params, &*self.engine.store);
        let epochs = &self.live.derive.epochs;
        next_payload(params, &self.cursor, epochs, store, step, Some(timestamp), user)
            .map_err(EngineError::Derive)
            .map(Result::ok)
    }

    /// Executes a payload that was planned on the latest block.
    pub(crate) fn execute(
        &mut self,
        payload: &Payload,
        senders: &Senders,
    ) -> Result<ExecutedBlock, EngineError> {
        let (change, verify) = (self.change(), self.engine.options.verify_witness);
        let known = Known { senders, tries: &mut self.live.tries };
        run(&change, &self.engine.evm, payload, known, verify)
    }

    /// Makes an executed block the latest. It is written while the next one is executed.
    pub(crate) fn append(
        &mut self,
        payload: &Payload,
        cursor: L2Cursor,
        block: ExecutedBlock,
    ) -> Result<(), EngineError> {
        let mut change = self.change();
        change.append_block(payload, &block, &cursor)?;
        let heads = load(&change, self.engine.heads().l1_best)?;
        self.latest = block_ref(&change, payload.number)?;
        self.cursor = cursor;
        let change = Arc::new(change.finish()?);
        // One after the other, and none on top of one that failed.
        self.settle()?;
        let write = change.clone();
        let thread = self.scope.spawn(move || write.commit(Durability::Buffered));
        self.written = Some(Writing { change, thread, heads, block: Arc::new(block) });
        Ok(())
    }

    /// Waits until the latest block is written, and lets everybody know.
    fn settle(&mut self) -> Result<(), EngineError> {
        let Some(Writing { thread, heads, block, .. }) = self.written.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(written) => written?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        self.engine.announce(&mut self.live, heads, vec![EngineEvent::NewBlock(block)]);
        Ok(())
    }

    /// The chain with all that was added.
    fn change(&self) -> Change<'env> {
        match &self.written {
            Some(writing) => Change::after(writing.change.clone()),
            None => self.engine.store.change(),
        }
    }
}
