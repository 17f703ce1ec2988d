//! Segments: where they end, and executing one by itself.
//!
//! The step and the verifier of fraud proofs share this, so their boundaries cannot differ.

use crate::Claim;
use crate::step::{Applied, Executor};
use alloc::vec::Vec;
use alloy_primitives::B256;
use kedge_bridge::derive::{
    BatchOutcome, BatchSeen, DeriveError, DeriveState, Derived, L1Block, L1Lookup, L2Cursor,
    derive_part,
};
use kedge_genesis::{L2Number, Params};
use kedge_vm::{
    EvmConfig, ExecuteError, ExecutedBlock, Header, Payload, StateSource, TrieDb, TrieDbError,
    output_root,
};

/// The segment under way.
#[derive(Debug)]
pub(crate) struct Segmenter {
    gas_target: u64,
    witness_target: u64,
    /// The last payload of each batch.
    batch_ends: Vec<L2Number>,
    /// The last payload of the L1 block, after which the segment ends in any case.
    last: L2Number,
    gas: u64,
    witness: u64,
}

impl Segmenter {
    /// At the start of a segment in an L1 block with these batches.
    pub(crate) fn new(params: &Params, batches: &[BatchSeen], last: L2Number) -> Self {
        let batch_ends = batches
            .iter()
            .filter_map(|batch| match batch.outcome {
                BatchOutcome::Accepted { last, .. } => Some(last),
                BatchOutcome::Dropped(_) => None,
            })
            .collect();
        Self {
            gas_target: params.segment_target_gas,
            witness_target: params.segment_witness_target(),
            batch_ends,
            last,
            gas: 0,
            witness: 0,
        }
    }

    /// Adds a payload and says whether the segment ends with it and not only with the L1 block.
    pub(crate) fn ends(&mut self, applied: &Applied) -> bool {
        self.gas = self.gas.saturating_add(applied.metered_gas);
        self.witness = self.witness.saturating_add(applied.witness_bytes);
        let full = self.gas >= self.gas_target || self.witness >= self.witness_target;
        let ends =
            applied.number != self.last && (full || self.batch_ends.contains(&applied.number));
        if ends {
            (self.gas, self.witness) = (0, 0);
        }
        ends
    }
}

/// Why a segment could not be executed by itself.
pub(crate) enum SegmentError<L, E> {
    Derive(DeriveError<L>),
    /// The claim is at no boundary of this L1 block's payloads.
    Position,
    Execute(E),
}

/// Executes the segment that begins at `pre` in the L1 block `l1`, which follows `state`, and gives the
/// claim at its end. `executor` stands at the block that `pre` names.
pub(crate) fn run_segment<L: L1Lookup, E: Executor>(
    params: &Params,
    pre: &Claim,
    state: &DeriveState,
    l1: &L1Block,
    earlier: &L,
    executor: &mut E,
) -> Result<Claim, SegmentError<L::Error, E::Error>> {
    let skip = usize::try_from(pre.offset).map_err(|_| SegmentError::Position)?;
    // No segment is longer, and all payloads of an L1 block can be a hundred times as many.
    let most = usize::try_from(params.max_segment_blocks()).unwrap_or(usize::MAX);
    let part = skip..skip.saturating_add(most);
    let Derived { post, payloads, cursors, batches, .. } =
        derive_part(params, state, l1, earlier, part).map_err(SegmentError::Derive)?;
    let number = match skip.checked_sub(1) {
        None => state.cursor.number,
        Some(before) if skip < cursors.len() => {
            cursors.get(before).map(|cursor| cursor.number).ok_or(SegmentError::Position)?
        }
        Some(_) => return Err(SegmentError::Position),
    };
    if number != pre.number {
        return Err(SegmentError::Position);
    }
    let mut segmenter = Segmenter::new(params, &batches, post.cursor.number);
    let mut output_root = pre.output_root;
    let first = pre.offset.saturating_add(1);
    for (offset, (payload, cursor)) in (first..).zip(payloads.iter().zip(cursors.iter().skip(skip)))
    {
        let applied = executor.apply(payload, cursor).map_err(SegmentError::Execute)?;
        output_root = applied.output_root;
        if segmenter.ends(&applied) {
            return Ok(Claim { offset, number: applied.number, output_root, ..*pre });
        }
    }
    Ok(Claim {
        l1_height: post.l1.height,
        offset: 0,
        derive_state: post.hash(),
        number: post.cursor.number,
        output_root,
    })
}

/// Is shown every block that is executed, with the payload that it comes from.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(&Payload, &ExecutedBlock);

/// Executes on tries alone: on a witness, or on a source that is recorded.
pub(crate) struct TrieExecutor<'a, S> {
    config: EvmConfig,
    db: TrieDb<S>,
    watch: Watch<'a>,
}

impl<'a, S: StateSource> TrieExecutor<'a, S> {
    /// At the state after the block with that header.
    pub(crate) fn new(params: &Params, source: S, head: Header, watch: Watch<'a>) -> Self {
        Self { config: EvmConfig::from_params(params), db: TrieDb::new(source, head), watch }
    }

    pub(crate) fn into_source(self) -> S {
        self.db.into_source()
    }
}

impl<S: StateSource> Executor for TrieExecutor<'_, S> {
    type Error = ExecuteError<TrieDbError<S::Error>>;

    fn apply(&mut self, payload: &Payload, _: &L2Cursor) -> Result<Applied, Self::Error> {
        let block = self.db.execute(&self.config, payload)?;
        (self.watch)(payload, &block);
        Ok(Applied {
            number: payload.number,
            output_root: block.output_root,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
        })
    }
}

/// The output root of the block with that header, none for a header of another kind of chain.
pub(crate) fn output_root_of(header: &Header) -> Option<B256> {
    Some(output_root(header.state_root, header.withdrawals_root?, header.hash_slow()))
}
