//! What Kedge adds to the OP Stack's precompiles: verification of BIP-340 signatures, so that contracts
//! can check what Bitcoin keys signed.
//!
//! Input: 32-byte message, 32-byte x-only key, 64-byte signature. Output: the word 1 when the signature
//! is valid, nothing when it is not or when the input has another length. Gas: 4,000, always.

use alloy_primitives::{B256, Bytes};
use k256::schnorr::{Signature, VerifyingKey};
use kedge_genesis::predeploys::SCHNORR;
use op_revm::{OpSpecId, precompiles::OpPrecompiles};
use revm::{
    precompile::{
        EthPrecompileOutput, EthPrecompileResult, Precompile, PrecompileHalt, PrecompileId,
        Precompiles, eth_precompile_fn,
    },
    primitives::OnceLock,
};

/// Gas of one verification: about what `ecrecover` (3,000) costs, with one more hash and no shortcut.
pub const SCHNORR_GAS: u64 = 4_000;

eth_precompile_fn!(schnorr_precompile, schnorr);

fn schnorr(input: &[u8], gas_limit: u64) -> EthPrecompileResult {
    if gas_limit < SCHNORR_GAS {
        return Err(PrecompileHalt::OutOfGas);
    }
    let output = verify(input).map_or_else(Bytes::new, |()| B256::with_last_byte(1).into());
    Ok(EthPrecompileOutput::new(SCHNORR_GAS, output))
}

/// Some when `input` is a valid message, key and signature (BIP-340, with the message taken as is).
fn verify(input: &[u8]) -> Option<()> {
    let (message, rest) = input.split_first_chunk::<32>()?;
    let (key, signature) = rest.split_first_chunk::<32>()?;
    let signature = Signature::try_from(signature).ok()?;
    VerifyingKey::from_bytes(key).ok()?.verify_raw(message, &signature).ok()
}

/// The precompiles of Kedge: those of [`OpSpecId::KARST`] and [`SCHNORR`].
pub fn kedge() -> &'static Precompiles {
    static INSTANCE: OnceLock<Precompiles> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        let mut precompiles = OpPrecompiles::new_with_spec(OpSpecId::KARST).precompiles().clone();
        precompiles.extend([Precompile::new(
            PrecompileId::Custom("bip340Verify".into()),
            SCHNORR,
            schnorr_precompile,
        )]);
        precompiles
    })
}
