//! BIP-340 tagged hashes of everything that Kedge commits to on Bitcoin.

use alloy_primitives::B256;
use bitcoin::hashes::{Hash, HashEngine, sha256};

/// `SHA256(SHA256(tag) ‖ SHA256(tag) ‖ parts…)`, as BIP-340 defines it.
pub fn tagged(tag: &[u8], parts: &[&[u8]]) -> B256 {
    let domain = sha256::Hash::hash(tag);
    let mut engine = sha256::Hash::engine();
    engine.input(domain.as_byte_array());
    engine.input(domain.as_byte_array());
    for part in parts {
        engine.input(part);
    }
    B256::new(sha256::Hash::from_engine(engine).to_byte_array())
}
