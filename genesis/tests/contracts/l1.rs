//! `L1Block` and `BitcoinHeaders`.

use crate::chain::{ALICE, Chain, origin};
use alloy_primitives::{B256, Bytes, U256, b256, bytes};
use kedge_genesis::{
    abi::{self, BitcoinHeaders::*, L1Attributes, L1Block::*},
    predeploys::{BITCOIN_HEADERS, BRIDGE_DEPOSITOR, DEPOSITOR, L1_BLOCK},
};
use op_revm::{L1BlockInfo, OpSpecId};
use sha2::{Digest, Sha256};

#[test]
fn attributes_are_stored_where_the_fee_functions_read_them() {
    let mut chain = Chain::at_fee_rate(3_000);
    let at = origin(1, 3_000);
    assert_eq!(chain.view(L1_BLOCK, numberCall {}), 1);
    assert_eq!(chain.view(L1_BLOCK, timestampCall {}), at.median_time);
    assert_eq!(chain.view(L1_BLOCK, hashCall {}), at.hash);
    assert_eq!(chain.view(L1_BLOCK, sequenceNumberCall {}), 0);
    let sequencer = chain.params.keys.unwrap().sequencer;
    assert_eq!(chain.view(L1_BLOCK, batcherHashCall {}), B256::from(sequencer));

    let info = L1BlockInfo::try_fetch(&mut chain.db, U256::from(1), OpSpecId::JOVIAN).unwrap();
    assert_eq!(info.l1_base_fee, abi::wei_per_vbyte(3_000));
    assert_eq!(info.l1_base_fee_scalar, U256::from(chain.params.fees.l1_fee_scalar));
    assert_eq!(info.l1_blob_base_fee, Some(U256::ONE));
    assert_eq!(info.l1_blob_base_fee_scalar, Some(U256::ZERO));
    assert_eq!(info.operator_fee_scalar, Some(U256::ZERO));
    assert_eq!(info.operator_fee_constant, Some(U256::ZERO));
    assert_eq!(info.da_footprint_gas_scalar, Some(0));
    assert!(!info.empty_ecotone_scalars);
}

#[test]
fn attributes_take_less_than_half_of_their_gas() {
    let mut chain = Chain::new();
    for number in 1..=2 {
        let outcome = chain.attributes(&origin(number, 1_000));
        assert!(
            outcome.success && outcome.gas * 2 < chain.params.attributes_gas,
            "{}",
            outcome.gas
        );
    }
}

#[test]
fn every_packed_field_lands_in_its_slot() {
    let mut chain = Chain::new();
    // Bytes 1, 2, 3, … behind the selector: no two fields look alike.
    let mut data = abi::SET_L1_BLOCK_VALUES_JOVIAN.to_vec();
    data.extend((4..abi::ATTRIBUTES_CALLDATA_LEN).map(|at| u8::try_from(at).unwrap()));
    let field = |from: usize, to: usize| U256::from_be_slice(&data[from..to]);
    let sent = Bytes::from(data.clone());
    assert!(chain.send(DEPOSITOR, L1_BLOCK, U256::ZERO, 1_000_000, sent).success);
    let info = L1BlockInfo::try_fetch(&mut chain.db, U256::from(1), OpSpecId::JOVIAN).unwrap();
    assert_eq!(info.l1_base_fee_scalar, field(4, 8));
    assert_eq!(info.l1_blob_base_fee_scalar, Some(field(8, 12)));
    assert_eq!(info.l1_base_fee, field(36, 68));
    assert_eq!(info.l1_blob_base_fee, Some(field(68, 100)));
    assert_eq!(info.operator_fee_scalar, Some(field(164, 168)));
    assert_eq!(info.operator_fee_constant, Some(field(168, 176)));
    assert_eq!(info.da_footprint_gas_scalar.map(U256::from), Some(field(176, 178)));
    assert_eq!(U256::from(chain.view(L1_BLOCK, sequenceNumberCall {})), field(12, 20));
    assert_eq!(U256::from(chain.view(L1_BLOCK, timestampCall {})), field(20, 28));
    assert_eq!(U256::from(chain.view(L1_BLOCK, numberCall {})), field(28, 36));
    assert_eq!(chain.view(L1_BLOCK, hashCall {}), B256::from(field(100, 132)));
    assert_eq!(chain.view(L1_BLOCK, batcherHashCall {}), B256::from(field(132, 164)));
    let height = field(28, 36);
    let root = chain.view(BITCOIN_HEADERS, merkleRootCall { height });
    assert_eq!(root, B256::from(field(178, 210)));
}

#[test]
fn fee_rate_is_an_average_that_moves_once_per_origin() {
    let mut chain = Chain::new();
    assert_eq!(chain.view(L1_BLOCK, basefeeCall {}), U256::ZERO);
    let mut expected = U256::ZERO;
    for (number, rate) in (1u64..).zip([8_000, 8_000, 80_000, 1_000, 2_000_000, 1_001]) {
        let new = abi::wei_per_vbyte(rate);
        expected =
            if expected.is_zero() { new } else { (expected * U256::from(7) + new) / U256::from(8) };
        for sequence_number in 0..3 {
            let at = L1Attributes { sequence_number, ..origin(number, rate) };
            assert!(chain.attributes(&at).success);
            assert_eq!(chain.view(L1_BLOCK, basefeeCall {}), expected);
            assert_eq!(chain.view(L1_BLOCK, sequenceNumberCall {}), sequence_number);
        }
    }
}

#[test]
fn only_derivation_sets_values_and_only_in_full() {
    let mut chain = Chain::new();
    let data = abi::attributes_calldata(chain.params, &origin(1, 1_000));
    let mut send = |from, data: &[u8]| {
        chain.send(from, L1_BLOCK, U256::ZERO, 1_000_000, Bytes::copy_from_slice(data))
    };
    send(ALICE, &data).reverted_with::<NotDepositor>();
    send(BRIDGE_DEPOSITOR, &data).reverted_with::<NotDepositor>();
    send(DEPOSITOR, &data[..178]).reverted_with::<MalformedCalldata>();
    send(DEPOSITOR, &[&data[..], &[0]].concat()).reverted_with::<MalformedCalldata>();
    assert!(send(DEPOSITOR, &data).success);

    let record = recordCall { height: 1, hash: B256::ZERO, root: B256::ZERO, medianTime: 0 };
    for stranger in [ALICE, DEPOSITOR] {
        chain
            .call(stranger, BITCOIN_HEADERS, U256::ZERO, record.clone())
            .reverted_with::<OnlyL1Block>();
    }
}

#[test]
fn bitcoin_blocks_are_found_by_height() {
    let mut chain = Chain::new();
    for number in 1..=3 {
        assert!(chain.attributes(&origin(number, 1_000)).success);
        let tip = chain.view(BITCOIN_HEADERS, tipCall {});
        assert_eq!((tip.height, tip.hash), (number, origin(number, 0).hash));
    }
    for number in 1..=3 {
        let (at, height) = (origin(number, 0), U256::from(number));
        assert_eq!(chain.view(BITCOIN_HEADERS, blockHashCall { height }), at.hash);
        assert_eq!(chain.view(BITCOIN_HEADERS, merkleRootCall { height }), at.merkle_root);
        assert_eq!(chain.view(BITCOIN_HEADERS, medianTimePastCall { height }), at.median_time);
    }
    for height in [U256::ZERO, U256::from(4), U256::MAX] {
        assert_eq!(chain.view(BITCOIN_HEADERS, blockHashCall { height }), B256::ZERO);
    }
}

/// Block 100,000 of Bitcoin's main network: its merkle root, its four transaction ids (both internal
/// byte order once reversed), and two of the transactions.
mod block {
    use super::*;

    pub(super) const HEIGHT: u64 = 100_000;
    pub(super) const ROOT: B256 =
        b256!("f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766");
    pub(super) const IDS: [B256; 4] = [
        b256!("8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87"),
        b256!("fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4"),
        b256!("6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4"),
        b256!("e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d"),
    ];

    pub(super) fn coinbase() -> Bytes {
        bytes!(
            "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff0804"
            "4c86041b020602ffffffff0100f2052a010000004341041b0e8c2567c12536aa13357b79a073dc4444acb8"
            "3c4ec7a0e2f99dd7457516c5817242da796924ca4e99947d087fedf9ce467cb9f7c6287078f801df276fdf"
            "84ac00000000"
        )
    }

    pub(super) fn third() -> Bytes {
        bytes!(
            "0100000001c33ebff2a709f13d9f9a7569ab16a32786af7d7e2de09265e41c61d078294ecf010000008a47"
            "30440220032d30df5ee6f57fa46cddb5eb8d0d9fe8de6b342d27942ae90a3231e0ba333e02203deee8060f"
            "dc70230a7f5b4ad7d7bc3e628cbe219a886b84269eaeb81e26b4fe014104ae31c31bf91278d99b8377a35b"
            "bce5b27d9fff15456839e919453fc7b3f721f0ba403ff96c9deeb680e5fd341c0fc3a7b90da4631ee39560"
            "639db462e9cb850fffffffff0240420f00000000001976a914b0dcbf97eabf4404e31d952477ce822dadbe"
            "7e1088acc060d211000000001976a9146b1281eec25ab4e1e0793ff4e08ab1abb3409cd988ac00000000"
        )
    }
}

fn reversed(mut hash: B256) -> B256 {
    hash.0.reverse();
    hash
}

fn sha256d(data: &[u8]) -> B256 {
    B256::from_slice(&Sha256::digest(Sha256::digest(data)))
}

fn pair(left: B256, right: B256) -> Vec<u8> {
    [left.0, right.0].concat()
}

#[test]
fn transactions_of_a_real_bitcoin_block_are_verified() {
    let mut chain = Chain::new();
    let merkle_root = reversed(block::ROOT);
    let at = L1Attributes { merkle_root, ..origin(block::HEIGHT, 1_000) };
    assert!(chain.attributes(&at).success);
    let ids = block::IDS.map(reversed);
    let (left, right) = (sha256d(&pair(ids[0], ids[1])), sha256d(&pair(ids[2], ids[3])));

    let mut verify = |raw: &[u8], height: u64, proof: &[B256], index: u64| {
        let call = verifyTransactionCall {
            rawTx: Bytes::copy_from_slice(raw),
            height: U256::from(height),
            merkleProof: proof.to_vec(),
            index: U256::from(index),
        };
        chain.view(BITCOIN_HEADERS, call)
    };
    let (coinbase, third) = (block::coinbase(), block::third());
    assert!(verify(&coinbase, block::HEIGHT, &[ids[1], right], 0));
    assert!(verify(&third, block::HEIGHT, &[ids[3], left], 2));

    // Another position, height, proof or transaction.
    for index in [0, 1, 3, 6] {
        assert!(!verify(&third, block::HEIGHT, &[ids[3], left], index), "index {index}");
    }
    assert!(!verify(&third, block::HEIGHT + 1, &[ids[3], left], 2));
    assert!(!verify(&third, block::HEIGHT, &[ids[3]], 2));
    assert!(!verify(&third, block::HEIGHT, &[ids[3], right], 2));
    assert!(!verify(&coinbase[1..], block::HEIGHT, &[ids[1], right], 0));
    assert!(!verify(&[], block::HEIGHT, &[], 0));

    // An inner node, 64 bytes long, hashes to its parent: it must not pass as a transaction.
    assert!(!verify(&pair(ids[2], ids[3]), block::HEIGHT, &[left], 1));
    assert!(!verify(&pair(left, right), block::HEIGHT, &[], 0));
}

#[test]
fn padding_of_an_odd_level_is_no_second_place_of_a_transaction() {
    let mut chain = Chain::new();
    let raw = block::coinbase();
    let id = sha256d(&raw);
    let at = L1Attributes { merkle_root: sha256d(&pair(id, id)), ..origin(5, 1_000) };
    assert!(chain.attributes(&at).success);
    for (index, expected) in [(0, true), (1, false)] {
        let call = verifyTransactionCall {
            rawTx: raw.clone(),
            height: U256::from(5),
            merkleProof: vec![id],
            index: U256::from(index),
        };
        assert_eq!(chain.view(BITCOIN_HEADERS, call), expected);
    }
}
