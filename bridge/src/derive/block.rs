//! One L2 block on top of a cursor. Derivation makes every block with this and so does the sequencer,
//! therefore what the sequencer builds is what everybody derives.

use super::{DeriveError, EpochInfo, ForcedCursor, Ignored, L1Lookup, L2Cursor, lookup};
use crate::attributes::attributes_tx;
use crate::deposit::{Deposit, deposit_tx, deposits_in, vault_script_tx};
use crate::envelope::{Envelope, Kind, envelopes};
use crate::forced::{Forced, ForcedTx, Payer, decode_tx};
use crate::vault::VaultScripts;
use alloc::vec::Vec;
use alloy_consensus::Transaction as _;
use alloy_primitives::Bytes;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use kedge_genesis::abi::L1Attributes;
use kedge_genesis::{BATCH_EPOCH_READS, FORCED_BLOCKS_PER_EPOCH, L1Height, L1Ref, Params};
use kedge_vm::{Payload, PayloadTx, intrinsic_gas};

/// Why a block does not follow from its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockFault {
    /// The next epoch may not begin before the current one's deposits are all taken.
    #[error("the epoch of L1 block {} has deposits left", origin.height)]
    EpochIncomplete {
        /// The current origin.
        origin: L1Ref,
    },
    /// The L1 block that the next epoch needs is not known yet.
    #[error("there is no L1 block {height} yet")]
    NoNextOrigin {
        /// Height of the missing block.
        height: L1Height,
    },
    /// The cursor's origin is not among the epochs: another L1 chain, or long past.
    #[error("L1 block {} is not a current origin", origin.height)]
    UnknownOrigin {
        /// The cursor's origin.
        origin: L1Ref,
    },
    /// The timestamp is outside its bounds.
    #[error("timestamp {found} is not within {lower}..={upper}")]
    Timestamp {
        /// The block's, Unix seconds.
        found: u64,
        /// Lowest possible.
        lower: u64,
        /// Highest possible.
        upper: u64,
    },
    /// A listed transaction is none that a batch can carry.
    #[error("transaction {index} is none that a batch can carry")]
    Transaction {
        /// Its place in the payload.
        index: usize,
    },
    /// The batches of its L1 block have had as many Bitcoin blocks read for epochs as they may.
    #[error(
        "the batches of one L1 block begin no epoch after {BATCH_EPOCH_READS} Bitcoin blocks were read for them"
    )]
    EpochReads,
    /// The listed transactions cost more than a block holds before any of them runs.
    #[error("the transactions cost {found} gas before they run, a block holds {limit}")]
    IntrinsicGas {
        /// The block's overhead, the gas limits of deposits and forced transactions, and the intrinsic gas
        /// of the others.
        found: u64,
        /// Gas limit of a block.
        limit: u64,
    },
}

/// Lowest and highest timestamp of a block, Unix seconds: not before its parent nor its origin's median
/// time past, at most [`Params::max_time_drift`] after the latter or one second after its parent. A block
/// without deposits, forced and user transactions is `empty` and strictly later than its parent.
pub fn time_bounds(
    params: &Params,
    cursor: &L2Cursor,
    epoch: &EpochInfo,
    empty: bool,
) -> (u64, u64) {
    let after = cursor.timestamp.saturating_add(1);
    let lower = if empty { after } else { cursor.timestamp }.max(epoch.median_time);
    let upper = epoch.median_time.saturating_add(params.max_time_drift).max(after);
    (lower, upper)
}

/// A payload with the cursor after it, or why the rules do not allow that block.
pub type NextPayload = Result<(Payload, L2Cursor), BlockFault>;

/// The block that follows `cursor`, and the cursor after it.
///
/// `epochs` holds the current origin and what is known after it, as [`super::DeriveState::epochs`]. With
/// `step` the block begins the next epoch. Without a `timestamp` the block takes the lower bound. `user`
/// transactions are EIP-2718 bytes; whether they can be executed does not matter here.
///
/// # Errors
/// Only when `earlier` fails or answers with another block. A block that the rules do not allow is a
/// [`BlockFault`].
pub fn next_payload<L: L1Lookup>(
    params: &Params,
    cursor: &L2Cursor,
    epochs: &[EpochInfo],
    earlier: &L,
    step: bool,
    timestamp: Option<u64>,
    user: Vec<Bytes>,
) -> Result<NextPayload, DeriveError<L::Error>> {
    let mut source = EpochSource::default();
    let list = BlockList { step, timestamp, user, kept: true };
    payload_after(params, cursor, epochs, earlier, &mut source, list)
}

/// What a sequencer decides of a block. See [`next_payload`].
pub(super) struct BlockList {
    pub(super) step: bool,
    pub(super) timestamp: Option<u64>,
    pub(super) user: Vec<Bytes>,
    /// Whether the caller has a use for the payload. Without, only the cursor is right.
    pub(super) kept: bool,
}

/// [`next_payload`] for a run of blocks, which share `source`.
pub(super) fn payload_after<L: L1Lookup>(
    params: &Params,
    cursor: &L2Cursor,
    epochs: &[EpochInfo],
    earlier: &L,
    source: &mut EpochSource,
    list: BlockList,
) -> Result<NextPayload, DeriveError<L::Error>> {
    let BlockList { step, timestamp, user, kept } = list;
    let epoch = match find_epoch(cursor, epochs, step) {
        Ok(epoch) => epoch,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut next = L2Cursor {
        number: cursor.number.next(),
        timestamp: cursor.timestamp,
        origin: epoch.at,
        sequence_number: if step { 0 } else { cursor.sequence_number.saturating_add(1) },
        deposits_taken: if step { 0 } else { cursor.deposits_taken },
        epoch_complete: !step && cursor.epoch_complete,
        forced: cursor.forced,
    };

    let mut transactions = Vec::new();
    if step {
        begin_epoch(params, epoch, &mut transactions);
    }
    let system = transactions.len();
    let mut deposits = 0usize;
    if !next.epoch_complete {
        source.read(params, epoch, earlier)?;
        let taken = take_deposits(params, &source.deposits, &mut next);
        deposits = taken.len();
        if kept {
            let hash = bitcoin_hash(epoch.at);
            let txs = taken.iter().map(|deposit| deposit_tx(hash, deposit, params));
            transactions.extend(txs.map(PayloadTx::System));
        }
        if next.epoch_complete {
            let forced = source.forced(params, epoch, earlier, next.forced)?;
            next.forced = forced.after;
            transactions.extend(forced.transactions.iter().cloned().map(PayloadTx::User));
        }
    }
    let ruled = transactions.len();
    transactions.extend(user.into_iter().map(PayloadTx::User));

    let empty = transactions.len() == system && deposits == 0;
    let (lower, upper) = time_bounds(params, cursor, epoch, empty);
    next.timestamp = timestamp.unwrap_or(lower);
    if next.timestamp < lower || next.timestamp > upper {
        return Ok(Err(BlockFault::Timestamp { found: next.timestamp, lower, upper }));
    }
    let left_out = if kept { 0 } else { deposits as u64 };
    let gas = params.deposit_gas.saturating_mul(left_out);
    if let Err(fault) = check_transactions(params, &transactions, ruled, gas) {
        return Ok(Err(fault));
    }
    let payload = Payload {
        number: next.number,
        timestamp: next.timestamp,
        origin: next.origin,
        sequence_number: next.sequence_number,
        transactions,
    };
    Ok(Ok((payload, next)))
}

/// The epoch that the block belongs to.
fn find_epoch<'a>(
    cursor: &L2Cursor,
    epochs: &'a [EpochInfo],
    step: bool,
) -> Result<&'a EpochInfo, BlockFault> {
    let current = epochs
        .iter()
        .position(|epoch| epoch.at == cursor.origin)
        .ok_or(BlockFault::UnknownOrigin { origin: cursor.origin })?;
    let at = if step {
        if !cursor.epoch_complete {
            return Err(BlockFault::EpochIncomplete { origin: cursor.origin });
        }
        current.saturating_add(1)
    } else {
        current
    };
    epochs.get(at).ok_or(BlockFault::NoNextOrigin { height: cursor.origin.height.next() })
}

/// Appends the attributes of a new epoch, and the vault's new script if the origin rotated it.
fn begin_epoch(params: &Params, epoch: &EpochInfo, transactions: &mut Vec<PayloadTx>) {
    let attributes = attributes_tx(
        params,
        &L1Attributes {
            number: u64::from(epoch.at.height.0),
            hash: epoch.at.hash,
            merkle_root: epoch.merkle_root,
            median_time: epoch.median_time,
            fee_rate: epoch.fee_rate,
            sequence_number: 0,
        },
    );
    transactions.push(PayloadTx::System(attributes));
    let rotated = Some(epoch.at.height.plus(params.rotation_grace));
    if epoch.vault.previous.as_ref().map(|(_, until)| *until) == rotated {
        let rotation = vault_script_tx(bitcoin_hash(epoch.at), &epoch.vault.current, params);
        transactions.push(PayloadTx::System(rotation));
    }
}

/// The block's hash as Bitcoin's type.
fn bitcoin_hash(at: L1Ref) -> BlockHash {
    BlockHash::from_byte_array(at.hash.0)
}

/// What the epoch that was asked for last takes from Bitcoin: an epoch with thousands of deposits takes
/// hundreds of blocks, which need not read all of the Bitcoin block again, and neither does a block that is
/// tried again because what a sequencer listed beside was not allowed.
#[derive(Default)]
pub(super) struct EpochSource {
    at: Option<L1Ref>,
    deposits: Vec<Deposit>,
    forced: Option<ForcedTxs>,
}

/// The forced transactions of an epoch.
struct ForcedTxs {
    before: ForcedCursor,
    transactions: Vec<Bytes>,
    after: ForcedCursor,
}

impl EpochSource {
    /// Finds the epoch's deposits.
    fn read<L: L1Lookup>(
        &mut self,
        params: &Params,
        epoch: &EpochInfo,
        earlier: &L,
    ) -> Result<(), DeriveError<L::Error>> {
        if self.at != Some(epoch.at) {
            let block = lookup(earlier, epoch.at)?;
            let scan = deposits_in(&block, &epoch.vault, params.min_deposit, epoch.at.height);
            *self = Self { at: Some(epoch.at), deposits: scan.deposits, forced: None };
        }
        Ok(())
    }

    /// What the epoch takes of the queue as it is `before`.
    fn forced<L: L1Lookup>(
        &mut self,
        params: &Params,
        epoch: &EpochInfo,
        earlier: &L,
        before: ForcedCursor,
    ) -> Result<&ForcedTxs, DeriveError<L::Error>> {
        let forced = match self.forced.take().filter(|forced| forced.before == before) {
            Some(forced) => forced,
            None => {
                let (mut after, mut transactions) = (before, Vec::new());
                take_forced(params, epoch, earlier, &mut after, &mut transactions)?;
                ForcedTxs { before, transactions, after }
            }
        };
        Ok(self.forced.insert(forced))
    }
}

/// The next deposits of the epoch, as many as one block takes.
fn take_deposits<'d>(
    params: &Params,
    deposits: &'d [Deposit],
    next: &mut L2Cursor,
) -> &'d [Deposit] {
    let room = params.deposits_gas_per_block.checked_div(params.deposit_gas).unwrap_or(1).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let done = usize::try_from(next.deposits_taken).unwrap_or(usize::MAX);
    let rest = deposits.get(done..).unwrap_or_default();
    next.epoch_complete = rest.len() <= room;
    next.deposits_taken = if next.epoch_complete {
        0
    } else {
        u32::try_from(done.saturating_add(room)).unwrap_or(u32::MAX)
    };
    rest.get(..room).unwrap_or(rest)
}

/// Appends the transactions of queued forced messages, first in first out, up to the epoch's share of
/// declared gas and of [`FORCED_BLOCKS_PER_EPOCH`] L1 blocks. A message goes in as a whole; one that is
/// none is passed over.
fn take_forced<L: L1Lookup>(
    params: &Params,
    epoch: &EpochInfo,
    earlier: &L,
    queue: &mut ForcedCursor,
    transactions: &mut Vec<Bytes>,
) -> Result<(), DeriveError<L::Error>> {
    let mut budget = params.forced_gas_per_epoch;
    let last = queue.height.plus(FORCED_BLOCKS_PER_EPOCH.saturating_sub(1)).min(epoch.at.height);
    while queue.height <= last {
        let block = if queue.height == epoch.at.height {
            lookup(earlier, epoch.at)?
        } else {
            earlier.l1_block(queue.height)?
        };
        let messages = block.txdata.iter().flat_map(|tx| {
            let mut payer = None;
            envelopes(tx).into_iter().filter(|(_, envelope)| envelope.kind == Kind::Forced).map(
                move |(input, envelope)| {
                    (*payer.get_or_insert_with(|| Payer::new(tx)), input, envelope)
                },
            )
        });
        let skip = usize::try_from(queue.skip).unwrap_or(usize::MAX);
        for (payer, input, envelope) in messages.skip(skip) {
            let height = queue.height;
            let message = forced_message(params, &payer, input, &envelope, &epoch.vault, height);
            if let Ok(message) = message {
                let Some(rest) = budget.checked_sub(message.gas) else { return Ok(()) };
                budget = rest;
                transactions.extend(message.transactions.into_iter().map(|tx| tx.raw));
            }
            queue.skip = queue.skip.saturating_add(1);
        }
        *queue = ForcedCursor { height: queue.height.next(), skip: 0 };
    }
    Ok(())
}

/// The forced message of an envelope in input number `input` of the reveal that pays for it.
///
/// Its price is due to the vault as it is when the message's turn comes, so a message that waits through a
/// rotation is still paid for.
pub(super) fn forced_message(
    params: &Params,
    payer: &Payer<'_>,
    input: u32,
    envelope: &Envelope,
    vault: &VaultScripts,
    height: L1Height,
) -> Result<Forced, Ignored> {
    if !envelope.fits(params) {
        return Err(Ignored::NotOurs);
    }
    let message = Forced::decode(&envelope.body, params).map_err(Ignored::Forced)?;
    message.check_price(payer, input, vault, height, params).map_err(Ignored::Forced)?;
    // Declared gas is what is paid for, so it has to cover what a transaction costs in any case.
    let covers = |tx: &ForcedTx| intrinsic_gas(&tx.raw) <= tx.gas;
    if message.transactions.iter().all(covers) { Ok(message) } else { Err(Ignored::ForcedGas) }
}

/// Checks that a block can hold what it lists before any of it runs. The first `ruled` transactions are
/// those that the rules put there: they count with all the gas that they may use, so that nothing that a
/// sequencer lists beside them takes their room. `left_out` is the gas of deposits that are not listed.
fn check_transactions(
    params: &Params,
    transactions: &[PayloadTx],
    ruled: usize,
    left_out: u64,
) -> Result<(), BlockFault> {
    let limit = params.block_gas_limit;
    let mut found = params.block_overhead_gas.saturating_add(left_out);
    for (index, tx) in transactions.iter().enumerate() {
        let gas = match tx {
            PayloadTx::System(deposit) => deposit.gas_limit,
            PayloadTx::User(raw) => match decode_tx(raw) {
                Some(tx) if index < ruled => tx.gas_limit(),
                Some(_) => intrinsic_gas(raw),
                None => return Err(BlockFault::Transaction { index }),
            },
        };
        found = found.saturating_add(gas);
    }
    if found > limit { Err(BlockFault::IntrinsicGas { found, limit }) } else { Ok(()) }
}
