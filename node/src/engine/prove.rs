//! Proving an assertion wrong from what the store holds.

use super::{Engine, EngineError};
use alloy_primitives::B256;
use kedge_fraud_proof::{
    AssertionView, Claim, PreState, Proof, build_proof, first_divergence, genesis_claim,
};
use kedge_genesis::L2Number;
use kedge_store::{L1Rows, L2Rows, StoreError, Table};

impl Engine {
    /// The proof that an assertion is wrong, checked by nobody yet. None when no such assertion counts,
    /// when it is right, and when what it continues is wrong already.
    ///
    /// Executes one segment on the tries as they were before it, from one snapshot: the engine goes on.
    ///
    /// # Errors
    /// When this machine failed.
    pub fn build_proof(&self, assertion: B256) -> Result<Option<Proof>, EngineError> {
        let reader = self.store.reader();
        let tracker = reader.tracker()?;
        let Some(node) = tracker.get(&assertion).filter(|node| !node.agrees) else {
            return Ok(None);
        };
        let missing = |table: Table, key: String| StoreError::Missing { table: table.name(), key };
        let claims_of = |height: kedge_genesis::L1Height| {
            let missing = || missing(Table::Claims, height.to_string());
            reader.claims(height)?.ok_or_else(missing)
        };
        let base = if node.from == self.params.l1_start.height {
            genesis_claim(self.params)
        } else {
            claims_of(node.from)?.last().copied()
        };
        let Some(base) = base.filter(|claim| claim.hash() == node.base) else { return Ok(None) };
        let mut own: Vec<Claim> = Vec::new();
        let mut height = node.from.next();
        while height <= node.l1.height {
            own.extend(claims_of(height)?);
            height = height.next();
        }
        let hashes: Vec<B256> = own.iter().map(Claim::hash).collect();
        // The tracker forgets the claims of what is decided.
        let row = reader.assertion(assertion)?;
        let claims = row.ok_or_else(|| missing(Table::Assertions, assertion.to_string()))?.claims;
        let view = AssertionView { claims: &claims, ..node.view() };
        let Some(segment) = first_divergence(&hashes, &claims) else { return Ok(None) };
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
        let proof = build_proof(self.params, &*self.store, &view, segment, &pre, source);
        Ok(Some(proof.map_err(EngineError::Proof)?))
    }
}
