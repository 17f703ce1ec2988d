//! One instruction or one precompile over and over, as densely as code allows, until the gas is used up.
//!
//! Calling one of these contracts with gas *g* spends *g*: what differs is the work that a machine has with
//! it. Operands are full words with no structure, inputs of precompiles are valid, so nothing is a shortcut.

use crate::code::{Code, MAX_CODE_BYTES};
use alloy_primitives::{Address, B256, U256, address, hex, keccak256};
use sha2::{Digest, Sha256};

/// A contract that does one thing until its gas is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it does, in kebab case: the instruction or precompile and the shape of its input.
    pub name: &'static str,
    /// Its code.
    pub runtime: Vec<u8>,
    /// The precompile that it calls, with the input.
    pub call: Option<(Address, Vec<u8>)>,
}

/// A word without structure.
fn word(number: u8) -> B256 {
    keccak256([number])
}

/// Three words on the stack, then `body` until the gas is used up.
fn instruction(name: &'static str, body: &[u8]) -> Workload {
    let code = Code::new().word(word(1)).word(word(2)).word(word(3));
    Workload { name, runtime: code.forever(body, &[]), call: None }
}

/// Memory of `bytes` bytes first.
fn on_memory(name: &'static str, bytes: usize, body: &[u8]) -> Workload {
    let code = Code::new().word(word(1)).push(U256::from(bytes - 32)).raw([0x52]);
    Workload { name, runtime: code.forever(body, &[]), call: None }
}

/// All instructions whose work for their gas is not plainly below another's.
pub fn instruction_loops() -> Vec<Workload> {
    // DUP2 DUP2 … POP and DUP3 DUP3 DUP3 … POP: operands are the same each time.
    let two = |name, op| instruction(name, &[0x81, 0x81, op, 0x50]);
    let three = |name, op| instruction(name, &[0x82, 0x82, 0x82, op, 0x50]);
    let one = |name, op| instruction(name, &[0x80, op, 0x50]);
    let shift = |name, op| instruction(name, &[0x80, 0x60, 77, op, 0x50]);
    let itself = |name, rest: &[u8]| instruction(name, &[&[0x30][..], rest].concat());
    vec![
        instruction("jumpdest", &[0x5b]),
        instruction("push-pop", &[0x5f, 0x50]),
        instruction("push32-pop", &[&[0x7f][..], word(4).as_slice(), &[0x50]].concat()),
        instruction("dup-pop", &[0x81, 0x50]),
        instruction("swap", &[0x91]),
        instruction("pc-pop", &[0x58, 0x50]),
        instruction("gas-pop", &[0x5a, 0x50]),
        instruction("caller-pop", &[0x33, 0x50]),
        two("add", 0x01),
        two("mul", 0x02),
        two("sub", 0x03),
        two("div", 0x04),
        two("sdiv", 0x05),
        two("mod", 0x06),
        two("smod", 0x07),
        three("addmod", 0x08),
        three("mulmod", 0x09),
        // The longest division: a word by little more than half a word.
        Workload {
            name: "div-by-half",
            runtime: Code::new()
                .push(U256::from_be_bytes(word(2).0) >> 120)
                .word(word(1))
                .forever(&[0x81, 0x81, 0x04, 0x50], &[]),
            call: None,
        },
        Workload {
            name: "mulmod-by-half",
            runtime: Code::new()
                .push(U256::from_be_bytes(word(2).0) >> 120)
                .word(B256::repeat_byte(0xff))
                .word(B256::repeat_byte(0xff))
                .forever(&[0x82, 0x82, 0x82, 0x09, 0x50], &[]),
            call: None,
        },
        two("exp", 0x0a),
        instruction("signextend", &[0x80, 0x60, 9, 0x0b, 0x50]),
        two("lt", 0x10),
        two("sgt", 0x13),
        one("iszero", 0x15),
        two("xor", 0x18),
        one("not", 0x19),
        shift("byte", 0x1a),
        shift("shl", 0x1b),
        shift("shr", 0x1c),
        shift("sar", 0x1d),
        one("clz", 0x1e),
        instruction("keccak-empty", &[0x5f, 0x5f, 0x20, 0x50]),
        on_memory("keccak-word", 32, &[0x60, 32, 0x5f, 0x20, 0x50]),
        on_memory("keccak-64k", 65_536, &[0x62, 0x01, 0x00, 0x00, 0x5f, 0x20, 0x50]),
        on_memory("mload", 4_096, &[0x60, 31, 0x51, 0x50]),
        on_memory("mstore", 4_096, &[0x5a, 0x60, 31, 0x52]),
        on_memory("mstore8", 4_096, &[0x5a, 0x60, 31, 0x53]),
        on_memory("mcopy-word", 4_096, &[0x60, 32, 0x60, 7, 0x60, 3, 0x5e]),
        on_memory("mcopy-32k", 65_536, &[0x61, 0x80, 0x00, 0x61, 0x40, 0x00, 0x5f, 0x5e]),
        on_memory("codecopy-16k", 65_536, &[0x61, 0x40, 0x00, 0x5f, 0x5f, 0x39]),
        on_memory("calldatacopy-16k", 65_536, &[0x61, 0x40, 0x00, 0x5f, 0x5f, 0x37]),
        instruction("calldataload", &[0x5f, 0x35, 0x50]),
        instruction("sload-warm", &[0x5f, 0x54, 0x50]),
        instruction("sstore-warm", &[0x5a, 0x5f, 0x55]),
        instruction("tload", &[0x5f, 0x5c, 0x50]),
        instruction("tstore", &[0x5a, 0x5f, 0x5d]),
        // A key of its own each time.
        instruction("tstore-new", &[0x5a, 0x80, 0x5d]),
        itself("balance-warm", &[0x31, 0x50]),
        itself("extcodesize-warm", &[0x3b, 0x50]),
        itself("extcodehash-warm", &[0x3f, 0x50]),
        instruction("selfbalance", &[0x47, 0x50]),
        instruction("extcodecopy-warm", &[0x60, 32, 0x5f, 0x5f, 0x30, 0x3c]),
        instruction("blockhash", &[0x60, 1, 0x43, 0x03, 0x40, 0x50]),
        instruction("log0", &[0x5f, 0x5f, 0xa0]),
        instruction("log4", &[0x81, 0x81, 0x81, 0x81, 0x5f, 0x5f, 0xa4]),
        on_memory("log0-16k", 65_536, &[0x61, 0x40, 0x00, 0x5f, 0xa0]),
        // An account without code, warm after the first.
        instruction(
            "call-warm",
            &[0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x61, 0xff, 0xff, 0x5f, 0xf1, 0x50],
        ),
        instruction(
            "staticcall-warm",
            &[0x5f, 0x5f, 0x5f, 0x5f, 0x61, 0xff, 0xff, 0x5f, 0xfa, 0x50],
        ),
        instruction("create-empty", &[0x5f, 0x5f, 0x5f, 0xf0, 0x50]),
    ]
}

/// Calls of a precompile with one input, which stands at the end of the code.
fn precompile(name: &'static str, address: Address, input: Vec<u8>) -> Workload {
    let length = input.len();
    let to = U256::from_be_slice(address.as_slice());
    // STATICCALL(gas, address, 0, length, 0, 0), POP
    let body = Code::new().raw([0x5f, 0x5f]).push(U256::from(length)).raw([0x5f]).push(to);
    let body = body.raw([0x5a, 0xfa, 0x50]).into_bytes();
    let runtime = Code::new().load(MAX_CODE_BYTES - length, length).forever(&body, &input);
    Workload { name, runtime, call: Some((address, input)) }
}

const fn number(number: u8) -> Address {
    Address::with_last_byte(number)
}

/// The precompile of EIP-7951.
const P256VERIFY: Address = address!("0000000000000000000000000000000000000100");

/// `modexp` (EIP-198) of numbers without structure, the modulus odd or even.
fn modexp(base: usize, exponent: usize, modulus: usize, odd: bool) -> Vec<u8> {
    let bytes = |length: usize, seed: u8| -> Vec<u8> {
        let mut bytes = filler(length, seed);
        if let Some(first) = bytes.first_mut() {
            *first |= 0x80;
        }
        bytes
    };
    let mut modulus_bytes = bytes(modulus, 3);
    if let Some(last) = modulus_bytes.last_mut() {
        *last = if odd { *last | 1 } else { *last & 0xfe };
    }
    let lengths = [base, exponent, modulus].map(|length| U256::from(length).to_be_bytes::<32>());
    [lengths.as_flattened(), &bytes(base, 1), &bytes(exponent, 2), &modulus_bytes].concat()
}

/// Bytes without structure.
fn filler(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut word = word(seed);
    while bytes.len() < length {
        bytes.extend_from_slice(word.as_slice());
        word = keccak256(word);
    }
    bytes.truncate(length);
    bytes
}

/// The generators of alt_bn128 (EIP-197).
const BN_G1: [u8; 64] = hex!(
    "0000000000000000000000000000000000000000000000000000000000000001"
    "0000000000000000000000000000000000000000000000000000000000000002"
);
const BN_G2: [u8; 128] = hex!(
    "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2"
    "1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed"
    "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b"
    "12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
);
/// The generators of BLS12-381 (EIP-2537).
const BLS_G1: [u8; 128] = hex!(
    "0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
    "0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1"
);
const BLS_G2: [u8; 256] = hex!(
    "00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
    "0000000000000000000000000000000013e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "000000000000000000000000000000000ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"
    "000000000000000000000000000000000606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be"
);

/// A valid input of the point evaluation of EIP-4844, from the consensus specification's test cases.
fn point_evaluation() -> Vec<u8> {
    let commitment = hex!(
        "8f59a8d2a1a625a17f3fea0fe5eb8c896db3764f3185481bc22f91b4aaffcca25f26936857bc3a7c2539ea8ec3a952b7"
    );
    let mut versioned: [u8; 32] = Sha256::digest(commitment).into();
    versioned[0] = 1;
    let z = hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000");
    let y = hex!("1522a4a7f34e1ea350ae07c29c96c7e79655aa926122e95fe69fcbd932ca49e9");
    let proof = hex!(
        "a62ad71d14c5719385c0686f1871430475bf3a00f0aa3f7b8dd99a9abc2160744faf0070725e00b60ad9a026a15b1a8c"
    );
    [&versioned[..], &z, &y, &commitment, &proof].concat()
}

/// Points with scalars without structure (EIP-2537's multi-scalar multiplications).
fn msm(point: &[u8], count: u8) -> Vec<u8> {
    (0..count).flat_map(|seed| [point, &filler(32, seed)].concat()).collect()
}

/// All precompiles, each with the input shapes that ask most of it.
pub fn precompile_loops() -> Vec<Workload> {
    let recover = hex!(
        "456e9aea5e197a1f1af7a3e85a3212fa4049a3ba34c2289b4c860fc0b0c64ef3"
        "000000000000000000000000000000000000000000000000000000000000001c"
        "9242685bf161793cc25603c231bc2f568eb630ea16aa137d2664ac8038825608"
        "4f8ae3bd7535248d0bd448298cc2e2071e56992d0774dc340c368ae950852ada"
    );
    let p256 = hex!(
        "4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d"
        "a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac"
        "36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60"
        "4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3"
        "7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e"
    );
    // Test vector 0 of BIP-340.
    let schnorr = hex!(
        "0000000000000000000000000000000000000000000000000000000000000000"
        "F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9"
        "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA8215"
        "25F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0"
    );
    let blake2 =
        |rounds: u32| [&rounds.to_be_bytes()[..], &filler(64 + 128 + 16, 5), &[1]].concat();
    let bn_pair = [&BN_G1[..], &BN_G2].concat();
    let bls_pair = [&BLS_G1[..], &BLS_G2].concat();
    let bn_mul = [&BN_G1[..], &[0xff; 32]].concat();
    // Field elements: 16 zero bytes and 48 below the modulus.
    let bls_fp = [&[0; 17][..], &filler(47, 6)].concat();
    let bls_fp2 = [bls_fp.clone(), bls_fp.clone()].concat();
    vec![
        precompile("ecrecover", number(1), recover.to_vec()),
        precompile("sha256-word", number(2), filler(32, 7)),
        precompile("sha256-16k", number(2), filler(16_384, 7)),
        precompile("ripemd160-16k", number(3), filler(16_384, 7)),
        precompile("identity-16k", number(4), filler(16_384, 7)),
        precompile("modexp-8-8-8", number(5), modexp(8, 8, 8, true)),
        precompile("modexp-32-32-32", number(5), modexp(32, 32, 32, true)),
        precompile("modexp-32-32-32-even", number(5), modexp(32, 32, 32, false)),
        precompile("modexp-40-40-40", number(5), modexp(40, 40, 40, true)),
        precompile("modexp-256-1-256", number(5), modexp(256, 1, 256, true)),
        precompile("modexp-256-32-256", number(5), modexp(256, 32, 256, true)),
        precompile("modexp-256-32-256-even", number(5), modexp(256, 32, 256, false)),
        precompile("modexp-32-1024-32", number(5), modexp(32, 1_024, 32, true)),
        precompile("modexp-1024-1-32", number(5), modexp(1_024, 1, 32, true)),
        precompile("modexp-1024-32-1024", number(5), modexp(1_024, 32, 1_024, true)),
        precompile("bn254-add", number(6), [BN_G1, BN_G1].concat()),
        precompile("bn254-mul", number(7), bn_mul),
        precompile("bn254-pairing-1", number(8), bn_pair.clone()),
        precompile("bn254-pairing-32", number(8), bn_pair.repeat(32)),
        precompile("blake2f-12", number(9), blake2(12)),
        precompile("blake2f-100k", number(9), blake2(100_000)),
        precompile("point-evaluation", number(10), point_evaluation()),
        precompile("bls12-g1-add", number(11), [BLS_G1, BLS_G1].concat()),
        precompile("bls12-g1-msm-1", number(12), msm(&BLS_G1, 1)),
        precompile("bls12-g1-msm-128", number(12), msm(&BLS_G1, 128)),
        precompile("bls12-g2-add", number(13), [BLS_G2, BLS_G2].concat()),
        precompile("bls12-g2-msm-1", number(14), msm(&BLS_G2, 1)),
        precompile("bls12-g2-msm-64", number(14), msm(&BLS_G2, 64)),
        precompile("bls12-pairing-1", number(15), bls_pair.clone()),
        precompile("bls12-pairing-32", number(15), bls_pair.repeat(32)),
        precompile("bls12-map-g1", number(16), bls_fp),
        precompile("bls12-map-g2", number(17), bls_fp2),
        precompile("p256verify", P256VERIFY, p256.to_vec()),
        precompile("schnorr", kedge_genesis::predeploys::SCHNORR, schnorr.to_vec()),
    ]
}
