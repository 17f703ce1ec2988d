//! The verdict on a proof by Bitcoin blocks alone, and what became of the assertion that it is about.

use super::blocks::{BitcoinChain, BlocksError};
use super::params_of;
use alloy_primitives::B256;
use bitcoin::{BlockHash, OutPoint, hashes::Hash as _};
use kedge_bridge::assertion::assertion_id;
use kedge_bridge::derive::{ChunkRef, L1Block};
use kedge_bridge::envelope::{Kind, envelopes, split};
use kedge_fraud_proof::{
    AssertionEvent, AssertionFault, AssertionNode, AssertionTracker, Malformed, Proof, ProofHead,
    ProofIgnored, Verdict, verify,
};
use kedge_genesis::{L1Height, L1Ref, Network, Params};

/// What there is to say about a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The verdict that every node reaches.
    pub verdict: Verdict,
    /// The assertion as of the last block read.
    pub assertion: AssertionNode,
    /// Reveals of these very bytes, in the order in which Bitcoin has them.
    pub seen: Vec<Seen>,
    /// The last block read: that of the assertion's deadline, or the last that there is.
    pub read: L1Ref,
}

/// A reveal of one chunk of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub at: ChunkRef,
    /// Number of the chunk, from 0.
    pub chunk: u16,
    /// Number of chunks of the proof.
    pub total: u16,
    /// Who published it, x-only key.
    pub publisher: [u8; 32],
    /// Why it has no effect, when the rules pass it over.
    pub ignored: Option<ProofIgnored>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Bitcoin's blocks could not be read.
    #[error(transparent)]
    Blocks(#[from] BlocksError),
    /// No network has those parameters.
    #[error(
        "the proof is for parameters {params}, which no network of this version has; another version of \
         kedge may know them"
    )]
    Network {
        /// Hash of the parameters.
        params: B256,
    },
    /// The network has no keys, so nothing on it can be judged.
    #[error("network {network} has not been launched: it names no keys")]
    NotLaunched {
        /// Its name.
        network: &'static str,
    },
    /// The assertion counts for nothing.
    #[error("assertion {id} is on Bitcoin and counts for nothing: {fault}")]
    Ignored {
        /// Its id.
        id: B256,
        /// Why.
        fault: AssertionFault,
    },
    /// The assertion is not there.
    #[error(
        "there is no assertion {id} in the Bitcoin blocks up to {} ({}); are they all there, and is it \
         the network's Bitcoin?", read.height, BlockHash::from_byte_array(read.hash.0)
    )]
    Unknown {
        /// Its id.
        id: B256,
        /// The last block read.
        read: L1Ref,
    },
}

/// The bytes of a proof that has the form of one, and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofFile {
    /// Its network.
    pub params: &'static Params,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What they hold.
    pub proof: Proof,
}

impl ProofFile {
    /// Reads the bytes as a proof for `network`, by default for the one that it names; or says why they are
    /// malformed, which needs no Bitcoin block.
    ///
    /// # Errors
    /// When it names a network that this version does not know.
    pub fn parse(
        bytes: Vec<u8>,
        network: Option<Network>,
    ) -> Result<Result<Self, Malformed>, JudgeError> {
        let head = match ProofHead::decode(&bytes) {
            Ok(head) => head,
            Err(fault) => return Ok(Err(Malformed::Encoding(fault))),
        };
        let params = network.map(Network::params).or_else(|| params_of(&head));
        let most = |params: &Params| {
            u64::from(params.max_chunks).saturating_mul(u64::from(params.max_chunk_bytes))
        };
        if params.is_some_and(|params| bytes.len() as u64 > most(params)) {
            return Ok(Err(Malformed::TooLarge));
        }
        if params.is_some_and(|params| params.hash() != head.params) {
            return Ok(Err(Malformed::OtherChain));
        }
        let proof = match Proof::decode(&bytes) {
            Ok(proof) => proof,
            Err(fault) => return Ok(Err(Malformed::Encoding(fault))),
        };
        let params = params.ok_or(JudgeError::Network { params: head.params })?;
        if params.keys.is_none() {
            return Err(JudgeError::NotLaunched { network: params.network.name() });
        }
        Ok(Ok(Self { params, bytes, proof }))
    }
}

/// Walks `chain` until the assertion that the proof names is decided, which is at its deadline, or to the end,
/// and judges the proof. `progress` is told the height of every block passed.
///
/// # Errors
/// When there is no verdict: the blocks cannot be read, or the assertion is not in them.
pub fn judge(
    file: &ProofFile,
    chain: &mut BitcoinChain,
    progress: &mut dyn FnMut(L1Height),
) -> Result<Judged, JudgeError> {
    let ProofFile { params, bytes, proof } = file;
    let id = proof.head.assertion;
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, bytes, params);
    let channel = parts.ok().and_then(|parts| Some(parts.first()?.0.channel_id(Kind::Proof)));
    let mut tracker = AssertionTracker::genesis(params);
    let mut assertion: Option<AssertionNode> = None;
    let mut seen = Vec::new();
    while let Some(l1) = chain.advance()? {
        let events = tracker.on_l1_block(params, &l1, &*chain, &*chain)?;
        progress(l1.at.height);
        for event in &events {
            match event {
                AssertionEvent::Ignored { txid, input, fault }
                    if assertion_id(&OutPoint::new(*txid, *input)) == id =>
                {
                    return Err(JudgeError::Ignored { id, fault: *fault });
                }
                _ => {}
            }
        }
        if let Some(node) = tracker.get(&id) {
            seen.extend(reveals(&l1, channel, &events));
            let decided = node.deadline <= l1.at.height;
            assertion = Some(node.clone());
            if decided {
                break;
            }
        }
    }
    let read = chain.at();
    let assertion = assertion.ok_or(JudgeError::Unknown { id, read })?;
    let verdict = verify(params, &*chain, &assertion.view(), bytes)?;
    Ok(Judged { verdict, assertion, seen, read })
}

/// The reveals of a channel in a block.
fn reveals(l1: &L1Block, channel: Option<B256>, events: &[AssertionEvent]) -> Vec<Seen> {
    let mut found = Vec::new();
    for tx in &l1.block.txdata {
        for (input, envelope) in envelopes(tx) {
            let header = &envelope.header;
            if envelope.kind != Kind::Proof || Some(header.channel_id(Kind::Proof)) != channel {
                continue;
            }
            let at = ChunkRef { height: l1.at.height, txid: tx.compute_txid(), input };
            let ignored = events.iter().find_map(|event| match event {
                AssertionEvent::ProofIgnored { at: place, reason } if *place == at => Some(*reason),
                _ => None,
            });
            found.push(Seen {
                at,
                chunk: header.chunk,
                total: u16::try_from(header.chunks.len()).unwrap_or(u16::MAX),
                publisher: envelope.publisher.serialize(),
                ignored,
            });
        }
    }
    found
}
