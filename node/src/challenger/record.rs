//! What a challenger must not forget: one record for each assertion that it has seen.

use super::event::ChallengerEvent;
use crate::l1::{RecordTable, Records, records::RecordWrite};
use crate::publisher::PublicationStatus;
use alloy_primitives::B256;
use anyhow::Context;
use bitcoin::{OutPoint, Txid};
use kedge_fraud_proof::AssertionNode;
use kedge_genesis::L1Height;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys of the records, in the table of the roles.
const PREFIX: &[u8] = b"challenge/";

/// What is known of one assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whether it equals this node's own derivation.
    pub(super) agrees: bool,
    /// Its bond.
    pub(super) bond: OutPoint,
    /// What the bond holds, sat.
    pub(super) bond_value: u64,
    /// Height of its reveal, when seen last.
    pub(super) confirmed_at: u32,
    /// The last L1 block in which a proof counts, when seen last.
    pub(super) deadline: u32,
    /// Number of the current publication against it, from 1; 0 before the first.
    pub(super) attempt: u32,
    /// What was told of it.
    pub(super) told: Told,
    /// The bond after its slashing.
    pub(super) reward: Option<Reward>,
}

/// How far events have told the story of an assertion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// That a dry run would publish.
    pub(super) would_publish: bool,
    /// The current publication's progress.
    pub(super) progress: Progress,
    /// By which proof it was rejected: challenger and reveal; or that it fell with its parent.
    pub(super) rejected: Option<Verdict>,
}

/// How an assertion was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// By the proof of this challenger, x-only public key.
    Proof(B256),
    /// With what it continued.
    Parent,
}

/// How far a publication is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The confirmed commit.
    pub(super) committed: Option<(Txid, u32)>,
    /// Whether reveals were signed.
    pub(super) revealed: bool,
    /// Replacements of commit and reveals signed.
    pub(super) raises: usize,
    /// The last reveal's block.
    pub(super) confirmed: Option<u32>,
}

/// Where the bond of an assertion went that this challenger proved wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reward {
    /// To this challenger.
    Paid(Paid),
    /// To somebody else, with this transaction.
    Lost(Txid),
}

/// A bond that was paid to this challenger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Paid {
    /// Where it is.
    pub(super) outpoint: OutPoint,
    /// How much, sat.
    pub(super) value: u64,
    /// What takes it into the wallet, by rising rate.
    pub(super) takings: Vec<Taking>,
    /// Height at which one of them was confirmed.
    pub(super) taken: Option<u32>,
}

/// A transaction that takes a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taking {
    pub(super) txid: Txid,
    /// Height of the tip when it was signed.
    pub(super) at: u32,
    /// Sat per 1,000 weight units.
    pub(super) rate: u64,
}

/// All records by the assertion's id.
pub(super) type Book = BTreeMap<B256, Record>;

impl Record {
    /// The first record of an assertion.
    pub(super) fn new(node: &AssertionNode) -> Self {
        Self {
            agrees: node.agrees,
            bond: node.bond,
            bond_value: node.bond_value.0,
            confirmed_at: node.confirmed_at.0,
            deadline: node.deadline.0,
            attempt: 0,
            told: Told::default(),
            reward: None,
        }
    }

    /// Notes where a reorg moved it to.
    pub(super) const fn place(&mut self, node: &AssertionNode) {
        self.agrees = node.agrees;
        self.confirmed_at = node.confirmed_at.0;
        self.deadline = node.deadline.0;
    }

    /// Whether the bond is paid out and that is final.
    pub(super) fn is_rewarded(&self, tip: L1Height, final_depth: u32) -> bool {
        match &self.reward {
            Some(Reward::Paid(Paid { taken: Some(height), .. })) => {
                L1Height(*height).plus(final_depth) <= tip.next()
            }
            Some(Reward::Paid(_)) | None => false,
            Some(Reward::Lost(_)) => true,
        }
    }

    /// Whether this challenger's proof rejected it.
    pub(super) fn is_won(&self, own: B256) -> bool {
        self.told.rejected == Some(Verdict::Proof(own))
    }
}

/// The name of a publication against an assertion.
pub(super) fn reference(assertion: B256, attempt: u32) -> String {
    format!("{assertion}/{attempt}")
}

/// Takes note of where a publication is, and says what is new about it.
pub(super) fn tell_progress(
    assertion: B256,
    told: &mut Progress,
    now: &PublicationStatus,
) -> Vec<ChallengerEvent> {
    let mut events = Vec::new();
    let committed = now.commit.zip(now.committed.map(|height| height.0));
    // A final publication has forgotten its transactions; all of it is told by then.
    if now.is_final {
        return events;
    }
    if let Some((txid, height)) = committed.filter(|at| told.committed != Some(*at)) {
        events.push(ChallengerEvent::CommitConfirmed { assertion, txid, height });
    }
    let txids: Option<Vec<Txid>> = now.reveals.iter().map(|reveal| reveal.txid).collect();
    let revealed = txids.is_some();
    if let Some(txids) = txids.filter(|_| !told.revealed) {
        let committed = committed.is_some();
        events.push(ChallengerEvent::Revealed { assertion, txids, committed });
    }
    // The first version of each is no replacement.
    let reveals = now.reveals.iter().map(|reveal| reveal.versions.saturating_sub(1));
    let raises = reveals.sum::<usize>() + now.commits.saturating_sub(1);
    if raises > told.raises {
        let fees = now.reveals.iter().filter_map(|reveal| reveal.fee);
        let fee = fees.chain(now.commit_fee).map(bitcoin::Amount::to_sat).sum();
        events.push(ChallengerEvent::Raised { assertion, raises, fee });
    }
    let confirmed = now.confirmed().map(|height| height.0);
    if let Some(height) = confirmed.filter(|_| told.confirmed != confirmed) {
        events.push(ChallengerEvent::Confirmed { assertion, height });
    }
    *told = Progress { committed, revealed, raises: raises.max(told.raises), confirmed };
    events
}

/// Reads all records.
pub(super) fn load(records: &dyn Records) -> anyhow::Result<Book> {
    let rows = records.load(RecordTable::Roles, PREFIX)?;
    rows.into_iter()
        .map(|(key, value)| {
            let id = key.get(PREFIX.len()..).and_then(|id| B256::try_from(id).ok());
            let id = id.context("a challenger's record has a damaged key")?;
            let record = serde_json::from_slice(&value)
                .with_context(|| format!("the challenger's record of assertion {id} is damaged"))?;
            Ok((id, record))
        })
        .collect()
}

/// What stores a record, or forgets it.
pub(super) fn write(id: B256, record: Option<&Record>) -> RecordWrite {
    let value =
        record.map(|record| serde_json::to_vec(record).expect("a record has string keys only"));
    (RecordTable::Roles, [PREFIX, id.as_slice()].concat(), value)
}
