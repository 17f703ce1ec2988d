//! Segments that are hard to execute or to prove: the honest chain has them, and the liar's root is wrong
//! after just these.

use crate::Result;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use anyhow::{Context, ensure};
use bitcoin::{
    hashes::{Hash, sha256},
    key::Secp256k1,
    secp256k1::{Message, SecretKey},
};
use kedge_genesis::{L2Number, predeploys};
use kedge_store::L2Rows;
use kedge_tests::adversary::{Arena, Ground};
use kedge_vm::ExecutedBlock;

/// Gas that a heavy transaction declares.
const GAS: u64 = 16_000_000;

/// A chain on which the users have coins.
async fn funded(ground: Ground) -> Result<Arena> {
    let mut arena = Arena::bare(ground, |_| {}).await?;
    arena.fund().await?;
    Ok(arena)
}

/// Checks that every transaction is in the block, and was successful or not as expected.
fn succeeded(block: &ExecutedBlock, expected: &[bool]) -> Result {
    ensure!(block.skipped.is_empty(), "skipped {:?}", block.skipped);
    let found: Vec<bool> = block.receipts.iter().map(|receipt| receipt.status()).collect();
    let users = &found[found.len() - expected.len()..];
    ensure!(users == expected, "success {users:?} instead of {expected:?}");
    Ok(())
}

/// A contract, created in a block of its own.
fn create(arena: &mut Arena, runtime: &[u8]) -> Result<Address> {
    let address = arena.alice.next_contract();
    let tx = arena.alice.create(GAS, runtime)?;
    succeeded(&*arena.build(vec![tx])?, &[true])?;
    Ok(address)
}

/// One call in a block of its own; its number.
fn call(arena: &mut Arena, to: Address, input: impl Into<Bytes>) -> Result<L2Number> {
    let tx = arena.alice.call(to, GAS, input)?;
    let block = arena.build(vec![tx])?;
    succeeded(&block, &[true])?;
    Ok(L2Number(block.header.number))
}

/// Posts the chain; then the liar asserts a wrong root after each of these blocks, one assertion each.
async fn lied_about(mut arena: Arena, blocks: &[L2Number]) -> Result {
    arena.post().await?;
    let lies = blocks.iter().map(|number| arena.lie_about(*number)).collect::<Result<Vec<_>>>()?;
    arena.overturns(lies).await
}

/// The largest code that a contract can have, both when it is created and when it is called. The proof of the
/// call carries all of it.
#[expect(non_snake_case, reason = "kB is the unit")]
pub(crate) async fn contract_of_24_kB(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // Adds one to slot 0, then 24 kB that do not compress.
    let mut runtime = vec![0x5f, 0x54, 0x60, 0x01, 0x01, 0x5f, 0x55, 0x00];
    while runtime.len() < 24_576 {
        runtime.extend(keccak256(&runtime));
    }
    runtime.truncate(24_576);
    let contract = create(&mut arena, &runtime)?;
    let created = arena.engine.heads().latest.number;
    let called = call(&mut arena, contract, Bytes::new())?;
    arena.post().await?;
    let slot = arena.engine.store().slot(contract, U256::ZERO)?;
    assert_eq!(slot, U256::ONE);

    // The proof has the code once, in more than 24 kB.
    let lies = vec![arena.lie_about(created)?, arena.lie_about(called)?];
    let proof = arena.proof_against(&lies[1])?;
    assert!(proof.encode().len() > runtime.len());
    let codes = proof.run.context("it executes")?.witness.codes;
    assert_eq!(codes.values().filter(|code| code[..] == runtime[..]).count(), 1);
    arena.overturns(lies).await
}

/// A contract that is created and destroyed in one transaction, made again at the same address by the next,
/// survives its next `SELFDESTRUCT` (EIP-6780), and keeps the address from being made a third time.
pub(crate) async fn self_destruct_and_recreate(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // Keeps the block number in slot 0; its code is ORIGIN SELFDESTRUCT.
    let child = hex!("435f556132ff5f526002601ef3");
    // Creates the child with salt 0, calls it if there is call data, and keeps its address in slot 0.
    let rest = hex!("5f525f600d60135ff536156025575f5f5f5f5f855af1505b5f5500");
    let factory = [&[0x6c][..], &child, &rest].concat();
    let contract = create(&mut arena, &factory)?;
    let address = contract.create2(B256::ZERO, keccak256(child));

    let alice = &mut arena.alice;
    let txs = vec![
        alice.call(contract, GAS / 4, vec![1])?,
        alice.call(contract, GAS / 4, Bytes::new())?,
        alice.call(address, GAS / 4, Bytes::new())?,
        alice.call(contract, GAS / 4, vec![1])?,
    ];
    let block = arena.build(txs)?;
    succeeded(&block, &[true, true, true, true])?;
    let number = L2Number(block.header.number);
    let store = arena.engine.store();
    // The third attempt found the address taken: `CREATE2` gave zero.
    assert_eq!(store.slot(contract, U256::ZERO)?, U256::ZERO);
    assert_eq!(store.slot(address, U256::ZERO)?, U256::from(number.0));
    assert_eq!(store.account(address)?.context("it is there")?.nonce, 1);

    // Once more in another block: nothing but reads.
    let again = call(&mut arena, contract, vec![1])?;
    lied_about(arena, &[number, again]).await
}

/// As many new slots as the gas of a block allows, and then all of them changed at once.
pub(crate) async fn storage_heavy_segment(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // Counts down from the word in its call data and keeps the block number in each slot.
    let contract = create(&mut arena, &hex!("5f355b8015601257600190034381556002565b00"))?;
    let count = U256::from(700).to_be_bytes::<32>();
    let written = call(&mut arena, contract, count)?;
    let changed = call(&mut arena, contract, count)?;
    let changed_gas = arena.engine.store().header(changed)?.context("it is there")?.gas_used;
    assert!(changed_gas > 700 * 5_000, "{changed_gas}");
    assert_eq!(arena.engine.store().slot(contract, U256::from(699))?, U256::from(changed.0));
    lied_about(arena, &[written, changed]).await
}

/// `BLOCKHASH` of all that it can reach: what it reads is state, so the proof needs no headers.
pub(crate) async fn blockhash_of_256_ancestors(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // XOR of the hashes of blocks 1 to 256 below, kept in slot 0.
    let contract =
        create(&mut arena, &hex!("6101005b804303405f51185f5260019003806003575f515f5500"))?;
    arena.post().await?;
    arena.empty_blocks(260).await?;
    let number = call(&mut arena, contract, Bytes::new())?;
    let store = arena.engine.store();
    let mut expected = U256::ZERO;
    for below in 1..=256 {
        let hash = store.hash(L2Number(number.0 - below))?.context("an ancestor")?;
        expected ^= U256::from_be_bytes(hash.0);
    }
    assert_eq!(store.slot(contract, U256::ZERO)?, expected);
    lied_about(arena, &[number]).await
}

/// Slots and accounts whose paths in the tries part as late as anybody can afford to make them: they are set,
/// and every other one is taken away again, which joins what parted.
pub(crate) async fn deep_trie_collision_keys(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // Keeps the value that it is sent in every slot that its call data lists.
    let contract = create(&mut arena, &hex!("365b801560125760209003348135556001565b00"))?;
    let slots: Vec<U256> = std::iter::once(0).chain(COLLIDING_SLOTS).map(U256::from).collect();
    let words = |slots: &mut dyn Iterator<Item = &U256>| -> Vec<u8> {
        slots.flat_map(|slot| slot.to_be_bytes::<32>()).collect()
    };
    let all = words(&mut slots.iter());
    let first = arena.alice.send(TxKind::Call(contract), GAS / 2, U256::ONE, all.into())?;
    let pay = COLLIDING_ADDRESSES.map(|number| arena.bob.transfer(numbered(number), 1));
    let txs: Result<Vec<Bytes>> = std::iter::once(Ok(first)).chain(pay).collect();
    let block = arena.build(txs?)?;
    succeeded(&block, &[&[true][..], &[true; COLLIDING_ADDRESSES.len()]].concat())?;
    let set = L2Number(block.header.number);
    let (store, depth) = (arena.engine.store(), |of: B256, than: B256| {
        let nibbles = |hash: B256| hash.0.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
        nibbles(of).zip(nibbles(than)).take_while(|(one, other)| one == other).count()
    });
    for (slot, least) in slots[1..].iter().zip(1..) {
        assert_eq!(store.slot(contract, *slot)?, U256::ONE);
        let hash = |slot: &U256| keccak256(slot.to_be_bytes::<32>());
        assert!(depth(hash(slot), hash(&slots[0])) >= least);
    }
    for (number, least) in COLLIDING_ADDRESSES[1..].iter().zip(1..) {
        let hash = |number| keccak256(numbered(number));
        assert!(depth(hash(*number), hash(COLLIDING_ADDRESSES[0])) >= least);
    }
    let some = words(&mut slots.iter().skip(1).step_by(2));
    let taken = call(&mut arena, contract, some)?;
    lied_about(arena, &[set, taken]).await
}

/// Slots whose hashes share at least 1, 2, 3, … nibbles with that of slot 0.
const COLLIDING_SLOTS: [u64; 7] = [93, 354, 5_390, 2_217, 406_872, 5_612_427, 795_691_161];
/// The same for accounts: addresses that are these numbers, beginning with the one that the others collide with.
const COLLIDING_ADDRESSES: [u64; 8] = [
    2_898_292_736,
    2_898_292_747,
    2_898_292_742,
    2_898_300_133,
    2_898_370_637,
    2_899_972_882,
    2_909_053_534,
    3_059_024_583,
];

fn numbered(number: u64) -> Address {
    Address::left_padding_from(&number.to_be_bytes())
}

/// Every precompile, with input that it accepts where that is easy to make, in one block.
pub(crate) async fn precompile_heavy_segment(ground: Ground) -> Result {
    let mut arena = funded(ground).await?;
    // Calls the address in the first word of its call data with the rest, and keeps under it the hash of what
    // came back, plus one for success.
    let proxy = hex!("365f5f375f5f6020360360205f356207a120fa3d5f5f3e3d5f20015f355500");
    let contract = create(&mut arena, &proxy)?;
    let inputs = precompiles()?;
    let mut txs = Vec::new();
    for (address, input) in &inputs {
        let data = [address.into_word().as_slice(), input].concat();
        txs.push(arena.alice.call(contract, 800_000, data)?);
    }
    let block = arena.build(txs)?;
    succeeded(&block, &vec![true; inputs.len()])?;
    let number = L2Number(block.header.number);
    let nothing = U256::from_be_bytes(keccak256([]).0);
    for (address, _) in &inputs {
        let slot = U256::from_be_bytes(address.into_word().0);
        let kept = arena.engine.store().slot(contract, slot)?;
        // All give something back and succeed.
        assert!(kept != nothing && kept != nothing + U256::ONE && !kept.is_zero(), "{address}");
    }
    lied_about(arena, &[number]).await
}

/// Precompiles with input that each accepts.
fn precompiles() -> Result<Vec<(Address, Vec<u8>)>> {
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[3; 32])?;
    let hash = keccak256("precompiles");
    let message = Message::from_digest(hash.0);
    // A hash, 28, r and s of a signature of 0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b.
    let ecrecover = hex!(
        "18c547e4f7b0f325ad1e56f57e26c745b09a3e503d86e00e5255ff7f715d3d1c"
        "000000000000000000000000000000000000000000000000000000000000001c"
        "73b1693892219d736caba55bdb67216e485557ea6b6af75f37096c9aa6a5a75f"
        "eeb940b1d03b21e36b0e47e79769f095fe2ab855bd91e3a38756b7d75a9c4549"
    );
    let pair = secret.keypair(&secp);
    let schnorr = secp.sign_schnorr_no_aux_rand(&message, &pair).serialize();
    let schnorr = [&hash[..], &pair.x_only_public_key().0.serialize(), &schnorr].concat();
    let word = |value: u64| B256::from(U256::from(value));
    let words =
        |values: &[u64]| -> Vec<u8> { values.iter().flat_map(|value| word(*value).0).collect() };
    // 3 to the power of 2^256 - 189 modulo itself, which is prime: 3.
    let prime = (U256::MAX - U256::from(188)).to_be_bytes::<32>();
    let modexp = [&words(&[1, 32, 32])[..], &[3], &prime, &prime].concat();
    let mut blake2f = vec![0; 213];
    blake2f[..4].copy_from_slice(&[0, 0, 0, 12]);
    blake2f[212] = 1;
    // The zero polynomial: commitment and proof are the point at infinity, its value is zero anywhere.
    let infinity = [&[0xc0][..], &[0; 47]].concat();
    let mut versioned = sha256::Hash::hash(&infinity).to_byte_array();
    versioned[0] = 1;
    let kzg = [&versioned[..], &word(5)[..], &word(0)[..], &infinity, &infinity].concat();
    let numbered = |number: u16| Address::left_padding_from(&number.to_be_bytes());
    Ok(vec![
        (numbered(1), ecrecover.into()),
        (numbered(2), vec![7; 1_000]),
        (numbered(3), vec![7; 1_000]),
        (numbered(4), vec![7; 1_000]),
        (numbered(5), modexp),
        (numbered(6), words(&[1, 2, 1, 2])),
        (numbered(7), words(&[1, 2, 12_345])),
        (numbered(8), Vec::new()),
        (numbered(9), blake2f),
        (numbered(0x0a), kzg),
        // BLS12-381: the point at infinity, in both groups, added to itself.
        (numbered(0x0b), vec![0; 256]),
        (numbered(0x0d), vec![0; 512]),
        // The same times zero, their pairing, and zero mapped to each group.
        (numbered(0x0c), vec![0; 160]),
        (numbered(0x0e), vec![0; 288]),
        (numbered(0x0f), vec![0; 384]),
        (numbered(0x10), vec![0; 64]),
        (numbered(0x11), vec![0; 128]),
        (predeploys::SCHNORR, schnorr),
    ])
}
