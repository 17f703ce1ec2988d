//! Unsafe blocks that the sequencer signed and another node sent.

use super::execute::{run, unwind};
use super::{Engine, EngineError, EngineEvent, Live};
use crate::stream::VerifiedBlock;
use alloy_primitives::B256;
use kedge_bridge::derive::{BlockFault, next_payload};
use kedge_genesis::{L1Ref, L2Number};
use kedge_store::{Change, L1Rows, L2Rows, StoreError, Table};
use kedge_vm::{ExecutedBlock, Known, Senders};
use parking_lot::MutexGuard;
use std::sync::Arc;

/// Most blocks of one write, unless it takes more to replace what is there.
const PORTION_BLOCKS: usize = 8;

/// What became of a run of signed blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// How many were added to the chain.
    pub added: usize,
    /// Why the others were not, if there are any.
    pub rest: Option<NotAdopted>,
}

/// Why signed blocks are not part of the chain, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    /// They are in the chain already.
    Known,
    /// The blocks before them are missing.
    Gap,
    /// They continue another block than the one that the chain has of that number: the blocks before them
    /// show from where on the sequencer went another way.
    Fork,
    /// The sequencer signed other blocks too of which the chain has at least as many.
    Conflict,
    /// Bitcoin says otherwise.
    Contradicted,
    /// Their L1 origin is not in this node's Bitcoin chain, or not yet.
    WaitsForOrigin(L1Ref),
    /// The rules allow no such block, or it does not come to what the sequencer signed.
    Invalid(InvalidBlock),
}

/// Why a block is none although the sequencer signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBlock {
    /// They do not follow each other.
    #[error("block {0} does not follow the one before it")]
    Order(L2Number),
    /// It belongs to another L1 origin than it says.
    #[error("block {0} names another L1 origin than its epoch's")]
    Origin(L2Number),
    /// The rules do not allow it.
    #[error("block {0}: {1}")]
    Rule(L2Number, BlockFault),
    /// It executes to something else.
    #[error("block {number} comes to {found} when it is executed, not to {expected}")]
    Execution {
        /// Its number.
        number: L2Number,
        /// The hash that is signed.
        expected: B256,
        /// The hash that it has.
        found: B256,
    },
}

impl Engine {
    /// Adds a run of signed blocks, each the parent of the next, as unsafe blocks.
    ///
    /// A long run takes several writes, of 8 blocks or about one block's gas limit each, and between two of them
    /// Bitcoin's blocks have their turn. Each write is atomic and leaves a chain that the rules of this call allow,
    /// whatever becomes of the rest: every prefix of a run is one, and what replaces unsafe blocks is one write with as
    /// many blocks as make it longer than what it replaces. What another call did in between is looked at anew.
    ///
    /// Blocks of the run that the chain has are passed over. Where the run leaves the chain above the safe
    /// head, it replaces the unsafe blocks from there on if it is longer: the sequencer went another way, as
    /// after a reorganisation of Bitcoin, and among chains that it signed the longest is its latest word.
    /// What is derived from Bitcoin is never replaced. What does not hold ends the run; the blocks before it
    /// are added, unless they would replace more than they are.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn adopt(&self, blocks: &[VerifiedBlock]) -> Result<Adoption, EngineError> {
        let (mut added, mut left) = (0, blocks);
        loop {
            let (passed, portion) = self.adopt_portion(left)?;
            added += portion.added;
            left = left.get(passed..).unwrap_or_default();
            if left.is_empty() || portion.rest.is_some() {
                return Ok(Adoption { added, rest: portion.rest });
            }
        }
    }

    /// Adds as many blocks of the run as one write takes. Says how many were passed, the known ones included.
    fn adopt_portion(&self, blocks: &[VerifiedBlock]) -> Result<(usize, Adoption), EngineError> {
        let mut live = self.live.lock();
        let heads = self.heads();
        let nothing = |rest| Ok((0, Adoption { added: 0, rest: Some(rest) }));
        let mut known = 0;
        for block in blocks {
            if self.store.hash(block.number())? != Some(block.block().hash) {
                break;
            }
            known += 1;
        }
        let Some((first, new)) = blocks.get(known..).and_then(|new| Some((new.first()?, new)))
        else {
            return nothing(NotAdopted::Known);
        };
        let number = first.number();
        if number <= heads.safe.number {
            return nothing(NotAdopted::Contradicted);
        }
        let Some(parent) = number.prev().filter(|parent| *parent <= heads.latest.number) else {
            return nothing(NotAdopted::Gap);
        };
        if self.store.hash(parent)? != Some(first.block().parent_hash) {
            let contradicted = parent <= heads.safe.number;
            return nothing(if contradicted { NotAdopted::Contradicted } else { NotAdopted::Fork });
        }

        if new.len() as u64 <= heads.latest.number.0.saturating_sub(parent.0) {
            // Too few to take the place of what is there: nothing is taken back or executed for them.
            for block in new {
                let origin = block.origin();
                if self.store.l1_height(origin.hash)? != Some(origin.height) {
                    return nothing(NotAdopted::WaitsForOrigin(origin));
                }
            }
            return nothing(NotAdopted::Conflict);
        }

        let mut change = self.store.change();
        let mut removed = Vec::new();
        while change.latest()?.is_some_and(|latest| latest > parent) {
            removed.push(Arc::new(unwind(&mut change, self.options.journal_removed)?));
        }
        let mut added = Vec::new();
        let mut gas: u64 = 0;
        let mut rest = None;
        for block in new {
            let full = added.len() >= PORTION_BLOCKS || gas >= self.params.block_gas_limit;
            if full && added.len() > removed.len() {
                break;
            }
            match self.extend(&mut change, &mut live, block)? {
                Ok(block) => {
                    gas = gas.saturating_add(block.header.gas_used);
                    added.push(Arc::new(block));
                }
                Err(reason) => {
                    rest = Some(reason);
                    break;
                }
            }
        }
        if added.len() <= removed.len() {
            return nothing(rest.unwrap_or(NotAdopted::Conflict));
        }
        if !removed.is_empty() {
            tracing::info!(
                from = number.0,
                removed = removed.len(),
                added = added.len(),
                "the sequencer replaced unsafe blocks"
            );
        }
        let count = added.len();
        let removed = removed.into_iter().map(EngineEvent::Removed);
        let events = removed.chain(added.into_iter().map(EngineEvent::NewBlock)).collect();
        self.commit(&mut live, change, events)?;
        // To whoever waits for it, before the next portion.
        MutexGuard::unlock_fair(live);
        Ok((known + count, Adoption { added: count, rest }))
    }

    /// Adds one block to a pending change, or says why not and leaves the change as it was.
    fn extend(
        &self,
        change: &mut Change<'_>,
        live: &mut Live,
        verified: &VerifiedBlock,
    ) -> Result<Result<ExecutedBlock, NotAdopted>, EngineError> {
        let (block, number) = (verified.block(), verified.number());
        let invalid = |reason| Ok(Err(NotAdopted::Invalid(reason)));
        let missing = || StoreError::Missing { table: Table::L2Meta.name(), key: "latest".into() };
        let latest = change.latest()?.ok_or_else(missing)?;
        let info = change.block_info(latest)?.ok_or_else(missing)?;
        if number != latest.next() || change.hash(latest)? != Some(block.parent_hash) {
            return invalid(InvalidBlock::Order(number));
        }
        let planned = next_payload(
            self.params,
            &info.cursor,
            &live.derive.epochs,
            &*self.store,
            block.epoch_start,
            Some(block.timestamp),
            block.transactions.clone(),
        )
        .map_err(EngineError::Derive)?;
        let (payload, cursor) = match planned {
            Ok(planned) => planned,
            Err(BlockFault::NoNextOrigin { .. } | BlockFault::UnknownOrigin { .. }) => {
                return Ok(Err(NotAdopted::WaitsForOrigin(verified.origin())));
            }
            Err(fault) => return invalid(InvalidBlock::Rule(number, fault)),
        };
        if payload.origin != verified.origin() {
            // Of the same height, it is one of another Bitcoin chain: one of the two nodes will see that.
            return if payload.origin.height == verified.origin().height {
                Ok(Err(NotAdopted::WaitsForOrigin(verified.origin())))
            } else {
                invalid(InvalidBlock::Origin(number))
            };
        }
        let known = Known { senders: &Senders::default(), tries: &mut live.tries };
        let executed = run(change, &self.evm, &payload, known, self.options.verify_witness)?;
        if executed.hash != block.hash {
            let (expected, found) = (block.hash, executed.hash);
            return invalid(InvalidBlock::Execution { number, expected, found });
        }
        change.append_block(&payload, &executed, &cursor)?;
        change.put_signature(number, &verified.signature())?;
        Ok(Ok(executed))
    }
}
