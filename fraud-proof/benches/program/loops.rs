//! Code that does one thing until its gas ends.

use alloy_primitives::{hex, keccak256};
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::secp256k1::Message;
use k256::ecdsa::SigningKey;
use kedge_genesis::predeploys::SCHNORR;

/// Gas of the transaction that loops.
pub(crate) const GAS: u64 = 500_000;
/// Rounds of the loop's body before it jumps back.
const UNROLL: usize = 50;

/// A loop.
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    /// What the stack holds before, as pushes.
    setup: Vec<u8>,
    /// Leaves the stack as it finds it.
    body: Vec<u8>,
    /// Copied to memory before.
    data: Vec<u8>,
    /// Gas of one round, where it matters to the caller.
    pub(crate) gas: u64,
}

impl Loop {
    fn new(name: &'static str, setup: &[u8], body: &[u8]) -> Self {
        Self { name, setup: setup.to_vec(), body: body.to_vec(), data: vec![], gas: 0 }
    }

    /// Calls a precompile with `data`.
    fn call(name: &'static str, address: &[u8], data: Vec<u8>) -> Self {
        let mut body = vec![0x5f, 0x5f, 0x61];
        body.extend((data.len() as u16).to_be_bytes());
        body.push(0x5f);
        body.push(0x5f + address.len() as u8);
        body.extend_from_slice(address);
        body.extend([0x5a, 0xfa, 0x50]);
        Self { name, setup: vec![], body, data, gas: 0 }
    }

    /// The code, to be run by creating a contract.
    pub(crate) fn init(&self) -> Vec<u8> {
        let rounds = UNROLL.min(8_000 / self.body.len());
        let jump = 3 + 1 + 1;
        // CODECOPY of the data, the setup, a JUMPDEST.
        let start = 3 + 3 + 1 + 1 + self.setup.len();
        let data = start + 1 + rounds * self.body.len() + jump;
        let mut code = vec![0x61];
        code.extend((self.data.len() as u16).to_be_bytes());
        code.push(0x61);
        code.extend((data as u16).to_be_bytes());
        code.extend([0x5f, 0x39]);
        code.extend_from_slice(&self.setup);
        assert_eq!(code.len(), start);
        code.push(0x5b);
        code.extend(self.body.repeat(rounds));
        code.push(0x61);
        code.extend((start as u16).to_be_bytes());
        code.extend([0x56, 0x00]);
        assert_eq!(code.len(), data);
        code.extend_from_slice(&self.data);
        code
    }
}

fn push32(word: [u8; 32]) -> Vec<u8> {
    [&[0x7f][..], &word].concat()
}

fn word(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

/// An operation on two large words.
fn binary(name: &'static str, opcode: u8) -> Loop {
    let small = keccak256("b").0.map(|byte| byte | 1);
    let mut b = small;
    b[..9].fill(0);
    let setup = [push32(b), push32([0xfe; 32])].concat();
    Loop::new(name, &setup, &[0x81, 0x81, opcode, 0x50])
}

fn ternary(name: &'static str, opcode: u8) -> Loop {
    let mut modulus = [0xfb; 32];
    modulus[..3].fill(0);
    let setup = [push32(modulus), push32([0xfd; 32]), push32([0xfe; 32])].concat();
    Loop::new(name, &setup, &[0x82, 0x82, 0x82, opcode, 0x50])
}

/// KECCAK256 of so many bytes.
fn keccak(name: &'static str, bytes: u16) -> Loop {
    let [high, low] = bytes.to_be_bytes();
    Loop::new(name, &[], &[0x61, high, low, 0x5f, 0x20, 0x50])
}

fn modexp(name: &'static str, base: &[u8], exponent: &[u8], modulus: &[u8]) -> Loop {
    let lengths = [base, exponent, modulus].map(|part| word(part.len() as u64));
    Loop::call(name, &[5], [lengths.as_flattened(), base, exponent, modulus].concat())
}

/// All loops.
pub(crate) fn all() -> Vec<Loop> {
    let mut all = vec![
        Loop::new("JUMPDEST", &[], &[0x5b]),
        Loop::new("PUSH0 POP", &[], &[0x5f, 0x50]),
        Loop::new("PUSH32 POP", &[], &[&push32([7; 32])[..], &[0x50]].concat()),
        Loop::new("DUP1 POP", &[0x5f], &[0x80, 0x50]),
        Loop::new("SWAP1", &[0x5f, 0x5f], &[0x90]),
        Loop::new("GAS POP", &[], &[0x5a, 0x50]),
        Loop::new("CALLDATALOAD", &[], &[0x5f, 0x35, 0x50]),
        Loop::new("SELFBALANCE", &[], &[0x47, 0x50]),
        Loop::new("BLOCKHASH", &[], &[0x60, 0x01, 0x40, 0x50]),
        binary("ADD", 0x01),
        binary("MUL", 0x02),
        binary("DIV", 0x04),
        binary("SDIV", 0x05),
        binary("MOD", 0x06),
        binary("SMOD", 0x07),
        binary("EXP", 0x0a),
        binary("SIGNEXTEND", 0x0b),
        binary("LT", 0x10),
        binary("XOR", 0x18),
        Loop::new("BYTE", &[], &[0x5f, 0x60, 0x05, 0x1a, 0x50]),
        Loop::new("SHL", &push32([9; 32]), &[0x80, 0x60, 0x05, 0x1b, 0x50]),
        Loop::new("SAR", &push32([0xf9; 32]), &[0x80, 0x60, 0x85, 0x1d, 0x50]),
        Loop::new("CLZ", &push32([0; 32]), &[0x80, 0x1e, 0x50]),
        ternary("ADDMOD", 0x08),
        ternary("MULMOD", 0x09),
        keccak("KECCAK256, 0 bytes", 0),
        keccak("KECCAK256, 32 bytes", 32),
        keccak("KECCAK256, 135 bytes", 135),
        keccak("KECCAK256, 4,096 bytes", 4_096),
        Loop::new("MLOAD", &[], &[0x5f, 0x51, 0x50]),
        Loop::new("MSTORE", &[], &[0x5f, 0x5f, 0x52]),
        Loop::new("MSTORE8", &[], &[0x5f, 0x5f, 0x53]),
        Loop::new("MCOPY, 4,096 bytes", &[], &[0x61, 0x10, 0, 0x60, 1, 0x5f, 0x5e]),
        Loop::new("CALLDATACOPY, 4,096 bytes", &[], &[0x61, 0x10, 0, 0x5f, 0x5f, 0x37]),
        Loop::new("CODECOPY, 4,096 bytes", &[], &[0x61, 0x10, 0, 0x5f, 0x5f, 0x39]),
        Loop::new("EXTCODECOPY, 4,096 bytes", &[], &[0x61, 0x10, 0, 0x5f, 0x5f, 0x30, 0x3c]),
        Loop::new("SLOAD, warm", &[], &[0x5f, 0x54, 0x50]),
        Loop::new("SLOAD, cold", &[0x5f], &[0x80, 0x54, 0x50, 0x60, 1, 0x01]),
        Loop::new("SSTORE, warm", &[], &[0x60, 1, 0x5f, 0x55]),
        Loop::new("SSTORE, new slots", &[0x5f], &[0x80, 0x80, 0x55, 0x60, 1, 0x01]),
        Loop::new("TLOAD", &[], &[0x5f, 0x5c, 0x50]),
        Loop::new("TSTORE, new slots", &[0x5f], &[0x80, 0x80, 0x5d, 0x60, 1, 0x01]),
        Loop::new("BALANCE, warm", &[], &[0x5f, 0x31, 0x50]),
        Loop::new("BALANCE, cold", &[0x60, 0xff], &[0x80, 0x31, 0x50, 0x60, 1, 0x01]),
        Loop::new("EXTCODEHASH, warm", &[], &[0x30, 0x3f, 0x50]),
        Loop::new("LOG0", &[], &[0x5f, 0x5f, 0xa0]),
        Loop::new("LOG4, 32 bytes", &[], &[0x5f, 0x5f, 0x5f, 0x5f, 0x60, 0x20, 0x5f, 0xa4]),
        Loop::new(
            "CALL of an account without code",
            &[],
            &[0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x61, 0xff, 0xff, 0x5a, 0xf1, 0x50],
        ),
        Loop::new("CREATE", &[], &[0x5f, 0x5f, 0x5f, 0xf0, 0x50]),
        Loop::new(
            "CREATE2, 4,096 zero bytes",
            &[0x5f],
            &[0x80, 0x61, 0x10, 0, 0x5f, 0x5f, 0xf5, 0x50, 0x60, 1, 0x01],
        ),
    ];
    all.extend(hashes());
    all.extend(signatures());
    all.extend(numbers());
    all.extend(bn254());
    all.extend(bls12());
    all
}

fn hashes() -> Vec<Loop> {
    let mut blake = vec![0; 213];
    blake[..4].copy_from_slice(&1_000u32.to_be_bytes());
    blake[212] = 1;
    vec![
        Loop::call("sha256, 0 bytes", &[2], vec![]),
        Loop::call("sha256, 4,096 bytes", &[2], vec![7; 4_096]),
        Loop::call("ripemd160, 4,096 bytes", &[3], vec![7; 4_096]),
        Loop::call("identity, 0 bytes", &[4], vec![]),
        Loop::call("identity, 4,096 bytes", &[4], vec![7; 4_096]),
        Loop::call("blake2f, 1,000 rounds", &[9], blake),
    ]
}

fn signatures() -> Vec<Loop> {
    let message = keccak256("message");
    let key = SigningKey::from_slice(&[5; 32]).expect("in range");
    let (signature, parity) = key.sign_prehash_recoverable(message.as_slice()).expect("signs");
    let v = word(27 + u64::from(parity.to_byte()));
    let recover = [message.as_slice(), &v, &signature.to_bytes()].concat();

    let pair = Keypair::from_seckey_slice(&Secp256k1::new(), &[6; 32]).expect("in range");
    let signed = Secp256k1::new().sign_schnorr_no_aux_rand(&Message::from_digest(message.0), &pair);
    let schnorr =
        [message.as_slice(), &pair.x_only_public_key().0.serialize(), &signed.serialize()].concat();

    // The generator as the key. No signature by it, which only the end of the verification shows.
    let p256 = [
        &keccak256("message").0[..],
        &[1; 64],
        &hex!("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
        &hex!("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
    ]
    .concat();
    // 3,000, 100 for a warm account, 16 for the stack.
    let ecrecover = Loop { gas: 3_116, ..Loop::call("ecrecover", &[1], recover) };
    vec![
        ecrecover,
        Loop::call("bip340Verify", SCHNORR.as_slice(), schnorr),
        Loop::call("p256Verify", &[1, 0], p256),
    ]
}

fn numbers() -> Vec<Loop> {
    let odd = |bytes: usize| vec![0xfb; bytes];
    let even = |bytes: usize| [&vec![0xfb; bytes - 1][..], &[0xfa]].concat();
    vec![
        modexp("modexp, nothing", &[], &[], &[]),
        modexp("modexp, 32 bytes, exponent 3", &odd(32), &[3], &odd(32)),
        modexp("modexp, 32 bytes", &odd(32), &[0xff; 32], &odd(32)),
        modexp("modexp, 32 bytes, even", &odd(32), &[0xff; 32], &even(32)),
        modexp("modexp, 256 bytes, exponent 65,537", &odd(256), &[1, 0, 1], &odd(256)),
        modexp("modexp, 256 bytes, even, exponent 65,537", &odd(256), &[1, 0, 1], &even(256)),
        modexp("modexp, 1,024 bytes, exponent 3", &odd(1_024), &[3], &odd(1_024)),
        modexp("modexp, 1,024 bytes, even, exponent 3", &odd(1_024), &[3], &even(1_024)),
        modexp("modexp, 1 byte of modulus, exponent 32 bytes", &odd(32), &[0xff; 32], &[0xfb]),
        modexp("modexp, base 1,024 bytes, modulus 1 byte", &odd(1_024), &[3], &[0xfb]),
    ]
}

fn bn254() -> Vec<Loop> {
    let g1 = [word(1), word(2)].concat();
    let g2 = hex!(
        "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c2"
        "1800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed"
        "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b"
        "12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
    );
    let pair = [&g1[..], &g2].concat();
    vec![
        Loop::call("bn254 add", &[6], g1.repeat(2)),
        Loop::call("bn254 mul", &[7], [&g1[..], &[0xff; 32]].concat()),
        Loop::call("bn254 pairing, 0 pairs", &[8], vec![]),
        Loop::call("bn254 pairing, 1 pair", &[8], pair.clone()),
        Loop::call("bn254 pairing, 8 pairs", &[8], pair.repeat(8)),
    ]
}

fn bls12() -> Vec<Loop> {
    // Field elements of 48 bytes in 64.
    let g1 = [
        &[0; 16][..],
        &hex!("17f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"),
        &[0; 16],
        &hex!("08b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1"),
    ]
    .concat();
    let g2 = [
        &[0; 16][..],
        &hex!("024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"),
        &[0; 16],
        &hex!("13e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"),
        &[0; 16],
        &hex!("0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"),
        &[0; 16],
        &hex!("0606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be"),
    ]
    .concat();
    let scalar = [0xfe; 32];
    let element = [&[0; 16][..], &[0x11; 48]].concat();
    // c-kzg-4844's verify_kzg_proof_case_correct_proof_4_4.
    let kzg = {
        use sha2::Digest as _;
        let commitment = hex!(
            "8f59a8d2a1a625a17f3fea0fe5eb8c896db3764f3185481bc22f91b4aaffcca25f26936857bc3a7c2539ea8ec3a952b7"
        );
        let mut hash: [u8; 32] = sha2::Sha256::digest(commitment).into();
        hash[0] = 1;
        [
            &hash[..],
            &hex!("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000000"),
            &hex!("1522a4a7f34e1ea350ae07c29c96c7e79655aa926122e95fe69fcbd932ca49e9"),
            &commitment,
            &hex!("a62ad71d14c5719385c0686f1871430475bf3a00f0aa3f7b8dd99a9abc2160744faf0070725e00b60ad9a026a15b1a8c"),
        ]
        .concat()
    };
    let msm1 = [&g1[..], &scalar].concat();
    let msm2 = [&g2[..], &scalar].concat();
    let pair = [&g1[..], &g2].concat();
    vec![
        Loop::call("kzg point evaluation", &[10], kzg),
        Loop::call("bls12-381 g1 add", &[11], g1.repeat(2)),
        Loop::call("bls12-381 g1 msm, 1", &[12], msm1.clone()),
        Loop::call("bls12-381 g1 msm, 16", &[12], msm1.repeat(16)),
        Loop::call("bls12-381 g2 add", &[13], g2.repeat(2)),
        Loop::call("bls12-381 g2 msm, 1", &[14], msm2.clone()),
        Loop::call("bls12-381 g2 msm, 8", &[14], msm2.repeat(8)),
        Loop::call("bls12-381 pairing, 1 pair", &[15], pair.clone()),
        Loop::call("bls12-381 pairing, 5 pairs", &[15], pair.repeat(5)),
        Loop::call("bls12-381 map to g1", &[16], element.clone()),
        Loop::call("bls12-381 map to g2", &[17], element.repeat(2)),
    ]
}
