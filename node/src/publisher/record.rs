//! What the publisher keeps of each publication.

use super::Urgency;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use kedge_genesis::L1Height;
use serde::{Deserialize, Serialize};

/// Names a publication of one publisher, counting from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicationId(pub u64);

/// Envelopes on their way into Bitcoin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Publication {
    pub(super) id: PublicationId,
    /// Wire discriminant of the envelopes' kind.
    pub(super) kind: u8,
    /// The name that its owner gave it.
    #[serde(default)]
    pub(super) reference: Option<String>,
    #[serde(default)]
    pub(super) urgency: Urgency,
    /// The leaf scripts, by reveal.
    pub(super) groups: Vec<Group>,
    /// The commit transactions, the valid one last. They exclude each other where they can.
    pub(super) commits: Vec<Committed>,
    /// Where one of them was seen last.
    #[serde(default)]
    pub(super) committed: Option<(Txid, u32)>,
    /// It is given up: no more reveals, and commit outputs go back to the wallet.
    #[serde(default)]
    pub(super) abandoned: bool,
    /// What takes the commit outputs back, by rising fee.
    #[serde(default)]
    pub(super) taken_back: Vec<Revealed>,
    /// Height at which all reveals were seen at the depth that counts as final; bodies are gone then.
    pub(super) done: Option<u32>,
    /// Why it does not advance.
    pub(super) problem: Option<String>,
    /// Whether the last step had less money than it wanted.
    #[serde(skip)]
    pub(super) short: bool,
}

/// One reveal transaction in all its versions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) leaves: Vec<ScriptBuf>,
    /// The output at the index of the first input, if the envelope needs one.
    pub(super) output: Option<TxOut>,
    /// Versions of the current commit, by rising fee.
    pub(super) reveals: Vec<Revealed>,
    /// Those of other commits. A reorganisation can bring one back into the chain.
    #[serde(default)]
    pub(super) earlier: Vec<Revealed>,
    /// Where one was seen last.
    pub(super) confirmed: Option<(Txid, u32)>,
}

/// A signed commit transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Committed {
    pub(super) tx: Transaction,
    pub(super) fee: Amount,
    /// Height of the tip when it was made.
    pub(super) at: u32,
}

/// A signed reveal transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Revealed {
    pub(super) tx: Transaction,
    pub(super) fee: Amount,
    /// Sat per 1,000 weight units.
    pub(super) rate: u64,
    /// Height of the tip when it was made.
    pub(super) at: u32,
}

impl Committed {
    pub(super) fn rate(&self) -> FeeRate {
        let weight = self.tx.weight().to_wu().max(1);
        FeeRate::from_sat_per_kwu(self.fee.to_sat().saturating_mul(1000) / weight)
    }
}

impl Revealed {
    pub(super) const fn rate(&self) -> FeeRate {
        FeeRate::from_sat_per_kwu(self.rate)
    }
}

impl Publication {
    pub(super) fn commit(&self) -> Option<&Committed> {
        self.commits.last()
    }

    /// Drops the bodies.
    pub(super) fn finish(&mut self) {
        self.commits.clear();
        self.taken_back.clear();
        for group in &mut self.groups {
            group.leaves.clear();
            group.reveals.clear();
            group.earlier.clear();
        }
    }

    /// Makes a commit the current one: its reveals count, those of others are put aside.
    pub(super) fn choose(&mut self, commit: Committed) {
        let txid = commit.tx.compute_txid();
        self.commits.retain(|other| other.tx.compute_txid() != txid);
        self.commits.push(commit);
        for group in &mut self.groups {
            group.earlier.append(&mut group.reveals);
            let spends = |reveal: &Revealed| {
                reveal.tx.input.iter().any(|input| input.previous_output.txid == txid)
            };
            (group.reveals, group.earlier) =
                std::mem::take(&mut group.earlier).into_iter().partition(spends);
        }
    }

    /// The commit outputs of a group, as outpoints of the current commit.
    pub(super) fn outpoints(&self, group: usize) -> Vec<OutPoint> {
        let Some(commit) = self.commit() else { return Vec::new() };
        let txid = commit.tx.compute_txid();
        let before: usize = self.groups.iter().take(group).map(|group| group.leaves.len()).sum();
        let count = self.groups.get(group).map_or(0, |group| group.leaves.len());
        (before..before + count)
            .filter_map(|vout| Some(OutPoint { txid, vout: u32::try_from(vout).ok()? }))
            .collect()
    }

    pub(super) fn status(&self) -> PublicationStatus {
        PublicationStatus {
            id: self.id,
            kind: self.kind,
            reference: self.reference.clone(),
            commit: self.commit().map(|commit| commit.tx.compute_txid()),
            commits: self.commits.len(),
            commit_fee: self.commit().map(|commit| commit.fee),
            committed: self.committed.map(|(_, height)| L1Height(height)),
            reveals: self.groups.iter().map(Group::status).collect(),
            is_final: self.done.is_some(),
            is_abandoned: self.abandoned,
            problem: self.problem.clone(),
            is_short: self.short,
        }
    }
}

impl Group {
    fn status(&self) -> RevealStatus {
        let latest = self.reveals.last();
        RevealStatus {
            txid: self
                .confirmed
                .map(|(txid, _)| txid)
                .or_else(|| latest.map(|reveal| reveal.tx.compute_txid())),
            versions: self.reveals.len(),
            fee: latest.map(|reveal| reveal.fee),
            confirmed: self.confirmed.map(|(_, height)| L1Height(height)),
        }
    }
}

/// How far a publication is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationStatus {
    /// Which.
    pub id: PublicationId,
    /// Wire discriminant of its kind ([`kedge_bridge::envelope::Kind::from_wire`]).
    pub kind: u8,
    /// The name that its owner gave it.
    pub reference: Option<String>,
    /// The commit transaction, once one could be paid.
    pub commit: Option<Txid>,
    /// How many of its kind were signed.
    pub commits: usize,
    /// What the current one pays.
    pub commit_fee: Option<Amount>,
    /// In which block the commit is.
    pub committed: Option<L1Height>,
    /// The reveal transactions, in the order of the envelopes.
    pub reveals: Vec<RevealStatus>,
    /// Whether all reveals are so deep that nothing needs watching any more.
    pub is_final: bool,
    /// Whether it was given up.
    pub is_abandoned: bool,
    /// Why it does not advance: too little money, a refusal.
    pub problem: Option<String>,
    /// Whether there was less money at the last step than it wanted, for a start or for a raise.
    pub is_short: bool,
}

impl PublicationStatus {
    /// The height at which the last of its reveals was confirmed, none before that.
    pub fn confirmed(&self) -> Option<L1Height> {
        let heights: Option<Vec<_>> = self.reveals.iter().map(|reveal| reveal.confirmed).collect();
        heights?.into_iter().max()
    }
}

/// How far one reveal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevealStatus {
    /// The version that is confirmed, else the one that pays most.
    pub txid: Option<Txid>,
    /// How many versions were signed.
    pub versions: usize,
    /// The fee of the version that pays most.
    pub fee: Option<Amount>,
    /// In which block it is.
    pub confirmed: Option<L1Height>,
}
