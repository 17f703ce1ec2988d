//! What a challenger tells: every decision, and what keeps it from acting.

use alloy_primitives::B256;
use bitcoin::Txid;
use serde::Serialize;

/// Something that the challenger saw, decided or did. As JSON an object whose `event` names it; heights are
/// those of L1 blocks, amounts are satoshis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ChallengerEvent {
    /// An assertion equals this node's own derivation.
    AssertionRight {
        /// Its id.
        assertion: B256,
        /// The L1 block that it claims about.
        l1_height: u32,
        /// The last L1 block in which a proof against it would count.
        deadline: u32,
    },
    /// An assertion contradicts this node.
    AssertionWrong {
        /// Its id.
        assertion: B256,
        /// The L1 block that it claims about.
        l1_height: u32,
        /// The last L1 block in which a proof against it counts.
        deadline: u32,
        /// Its first wrong segment; none when only what it continues is wrong.
        segment: Option<u32>,
        /// Whether it continues a wrong assertion and falls with that, so that it needs no proof.
        falls_with_parent: bool,
    },
    /// A proof is built, and the public verifier finds fraud in it.
    ProofBuilt {
        /// The assertion.
        assertion: B256,
        /// The segment proven wrong.
        segment: u32,
        /// What is wrong in it ([`kedge_fraud_proof::FraudKind::label`]).
        kind: &'static str,
        /// Size as it goes to Bitcoin, bytes.
        bytes: usize,
        /// Envelopes that it takes.
        chunks: usize,
        /// How long building and checking took, milliseconds.
        millis: u64,
    },
    /// In a dry run: this is where a proof would be published.
    WouldPublish {
        /// The assertion.
        assertion: B256,
        /// The last L1 block in which the proof would count.
        deadline: u32,
    },
    /// A proof is on disk and on its way to Bitcoin.
    Published {
        /// The assertion.
        assertion: B256,
        /// Its number among the publications against this assertion, from 1.
        attempt: u32,
        /// The commit transaction, once one could be paid.
        commit: Option<Txid>,
        /// The last L1 block in which the proof counts.
        deadline: u32,
    },
    /// The commit transaction is in a block. Its height decides about the reward.
    CommitConfirmed {
        /// The assertion.
        assertion: B256,
        /// The commit transaction.
        txid: Txid,
        /// Its block.
        height: u32,
    },
    /// The reveals are broadcast.
    Revealed {
        /// The assertion.
        assertion: B256,
        /// The reveal transactions, in order.
        txids: Vec<Txid>,
        /// Whether the commit was confirmed before: without that, whoever copies the proof can be first.
        committed: bool,
    },
    /// A commit or a reveal was replaced by one that pays more.
    Raised {
        /// The assertion.
        assertion: B256,
        /// Replacements signed for this publication so far.
        raises: usize,
        /// What the newest versions of the commit and the reveals pay together.
        fee: u64,
    },
    /// All of the proof is in blocks.
    Confirmed {
        /// The assertion.
        assertion: B256,
        /// The last of them.
        height: u32,
    },
    /// The assertion is rejected.
    Rejected {
        /// The assertion.
        assertion: B256,
        /// Whether by this challenger's proof.
        ours: bool,
        /// Whom the bond goes to, x-only public key; none when the assertion fell with its parent.
        challenger: Option<B256>,
        /// The segment proven wrong.
        segment: Option<u32>,
        /// What is wrong in it.
        kind: Option<&'static str>,
        /// Height of the commit that decides about the bond.
        committed: Option<u32>,
    },
    /// A publication is given up; its commit outputs go back to the wallet.
    Abandoned {
        /// The assertion.
        assertion: B256,
        /// Why.
        reason: Abandonment,
    },
    /// The bond of a rejected assertion goes to this challenger.
    RewardExpected {
        /// The assertion.
        assertion: B256,
        /// What the bond holds.
        amount: u64,
        /// The L1 block from which on the signers pay it out.
        from_height: u32,
    },
    /// The bond went elsewhere.
    RewardLost {
        /// The assertion.
        assertion: B256,
        /// The transaction that spent it.
        txid: Txid,
    },
    /// The reward is in the wallet.
    RewardTaken {
        /// The assertion.
        assertion: B256,
        /// What was paid out, before the fee of taking it.
        amount: u64,
        /// The transaction that took it.
        txid: Txid,
        /// Its block.
        height: u32,
    },
    /// Something keeps the challenger from acting, or went wrong. Told once until it is over.
    Alert {
        /// What.
        #[serde(flatten)]
        alert: Alert,
        /// The same in words, with what to do about it.
        message: String,
    },
    /// What an alert told is over.
    AlertOver {
        /// What.
        #[serde(flatten)]
        alert: Alert,
    },
}

/// Why a publication is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Abandonment {
    /// Somebody else's proof rejected the assertion, and this one can no longer be first.
    ProvenByOthers,
    /// Another publication of this challenger did.
    ProvenByUs,
    /// The assertion fell, or falls, with the one that it continues.
    FellWithParent,
    /// The assertion is settled.
    Settled,
    /// The assertion is not in Bitcoin's chain any more.
    Gone,
}

/// What keeps a challenger from acting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "alert", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Alert {
    /// The wallet cannot pay for a proof.
    #[error(
        "the wallet holds {available} sat, {needed} are needed for a proof; pay bitcoin to {address}"
    )]
    NoFunds {
        /// What can be spent.
        available: u64,
        /// What a proof of one envelope costs at the present rate; less may do for a small one.
        needed: u64,
        /// Where to pay to.
        address: String,
    },
    /// Bitcoin does not answer.
    #[error("Bitcoin does not answer: {reason}")]
    BitcoinUnreachable {
        /// What it said.
        reason: String,
    },
    /// This node has not processed Bitcoin's newest blocks, or the Bitcoin node does not have them.
    #[error(
        "block {processed} is processed, Bitcoin is at {best}; assertions in between are not seen yet"
    )]
    Behind {
        /// The last block processed.
        processed: u32,
        /// The best block known.
        best: u32,
    },
    /// Few blocks are left for what has to be confirmed.
    #[error(
        "{blocks_left} blocks are left to prove assertion {assertion} wrong and {needed} are needed at least"
    )]
    DeadlineNear {
        /// The assertion.
        assertion: B256,
        /// Blocks that are still to come and count.
        blocks_left: u32,
        /// Blocks that it takes when each takes all that it can.
        needed: u32,
    },
    /// A wrong assertion settled: withdrawals by it may be paid.
    #[error(
        "assertion {assertion} is wrong and settled; nobody proved it wrong in time: tell the signers"
    )]
    SettledWrong {
        /// The assertion.
        assertion: B256,
    },
    /// A proof is larger than Bitcoin takes.
    #[error(
        "the proof against assertion {assertion} has {bytes} bytes, more than a channel carries"
    )]
    ProofTooLarge {
        /// The assertion.
        assertion: B256,
        /// Its size.
        bytes: usize,
    },
    /// A proof could not be built, or the verifier does not find fraud in it.
    #[error("no proof against assertion {assertion}: {reason}")]
    BuildFailed {
        /// The assertion.
        assertion: B256,
        /// Why.
        reason: String,
    },
    /// A proof is in the chain in full and the assertion is not rejected.
    #[error(
        "the proof against assertion {assertion} is confirmed but had no effect, {attempts} times"
    )]
    NoEffect {
        /// The assertion.
        assertion: B256,
        /// How often.
        attempts: u32,
    },
    /// This machine failed.
    #[error("the challenger failed: {reason}")]
    Failed {
        /// How.
        reason: String,
    },
}

impl ChallengerEvent {
    /// The name of its kind, as in JSON.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::AssertionRight { .. } => "assertion_right",
            Self::AssertionWrong { .. } => "assertion_wrong",
            Self::ProofBuilt { .. } => "proof_built",
            Self::WouldPublish { .. } => "would_publish",
            Self::Published { .. } => "published",
            Self::CommitConfirmed { .. } => "commit_confirmed",
            Self::Revealed { .. } => "revealed",
            Self::Raised { .. } => "raised",
            Self::Confirmed { .. } => "confirmed",
            Self::Rejected { .. } => "rejected",
            Self::Abandoned { .. } => "abandoned",
            Self::RewardExpected { .. } => "reward_expected",
            Self::RewardLost { .. } => "reward_lost",
            Self::RewardTaken { .. } => "reward_taken",
            Self::Alert { .. } => "alert",
            Self::AlertOver { .. } => "alert_over",
        }
    }

    pub(super) fn alert(alert: Alert) -> Self {
        let message = alert.to_string();
        Self::Alert { alert, message }
    }
}

impl Alert {
    /// The names of all kinds.
    pub const LABELS: [&'static str; 9] = [
        "no_funds",
        "bitcoin_unreachable",
        "behind",
        "deadline_near",
        "settled_wrong",
        "proof_too_large",
        "build_failed",
        "no_effect",
        "failed",
    ];

    /// The name of its kind, as in JSON.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoFunds { .. } => "no_funds",
            Self::BitcoinUnreachable { .. } => "bitcoin_unreachable",
            Self::Behind { .. } => "behind",
            Self::DeadlineNear { .. } => "deadline_near",
            Self::SettledWrong { .. } => "settled_wrong",
            Self::ProofTooLarge { .. } => "proof_too_large",
            Self::BuildFailed { .. } => "build_failed",
            Self::NoEffect { .. } => "no_effect",
            Self::Failed { .. } => "failed",
        }
    }

    /// The assertion that it is about.
    pub const fn assertion(&self) -> Option<B256> {
        match self {
            Self::DeadlineNear { assertion, .. }
            | Self::SettledWrong { assertion }
            | Self::ProofTooLarge { assertion, .. }
            | Self::BuildFailed { assertion, .. }
            | Self::NoEffect { assertion, .. } => Some(*assertion),
            Self::NoFunds { .. }
            | Self::BitcoinUnreachable { .. }
            | Self::Behind { .. }
            | Self::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_are_those_that_metrics_count_by() {
        let assertion = B256::repeat_byte(1);
        let alerts = [
            Alert::NoFunds { available: 1, needed: 2, address: "bcrt1".into() },
            Alert::BitcoinUnreachable { reason: "refused".into() },
            Alert::Behind { processed: 1, best: 9 },
            Alert::DeadlineNear { assertion, blocks_left: 1, needed: 2 },
            Alert::SettledWrong { assertion },
            Alert::ProofTooLarge { assertion, bytes: 5 },
            Alert::BuildFailed { assertion, reason: "disk".into() },
            Alert::NoEffect { assertion, attempts: 2 },
            Alert::Failed { reason: "disk".into() },
        ];
        assert_eq!(alerts.each_ref().map(Alert::label), Alert::LABELS);
        for alert in alerts {
            let event = ChallengerEvent::alert(alert.clone());
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!((&json["event"], &json["alert"]), (&"alert".into(), &alert.label().into()));
            let about = alert.assertion().map(|id| id.to_string());
            assert_eq!(json["assertion"].as_str(), about.as_deref(), "{json}");
        }
        let event = ChallengerEvent::Rejected {
            assertion,
            ours: true,
            challenger: None,
            segment: None,
            kind: None,
            committed: Some(3),
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["event"], event.label());
        assert_eq!(json["committed"], 3);
    }
}
