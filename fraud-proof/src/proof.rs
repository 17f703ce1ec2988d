//! A fraud proof: what it holds and its bytes.
//!
//! Body of a `PROOF` message, big-endian:
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | version, 0 |
//! | 32 | hash of the parameters |
//! | 32 | id of the assertion |
//! | 4 | number of the segment, from 0 |
//! | rest | one raw DEFLATE stream of the content and nothing after it |
//!
//! The content is the record `[pre, [asserted]?, [run]?]` with `run` = `[post, state, header, nodes,
//! [code, …]]`. Claims, derive state and header are byte strings that hold their own encodings; `nodes` is a
//! byte string in the form of `pack.rs`; codes ascend by keccak-256. A proof has one content. Its
//! compression is not unique, so proofs are told apart by content ([`Proof::content`]), never by bytes.

use crate::Claim;
use crate::pack::{pack, unpack};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use alloy_primitives::{B256, Bytes, keccak256};
use kedge_bridge::deflate::{InflateFault, deflate, inflate};
use kedge_bridge::derive::DeriveState;
use kedge_bridge::derive::codec::{CodecError, Reader, Writer};
use kedge_genesis::{tagged_hash, tags};
use kedge_vm::{Header, Witness};

/// Version of the encoding, the first byte.
pub const PROOF_VERSION: u8 = 0;
/// The largest content that a decoder inflates, bytes. A segment's metered witness is at most
/// [`kedge_genesis::Params::segment_witness_target`] and one block's limit, 2.5 MB.
pub const MAX_CONTENT_BYTES: usize = 8 << 20;
/// The most codes of one proof. The meter charges whoever loads one for the account that has it.
pub const MAX_CODES: usize = 1 << 13;
/// Bytes before the compressed content.
pub const HEAD_BYTES: usize = 1 + 32 + 32 + 4;

/// A proof that one segment of an assertion is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whom it is about.
    pub head: ProofHead,
    /// The claim before the segment. It is true, and its hash is in the assertion or its parent.
    pub pre: Claim,
    /// The preimage of the asserted claim, where the challenger found it. Decides nothing, but tells what
    /// is wrong in it.
    pub asserted: Option<Claim>,
    /// What shows the true claim after the segment. None where the position of `pre` shows that there are
    /// segments too many or too few.
    pub run: Option<Run>,
}

/// What a proof says before its compressed content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofHead {
    /// Hash of the parameters.
    pub params: B256,
    /// Id of the assertion.
    pub assertion: B256,
    /// The segment; the count of the assertion's claims when segments are missing after its last.
    pub segment: u32,
}

/// Everything that the execution of one segment needs besides Bitcoin blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The true claim after the segment.
    pub post: Claim,
    /// The derive state whose hash is in the claim before.
    pub state: DeriveState,
    /// Header of the L2 block of the claim before, which its output root commits to.
    pub header: Header,
    /// Trie nodes and codes that the execution reads, no more and no less. No ancestor headers: on Kedge
    /// `BLOCKHASH` reads the state.
    pub witness: Witness,
}

/// Why bytes are not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// It is shorter than what comes before the content.
    #[error("cut short")]
    Short,
    /// Its version is not known.
    #[error("version {found} is not known")]
    Version {
        /// The version.
        found: u8,
    },
    /// The content does not inflate within the limit.
    #[error("compression: {0}")]
    Compression(InflateFault),
    /// The content is not the encoding of one.
    #[error("its content is not the canonical encoding of a proof")]
    Content,
}

/// How large the parts of a proof are, bytes. Parts are measured before compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofSizes {
    /// The whole as it goes to Bitcoin.
    pub encoded: usize,
    /// The content.
    pub content: usize,
    /// All claims.
    pub claims: usize,
    /// The derive state.
    pub state: usize,
    /// The L2 header.
    pub header: usize,
    /// Number of trie nodes.
    pub node_count: usize,
    /// The trie nodes, whole.
    pub nodes: usize,
    /// The trie nodes without the hashes that are left out.
    pub packed_nodes: usize,
    /// Number of codes.
    pub code_count: usize,
    /// The codes.
    pub codes: usize,
}

impl ProofHead {
    /// What the first bytes of a proof, or of its first chunk, say.
    ///
    /// # Errors
    /// When they are too few or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofFault> {
        let (version, rest) = bytes.split_first().ok_or(ProofFault::Short)?;
        if *version != PROOF_VERSION {
            return Err(ProofFault::Version { found: *version });
        }
        let (params, rest) = rest.split_first_chunk().ok_or(ProofFault::Short)?;
        let (assertion, rest) = rest.split_first_chunk().ok_or(ProofFault::Short)?;
        let (segment, _) = rest.split_first_chunk().ok_or(ProofFault::Short)?;
        Ok(Self {
            params: B256::new(*params),
            assertion: B256::new(*assertion),
            segment: u32::from_be_bytes(*segment),
        })
    }
}

impl Proof {
    /// The bytes that go to Bitcoin.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.push(PROOF_VERSION);
        out.extend_from_slice(self.head.params.as_slice());
        out.extend_from_slice(self.head.assertion.as_slice());
        out.extend_from_slice(&self.head.segment.to_be_bytes());
        out.extend(deflate(&self.content()));
        out
    }

    /// The proof of these bytes. Bounded: it holds at most a small multiple of [`MAX_CONTENT_BYTES`].
    ///
    /// # Errors
    /// Why they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofFault> {
        let head = ProofHead::decode(bytes)?;
        let content = bytes.get(HEAD_BYTES..).ok_or(ProofFault::Short)?;
        let content = inflate(content, MAX_CONTENT_BYTES).map_err(ProofFault::Compression)?;
        let proof = read(head, &content).map_err(|_| ProofFault::Content)?;
        // One content for each proof: order of nodes, shortest lengths, ascending codes.
        if proof.content() == content { Ok(proof) } else { Err(ProofFault::Content) }
    }

    /// The content before compression.
    pub fn content(&self) -> Vec<u8> {
        let claim = |claim: &Claim| Bytes::from(claim.encode());
        Writer::record(|w| {
            w.item(&claim(&self.pre));
            w.each(&self.asserted, |w, asserted| w.item(&claim(asserted)));
            w.each(&self.run, |w, run| {
                w.list(|w| {
                    w.item(&claim(&run.post));
                    w.item(&Bytes::from(run.state.encode()));
                    w.item(&Bytes::from(alloy_rlp::encode(&run.header)));
                    w.item(&Bytes::from(pack(&run.witness.nodes)));
                    w.each(run.witness.codes.values(), Writer::item);
                });
            });
        })
    }

    /// The tagged hash of head and content: what tells proofs apart, whatever their compression.
    pub fn id(&self) -> B256 {
        let head = [self.head.params.0, self.head.assertion.0].concat();
        let segment = self.head.segment.to_be_bytes();
        tagged_hash(tags::PROOF_TAG, &[&head, &segment[..], &self.content()].concat())
    }

    /// How large its parts are.
    pub fn sizes(&self) -> ProofSizes {
        let mut sizes = ProofSizes {
            encoded: self.encode().len(),
            content: self.content().len(),
            ..ProofSizes::default()
        };
        let claims = [Some(&self.pre), self.asserted.as_ref(), self.run.as_ref().map(|r| &r.post)];
        sizes.claims = total(claims.into_iter().flatten().map(|claim| claim.encode().len()));
        if let Some(run) = &self.run {
            sizes.state = run.state.encode().len();
            sizes.header = alloy_rlp::encode(&run.header).len();
            sizes.node_count = run.witness.nodes.len();
            sizes.nodes = total(run.witness.nodes.values().map(|node| node.len()));
            sizes.packed_nodes = pack(&run.witness.nodes).len();
            sizes.code_count = run.witness.codes.len();
            sizes.codes = total(run.witness.codes.values().map(|code| code.len()));
        }
        sizes
    }
}

fn total(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(0, usize::saturating_add)
}

fn read(head: ProofHead, content: &[u8]) -> Result<Proof, CodecError> {
    Reader::record(content, |r| {
        Ok(Proof {
            head,
            pre: read_claim(r)?,
            asserted: r.option(read_claim)?,
            run: r.option(|r| r.list(read_run))?,
        })
    })
}

fn read_claim(r: &mut Reader<'_>) -> Result<Claim, CodecError> {
    Claim::decode(r.bytes()?)
}

fn read_run(r: &mut Reader<'_>) -> Result<Run, CodecError> {
    const MALFORMED: CodecError = CodecError(alloy_rlp::Error::Custom("malformed"));
    let post = read_claim(r)?;
    let state = DeriveState::decode(r.bytes()?)?;
    let header = alloy_rlp::decode_exact(r.bytes()?)?;
    let nodes = unpack(r.bytes()?).ok_or(MALFORMED)?;
    let codes = r.each(MAX_CODES, Reader::item::<Bytes>)?;
    let codes: BTreeMap<B256, Bytes> =
        codes.into_iter().map(|code| (keccak256(&code), code)).collect();
    Ok(Run { post, state, header, witness: Witness { nodes, codes, headers: Vec::new() } })
}
