//! Executing payloads on the store: what derivation asks for, and what the sequencer plans.

use super::cores::Cores;
use super::error::{EngineError, WitnessFailure};
use super::event::RemovedBlock;
use super::senders::recover_payload;
use alloy_primitives::keccak256;
use kedge_bridge::derive::L2Cursor;
use kedge_fraud_proof::{Applied, Executor};
use kedge_genesis::L2Number;
use kedge_store::{Change, L2Rows, LatestState, Rows, StoreError, Table};
use kedge_vm::{
    EvmConfig, ExecutedBlock, Known, Payload, PayloadTx, Senders, StateTries, execute_on_witness,
    execute_with, record_witness,
};
use std::sync::Arc;

/// The tries of a state, hashed on all cores.
pub(super) type Tries = StateTries<Cores>;

/// Executes `payload` on top of the latest block of `rows`; with `verify`, on a witness too. Where no sender is
/// known, all are recovered before.
pub(super) fn run(
    rows: &impl Rows,
    evm: &EvmConfig,
    payload: &Payload,
    known: Known<'_, Cores>,
    verify: bool,
) -> Result<ExecutedBlock, EngineError> {
    let number = payload.number;
    let missing = || StoreError::Missing { table: Table::Headers.name(), key: number.to_string() };
    let parent = number.prev().ok_or_else(missing)?;
    let header = rows.header(parent)?.ok_or_else(missing)?;
    let hash = rows.hash(parent)?.ok_or_else(missing)?;
    let recovered = known.senders.is_empty().then(|| recover_payload(payload));
    let known = Known { senders: recovered.as_ref().unwrap_or(known.senders), ..known };
    let block = execute_with(evm, &header, hash, payload, known, &mut LatestState(rows))
        .map_err(|error| EngineError::Execute { number, reason: Box::new(error) })?;
    if verify {
        let fail = |reason| EngineError::Witness { number, reason: Box::new(reason) };
        let check = |how, other: &ExecutedBlock| {
            if other.hash == block.hash && other.output_root == block.output_root {
                return Ok(());
            }
            Err(fail(WitnessFailure::Differs { how, expected: block.hash, found: other.hash }))
        };
        let (recorded, witness) = record_witness(evm, &header, payload, LatestState(rows))
            .map_err(|error| fail(WitnessFailure::Record(error)))?;
        check("recording", &recorded)?;
        let replayed = execute_on_witness(evm, &header, payload, &witness)
            .map_err(|error| fail(WitnessFailure::Execute(error)))?;
        check("the witness", &replayed)?;
    }
    Ok(block)
}

/// Takes the latest block back; with `journal`, into the journal of the mempool.
pub(super) fn unwind(change: &mut Change<'_>, journal: bool) -> Result<RemovedBlock, EngineError> {
    let missing =
        |what: &str| StoreError::Missing { table: Table::L2Meta.name(), key: what.to_owned() };
    let number = change.latest()?.ok_or_else(|| missing("latest"))?;
    let block = || missing("latest block");
    let payload = change.payload(number)?.ok_or_else(block)?;
    let removed = RemovedBlock {
        header: change.header(number)?.ok_or_else(block)?,
        hash: change.hash(number)?.ok_or_else(block)?,
        transactions: change.transactions(number)?.ok_or_else(block)?,
        receipts: change.receipts(number)?.ok_or_else(block)?,
        user_transactions: payload
            .transactions
            .into_iter()
            .filter_map(|tx| match tx {
                PayloadTx::System(_) => None,
                PayloadTx::User(bytes) => Some(bytes),
            })
            .collect(),
    };
    change.unwind_block()?;
    if journal {
        for tx in &removed.user_transactions {
            change.put(Table::Mempool, keccak256(tx).as_slice(), tx.to_vec())?;
        }
    }
    Ok(removed)
}

/// Applies derived payloads to a pending change: a payload that equals the unsafe block of its number
/// is promoted, otherwise unsafe blocks from there on are unwound and it is executed.
pub(super) struct StoreExecutor<'c, 's> {
    pub(super) change: &'c mut Change<'s>,
    pub(super) evm: &'c EvmConfig,
    pub(super) tries: &'c mut Tries,
    pub(super) verify: bool,
    pub(super) journal: bool,
    pub(super) appended: Vec<Arc<ExecutedBlock>>,
    pub(super) removed: Vec<Arc<RemovedBlock>>,
    pub(super) promoted: u64,
}

impl StoreExecutor<'_, '_> {
    fn promote(
        &mut self,
        payload: &Payload,
        cursor: &L2Cursor,
    ) -> Result<Option<Applied>, EngineError> {
        let Some(info) = self.change.block_info(payload.number)? else { return Ok(None) };
        if info.payload_id != payload.id() || info.cursor != *cursor {
            return Ok(None);
        }
        self.promoted = self.promoted.saturating_add(1);
        Ok(Some(Applied {
            number: payload.number,
            output_root: info.output_root,
            metered_gas: info.metered_gas,
            witness_bytes: info.witness_bytes,
        }))
    }
}

impl Executor for StoreExecutor<'_, '_> {
    type Error = EngineError;

    fn apply(&mut self, payload: &Payload, cursor: &L2Cursor) -> Result<Applied, EngineError> {
        if let Some(applied) = self.promote(payload, cursor)? {
            return Ok(applied);
        }
        while self.change.latest()?.is_some_and(|latest| latest >= payload.number) {
            self.removed.push(Arc::new(unwind(self.change, self.journal)?));
        }
        let expected = self.change.latest()?.map_or(L2Number(0), L2Number::next);
        if expected != payload.number {
            return Err(EngineError::WrongBlock { expected: payload.number, found: expected });
        }
        let known = Known { senders: &Senders::default(), tries: &mut *self.tries };
        let block = run(&*self.change, self.evm, payload, known, self.verify)?;
        self.change.append_block(payload, &block, cursor)?;
        let applied = Applied {
            number: payload.number,
            output_root: block.output_root,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
        };
        self.appended.push(Arc::new(block));
        Ok(applied)
    }
}
