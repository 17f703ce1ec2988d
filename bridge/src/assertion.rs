//! The body of an assertion and the bond in its reveal.
//!
//! Envelope of kind `ASSERTION`, one chunk. Body, big-endian, nothing after it:
//!
//! | bytes | field |
//! | --- | --- |
//! | 32 | parent assertion's id, zero for the genesis |
//! | 32 | hash of the parameters |
//! | 4 | height of the Bitcoin block claimed about |
//! | 32 | its hash, internal byte order |
//! | 32 · n, n ≥ 1 | one claim hash per segment; the last is the claim at that block's end |
//!
//! The bond is the reveal's output at the index of the envelope's input: it pays [`crate::bond::Bond`] of
//! the envelope's publisher. The assertion's id is the tagged hash of that outpoint.
//!
//! Not checked here: whether anything claimed is true.

use crate::{bond::Bond, envelope::Envelope, hash::tagged, read::Reader};
use alloc::vec::Vec;
use alloy_primitives::B256;
use bitcoin::{OutPoint, Transaction, hashes::Hash};
use kedge_genesis::{L1Height, L1Ref, Params, Sats, tags};

/// What an assertion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionBody {
    /// Id of the assertion that it continues; zero continues the genesis.
    pub parent: B256,
    /// Hash of the parameters that it was made under.
    pub params_hash: B256,
    /// The Bitcoin block at whose end the last claim holds.
    pub l1: L1Ref,
    /// One claim hash per segment since the parent; at least one.
    pub claims: Vec<B256>,
}

impl AssertionBody {
    /// The body's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(self.parent.as_slice());
        body.extend_from_slice(self.params_hash.as_slice());
        body.extend_from_slice(&self.l1.height.0.to_be_bytes());
        body.extend_from_slice(self.l1.hash.as_slice());
        for claim in &self.claims {
            body.extend_from_slice(claim.as_slice());
        }
        body
    }

    /// The body of these bytes, none when they are not one.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(body);
        let parent = B256::new(reader.array()?);
        let params_hash = B256::new(reader.array()?);
        let height = L1Height(reader.u32()?);
        let hash = B256::new(reader.array()?);
        let mut claims = Vec::new();
        while !reader.is_empty() {
            claims.push(B256::new(reader.array()?));
        }
        let l1 = L1Ref { height, hash };
        (!claims.is_empty()).then_some(Self { parent, params_hash, l1, claims })
    }
}

/// The bond of the assertion that `envelope`, found in input number `input` of `reveal`, carries. None when
/// that output does not pay the publisher's bond script. Not checked: whether it is large enough.
pub fn bond_of(
    reveal: &Transaction,
    input: u32,
    envelope: &Envelope,
    params: &Params,
) -> Option<(OutPoint, Sats)> {
    let output = reveal.output.get(usize::try_from(input).ok()?)?;
    let bond = Bond::of(params, envelope.publisher)?;
    (output.script_pubkey == bond.script())
        .then(|| (OutPoint::new(reveal.compute_txid(), input), Sats(output.value.to_sat())))
}

/// Id of an assertion: the tagged hash of its bond's outpoint (txid in internal byte order, output number
/// big-endian), which no two assertions share.
pub fn assertion_id(bond: &OutPoint) -> B256 {
    tagged(tags::ASSERTION_TAG, &[bond.txid.as_byte_array(), &bond.vout.to_be_bytes()])
}
