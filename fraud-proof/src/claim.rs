//! A claim: what an assertion says about one point of the chain.

use alloc::vec::Vec;
use alloy_primitives::B256;
use kedge_bridge::derive::DeriveState;
use kedge_bridge::derive::codec::{CodecError, Reader, Writer};
use kedge_genesis::{L1Height, L2Number, Params, alloc, tagged_hash, tags};
use kedge_vm::genesis_block;

/// The chain at the end of a segment. Assertions carry its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The last L1 block whose payloads are all executed.
    pub l1_height: L1Height,
    /// Payloads of the next L1 block that are executed too; 0 at the end of an L1 block.
    pub offset: u32,
    /// Hash of the derive state after `l1_height`.
    pub derive_state: B256,
    /// The last L2 block.
    pub number: L2Number,
    /// Its output root.
    pub output_root: B256,
}

impl Claim {
    /// The canonical encoding, RLP.
    pub fn encode(&self) -> Vec<u8> {
        Writer::record(|w| {
            w.item(&self.l1_height.0);
            w.item(&self.offset);
            w.item(&self.derive_state);
            w.item(&self.number.0);
            w.item(&self.output_root);
        })
    }

    /// The claim with that canonical encoding.
    ///
    /// # Errors
    /// When the bytes are not what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Reader::record(bytes, |r| {
            Ok(Self {
                l1_height: r.height()?,
                offset: r.item()?,
                derive_state: r.item()?,
                number: L2Number(r.item()?),
                output_root: r.item()?,
            })
        })
    }

    /// The 32 bytes that stand for it in an assertion: the tagged hash of the encoding.
    pub fn hash(&self) -> B256 {
        tagged_hash(tags::CLAIM_TAG, &self.encode())
    }
}

/// The claim at the network's start, which assertions without a parent continue. None when the network
/// has no keys yet.
pub fn genesis_claim(params: &Params) -> Option<Claim> {
    let state = DeriveState::genesis(params)?;
    let genesis = genesis_block(params, &alloc(params, state.vault.current.as_bytes())).ok()?;
    Some(Claim {
        l1_height: params.l1_start.height,
        offset: 0,
        derive_state: state.hash(),
        number: state.cursor.number,
        output_root: genesis.output_root,
    })
}
