//! Executing the transactions of a block again, one at a time, with an inspector: what tracers do.
//!
//! The block's own execution and a replay begin a block and read a transaction alike, by the functions of
//! this module. A replay takes what is *in* the block; listed transactions that were skipped left nothing
//! behind.

use super::{ExecuteError, cache::Cache, run::failed};
use crate::{EvmConfig, Header, OpTxEnvelope, StateDb, env::Evm, state::DbError, trie};
use alloy_eips::{
    Encodable2718,
    eip2935::HISTORY_STORAGE_ADDRESS,
    eip4788::{BEACON_ROOTS_ADDRESS, SYSTEM_ADDRESS},
};
use alloy_evm::{Evm as _, FromTxWithEncoded};
use alloy_op_evm::{OpEvmContext, OpTx, OpTxError};
use alloy_primitives::{Address, B256};
use core::ops::ControlFlow;
use op_revm::OpSpecId;
use revm::{
    Database, DatabaseCommit, Inspector, context_interface::result::EVMError,
    inspector::NoOpInspector,
};

/// Why an EVM on the database `DB` did not execute.
pub type EvmFailure<DB> = EVMError<<DB as Database>::Error, OpTxError>;

/// What a block does before its first transaction (EIP-2935, EIP-4788).
pub(super) fn begin<DB, I>(
    spec: OpSpecId,
    evm: &mut Evm<DB, I>,
    parent_hash: B256,
    parent_beacon_block_root: B256,
) -> Result<(), EvmFailure<DB>>
where
    DB: alloy_evm::Database + DatabaseCommit,
    I: Inspector<OpEvmContext<DB>>,
{
    let calls = [
        (OpSpecId::ISTHMUS, HISTORY_STORAGE_ADDRESS, parent_hash),
        (OpSpecId::ECOTONE, BEACON_ROOTS_ADDRESS, parent_beacon_block_root),
    ];
    for (since, contract, word) in calls {
        if spec.is_enabled_in(since) {
            let result = evm.transact_system_call(SYSTEM_ADDRESS, contract, word.into())?;
            evm.db_mut().commit(result.state);
        }
    }
    Ok(())
}

/// A transaction of a block as the EVM takes it, the bytes that it pays Bitcoin space for included.
pub fn transaction_env(tx: &OpTxEnvelope, sender: Address) -> OpTx {
    OpTx::from_encoded_tx(tx, sender, tx.encoded_2718().into())
}

impl EvmConfig {
    /// An EVM where the first transaction of the block with that header executes. `db` is the state after
    /// its parent. The inspector is switched off at first. Transactions go in with [`transaction_env`], in
    /// order, and what each changed has to be committed before the next.
    ///
    /// `BLOCKHASH` is answered by `db`.
    ///
    /// # Errors
    /// When `db` fails.
    pub fn replay<DB, I>(
        &self,
        header: &Header,
        db: DB,
        inspector: I,
    ) -> Result<Evm<DB, I>, EvmFailure<DB>>
    where
        DB: alloy_evm::Database + DatabaseCommit,
        I: Inspector<OpEvmContext<DB>>,
    {
        let mut evm = self.evm_with_inspector(self.env(header), db, inspector);
        evm.disable_inspector();
        let beacon_root = header.parent_beacon_block_root.unwrap_or_default();
        begin(self.spec, &mut evm, header.parent_hash, beacon_root)?;
        Ok(evm)
    }
}

/// Executes the block with that header again on `db`, the state after its parent, and hands the state root
/// after each transaction to `each`, until that breaks.
///
/// # Errors
/// When `db` fails, and when a transaction cannot be executed there.
pub fn intermediate_roots<DB: StateDb>(
    config: &EvmConfig,
    header: &Header,
    parent_state_root: B256,
    transactions: &[(OpTxEnvelope, Address)],
    db: &mut DB,
    mut each: impl FnMut(B256) -> ControlFlow<()>,
) -> Result<(), ExecuteError<DbError<DB>>> {
    let cache = Cache::new(db, config.history_from_state);
    let mut evm = config.replay(header, cache, NoOpInspector {}).map_err(failed::<DB>)?;
    for (tx, sender) in transactions {
        let executed = evm.transact_raw(transaction_env(tx, *sender)).map_err(failed::<DB>)?;
        let cache = evm.db_mut();
        cache.commit(executed.state);
        let changes = cache.diff();
        let (root, ..) = trie::apply(parent_state_root, &changes, &[], cache.before())?;
        if each(root).is_break() {
            break;
        }
    }
    Ok(())
}
