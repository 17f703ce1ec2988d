//! What a Bitcoin block does to the bonds of assertions, and which are to be slashed.

use super::{Engine, EngineError};
use alloy_primitives::B256;
use bitcoin::{OutPoint, Transaction, XOnlyPublicKey};
use kedge_bridge::assertion::{assertion_id, bond_of};
use kedge_bridge::bond::{Bond, BondSpend, reward_script};
use kedge_bridge::derive::L1Block;
use kedge_bridge::envelope::{Kind, envelopes};
use kedge_fraud_proof::{AssertionEvent, AssertionNode, AssertionStatus};
use kedge_genesis::{L1Height, Params, Sats};
use kedge_store::{
    BondEnd, BondRow, BondRows, BondSpendRow, Change, L1Rows, NoteRow, StoreError, Table,
};

/// Label of the note that the signers took a bond that belongs to nobody but its proposer.
pub(super) const SEIZED: &str = "bond_seized";

/// An unspent bond that belongs to a challenger: a fraud proof rejected its assertion, and nothing can
/// change that any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slashable {
    /// The assertion.
    pub assertion: B256,
    /// Its bond.
    pub bond: OutPoint,
    /// What the bond holds.
    pub value: Sats,
    /// To whom the bond would return.
    pub proposer: XOnlyPublicKey,
    /// Publisher of the proof: whom the bond is to pay.
    pub challenger: XOnlyPublicKey,
    /// The tip's height from which on the proposer can take it.
    pub returnable: L1Height,
}

impl Engine {
    /// The bonds to slash now, in the order of their assertions: those of assertions that a proof rejected
    /// whose deadline passed finality-depth L1 blocks ago, and that Bitcoin has as unspent.
    ///
    /// # Errors
    /// When the store fails.
    pub fn slashable(&self) -> Result<Vec<Slashable>, EngineError> {
        let reader = self.store.reader();
        let tracker = reader.tracker()?;
        let mut due = Vec::new();
        for node in tracker.nodes() {
            let AssertionStatus::Rejected { proof: Some(proof), .. } = &node.status else {
                continue;
            };
            let is_final = node.deadline.plus(self.params.finality_depth) <= tracker.l1_height();
            if is_final && reader.bond(&node.bond)?.is_some() {
                due.push(Slashable {
                    assertion: node.id,
                    bond: node.bond,
                    value: node.bond_value,
                    proposer: key(&node.proposer, node)?,
                    challenger: key(&proof.challenger, node)?,
                    returnable: node.deadline.plus(u32::from(self.params.bond_margin)),
                });
            }
        }
        Ok(due)
    }
}

/// A key that an envelope named, which its leaf's signature check proved to be one.
fn key(bytes: &[u8; 32], node: &AssertionNode) -> Result<XOnlyPublicKey, StoreError> {
    XOnlyPublicKey::from_slice(bytes).map_err(|_| StoreError::Corrupt {
        table: Table::Assertions.name(),
        key: node.id.to_string(),
    })
}

/// Writes which bonds the block makes and which it spends. To be called after the block's assertions are
/// written.
pub(super) fn write(
    change: &mut Change<'_>,
    params: &Params,
    l1: &L1Block,
    events: &[AssertionEvent],
) -> Result<Vec<NoteRow>, EngineError> {
    let has_assertions = events.iter().any(|event| {
        matches!(event, AssertionEvent::Proposed { .. } | AssertionEvent::Ignored { .. })
    });
    let mut notes = Vec::new();
    for tx in &l1.block.txdata {
        for input in &tx.input {
            if let Some(bond) = change.bond(&input.previous_output)? {
                let end = end_of(change, params, &bond, tx, &input.witness)?;
                if end == BondEnd::Seized {
                    let text = format!(
                        "{} takes the bond {} but not for who proved its assertion wrong",
                        tx.compute_txid(),
                        bond.outpoint
                    );
                    notes.push(NoteRow { label: SEIZED.to_owned(), text });
                }
                let row = BondSpendRow { txid: tx.compute_txid(), l1: l1.at, end };
                change.put_bond_spend(&bond.outpoint, &row)?;
            }
        }
        if !has_assertions {
            continue;
        }
        for (input, envelope) in envelopes(tx) {
            if envelope.kind != Kind::Assertion {
                continue;
            }
            let Some((outpoint, amount)) = bond_of(tx, input, &envelope, params)
                .filter(|(_, amount)| *amount >= params.proposer_bond)
            else {
                continue;
            };
            let proposer = B256::new(envelope.publisher.serialize());
            change.put_bond(&BondRow { outpoint, amount, proposer, height: l1.at.height })?;
        }
    }
    Ok(notes)
}

fn end_of(
    change: &Change<'_>,
    params: &Params,
    bond: &BondRow,
    tx: &Transaction,
    witness: &bitcoin::Witness,
) -> Result<BondEnd, EngineError> {
    let scripts = XOnlyPublicKey::from_slice(bond.proposer.as_slice())
        .ok()
        .and_then(|proposer| Bond::of(params, proposer));
    if scripts.and_then(|bond| bond.spent_by(witness)) == Some(BondSpend::Return) {
        return Ok(BondEnd::Returned);
    }
    let row = change.assertion(assertion_id(&bond.outpoint))?;
    let challenger = row
        .and_then(|row| row.rejection)
        .and_then(|proof| XOnlyPublicKey::from_slice(proof.challenger.as_slice()).ok());
    let pays_challenger = challenger.is_some_and(|challenger| {
        let script = reward_script(&challenger);
        tx.output.iter().all(|output| output.script_pubkey == script)
    });
    Ok(if pays_challenger { BondEnd::Slashed } else { BondEnd::Seized })
}
