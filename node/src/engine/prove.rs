//! Proving an assertion wrong from what the store holds.

use super::{Engine, EngineError};
use alloy_primitives::B256;
use kedge_fraud_proof::{
    AssertionView, Claim, PreState, Proof, build_proof, first_divergence, genesis_claim,
};
use kedge_genesis::{L1Height, L2Number};
use kedge_store::{AssertionRow, L1Rows, L2Rows, Reader, StoreError, Table};

/// Why there is no proof to build against an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// No such assertion counts.
    #[error("there is no assertion {id} that counts as of Bitcoin block {tip}")]
    Unknown {
        /// The id asked for.
        id: B256,
        /// The last Bitcoin block that this node has processed.
        tip: L1Height,
    },
    /// It is right.
    #[error("assertion {id} is right: all of its claims are this node's own")]
    Right {
        /// Its id.
        id: B256,
    },
    /// What it continues is wrong, so its own claims cannot be judged from a true one.
    #[error("assertion {id} continues a wrong one; prove {wrong} wrong, and it falls too")]
    Parent {
        /// Its id.
        id: B256,
        /// The first wrong assertion among those that it continues.
        wrong: B256,
    },
    /// The claim before the segment is wrong already.
    #[error("segment {segment} begins at a wrong claim; the first wrong segment is {first}")]
    Later {
        /// The segment asked for.
        segment: u32,
        /// The first wrong segment.
        first: u32,
    },
    /// The assertion ends before that segment.
    #[error("there is no segment {segment}: the assertion has {count}, from 0 on")]
    Segment {
        /// The segment asked for.
        segment: u32,
        /// How many there are.
        count: usize,
    },
}

/// An assertion beside this node's own derivation.
struct Compared {
    /// The claim that both begin at.
    base: Claim,
    /// This node's own claims from there on.
    own: Vec<Claim>,
    /// The first wrong segment.
    first_wrong: Option<u32>,
}

impl Engine {
    /// The first wrong segment of an assertion. None when no such assertion counts, when its own segments
    /// are right, and when what it continues is wrong already.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn first_wrong_segment(&self, assertion: B256) -> Result<Option<u32>, EngineError> {
        let reader = self.store.reader();
        let Some(row) = reader.assertion(assertion)? else { return Ok(None) };
        Ok(self.compare(&reader, &row)?.and_then(|compared| compared.first_wrong))
    }

    /// The proof that an assertion is wrong, checked by nobody yet. None when no such assertion counts,
    /// when it is right, and when what it continues is wrong already.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn build_proof(&self, assertion: B256) -> Result<Option<Proof>, EngineError> {
        Ok(self.prove(assertion, None)?.ok())
    }

    /// The proof about a segment of an assertion, by default about the first that is wrong, checked by
    /// nobody yet; or why there is none. About a segment that is right it comes to no fraud.
    ///
    /// Executes one segment on the tries as they were before it, from one snapshot: the engine goes on.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn prove(
        &self,
        assertion: B256,
        segment: Option<u32>,
    ) -> Result<Result<Proof, NoProof>, EngineError> {
        let reader = self.store.reader();
        // Not from the tracker, which forgets what is decided.
        let Some(row) = reader.assertion(assertion)? else {
            let tip = reader.l1_tip()?.unwrap_or_default().height;
            return Ok(Err(NoProof::Unknown { id: assertion, tip }));
        };
        let Some(Compared { base, own, first_wrong }) = self.compare(&reader, &row)? else {
            return Ok(Err(falls_with_parent(&reader, &row)?));
        };
        let segment = match (segment, first_wrong) {
            (None, None) if row.agrees => return Ok(Err(NoProof::Right { id: assertion })),
            // Its claims are right all the same.
            (None, None) => return Ok(Err(falls_with_parent(&reader, &row)?)),
            (None, Some(first)) => first,
            (Some(segment), Some(first)) if segment > first => {
                return Ok(Err(NoProof::Later { segment, first }));
            }
            (Some(segment), _) if segment as usize > row.claims.len() => {
                return Ok(Err(NoProof::Segment { segment, count: row.claims.len() }));
            }
            (Some(segment), _) => segment,
        };
        let before = (segment as usize).checked_sub(1).and_then(|before| own.get(before));
        let claim = before.copied().unwrap_or(base);
        let number: L2Number = claim.number;
        let state = reader.derive_state(claim.l1_height)?;
        let pre = PreState {
            claim,
            state: state
                .ok_or_else(|| missing(Table::DeriveStates, claim.l1_height.to_string()))?,
            header: reader
                .header(number)?
                .ok_or_else(|| missing(Table::Headers, number.to_string()))?,
        };
        let source = reader.state_at(number)?;
        let base = base.hash();
        let view = AssertionView { id: assertion, base, l1: row.l1, claims: &row.claims };
        let proof = build_proof(self.params, &*self.store, &view, segment, &pre, source);
        Ok(Ok(proof.map_err(EngineError::Proof)?))
    }

    /// What an assertion says and what this node derived. None when they begin at different claims.
    fn compare(
        &self,
        reader: &Reader<'_>,
        row: &AssertionRow,
    ) -> Result<Option<Compared>, EngineError> {
        let claims_of = |height: L1Height| {
            let missing = || missing(Table::Claims, height.to_string());
            reader.claims(height)?.ok_or_else(missing)
        };
        let (base, from) = match reader.assertion(row.parent)? {
            None => (genesis_claim(self.params), self.params.l1_start.height),
            Some(parent) => {
                let own = claims_of(parent.l1.height)?.last().copied();
                let asserted = parent.claims.last();
                let same = own.filter(|claim| Some(&claim.hash()) == asserted);
                (same, parent.l1.height)
            }
        };
        let Some(base) = base else { return Ok(None) };
        let mut own: Vec<Claim> = Vec::new();
        let mut height = from.next();
        while height <= row.l1.height {
            own.extend(claims_of(height)?);
            height = height.next();
        }
        let hashes: Vec<B256> = own.iter().map(Claim::hash).collect();
        let first_wrong = first_divergence(&hashes, &row.claims);
        Ok(Some(Compared { base, own, first_wrong }))
    }
}

fn missing(table: Table, key: String) -> StoreError {
    StoreError::Missing { table: table.name(), key }
}

/// That an assertion which is not right falls with the first wrong one of those that it continues.
fn falls_with_parent(reader: &Reader<'_>, row: &AssertionRow) -> Result<NoProof, StoreError> {
    let mut wrong = row.parent;
    while let Some(row) = reader.assertion(wrong)? {
        match reader.assertion(row.parent)? {
            Some(parent) if !parent.agrees => wrong = parent.id,
            _ => break,
        }
    }
    Ok(NoProof::Parent { id: row.id, wrong })
}
