//! What a proof says, what it weighs, and its segment executed again.

use super::ProofFile;
use super::blocks::{BitcoinChain, BlocksError};
use alloy_primitives::B256;
use bitcoin::{Amount, ScriptBuf, TxOut, XOnlyPublicKey};
use kedge_bridge::commit::{Commit, reveal_vsize};
use kedge_bridge::envelope::{Kind, leaf_script, split};
use kedge_fraud_proof::{Claim, Malformed, ProofSizes, replay};
use kedge_genesis::{L1Height, tags};
use kedge_vm::ExecutedBlock;
use serde::Serialize;

/// Virtual bytes of a commit transaction with one P2TR input besides its outputs.
const COMMIT_VSIZE: u64 = 69;
/// Virtual bytes of a P2TR output.
const OUTPUT_VSIZE: u64 = 43;

/// A claim in all its fields, with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFields {
    /// The last L1 block whose payloads are all executed.
    pub l1_height: u32,
    /// Payloads of the next L1 block that are executed too.
    pub offset: u32,
    /// Hash of the derive state.
    pub derive_state: B256,
    /// The last L2 block.
    pub number: u64,
    /// Its output root.
    pub output_root: B256,
    /// The claim's hash, which is what an assertion carries of it.
    pub hash: B256,
}

impl From<&Claim> for ClaimFields {
    fn from(claim: &Claim) -> Self {
        Self {
            l1_height: claim.l1_height.0,
            offset: claim.offset,
            derive_state: claim.derive_state,
            number: claim.number.0,
            output_root: claim.output_root,
            hash: claim.hash(),
        }
    }
}

/// How large a proof is, bytes where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weight {
    /// The file.
    pub encoded: usize,
    /// Its content before compression.
    pub content: usize,
    /// All claims.
    pub claims: usize,
    /// The derive state.
    pub derive_state: usize,
    /// The L2 header.
    pub header: usize,
    /// Number of trie nodes.
    pub node_count: usize,
    /// The trie nodes, whole.
    pub nodes: usize,
    /// The trie nodes without the hashes that follow from others.
    pub packed_nodes: usize,
    /// Number of contract codes.
    pub code_count: usize,
    /// The contract codes.
    pub codes: usize,
    /// Reveals on Bitcoin, one per chunk.
    pub reveals: usize,
    /// Leaf scripts of all reveals: the envelopes.
    pub envelopes: usize,
    /// All reveals, each with one output, virtual bytes.
    pub reveal_vsize: u64,
    /// The commit transaction that pays all reveals from one input, with change, virtual bytes.
    pub commit_vsize: u64,
}

/// How large a proof is, in the file and on Bitcoin.
pub fn weight(file: &ProofFile) -> Weight {
    let ProofSizes {
        encoded: _,
        content,
        claims,
        state,
        header,
        node_count,
        nodes,
        packed_nodes,
        code_count,
        codes,
    } = file.proof.sizes();
    let mut weight = Weight {
        encoded: file.bytes.len(),
        content,
        claims,
        derive_state: state,
        header,
        node_count,
        nodes,
        packed_nodes,
        code_count,
        codes,
        reveals: 0,
        envelopes: 0,
        reveal_vsize: 0,
        commit_vsize: 0,
    };
    // The size is the same whosever key it is.
    let (Ok(key), Ok(parts)) = (
        XOnlyPublicKey::from_slice(&tags::NUMS_KEY),
        split(Kind::Proof, file.params.chain_id, 0, B256::ZERO, &file.bytes, file.params),
    ) else {
        return weight;
    };
    let script_pubkey = ScriptBuf::from_bytes([&[0x51, 32][..], &tags::NUMS_KEY].concat());
    let output = TxOut { value: Amount::ZERO, script_pubkey };
    for (header, body) in &parts {
        let Ok(leaf) = leaf_script(&key, Kind::Proof, header, body) else { continue };
        weight.reveals += 1;
        weight.envelopes += leaf.len();
        let commit = Commit::new(key, leaf);
        weight.reveal_vsize +=
            commit.map_or(0, |commit| reveal_vsize(&[commit], std::slice::from_ref(&output)));
    }
    weight.commit_vsize = COMMIT_VSIZE + OUTPUT_VSIZE * (weight.reveals as u64 + 1);
    weight
}

/// A block of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockRow {
    /// Its number.
    pub number: u64,
    /// Transactions in it.
    pub transactions: usize,
    /// Listed transactions that the rules keep out of it.
    pub skipped: usize,
    /// Gas used.
    pub gas_used: u64,
    /// Gas by the meter that ends segments.
    pub metered_gas: u64,
    /// Bytes by the witness meter.
    pub witness_bytes: u64,
    /// Its hash.
    pub hash: B256,
    /// State root after it.
    pub state_root: B256,
    /// Output root after it.
    pub output_root: B256,
}

impl From<&ExecutedBlock> for BlockRow {
    fn from(block: &ExecutedBlock) -> Self {
        Self {
            number: block.header.number,
            transactions: block.transactions.len(),
            skipped: block.skipped.len(),
            gas_used: block.header.gas_used,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
            hash: block.hash,
            state_root: block.header.state_root,
            output_root: block.output_root,
        }
    }
}

/// A segment after its execution on a proof.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Its blocks. They prove nothing when the proof is malformed.
    pub blocks: Vec<ExecutedBlock>,
    /// The claim reached, or why the proof is malformed.
    pub reached: Result<Claim, Malformed>,
}

/// Executes the segment of a proof about an assertion that ends with the L1 block `end`. None when the proof
/// shows without execution that there are segments too many or too few.
///
/// # Errors
/// When Bitcoin's blocks cannot be read.
pub fn replayed(
    file: &ProofFile,
    chain: &BitcoinChain,
    end: L1Height,
) -> Result<Option<Replayed>, BlocksError> {
    if file.proof.run.is_none() {
        return Ok(None);
    }
    let mut blocks = Vec::new();
    let mut watch = |_: &_, block: &ExecutedBlock| blocks.push(block.clone());
    let reached = replay(file.params, chain, end, &file.proof, &mut watch)?;
    Ok(Some(Replayed { blocks, reached }))
}
