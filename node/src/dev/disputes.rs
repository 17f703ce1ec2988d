//! What happens in disputes, one event a line in the terminal of `kedge dev`.

use crate::{
    challenger::ChallengerEvent,
    cli::amount::show_btc,
    engine::{Engine, EngineEvent, L1Outcome},
};
use alloy_primitives::B256;
use bitcoin::{OutPoint, Txid};
use kedge_fraud_proof::AssertionEvent;
use kedge_genesis::{L1Height, Sats};
use kedge_store::{BondEnd, BondRows, L1Rows, Reader, StoreError};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_util::sync::CancellationToken;

/// Something that happened in a dispute. Heights are those of the Bitcoin block as of which it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Dispute {
    /// The dishonest proposer posts a wrong assertion.
    Lying {
        /// The tip's height.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// What is wrong in it.
        lie: &'static str,
        /// The first segment that is wrong.
        segment: u32,
    },
    /// A wrong assertion is on Bitcoin.
    WrongAssertion {
        /// Height of its block.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// Its id.
        id: B256,
    },
    /// The challenger publishes its proof.
    ProofPublished {
        /// The tip's height.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
        /// The Bitcoin transactions that carry it.
        txids: Vec<Txid>,
    },
    /// A proof of several chunks has begun.
    Challenged {
        /// Height of the block with its first chunk.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
    },
    /// An assertion was proven wrong, or fell with what it continues.
    Rejected {
        /// Height of the block that completed the proof.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
        /// What is wrong; none when it fell with what it continues.
        kind: Option<&'static str>,
        /// In which segment.
        segment: Option<u32>,
    },
    /// Nobody proved a wrong assertion wrong in time.
    SettledWrong {
        /// Height of its deadline.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
    },
    /// The signers gave the bond of a rejected assertion to its challenger.
    Slashed {
        /// Height of the block with the slash.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
        /// The slash.
        txid: Txid,
        /// What the challenger gets.
        sats: u64,
    },
    /// The challenger took that reward.
    Rewarded {
        /// Height of the block.
        #[serde(serialize_with = "number")]
        height: L1Height,
        /// The assertion.
        id: B256,
        /// The transaction that spends the reward.
        txid: Txid,
    },
}

fn number<S: serde::Serializer>(height: &L1Height, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(height.0)
}

impl fmt::Display for Dispute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |id: &B256| id.to_string().chars().take(10).collect::<String>();
        match self {
            Self::Lying { height, lie, segment } => write!(
                f,
                "L1 {height}: the dishonest proposer posts an assertion with {lie}, wrong from segment {segment}"
            ),
            Self::WrongAssertion { height, id } => {
                write!(f, "L1 {height}: assertion {} is wrong", short(id))
            }
            Self::ProofPublished { height, id, .. } => {
                write!(f, "L1 {height}: the challenger publishes its proof against {}", short(id))
            }
            Self::Challenged { height, id } => {
                write!(f, "L1 {height}: a proof against {} has begun", short(id))
            }
            Self::Rejected { height, id, kind: Some(kind), segment: Some(segment) } => write!(
                f,
                "L1 {height}: {} is proven wrong and rejected: {} in segment {segment}",
                short(id),
                kind.replace('_', " ")
            ),
            Self::Rejected { height, id, .. } => {
                write!(f, "L1 {height}: {} is rejected with what it continues", short(id))
            }
            Self::SettledWrong { height, id } => {
                write!(f, "L1 {height}: {} settled although it is WRONG", short(id))
            }
            Self::Slashed { height, id, sats, .. } => write!(
                f,
                "L1 {height}: the bond of {} is slashed, {} to its challenger",
                short(id),
                show_btc(Sats(*sats))
            ),
            Self::Rewarded { height, id, .. } => {
                write!(f, "L1 {height}: the challenger has taken the reward for {}", short(id))
            }
        }
    }
}

/// Where events of disputes are told.
#[derive(Clone, Debug)]
pub(super) struct Disputes(mpsc::UnboundedSender<Dispute>);

impl Disputes {
    /// The two ends.
    pub(super) fn channel() -> (Self, mpsc::UnboundedReceiver<Dispute>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Tells an event; that nobody listens is fine.
    pub(super) fn tell(&self, event: Dispute) {
        let _ = self.0.send(event);
    }

    /// Tells of the proofs that the challenger publishes, until it stops.
    pub(super) async fn listen(
        self,
        engine: Arc<Engine>,
        mut challenger: mpsc::UnboundedReceiver<ChallengerEvent>,
    ) {
        while let Some(event) = challenger.recv().await {
            if let ChallengerEvent::Revealed { assertion: id, txids, .. } = event {
                let height = engine.heads().l1_tip.height;
                self.tell(Dispute::ProofPublished { height, id, txids });
            }
        }
    }

    /// Tells what Bitcoin's blocks do, until `stop`.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn follow(
        self,
        engine: Arc<Engine>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut events = engine.subscribe();
        let mut rewards = rewards(&engine.store().reader())?;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.recv() => event,
            };
            match event {
                Ok(EngineEvent::L1Connected(outcome)) => {
                    for event in of_block(&engine.store().reader(), &outcome, &mut rewards)? {
                        self.tell(event);
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }
}

/// The outputs that slashes made, with their assertions.
fn rewards(reader: &Reader<'_>) -> Result<BTreeMap<OutPoint, B256>, StoreError> {
    let mut rewards = BTreeMap::new();
    for row in reader.assertions()? {
        if let Some(spend) = reader.bond_spend(&row.bond)?.filter(|it| it.end == BondEnd::Slashed) {
            rewards.insert(OutPoint::new(spend.txid, 0), row.id);
        }
    }
    Ok(rewards)
}

fn of_block(
    reader: &Reader<'_>,
    outcome: &L1Outcome,
    rewards: &mut BTreeMap<OutPoint, B256>,
) -> Result<Vec<Dispute>, StoreError> {
    let height = outcome.at.height;
    let mut told = Vec::new();
    for event in &outcome.assertions {
        told.extend(match event {
            AssertionEvent::Proposed { id, agrees: false } => {
                Some(Dispute::WrongAssertion { height, id: *id })
            }
            AssertionEvent::Settled { id, agrees: false } => {
                Some(Dispute::SettledWrong { height, id: *id })
            }
            AssertionEvent::Challenged { id } => Some(Dispute::Challenged { height, id: *id }),
            AssertionEvent::Rejected { id, proof } => Some(Dispute::Rejected {
                height,
                id: *id,
                kind: proof.as_ref().map(|proof| proof.kind.label()),
                segment: proof.as_ref().map(|proof| proof.segment),
            }),
            AssertionEvent::Proposed { .. }
            | AssertionEvent::Settled { .. }
            | AssertionEvent::Unchallenged { .. }
            | AssertionEvent::ProofFailed { .. }
            | AssertionEvent::ProofIgnored { .. }
            | AssertionEvent::Ignored { .. } => None,
        });
    }
    let Some(block) = reader.l1_block_at(height)? else { return Ok(told) };
    for tx in &block.txdata {
        for input in &tx.input {
            let spent = input.previous_output;
            let txid = tx.compute_txid();
            if let Some(id) = rewards.get(&spent) {
                told.push(Dispute::Rewarded { height, id: *id, txid });
            }
            let slash = reader.bond_spend(&spent)?.filter(|it| it.end == BondEnd::Slashed);
            if slash.is_some() {
                let id = kedge_bridge::assertion::assertion_id(&spent);
                let sats = tx.output.first().map_or(0, |output| output.value.to_sat());
                rewards.insert(OutPoint::new(txid, 0), id);
                told.push(Dispute::Slashed { height, id, txid, sats });
            }
        }
    }
    Ok(told)
}
