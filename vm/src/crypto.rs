//! Cryptography for a machine on which every step counts: the same answers as the libraries that `revm` and
//! `alloy-consensus` take otherwise, on fewer instructions.
//!
//! * Recovery of an ECDSA key does not verify the signature under the key that it has just computed from it,
//!   which always succeeds.
//! * A KZG proof is verified as *e*(*C* − *y*·*G*₁ + *z*·*π*, −*G*₂) · *e*(*π*, *τ*·*G*₂) = 1, which is EIP-4844's
//!   equation with the multiplication by *z* moved from G2 to G1. What belongs to the two constants of G2 is
//!   computed once.
//!
//! [`install`] puts it in place for the whole process; the verifier's program does. A node does not: it
//! has libraries in native code.

use alloc::sync::Arc;
use alloy_consensus::crypto::RecoveryError;
use alloy_consensus::crypto::backend::{CryptoProvider, install_default_provider};
use alloy_primitives::Address;
use ark_bls12_381::{Bls12_381, Fr, G1Affine, G1Projective, G2Affine};
use ark_ec::pairing::Pairing;
use ark_ec::{AdditiveGroup, AffineRepr};
use ark_ff::{BigInteger, One, PrimeField};
use ark_serialize::CanonicalDeserialize;
use core::ops::{AddAssign, Neg};
use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{Signature, VerifyingKey};
use k256::elliptic_curve::bigint::{ArrayEncoding, CheckedAdd};
use k256::elliptic_curve::ops::{Invert, LinearCombination, Reduce};
use k256::elliptic_curve::point::DecompressPoint;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::elliptic_curve::{Curve, group::prime::PrimeCurveAffine};
use k256::{AffinePoint, FieldBytes, NonZeroScalar, ProjectivePoint, Scalar, Secp256k1, U256};
use revm::precompile::{Crypto, PrecompileHalt, bls12_381_const::TRUSTED_SETUP_TAU_G2_BYTES};
use revm::primitives::OnceLock;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct FewSteps;

/// Has all of this process use [`FewSteps`]. False when it uses something else already.
pub fn install() -> bool {
    let precompiles = revm::precompile::install_crypto(FewSteps);
    install_default_provider(Arc::new(FewSteps)).is_ok() && precompiles
}

/// The public key under which `signature`, r and s, is one of `hash` (SEC 1, section 4.1.6), as its two
/// coordinates. Bit 0 of `recovery_id` is the parity of the point whose x coordinate r is, bit 1 says that the
/// order was subtracted from it. Takes an s of the upper half; none when there is no such key.
pub fn recover_key(signature: &[u8; 64], recovery_id: u8, hash: &[u8; 32]) -> Option<[u8; 64]> {
    if recovery_id > 3 {
        return None;
    }
    let (r_bytes, s_bytes) = signature.split_first_chunk::<32>()?;
    let r = non_zero(r_bytes)?;
    let s = non_zero(s_bytes.first_chunk()?)?;
    let mut x = FieldBytes::from(*r_bytes);
    if recovery_id & 2 != 0 {
        let sum = U256::from_be_byte_array(x).checked_add(&Secp256k1::ORDER);
        x = Option::<U256>::from(sum)?.to_be_byte_array();
    }
    let point: AffinePoint = Option::from(AffinePoint::decompress(&x, (recovery_id & 1).into()))?;
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&FieldBytes::from(*hash));
    let r_inverse = Option::<NonZeroScalar>::from(r.invert_vartime())?;
    let (u1, u2) = (r_inverse.as_ref().mul(&z).neg(), r_inverse.as_ref().mul(s.as_ref()));
    let point = ProjectivePoint::from(point);
    let key = ProjectivePoint::lincomb(&ProjectivePoint::GENERATOR, &u1, &point, &u2).to_affine();
    if bool::from(key.is_identity()) {
        return None;
    }
    let encoded = key.to_encoded_point(false);
    encoded.as_bytes().get(1..)?.try_into().ok()
}

fn non_zero(bytes: &[u8; 32]) -> Option<NonZeroScalar> {
    Option::from(NonZeroScalar::from_repr((*bytes).into()))
}

/// The account of a public key.
fn address_of(key: &[u8; 64]) -> Address {
    Address::from_raw_public_key(key)
}

impl Crypto for FewSteps {
    fn secp256k1_ecrecover(
        &self,
        sig: &[u8; 64],
        recid: u8,
        msg: &[u8; 32],
    ) -> Result<[u8; 32], PrecompileHalt> {
        let key = recover_key(sig, recid, msg).ok_or(PrecompileHalt::Secp256k1RecoverFailed)?;
        Ok(address_of(&key).into_word().0)
    }

    fn verify_kzg_proof(
        &self,
        z: &[u8; 32],
        y: &[u8; 32],
        commitment: &[u8; 48],
        proof: &[u8; 48],
    ) -> Result<(), PrecompileHalt> {
        match is_kzg_proof(z, y, commitment, proof) {
            Some(true) => Ok(()),
            _ => Err(PrecompileHalt::BlobVerifyKzgProofFailed),
        }
    }
}

impl CryptoProvider for FewSteps {
    fn recover_signer_unchecked(
        &self,
        sig: &[u8; 65],
        msg: &[u8; 32],
    ) -> Result<Address, RecoveryError> {
        let (signature, parity) = sig.split_first_chunk().ok_or_else(RecoveryError::new)?;
        let parity = parity.first().copied().ok_or_else(RecoveryError::new)?;
        let key = recover_key(signature, parity, msg).ok_or_else(RecoveryError::new)?;
        Ok(address_of(&key))
    }

    fn verify_and_compute_signer_unchecked(
        &self,
        pubkey: &[u8; 65],
        sig: &[u8; 64],
        msg: &[u8; 32],
    ) -> Result<Address, RecoveryError> {
        let verify = || {
            let key = VerifyingKey::from_sec1_bytes(pubkey)?;
            let signature = Signature::from_slice(sig)?;
            let signature = signature.normalize_s().unwrap_or(signature);
            key.verify_prehash(msg, &signature).map(|()| Address::from_public_key(&key))
        };
        verify().map_err(|_| RecoveryError::new())
    }
}

/// What pairings need of a point of G2.
type Prepared = <Bls12_381 as Pairing>::G2Prepared;

/// −G₂ and τ·G₂.
fn constants() -> Option<&'static [Prepared; 2]> {
    static CONSTANTS: OnceLock<Option<[Prepared; 2]>> = OnceLock::new();
    let constants = CONSTANTS.get_or_init(|| {
        // A point of the ceremony: it is in its group.
        let tau = G2Affine::deserialize_compressed_unchecked(&TRUSTED_SETUP_TAU_G2_BYTES[..]);
        Some([G2Affine::generator().neg().into(), tau.ok()?.into()])
    });
    constants.as_ref()
}

/// Whether `proof` shows that the polynomial of `commitment` is `y` at `z`. None when one is no canonical
/// scalar or point of G1.
fn is_kzg_proof(
    z: &[u8; 32],
    y: &[u8; 32],
    commitment: &[u8; 48],
    proof: &[u8; 48],
) -> Option<bool> {
    let commitment = G1Affine::deserialize_compressed(&commitment[..]).ok()?;
    let proof = G1Affine::deserialize_compressed(&proof[..]).ok()?;
    let (y, z) = (scalar(y)?, scalar(z)?);
    // −y·G₁ + z·π, both multiplications at once.
    let base = G1Affine::generator().neg();
    let mut both = G1Projective::from(base);
    both.add_assign(&proof);
    let mut left = G1Projective::ZERO;
    for bit in (0..256).rev() {
        left.double_in_place();
        match (y.get_bit(bit), z.get_bit(bit)) {
            (false, false) => {}
            (true, false) => left.add_assign(&base),
            (false, true) => left.add_assign(&proof),
            (true, true) => left.add_assign(&both),
        }
    }
    left.add_assign(&commitment);
    let [minus_g2, tau_g2] = constants()?.clone();
    let product = Bls12_381::multi_pairing([G1Affine::from(left), proof], [minus_g2, tau_g2]);
    Some(product.0.is_one())
}

/// A scalar of BLS12-381 in its one encoding, big-endian.
fn scalar(bytes: &[u8; 32]) -> Option<<Fr as PrimeField>::BigInt> {
    let number = Fr::from_be_bytes_mod_order(bytes).into_bigint();
    (number.to_bytes_be() == bytes).then_some(number)
}
