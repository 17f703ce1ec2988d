//! The envelope: data in the leaf script of a Taproot spend (a *reveal*, see [`crate::commit`]).
//!
//! ```text
//! <32-byte x-only publisher key> OP_CHECKSIG OP_FALSE OP_IF
//!   "kedge"  <version u8, kind u8>  <header, one push>  <body push of 520 bytes> … <last body push> OP_ENDIF
//! ```
//!
//! The witness is exactly `[signature, leaf script, control block]` with a control block of leaf version
//! `0xc0` and no sibling (a single leaf). Every push is the minimal one for its length, all body pushes but
//! the last have 520 bytes, and the last is not empty. Anything else is *not an envelope*, never an error.
//!
//! Header, big-endian: chain id `u64`, index `u64`, previous body hash 32 bytes, chunk number `u16`, count
//! of chunks `u16`, that many 32-byte chunk hashes, and for [`Kind::Batch`] a 64-byte BIP-340 signature of
//! the channel id.
//!
//! Checked here: the template, that the chunk's bytes hash to its entry, that the kinds of one chunk have
//! one. Not checked here: the signature (see [`EnvelopeHeader::signed_by`]), the chain id and the limits
//! of the parameters (see [`Envelope::fits`]), the index, and who wrote it: the key in the script is no
//! authority, because a leaf that is spent does not prove who composed it.

use crate::{hash::tagged, read::Reader};
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::{
    Script, ScriptBuf, Transaction, Witness, XOnlyPublicKey,
    key::Keypair,
    opcodes::all::{OP_CHECKSIG, OP_ENDIF, OP_IF},
    script::{Builder, Instruction, PushBytesBuf},
    secp256k1::{Message, Secp256k1, schnorr},
};
use kedge_genesis::{Params, tags};

/// Longest push of Bitcoin Script (`MAX_SCRIPT_ELEMENT_SIZE`), bytes.
pub const MAX_PUSH: usize = 520;

/// What an envelope carries. The discriminant is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// L2 blocks, signed by the sequencer.
    Batch = tags::KIND_BATCH,
    /// L2 transactions that the chain must include; one chunk.
    Forced = tags::KIND_FORCED,
    /// Claims about the state, with a bond; one chunk.
    Assertion = tags::KIND_ASSERTION,
    /// A fraud proof.
    Proof = tags::KIND_PROOF,
}

impl Kind {
    /// The kind of that wire discriminant.
    pub const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            tags::KIND_BATCH => Some(Self::Batch),
            tags::KIND_FORCED => Some(Self::Forced),
            tags::KIND_ASSERTION => Some(Self::Assertion),
            tags::KIND_PROOF => Some(Self::Proof),
            _ => None,
        }
    }

    /// The wire discriminant.
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// Whether the header of this kind carries its author's signature.
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::Batch)
    }

    /// Whether a message of this kind may span several envelopes.
    pub const fn is_chunked(self) -> bool {
        matches!(self, Self::Batch | Self::Proof)
    }
}

/// The header that every chunk of a channel repeats, but for its own number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// EIP-155 chain id of the rollup meant.
    pub chain_id: u64,
    /// Number of the message in its kind's sequence; 0 for kinds without one.
    pub index: u64,
    /// [`Self::body_hash`] of the message before; zero for the first and for kinds without a sequence.
    pub prev_body: B256,
    /// Number of this chunk, from 0 and below the count of chunks.
    pub chunk: u16,
    /// [`chunk_hash`] of every chunk, in order; at least one.
    pub chunks: Vec<B256>,
    /// BIP-340 signature of [`Self::channel_id`]; present exactly when the kind is signed.
    pub signature: Option<[u8; 64]>,
}

impl EnvelopeHeader {
    /// Identifies the channel and is what its author signs: the tagged hash `kedge/channel` of the kind
    /// and everything in the header except the chunk number and the signature.
    pub fn channel_id(&self, kind: Kind) -> B256 {
        tagged(
            tags::CHANNEL_TAG,
            &[
                &[tags::ENVELOPE_VERSION, kind.wire()],
                &self.chain_id.to_be_bytes(),
                &self.index.to_be_bytes(),
                self.prev_body.as_slice(),
                &flat(&self.chunks),
            ],
        )
    }

    /// Identifies the body: the tagged hash `kedge/body` of all chunk hashes.
    pub fn body_hash(&self) -> B256 {
        tagged(tags::BODY_TAG, &[&flat(&self.chunks)])
    }

    /// Whether the signature is `key`'s signature of the channel id.
    pub fn signed_by(&self, kind: Kind, key: &[u8; 32]) -> bool {
        let Some(signature) = self.signature else { return false };
        let (Ok(key), Ok(signature)) =
            (XOnlyPublicKey::from_slice(key), schnorr::Signature::from_slice(&signature))
        else {
            return false;
        };
        let message = Message::from_digest(self.channel_id(kind).0);
        Secp256k1::verification_only().verify_schnorr(&signature, &message, &key).is_ok()
    }

    fn encode(&self, kind: Kind) -> Result<PushBytesBuf, EnvelopeError> {
        if kind.is_signed() != self.signature.is_some() {
            return Err(EnvelopeError::Signature { kind });
        }
        let count = u16::try_from(self.chunks.len())
            .map_err(|_| EnvelopeError::TooManyChunks { found: self.chunks.len() })?;
        let mut bytes = Vec::with_capacity(MAX_PUSH);
        bytes.extend_from_slice(&self.chain_id.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(self.prev_body.as_slice());
        bytes.extend_from_slice(&self.chunk.to_be_bytes());
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&flat(&self.chunks));
        bytes.extend(self.signature.iter().flatten());
        if bytes.len() > MAX_PUSH {
            return Err(EnvelopeError::TooManyChunks { found: self.chunks.len() });
        }
        PushBytesBuf::try_from(bytes)
            .map_err(|_| EnvelopeError::TooManyChunks { found: self.chunks.len() })
    }

    fn decode(kind: Kind, bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let chain_id = reader.u64()?;
        let index = reader.u64()?;
        let prev_body = B256::new(reader.array()?);
        let chunk = reader.u16()?;
        let count = reader.u16()?;
        let chunks =
            (0..count).map(|_| reader.array().map(B256::new)).collect::<Option<Vec<_>>>()?;
        let signature = if kind.is_signed() { Some(reader.array()?) } else { None };
        let header = Self { chain_id, index, prev_body, chunk, chunks, signature };
        (reader.is_empty() && header.is_shaped(kind)).then_some(header)
    }

    /// The laws of a header by itself.
    fn is_shaped(&self, kind: Kind) -> bool {
        usize::from(self.chunk) < self.chunks.len() && (kind.is_chunked() || self.chunks.len() == 1)
    }
}

/// Chunk hashes as one byte string.
fn flat(hashes: &[B256]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Hash of one chunk's bytes: the tagged hash `kedge/chunk`.
pub fn chunk_hash(body: &[u8]) -> B256 {
    tagged(tags::CHUNK_TAG, &[body])
}

/// One chunk of a message as it stands on Bitcoin. [`parse_input`] is what makes one from a chain; its
/// chunk hash is checked then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What it carries.
    pub kind: Kind,
    /// Its header.
    pub header: EnvelopeHeader,
    /// The key in its script. Proves nothing; an assertion's bond returns to it.
    pub publisher: XOnlyPublicKey,
    /// This chunk's bytes, not empty.
    pub body: Vec<u8>,
}

impl Envelope {
    /// Whether it is meant for this chain and within its limits of chunks.
    pub fn fits(&self, params: &Params) -> bool {
        self.header.chain_id == params.chain_id
            && self.header.chunks.len() <= usize::from(params.max_chunks)
            && self.body.len() as u64 <= u64::from(params.max_chunk_bytes)
    }
}

/// Why an envelope cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The body is empty.
    #[error("an envelope needs a body")]
    Empty,
    /// The header does not fit one push, the network's limit or the kind's.
    #[error("{found} chunks are too many")]
    TooManyChunks {
        /// The count of chunks.
        found: usize,
    },
    /// The chunk's number or bytes are not those of the header.
    #[error("the chunk is not the one that the header names")]
    ChunkMismatch,
    /// A signature is missing or one too many.
    #[error("a {kind:?} envelope is signed: {}", kind.is_signed())]
    Signature {
        /// The kind.
        kind: Kind,
    },
}

/// The leaf script of one chunk.
///
/// # Errors
/// When the header and the chunk do not belong together or are beyond the format's limits.
pub fn leaf_script(
    publisher: &XOnlyPublicKey,
    kind: Kind,
    header: &EnvelopeHeader,
    body: &[u8],
) -> Result<ScriptBuf, EnvelopeError> {
    if body.is_empty() {
        return Err(EnvelopeError::Empty);
    }
    if !header.is_shaped(kind)
        || header.chunks.get(usize::from(header.chunk)) != Some(&chunk_hash(body))
    {
        return Err(EnvelopeError::ChunkMismatch);
    }
    let mut builder = Builder::new()
        .push_x_only_key(publisher)
        .push_opcode(OP_CHECKSIG)
        .push_slice([])
        .push_opcode(OP_IF)
        .push_slice(tags::ENVELOPE_MAGIC)
        .push_slice([tags::ENVELOPE_VERSION, kind.wire()])
        .push_slice(header.encode(kind)?);
    for part in body.chunks(MAX_PUSH) {
        let push = PushBytesBuf::try_from(part.to_vec()).map_err(|_| EnvelopeError::Empty)?;
        builder = builder.push_slice(push);
    }
    Ok(builder.push_opcode(OP_ENDIF).into_script())
}

/// The envelope in one input's witness, if there is one.
pub fn parse_input(witness: &Witness) -> Option<Envelope> {
    let mut items = witness.iter();
    let (_signature, script, control) = (items.next()?, items.next()?, items.next()?);
    // A single leaf: version and parity byte, internal key, no sibling.
    if items.next().is_some() || control.len() != 33 || control.first()? & 0xfe != 0xc0 {
        return None;
    }
    parse_leaf(Script::from_bytes(script))
}

/// The envelope that a leaf script is, if it is one.
pub fn parse_leaf(script: &Script) -> Option<Envelope> {
    let mut items = script.instructions();
    let mut next = || items.next()?.ok();
    let is_op = |item: Instruction<'_>, op| matches!(item, Instruction::Op(found) if found == op);
    let bytes = |item: Instruction<'_>| item.push_bytes().map(|push| push.as_bytes().to_vec());
    let publisher = XOnlyPublicKey::from_slice(&bytes(next()?)?).ok()?;
    if !is_op(next()?, OP_CHECKSIG) || !bytes(next()?)?.is_empty() || !is_op(next()?, OP_IF) {
        return None;
    }
    if bytes(next()?)? != tags::ENVELOPE_MAGIC {
        return None;
    }
    let (version, kind) = match bytes(next()?)?.as_slice() {
        [version, kind] => (*version, Kind::from_wire(*kind)?),
        _ => return None,
    };
    let header = EnvelopeHeader::decode(kind, &bytes(next()?)?)?;
    let mut body = Vec::new();
    loop {
        match next()? {
            Instruction::PushBytes(part) => body.extend_from_slice(part.as_bytes()),
            Instruction::Op(OP_ENDIF) => break,
            Instruction::Op(_) => return None,
        }
    }
    // One template, one encoding: what the builder makes of these fields must be this very script. That
    // covers minimal pushes, the length of each body push, the chunk's hash and bytes after OP_ENDIF.
    let rebuilt = leaf_script(&publisher, kind, &header, &body).ok()?;
    (version == tags::ENVELOPE_VERSION && rebuilt.as_script() == script).then_some(Envelope {
        kind,
        header,
        publisher,
        body,
    })
}

/// All envelopes of a transaction with the number of the input that carries each.
pub fn envelopes(tx: &Transaction) -> Vec<(u32, Envelope)> {
    (0u32..)
        .zip(&tx.input)
        .filter_map(|(input, txin)| Some((input, parse_input(&txin.witness)?)))
        .collect()
}

/// Splits a body into the chunks of one channel: unsigned headers with their bytes.
///
/// # Errors
/// When the body is empty or takes more chunks than the parameters or the kind allow.
pub fn split(
    kind: Kind,
    chain_id: u64,
    index: u64,
    prev_body: B256,
    body: &[u8],
    params: &Params,
) -> Result<Vec<(EnvelopeHeader, Vec<u8>)>, EnvelopeError> {
    if body.is_empty() {
        return Err(EnvelopeError::Empty);
    }
    let size = usize::try_from(params.max_chunk_bytes).unwrap_or(usize::MAX).max(1);
    let chunks: Vec<_> = body.chunks(size).map(chunk_hash).collect();
    let most = if kind.is_chunked() { params.max_chunks } else { 1 };
    if chunks.len() > usize::from(most) {
        return Err(EnvelopeError::TooManyChunks { found: chunks.len() });
    }
    Ok((0u16..)
        .zip(body.chunks(size))
        .map(|(chunk, part)| {
            let chunks = chunks.clone();
            let header =
                EnvelopeHeader { chain_id, index, prev_body, chunk, chunks, signature: None };
            (header, part.to_vec())
        })
        .collect())
}

/// Signs every chunk of a batch channel: they share one channel id, so one signature.
pub fn sign_batch(parts: &mut [(EnvelopeHeader, Vec<u8>)], sequencer: &Keypair) {
    let Some((first, _)) = parts.first() else { return };
    let message = Message::from_digest(first.channel_id(Kind::Batch).0);
    let signature =
        Secp256k1::signing_only().sign_schnorr_no_aux_rand(&message, sequencer).serialize();
    for (header, _) in parts {
        header.signature = Some(signature);
    }
}
