//! The proof against one assertion, ready to be published.

use super::event::{Alert, ChallengerEvent};
use crate::{engine::Engine, publisher::Part};
use alloy_primitives::B256;
use kedge_bridge::envelope::{Kind, split};
use kedge_fraud_proof::{FraudKind, Malformed, Verdict, verify};
use kedge_genesis::Params;
use std::time::{Duration, Instant};

/// A proof in which the public verifier finds fraud.
#[derive(Debug)]
pub(super) struct Built {
    /// Its envelopes.
    pub(super) parts: Vec<Part>,
    bytes: usize,
    segment: u32,
    kind: FraudKind,
    took: Duration,
}

impl Built {
    pub(super) fn event(&self, assertion: B256) -> ChallengerEvent {
        ChallengerEvent::ProofBuilt {
            assertion,
            segment: self.segment,
            kind: self.kind.label(),
            bytes: self.bytes,
            chunks: self.parts.len(),
            millis: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Builds the proof and judges it as every node will, on the Bitcoin blocks of the store. Blocks the thread
/// while it executes the segment twice.
///
/// # Errors
/// Why there is none to publish.
pub(super) fn prove(params: &Params, engine: &Engine, assertion: B256) -> Result<Built, Alert> {
    let begun = Instant::now();
    let failed = |reason: String| Alert::BuildFailed { assertion, reason };
    let proof = engine.prove(assertion, None).map_err(|error| failed(error.to_string()))?;
    let proof = proof.map_err(|reason| failed(reason.to_string()))?;
    let bytes = proof.encode();
    let too_large = Alert::ProofTooLarge { assertion, bytes: bytes.len() };
    let tracker = engine.tracker().map_err(|error| failed(error.to_string()))?;
    let node = tracker.get(&assertion).ok_or_else(|| failed("it is gone".into()))?;
    let verdict = verify(params, &**engine.store(), &node.view(), &bytes)
        .map_err(|error| failed(error.to_string()))?;
    let (segment, kind) = match verdict {
        Verdict::Fraud { segment, kind } => (segment, kind),
        Verdict::NoFraud => return Err(failed("the verifier finds nothing wrong".into())),
        Verdict::Malformed { reason: Malformed::TooLarge } => return Err(too_large),
        Verdict::Malformed { reason } => {
            return Err(failed(format!("the verifier does not accept it: {reason}")));
        }
    };
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, &bytes, params)
        .map_err(|_| too_large)?
        .into_iter()
        .map(Part::from)
        .collect();
    Ok(Built { parts, bytes: bytes.len(), segment, kind, took: begun.elapsed() })
}
