//! The block loop: system calls, transactions, meter, roots.

use super::{
    ExecuteError, ExecutedBlock, Known, Senders, SkipReason,
    cache::{Cache, CacheError},
    header::{BlockAttributes, Outcome, seal},
    output_root,
    replay::{begin, transaction_env},
};
use crate::{
    EvmConfig, Header, OpReceiptEnvelope, OpTxEnvelope, PayloadTx, StateDb, StateDiff,
    env::{BlockFields, Evm},
    state::DbError,
    trie::{self, Threads},
};
use alloc::{string::ToString, vec::Vec};
use alloy_consensus::{
    Eip658Value, Receipt, Sealable, Transaction, Typed2718, transaction::SignerRecoverable,
};
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_evm::{Evm as _, FromTxWithEncoded};
use alloy_op_evm::{OpTx, OpTxError};
use alloy_primitives::{Address, B256, Bytes};
use kedge_genesis::predeploys::L2_TO_L1_MESSAGE_PASSER;
use op_alloy_consensus::{OpDepositReceipt, TxDeposit};
use op_revm::{
    L1BlockInfo, OpHaltReason, OpSpecId, constants::L1_BLOCK_CONTRACT, estimate_tx_compressed_size,
};
use revm::{
    Database, DatabaseCommit,
    context_interface::{
        JournalTr,
        cfg::gas::calculate_initial_tx_gas,
        result::{EVMError, ResultAndState},
    },
    primitives::hardfork::SpecId,
};

/// Gas that every transaction costs (yellow paper, appendix G).
const TX_BASE_GAS: u64 = 21_000;
/// The most that a byte of calldata costs before EIP-7623's floor (EIP-2028).
const BYTE_GAS: u64 = 16;

type CacheOf<'a, DB> = Cache<'a, DB>;
pub(super) type EvmFailure<DB> = EVMError<CacheError<DbError<DB>>, OpTxError>;

/// Intrinsic gas of a listed transaction (EIP-2028, 2930, 3860, 7702 and the floor of 7623): the least
/// that the meter charges for it, included or not. Bytes that are no transaction cost 21,000 and 16 for
/// each byte.
pub fn intrinsic_gas(transaction: &[u8]) -> u64 {
    decode(transaction).map_or_else(|| raw_gas(transaction), |tx| intrinsic(&tx))
}

fn raw_gas(transaction: &[u8]) -> u64 {
    let length = u64::try_from(transaction.len()).unwrap_or(u64::MAX);
    TX_BASE_GAS.saturating_add(length.saturating_mul(BYTE_GAS))
}

fn intrinsic(tx: &OpTxEnvelope) -> u64 {
    let (accounts, slots) = tx.access_list().map_or((0, 0), |list| {
        (
            list.len(),
            list.iter().fold(0, |sum: usize, item| sum.saturating_add(item.storage_keys.len())),
        )
    });
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let gas = calculate_initial_tx_gas(
        SpecId::OSAKA,
        tx.input(),
        tx.is_create(),
        count(accounts),
        count(slots),
        tx.authorization_count().unwrap_or_default(),
    );
    gas.initial_total_gas.max(gas.floor_gas)
}

/// A transaction that a user may send, if the bytes are exactly its encoding.
fn decode(bytes: &[u8]) -> Option<OpTxEnvelope> {
    let tx = OpTxEnvelope::decode_2718_exact(bytes).ok()?;
    (matches!(tx.ty(), 0 | 1 | 2 | 4) && tx.encoded_2718() == bytes).then_some(tx)
}

/// Executes a block with these attributes and listed transactions on the state after `parent`.
/// [`super::execute`] is this with the attributes that Kedge's rules give a payload.
///
/// # Errors
/// Only when this machine failed.
pub fn execute_block<DB: StateDb, T: Threads>(
    config: &EvmConfig,
    attributes: &BlockAttributes,
    parent: &Header,
    parent_hash: B256,
    listed: &[PayloadTx],
    known: Known<'_, T>,
    db: &mut DB,
) -> Result<ExecutedBlock, ExecuteError<DbError<DB>>> {
    let env = config.env_of(BlockFields {
        number: attributes.number,
        timestamp: attributes.timestamp,
        beneficiary: attributes.beneficiary,
        prev_randao: attributes.prev_randao,
        gas_limit: attributes.gas_limit,
        base_fee: attributes.base_fee,
    });
    let cache = Cache::new(db, config.history_from_state);
    let mut block = Block {
        config,
        known: known.senders,
        gas_limit: attributes.gas_limit,
        evm: config.evm(env, cache),
        gas_used: 0,
        footprint: 0,
        metered: config.meter.map_or(0, |meter| meter.block_overhead_gas),
        transactions: Vec::with_capacity(listed.len()),
        senders: Vec::with_capacity(listed.len()),
        receipts: Vec::with_capacity(listed.len()),
        skipped: Vec::new(),
    };
    let beacon_root = attributes.parent_beacon_block_root;
    begin(config.spec, &mut block.evm, parent_hash, beacon_root).map_err(failed::<DB>)?;
    if config.spec.is_enabled_in(OpSpecId::ISTHMUS) {
        // The header states its storage root.
        block.evm.db_mut().touch(L2_TO_L1_MESSAGE_PASSER).map_err(cache_failed::<DB>)?;
    }
    // The meter sets the intrinsic gas of everything that is listed aside, so that what is skipped
    // cannot take the block past its limit.
    let listed: Vec<Listed<'_>> = listed.iter().map(Listed::new).collect();
    let reserved = listed.iter().fold(0, |sum: u64, tx| sum.saturating_add(tx.reserved()));
    block.metered = block.metered.saturating_add(reserved);
    for (index, tx) in listed.into_iter().enumerate() {
        match tx {
            Listed::System(deposit) => block.deposit(deposit)?,
            Listed::User { bytes, tx, intrinsic } => {
                if let Err(reason) = block.user(bytes, tx, intrinsic)? {
                    block.skipped.push((index, reason));
                }
            }
        }
    }

    let Block {
        evm, gas_used, footprint, metered, transactions, senders, receipts, skipped, ..
    } = block;
    let (cache, _) = evm.finish();
    let witness_bytes = cache.witness_bytes();
    let state = cache.diff();
    let before = if DB::SLOW { cache.overwritten() } else { StateDiff::default() };
    let unchanged = cache.unchanged();
    let isthmus = config.spec.is_enabled_in(OpSpecId::ISTHMUS);
    let report: &[Address] = if isthmus { &[L2_TO_L1_MESSAGE_PASSER] } else { &[] };
    let (state_root, trie, roots) =
        known.tries.apply(parent.state_root, &state, &before, report, db)?;
    let withdrawals_root =
        roots.get(&L2_TO_L1_MESSAGE_PASSER).copied().unwrap_or(trie::EMPTY_ROOT_HASH);
    let outcome = Outcome { state_root, withdrawals_root, gas_used, footprint };
    let header = seal(config.spec, attributes, parent_hash, &transactions, &receipts, outcome);
    let hash = header.hash_slow();
    Ok(ExecutedBlock {
        header,
        hash,
        transactions,
        senders,
        receipts,
        output_root: output_root(state_root, withdrawals_root, hash),
        metered_gas: metered,
        witness_bytes,
        skipped,
        unchanged,
        state,
        before,
        trie,
    })
}

/// A listed transaction, decoded.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
enum Listed<'a> {
    System(&'a TxDeposit),
    User { bytes: &'a Bytes, tx: Option<OpTxEnvelope>, intrinsic: u64 },
}

impl<'a> Listed<'a> {
    fn new(listed: &'a PayloadTx) -> Self {
        match listed {
            PayloadTx::System(deposit) => Self::System(deposit),
            PayloadTx::User(bytes) => {
                let tx = decode(bytes);
                let intrinsic = tx.as_ref().map_or_else(|| raw_gas(bytes), intrinsic);
                Self::User { bytes, tx, intrinsic }
            }
        }
    }

    fn reserved(&self) -> u64 {
        match self {
            Self::System(_) => 0,
            Self::User { intrinsic, .. } => *intrinsic,
        }
    }
}

/// A block while it executes.
struct Block<'a, 'db, DB: StateDb> {
    config: &'a EvmConfig,
    known: &'a Senders,
    gas_limit: u64,
    evm: Evm<CacheOf<'db, DB>>,
    gas_used: u64,
    footprint: u64,
    /// Gas by the meter: the overhead, the intrinsic gas of everything listed, and what the executed
    /// ones used beyond theirs.
    metered: u64,
    transactions: Vec<OpTxEnvelope>,
    senders: Vec<Address>,
    receipts: Vec<OpReceiptEnvelope>,
    skipped: Vec<(usize, SkipReason)>,
}

type Executed = ResultAndState<OpHaltReason>;

/// Gas of what was executed, for the meter: refunds lower what the sender pays, not the work (as EIP-7778
/// has it).
fn spent(executed: &Executed) -> u64 {
    let gas = executed.result.gas();
    gas.total_gas_spent().max(gas.floor_gas())
}

type Outcomes<T, DB> = Result<Result<T, SkipReason>, ExecuteError<DbError<DB>>>;

impl<DB: StateDb> Block<'_, '_, DB> {
    fn deposit(&mut self, deposit: &TxDeposit) -> Result<(), ExecuteError<DbError<DB>>> {
        let tx = OpTxEnvelope::Deposit(deposit.clone().seal_slow());
        let executed =
            self.evm.transact_raw(transaction_env(&tx, deposit.from)).map_err(failed::<DB>)?;
        self.metered = self.metered.saturating_add(spent(&executed));
        self.include(tx, deposit.from, executed)
    }

    fn sender(&self, tx: &OpTxEnvelope) -> Option<Address> {
        // Nobody who knows no sender has the hash computed.
        let known = if self.known.is_empty() { None } else { self.known.get(&tx.tx_hash()) };
        known.copied().or_else(|| tx.recover_signer().ok())
    }

    fn user(
        &mut self,
        bytes: &Bytes,
        tx: Option<OpTxEnvelope>,
        intrinsic: u64,
    ) -> Outcomes<(), DB> {
        let Some(tx) = tx else { return Ok(Err(SkipReason::Undecodable)) };
        let available = match self.config.meter {
            Some(_) => self.gas_limit.saturating_sub(self.metered).saturating_add(
                // Its own share is already set aside, unless the block is over its limit without it.
                if self.metered <= self.gas_limit { intrinsic } else { 0 },
            ),
            None => self.gas_limit.saturating_sub(self.gas_used),
        };
        let declared = tx.gas_limit();
        if declared > available {
            return Ok(Err(SkipReason::GasLimit { declared, available }));
        }
        let Some(sender) = self.sender(&tx) else { return Ok(Err(SkipReason::Signature)) };

        self.evm.db_mut().witness_limit = self.config.meter.map(|meter| meter.block_witness_limit);
        let outcome = self.transact(bytes, &tx, sender);
        self.evm.db_mut().witness_limit = None;
        let (executed, footprint) = match outcome? {
            Ok(executed) => executed,
            Err(reason) => {
                // How far it got is not known, so it pays for all that it might have used.
                if reason == SkipReason::WitnessLimit {
                    self.metered = self.metered.saturating_add(declared.saturating_sub(intrinsic));
                }
                return Ok(Err(reason));
            }
        };
        let beyond = spent(&executed).saturating_sub(intrinsic);
        self.metered = self.metered.saturating_add(beyond);
        self.footprint = self.footprint.saturating_add(footprint);
        self.include(tx, sender, executed)?;
        Ok(Ok(()))
    }

    /// Executes a user's transaction without committing; gives its data footprint with it.
    fn transact(
        &mut self,
        bytes: &Bytes,
        tx: &OpTxEnvelope,
        sender: Address,
    ) -> Outcomes<(Executed, u64), DB> {
        let footprint = match self.footprint_of(bytes) {
            Ok(footprint) => footprint,
            Err(CacheError::WitnessLimit) => return Ok(Err(SkipReason::WitnessLimit)),
            Err(CacheError::Database(error)) => return Err(ExecuteError::Database(error)),
        };
        let available = self.gas_limit.saturating_sub(self.footprint);
        if footprint > available {
            return Ok(Err(SkipReason::Footprint { footprint, available }));
        }
        match self.evm.transact_raw(OpTx::from_encoded_tx(tx, sender, bytes.clone())) {
            Ok(executed) => Ok(Ok((executed, footprint))),
            Err(error) => {
                // The journal still holds what the refused transaction loaded; without this the next
                // one would find it warm.
                let journal = &mut self.evm.journaled_state;
                journal.discard_tx();
                let _ = journal.finalize();
                match error {
                    EVMError::Transaction(error) => Ok(Err(SkipReason::Invalid(error.to_string()))),
                    EVMError::Database(CacheError::WitnessLimit) => {
                        Ok(Err(SkipReason::WitnessLimit))
                    }
                    error => Err(failed::<DB>(error)),
                }
            }
        }
    }

    /// Data availability footprint (Jovian): the estimated compressed size times the scalar that the
    /// `L1Block` contract holds.
    fn footprint_of(&mut self, bytes: &Bytes) -> Result<u64, CacheError<DbError<DB>>> {
        if !self.config.spec.is_enabled_in(OpSpecId::JOVIAN) {
            return Ok(0);
        }
        let db = self.evm.db_mut();
        db.basic(L1_BLOCK_CONTRACT)?;
        let scalar = L1BlockInfo::fetch_da_footprint_gas_scalar(db)?;
        let size = estimate_tx_compressed_size(bytes).checked_div(1_000_000).unwrap_or_default();
        Ok(size.saturating_mul(u64::from(scalar)))
    }

    /// Adds an executed transaction to the block.
    fn include(
        &mut self,
        tx: OpTxEnvelope,
        sender: Address,
        executed: Executed,
    ) -> Result<(), ExecuteError<DbError<DB>>> {
        let ResultAndState { result, state } = executed;
        self.gas_used = self.gas_used.saturating_add(result.tx_gas_used());
        let receipt = Receipt {
            status: Eip658Value::Eip658(result.is_success()),
            cumulative_gas_used: self.gas_used,
            logs: result.into_logs(),
        };
        let receipt = match &tx {
            OpTxEnvelope::Legacy(_) => OpReceiptEnvelope::Legacy(receipt.with_bloom()),
            OpTxEnvelope::Eip2930(_) => OpReceiptEnvelope::Eip2930(receipt.with_bloom()),
            OpTxEnvelope::Eip1559(_) => OpReceiptEnvelope::Eip1559(receipt.with_bloom()),
            OpTxEnvelope::Eip7702(_) => OpReceiptEnvelope::Eip7702(receipt.with_bloom()),
            OpTxEnvelope::PostExec(_) => OpReceiptEnvelope::PostExec(receipt.with_bloom()),
            OpTxEnvelope::Deposit(_) => {
                // The nonce before the deposit (Regolith), and version 1 (Canyon).
                let depositor = self.evm.db_mut().basic(sender).map_err(cache_failed::<DB>)?;
                OpReceiptEnvelope::Deposit(
                    OpDepositReceipt {
                        inner: receipt,
                        deposit_nonce: Some(depositor.map_or(0, |account| account.nonce)),
                        deposit_receipt_version: Some(1),
                    }
                    .with_bloom(),
                )
            }
        };
        self.evm.db_mut().commit(state);
        self.transactions.push(tx);
        self.senders.push(sender);
        self.receipts.push(receipt);
        Ok(())
    }
}

fn cache_failed<DB: StateDb>(error: CacheError<DbError<DB>>) -> ExecuteError<DbError<DB>> {
    match error {
        CacheError::Database(error) => ExecuteError::Database(error),
        // No limit is in force where this is called.
        CacheError::WitnessLimit => ExecuteError::Evm(error.to_string()),
    }
}

pub(super) fn failed<DB: StateDb>(error: EvmFailure<DB>) -> ExecuteError<DbError<DB>> {
    match error {
        EVMError::Database(error) => cache_failed::<DB>(error),
        error => ExecuteError::Evm(error.to_string()),
    }
}
