//! Proving an assertion wrong from what the store holds.

use super::{Engine, EngineError};
use alloy_primitives::B256;
use kedge_fraud_proof::{
    AssertionNode, AssertionTracker, AssertionView, Claim, PreState, Proof, build_proof,
    first_divergence, genesis_claim,
};
use kedge_genesis::{L1Height, L2Number};
use kedge_store::{L1Rows, L2Rows, Reader, StoreError, Table};

/// Why there is no proof to build against an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// No such assertion counts.
    #[error("no assertion {id} counts as of Bitcoin block {tip}")]
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
    /// The claims that it makes, all of them.
    asserted: Vec<B256>,
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
        let tracker = reader.tracker()?;
        let Some(node) = tracker.get(&assertion) else { return Ok(None) };
        Ok(self.compare(&reader, node)?.and_then(|compared| compared.first_wrong))
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
        let tracker = reader.tracker()?;
        let Some(node) = tracker.get(&assertion) else {
            return Ok(Err(NoProof::Unknown { id: assertion, tip: tracker.l1_height() }));
        };
        let falls_with_parent =
            || NoProof::Parent { id: assertion, wrong: first_wrong(&tracker, node.parent) };
        let Some(Compared { asserted, base, own, first_wrong }) = self.compare(&reader, node)?
        else {
            return Ok(Err(falls_with_parent()));
        };
        let segment = match (segment, first_wrong) {
            (None, None) if node.agrees => return Ok(Err(NoProof::Right { id: assertion })),
            // Its claims are right all the same.
            (None, None) => return Ok(Err(falls_with_parent())),
            (None, Some(first)) => first,
            (Some(segment), Some(first)) if segment > first => {
                return Ok(Err(NoProof::Later { segment, first }));
            }
            (Some(segment), _) if segment as usize > asserted.len() => {
                return Ok(Err(NoProof::Segment { segment, count: asserted.len() }));
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
        let view = AssertionView { claims: &asserted, ..node.view() };
        let proof = build_proof(self.params, &*self.store, &view, segment, &pre, source);
        Ok(Ok(proof.map_err(EngineError::Proof)?))
    }

    /// What an assertion says and what this node derived. None when they begin at different claims.
    fn compare(
        &self,
        reader: &Reader<'_>,
        node: &AssertionNode,
    ) -> Result<Option<Compared>, EngineError> {
        let claims_of = |height: L1Height| {
            let missing = || missing(Table::Claims, height.to_string());
            reader.claims(height)?.ok_or_else(missing)
        };
        let base = if node.from == self.params.l1_start.height {
            genesis_claim(self.params)
        } else {
            claims_of(node.from)?.last().copied()
        };
        let Some(base) = base.filter(|claim| claim.hash() == node.base) else { return Ok(None) };
        // The tracker forgets the claims of what is decided.
        let row = reader.assertion(node.id)?;
        let asserted = row.ok_or_else(|| missing(Table::Assertions, node.id.to_string()))?.claims;
        let mut own: Vec<Claim> = Vec::new();
        let mut height = node.from.next();
        while height <= node.l1.height {
            own.extend(claims_of(height)?);
            height = height.next();
        }
        let hashes: Vec<B256> = own.iter().map(Claim::hash).collect();
        let first_wrong = first_divergence(&hashes, &asserted);
        Ok(Some(Compared { asserted, base, own, first_wrong }))
    }
}

fn missing(table: Table, key: String) -> StoreError {
    StoreError::Missing { table: table.name(), key }
}

/// The first wrong one of an assertion that is not right and those that it continues.
fn first_wrong(tracker: &AssertionTracker, mut id: B256) -> B256 {
    while let Some(parent) = tracker.get(&id).and_then(|node| tracker.get(&node.parent)) {
        if parent.agrees {
            break;
        }
        id = parent.id;
    }
    id
}
