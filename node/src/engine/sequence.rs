//! Unsafe blocks: what the sequencer adds ahead of Bitcoin.

use super::execute::{run, unwind};
use super::heads::block_ref;
use super::{BlockRef, Engine, EngineError, EngineEvent, Live};
use alloy_primitives::Bytes;
use kedge_bridge::derive::{EpochInfo, L2Cursor, next_payload};
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::{L2Rows, SignatureRow, StoreError, Table};
use kedge_vm::{ExecutedBlock, Known, Payload, Senders, next_base_fee};
use std::sync::Arc;

/// Where the next block goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The latest block.
    pub latest: BlockRef,
    /// The cursor after it.
    pub cursor: L2Cursor,
    /// The origins known from the safe head's on.
    pub epochs: Vec<EpochInfo>,
    /// The processed tip of Bitcoin.
    pub l1_tip: L1Ref,
    /// Base fee of the next block, wei per gas.
    pub next_base_fee: u64,
}

impl Engine {
    /// Where the next block goes.
    ///
    /// # Errors
    /// When the store fails.
    pub fn position(&self) -> Result<Position, EngineError> {
        let live = self.live.lock();
        let (latest, cursor) = self.latest()?;
        let missing =
            || StoreError::Missing { table: Table::Headers.name(), key: latest.number.to_string() };
        let header = self.store.header(latest.number)?.ok_or_else(missing)?;
        Ok(Position {
            latest,
            cursor,
            epochs: live.derive.epochs.clone(),
            l1_tip: live.derive.l1,
            next_base_fee: next_base_fee(&header).unwrap_or(self.params.fees.min_base_fee),
        })
    }

    /// The payload that follows the latest block, by the function that derivation uses, and the cursor
    /// after it. None when the rules allow no such block, as when the chain moved on since the caller
    /// looked.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn plan(
        &self,
        step: bool,
        timestamp: Option<u64>,
        user: Vec<Bytes>,
    ) -> Result<Option<(Payload, L2Cursor)>, EngineError> {
        let mut live = self.live.lock();
        let (latest, cursor) = self.latest()?;
        let epochs = &live.derive.epochs;
        let planned =
            next_payload(self.params, &cursor, epochs, &*self.store, step, timestamp, user)
                .map_err(EngineError::Derive)?;
        match planned {
            Ok((payload, next)) => {
                live.planned = Some((payload.id(), latest.hash));
                Ok(Some((payload, next)))
            }
            Err(fault) => {
                tracing::debug!(number = cursor.number.next().0, %fault, "no such block");
                Ok(None)
            }
        }
    }

    /// Executes a planned payload without adding it. `known` are the senders of its transactions that the caller
    /// knows.
    ///
    /// # Errors
    /// [`EngineError::Stale`] when the chain moved on since it was planned, and when this machine failed.
    pub fn preview(
        &self,
        payload: &Payload,
        known: &Senders,
    ) -> Result<ExecutedBlock, EngineError> {
        let mut live = self.live.lock();
        self.check_planned(&live, payload)?;
        let known = Known { senders: known, tries: &mut live.tries };
        run(&*self.store, &self.evm, payload, known, self.options.verify_witness)
    }

    /// Adds a planned payload that [`Engine::preview`] executed, with the sequencer's signature of it if there
    /// is one. One atomic write; when this returns, the block is on disk.
    ///
    /// # Errors
    /// [`EngineError::Stale`] when the chain moved on since it was planned, and when this machine failed.
    pub fn append(
        &self,
        payload: Payload,
        cursor: L2Cursor,
        block: ExecutedBlock,
        signature: Option<&SignatureRow>,
    ) -> Result<Arc<ExecutedBlock>, EngineError> {
        let mut live = self.live.lock();
        self.check_planned(&live, &payload)?;
        if block.header.parent_hash != self.heads().latest.hash {
            return Err(EngineError::Stale { number: payload.number });
        }
        self.add(&mut live, &payload, &cursor, block, signature)
    }

    /// Executes a planned payload and adds it, whatever it skips.
    ///
    /// # Errors
    /// As [`Engine::append`].
    pub fn append_unsafe(
        &self,
        payload: &Payload,
        cursor: &L2Cursor,
    ) -> Result<Arc<ExecutedBlock>, EngineError> {
        let mut live = self.live.lock();
        self.check_planned(&live, payload)?;
        let known = Known { senders: &Senders::default(), tries: &mut live.tries };
        let block = run(&*self.store, &self.evm, payload, known, self.options.verify_witness)?;
        self.add(&mut live, payload, cursor, block, None)
    }

    /// Unwinds unsafe blocks above `number`. One atomic write.
    ///
    /// # Errors
    /// [`EngineError::BelowSafe`] when `number` is below the safe head, and when this machine failed.
    pub fn unwind_unsafe_to(&self, number: L2Number) -> Result<(), EngineError> {
        let mut live = self.live.lock();
        let safe = live.derive.cursor.number;
        if number < safe {
            return Err(EngineError::BelowSafe { number, safe });
        }
        let mut change = self.store.change();
        let mut events = Vec::new();
        while change.latest()?.is_some_and(|latest| latest > number) {
            events.push(EngineEvent::Removed(Arc::new(unwind(
                &mut change,
                self.options.journal_removed,
            )?)));
        }
        self.commit(&mut live, change, events)
    }

    fn add(
        &self,
        live: &mut Live,
        payload: &Payload,
        cursor: &L2Cursor,
        block: ExecutedBlock,
        signature: Option<&SignatureRow>,
    ) -> Result<Arc<ExecutedBlock>, EngineError> {
        let mut change = self.store.change();
        change.append_block(payload, &block, cursor)?;
        if let Some(signature) = signature {
            change.put_signature(payload.number, signature)?;
        }
        let block = Arc::new(block);
        tracing::debug!(
            number = payload.number.0, hash = %block.hash, transactions = block.transactions.len(),
            skipped = block.skipped.len(), "new block"
        );
        self.commit(live, change, vec![EngineEvent::NewBlock(block.clone())])?;
        Ok(block)
    }

    fn latest(&self) -> Result<(BlockRef, L2Cursor), EngineError> {
        let number = self.heads().latest.number;
        let missing =
            || StoreError::Missing { table: Table::Blocks.name(), key: number.to_string() };
        let info = self.store.block_info(number)?.ok_or_else(missing)?;
        Ok((block_ref(&*self.store, number)?, info.cursor))
    }

    fn check_planned(&self, live: &Live, payload: &Payload) -> Result<(), EngineError> {
        if live.planned == Some((payload.id(), self.heads().latest.hash)) {
            Ok(())
        } else {
            Err(EngineError::Stale { number: payload.number })
        }
    }
}
