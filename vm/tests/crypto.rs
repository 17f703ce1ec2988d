//! [`FewSteps`] says what the libraries say that it stands in for.

use alloy_consensus::crypto::backend::CryptoProvider;
use alloy_consensus::crypto::secp256k1;
use alloy_primitives::{Address, B256, Signature as EthSignature, U256, hex, keccak256, uint};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::point::AffineCoordinates;
use k256::{ProjectivePoint, Scalar};
use kedge_vm::crypto::{FewSteps, recover_key};
use revm::precompile::{Crypto, DefaultCrypto};

/// Order of the group, and of the field.
const N: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const P: U256 = uint!(0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f_U256);

/// Numbers that look random, the same in every run.
fn random(seed: u64) -> U256 {
    U256::from_be_bytes(keccak256(seed.to_be_bytes()).0)
}

fn bytes(r: U256, s: U256) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(&r.to_be_bytes::<32>());
    bytes[32..].copy_from_slice(&s.to_be_bytes::<32>());
    bytes
}

/// k256's own recovery, which verifies what it finds.
fn k256_key(signature: &[u8; 64], id: u8, hash: &[u8; 32]) -> Option<[u8; 64]> {
    let mut signature = Signature::from_slice(signature).ok()?;
    let mut id = id;
    if let Some(low) = signature.normalize_s() {
        signature = low;
        id ^= 1;
    }
    let id = RecoveryId::from_byte(id)?;
    let key = VerifyingKey::recover_from_prehash(hash, &signature, id).ok()?;
    Some(key.to_encoded_point(false).as_bytes()[1..].try_into().unwrap())
}

/// Compares all ways to recover, and says whether there is a key.
fn same(r: U256, s: U256, hash: U256) -> bool {
    let (signature, hash) = (bytes(r, s), hash.to_be_bytes::<32>());
    let mut found = false;
    for id in 0..=4 {
        let key = recover_key(&signature, id, &hash);
        assert_eq!(key, k256_key(&signature, id, &hash), "r {r} s {s} id {id}");
        found |= key.is_some();
    }
    for id in 0..=1 {
        let address = FewSteps.secp256k1_ecrecover(&signature, id, &hash);
        // libsecp256k1 where a crate of the same build asks for it.
        assert_eq!(address.ok(), DefaultCrypto.secp256k1_ecrecover(&signature, id, &hash).ok());
        let sender = FewSteps
            .recover_signer_unchecked(&[&signature[..], &[id]].concat().try_into().unwrap(), &hash);
        let library =
            secp256k1::recover_signer_unchecked(&EthSignature::new(r, s, id == 1), hash.into());
        assert_eq!(sender.ok(), library.ok(), "r {r} s {s} id {id}");
    }
    found
}

#[test]
fn recovery_of_random_numbers_is_that_of_the_libraries() {
    let found = (0..1_500).filter(|seed| {
        let [r, s, hash] = [0, 1, 2].map(|which| random(seed * 3 + which));
        same(r, s, hash)
    });
    // Every other number is the x coordinate of a point.
    let found = found.count();
    assert!((600..900).contains(&found), "{found}");
}

#[test]
fn recovery_of_signatures_gives_their_signer() {
    for seed in 0..500 {
        let key = SigningKey::from_slice(&random(seed).to_be_bytes::<32>()).unwrap();
        let hash = random(seed + 1_000_000).to_be_bytes::<32>();
        let (signature, id) = key.sign_prehash_recoverable(&hash).unwrap();
        let address = Address::from_public_key(key.verifying_key());
        let low: [u8; 64] = signature.to_bytes().into();
        // The same signature with its s of the upper half and the parity flipped.
        let s = N - U256::from_be_slice(&low[32..]);
        let high = bytes(U256::from_be_slice(&low[..32]), s);
        for (signature, id) in [(low, id.to_byte()), (high, id.to_byte() ^ 1)] {
            let found = FewSteps.secp256k1_ecrecover(&signature, id, &hash);
            assert_eq!(found.ok(), Some(address.into_word().0));
            let all = [&signature[..], &[id]].concat().try_into().unwrap();
            assert_eq!(FewSteps.recover_signer_unchecked(&all, &hash).ok(), Some(address));
        }
        let public: [u8; 65] =
            key.verifying_key().to_encoded_point(false).as_bytes().try_into().unwrap();
        for signature in [low, high] {
            let signer = FewSteps.verify_and_compute_signer_unchecked(&public, &signature, &hash);
            assert_eq!(signer.ok(), Some(address));
        }
        let other = random(seed + 2_000_000).to_be_bytes::<32>();
        assert!(FewSteps.verify_and_compute_signer_unchecked(&public, &low, &other).is_err());
    }
}

#[test]
fn recovery_at_the_edges_is_that_of_the_libraries() {
    let one = U256::ONE;
    let half = N >> 1;
    let rest = P - N;
    let edges = [
        U256::ZERO,
        one,
        U256::from(2),
        half,
        half + one,
        N - one,
        N,
        N + one,
        rest - one,
        rest,
        rest + one,
        P - one,
        P,
        P + one,
        U256::MAX - N,
        U256::MAX - N + one,
        U256::MAX,
    ];
    for r in edges {
        for s in edges {
            for hash in edges {
                same(r, s, hash);
            }
        }
    }
}

#[test]
fn an_x_coordinate_above_the_order_is_recovered_with_the_second_bit_only() {
    // Below p − n there are numbers to which the order can be added.
    let hash = random(7).to_be_bytes::<32>();
    let found = (1..200u64).filter(|r| {
        let signature = bytes(U256::from(*r), U256::from(5));
        let [plain, reduced] = [0, 2].map(|id| recover_key(&signature, id, &hash));
        assert_eq!(reduced, k256_key(&signature, 2, &hash));
        reduced.is_some() && plain != reduced
    });
    assert!(found.count() > 50);
    let beyond = bytes(P - N, U256::from(5));
    assert_eq!(recover_key(&beyond, 2, &hash), None);
}

#[test]
fn a_signature_whose_key_would_be_the_identity_is_refused() {
    for seed in 0..200u64 {
        let scalar = |number: U256| {
            <Scalar as Reduce<k256::U256>>::reduce_bytes(&number.to_be_bytes::<32>().into())
        };
        let (k, s) = (scalar(random(seed)), scalar(random(seed + 500)));
        let point = (ProjectivePoint::GENERATOR * k).to_affine();
        let r = U256::from_be_bytes::<32>(point.x().into());
        let id = u8::from(bool::from(point.y_is_odd()));
        // s·R = z·G, so that the key is their difference over r.
        let z = U256::from_be_bytes::<32>((s * k).to_bytes().into());
        let s = U256::from_be_bytes::<32>(s.to_bytes().into());
        let hash = z.to_be_bytes::<32>();
        assert_eq!(recover_key(&bytes(r, s), id, &hash), None);
        assert!(recover_key(&bytes(r, s), id ^ 1, &hash).is_some());
        same(r, s, z);
    }
}

/// The input of a right proof, of the execution specification's tests of EIP-4844: commitment, z, y, proof.
const RIGHT: ([u8; 48], [u8; 32], [u8; 32], [u8; 48]) = (
    hex!(
        "8f59a8d2a1a625a17f3fea0fe5eb8c896db3764f3185481bc22f91b4aaffcca25f26936857bc3a7c2539ea8ec3a952b7"
    ),
    hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000"),
    hex!("1522a4a7f34e1ea350ae07c29c96c7e79655aa926122e95fe69fcbd932ca49e9"),
    hex!(
        "a62ad71d14c5719385c0686f1871430475bf3a00f0aa3f7b8dd99a9abc2160744faf0070725e00b60ad9a026a15b1a8c"
    ),
);

#[test]
fn kzg_proofs_are_judged_as_the_library_judges_them() {
    let both = |commitment: &[u8; 48], z: &[u8; 32], y: &[u8; 32], proof: &[u8; 48]| {
        let found = FewSteps.verify_kzg_proof(z, y, commitment, proof).is_ok();
        let library = DefaultCrypto.verify_kzg_proof(z, y, commitment, proof).is_ok();
        assert_eq!(found, library);
        found
    };
    let (commitment, z, y, proof) = RIGHT;
    assert!(both(&commitment, &z, &y, &proof));
    // One bit of each.
    for bit in 0..8 * (48 + 32 + 32 + 48) {
        if bit % 7 != 0 && bit > 32 {
            continue;
        }
        let mut all = [&commitment[..], &z, &y, &proof].concat();
        all[bit / 8] ^= 1 << (bit % 8);
        let (commitment, rest) = all.split_first_chunk().unwrap();
        let (z, rest) = rest.split_first_chunk().unwrap();
        let (y, proof) = rest.split_first_chunk().unwrap();
        assert!(!both(commitment, z, y, proof.first_chunk().unwrap()), "bit {bit}");
    }
    // A constant polynomial's proof is the identity, at any point; scalars have one encoding.
    let mut identity = [0; 48];
    identity[0] = 0xc0;
    let generator = hex!(
        "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
    );
    let one = B256::with_last_byte(1).0;
    let modulus = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001");
    for z in [[0; 32], one, random(1).wrapping_shr(2).to_be_bytes()] {
        assert!(both(&identity, &z, &[0; 32], &identity));
        assert!(both(&generator, &z, &one, &identity));
        assert!(!both(&generator, &z, &[0; 32], &identity));
        assert!(!both(&generator, &z, &one, &generator));
        assert!(!both(&identity, &modulus, &[0; 32], &identity));
        assert!(!both(&identity, &z, &modulus, &identity));
    }
}
