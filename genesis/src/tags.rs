//! The tags by which Kedge recognises its messages on Bitcoin. Wire discriminants are explicit and
//! never reused.

use alloy_primitives::{B256, hex};

/// First push inside the `OP_IF` of an envelope.
pub const ENVELOPE_MAGIC: &[u8; 5] = b"kedge";
/// Version of the envelope's header layout, the first byte of its second push.
pub const ENVELOPE_VERSION: u8 = 0;

/// Kind byte of a sequencer's batch of L2 blocks.
pub const KIND_BATCH: u8 = 0;
/// Kind byte of a list of forced transactions.
pub const KIND_FORCED: u8 = 1;
/// Kind byte of an assertion about the derived chain.
pub const KIND_ASSERTION: u8 = 2;
/// Kind byte of a fraud proof.
pub const KIND_PROOF: u8 = 3;

/// BIP-340 tag of a channel id, the message that a batch's author signs.
pub const CHANNEL_TAG: &[u8] = b"kedge/channel";
/// BIP-340 tag of a body hash, which chains batches to each other.
pub const BODY_TAG: &[u8] = b"kedge/body";
/// BIP-340 tag of one chunk's hash.
pub const CHUNK_TAG: &[u8] = b"kedge/chunk";
/// BIP-340 tag of a derive state's hash.
pub const DERIVE_STATE_TAG: &[u8] = b"kedge/derive-state";
/// BIP-340 tag of a claim's hash.
pub const CLAIM_TAG: &[u8] = b"kedge/claim";
/// BIP-340 tag of an assertion's id.
pub const ASSERTION_TAG: &[u8] = b"kedge/assertion";
/// BIP-340 tag of a fraud proof's id.
pub const PROOF_TAG: &[u8] = b"kedge/proof";
/// BIP-340 tag of [`crate::Params::hash`].
pub const PARAMS_TAG: &[u8] = b"kedge/params";

/// First bytes of a tagged `OP_RETURN` payload.
pub const OP_RETURN_MAGIC: &[u8; 3] = b"kdg";
/// Type byte of a deposit: one 20-byte EVM address per vault output of the transaction.
pub const OP_RETURN_DEPOSIT: u8 = b'd';
/// Type byte of a payout: first withdrawal index and count.
pub const OP_RETURN_PAYOUT: u8 = b'w';
/// Type byte of a vault rotation: the next vault script.
pub const OP_RETURN_ROTATION: u8 = b'v';

/// BIP-341's point `H`, whose discrete logarithm nobody knows: the internal key of every Taproot
/// output that only its script leaves may spend. X-only.
pub const NUMS_KEY: [u8; 32] =
    hex!("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0");

/// First word of an output root's preimage, as in the OP Stack's output root version 0.
pub const OUTPUT_ROOT_VERSION: B256 = B256::ZERO;

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn nums_key_is_the_hash_of_the_generator_as_bip_341_states() {
        let generator = hex!(
            "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
            "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8"
        );
        assert_eq!(<[u8; 32]>::from(Sha256::digest(generator)), NUMS_KEY);
    }

    #[test]
    fn wire_discriminants_are_these_bytes() {
        assert_eq!([KIND_BATCH, KIND_FORCED, KIND_ASSERTION, KIND_PROOF], [0, 1, 2, 3]);
        assert_eq!([OP_RETURN_DEPOSIT, OP_RETURN_PAYOUT, OP_RETURN_ROTATION], [0x64, 0x77, 0x76]);
        assert_eq!(ENVELOPE_MAGIC, &hex!("6b65646765"));
        assert_eq!(OP_RETURN_MAGIC, &hex!("6b6467"));
    }
}
