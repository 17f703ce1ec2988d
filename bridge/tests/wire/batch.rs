use crate::params;
use alloy_consensus::{
    EthereumTxEnvelope, Signed, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy,
};
use alloy_eips::{
    eip2718::Encodable2718,
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use kedge_bridge::batch::{self, Batch, BatchBlock, BatchFault, Budget, EncodeError, encode};
use kedge_genesis::L2Number;
use miniz_oxide::deflate::compress_to_vec;
use proptest::prelude::*;

type Tx = EthereumTxEnvelope<TxEip4844>;

/// Everything that a transaction of any type may hold.
#[derive(Clone, Debug)]
struct Fields {
    ty: u8,
    chain_id: u64,
    protected: bool,
    nonce: u64,
    gas_limit: u64,
    fees: (u128, u128),
    to: Option<Address>,
    value: U256,
    input: Vec<u8>,
    access: Vec<(Address, Vec<B256>)>,
    authorizations: Vec<(U256, Address, u64, u8, U256, U256)>,
    signature: (U256, U256, bool),
}

impl Fields {
    fn raw(self) -> Bytes {
        let Self { chain_id, nonce, gas_limit, value, .. } = self;
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees;
        let gas_price = max_fee_per_gas;
        let to = self.to.map_or(TxKind::Create, TxKind::Call);
        let input = Bytes::from(self.input);
        let (r, s, parity) = self.signature;
        let signature = Signature::new(r, s, parity);
        let access_list = AccessList(
            self.access
                .into_iter()
                .map(|(address, storage_keys)| AccessListItem { address, storage_keys })
                .collect(),
        );
        let tx = match self.ty {
            0 => {
                let chain_id = self.protected.then_some(chain_id);
                let tx = TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input };
                Tx::Legacy(Signed::new_unhashed(tx, signature))
            }
            1 => {
                let tx = TxEip2930 {
                    chain_id,
                    nonce,
                    gas_price,
                    gas_limit,
                    to,
                    value,
                    access_list,
                    input,
                };
                Tx::Eip2930(Signed::new_unhashed(tx, signature))
            }
            2 => {
                let tx = TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas,
                    max_priority_fee_per_gas,
                    to,
                    value,
                    access_list,
                    input,
                };
                Tx::Eip1559(Signed::new_unhashed(tx, signature))
            }
            _ => {
                let authorization_list = self
                    .authorizations
                    .into_iter()
                    .map(|(chain_id, address, nonce, parity, r, s)| {
                        let inner = Authorization { chain_id, address, nonce };
                        SignedAuthorization::new_unchecked(inner, parity, r, s)
                    })
                    .collect();
                let tx = TxEip7702 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas,
                    max_priority_fee_per_gas,
                    to: self.to.unwrap_or_default(),
                    value,
                    access_list,
                    authorization_list,
                    input,
                };
                Tx::Eip7702(Signed::new_unhashed(tx, signature))
            }
        };
        tx.encoded_2718().into()
    }
}

fn word() -> impl Strategy<Value = U256> {
    prop_oneof![
        Just(U256::ZERO),
        any::<u64>().prop_map(U256::from),
        any::<[u8; 32]>().prop_map(U256::from_be_bytes)
    ]
}

fn address() -> impl Strategy<Value = Address> {
    // Few, so that dictionaries repeat; some not.
    prop_oneof![(0u8..4).prop_map(Address::repeat_byte), any::<[u8; 20]>().prop_map(Address::from)]
}

prop_compose! {
    fn transaction()(
        ty in prop::sample::select(vec![0u8, 1, 2, 4]),
        // EIP-155 puts twice the chain id into `v`.
        chain_id in prop_oneof![Just(21_335u64), 1u64..(1 << 62)],
        protected in any::<bool>(),
        nonce in any::<u64>(),
        gas_limit in any::<u64>(),
        fees in (any::<u128>(), any::<u128>()),
        (to, value) in (prop::option::of(address()), word()),
        input in prop::collection::vec(any::<u8>(), 0..80),
        access in prop::collection::vec((address(), prop::collection::vec(any::<[u8; 32]>().prop_map(B256::from), 0..3)), 0..3),
        authorizations in prop::collection::vec((word(), address(), any::<u64>(), any::<u8>(), word(), word()), 0..3),
        signature in (word(), word(), any::<bool>()),
    ) -> Bytes {
        Fields { ty, chain_id, protected, nonce, gas_limit, fees, to, value, input, access, authorizations, signature }.raw()
    }
}

prop_compose! {
    fn batches()(
        first in any::<u64>(),
        last_origin in any::<[u8; 20]>(),
        start in any::<u32>(),
        blocks in prop::collection::vec(
            (any::<u16>(), any::<bool>(), prop::collection::vec(transaction(), 0..5)),
            1..12,
        ),
    ) -> Batch {
        let mut timestamp = u64::from(start);
        let blocks = blocks.into_iter().map(|(delta, epoch_step, transactions)| {
            timestamp += u64::from(delta);
            BatchBlock { timestamp, epoch_step, transactions }
        }).collect();
        Batch { first: L2Number(first), last_origin, blocks }
    }
}

fn decode(body: &[u8], max: usize) -> Result<Batch, BatchFault> {
    let blocks = params().max_batch_blocks;
    batch::decode(body, &mut Budget { bytes: max, blocks })
}

fn limit() -> usize {
    params().max_batch_bytes as usize
}

/// Two transfers and a call, in two blocks.
fn sample() -> Batch {
    let fields = Fields {
        ty: 2,
        chain_id: 21_335,
        protected: true,
        nonce: 3,
        gas_limit: 21_000,
        fees: (2_000_000, 1_000_000),
        to: Some(Address::repeat_byte(0xaa)),
        value: U256::from(10u64).pow(U256::from(18)),
        input: vec![],
        access: vec![],
        authorizations: vec![],
        signature: (U256::from(7), U256::from(8), true),
    };
    let call = Fields { ty: 0, input: vec![1, 2, 3, 4, 5], nonce: 4, ..fields.clone() };
    Batch {
        first: L2Number(9),
        last_origin: [0x55; 20],
        blocks: vec![
            BatchBlock {
                timestamp: 1_000,
                epoch_step: true,
                transactions: vec![fields.clone().raw(), call.raw()],
            },
            BatchBlock { timestamp: 1_002, epoch_step: false, transactions: vec![fields.raw()] },
        ],
    }
}

/// What `sample` inflates to.
fn sample_columns() -> Vec<u8> {
    hex::decode(concat!(
        "09",
        "5555555555555555555555555555555555555555", // first, last origin
        "03e80702",                                 // times 1000, +2
        "0101",                                     // steps 1, 0
        "020201",                                   // counts
        "03020002",                                 // kinds
        "0107",                                     // parities
        "09d7a601d7a601d7a601",                     // chains
        "03030403",                                 // nonces
        "0988a40188a40188a401",                     // gas
        "0980897a80897a80897a",                     // prices
        "06c0843dc0843d",                           // tips
        "03010101",                                 // targets
        "1b",
        "080de0b6b3a7640000",
        "080de0b6b3a7640000",
        "080de0b6b3a7640000",
        "06000001010000", // heads
        "0105",           // data
        "020000",         // access
        "00",             // authorizations
        "14",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "04",
        "01020304",
        "c001", // signatures
    ))
    .unwrap()
    .into_iter()
    .chain((0..3).flat_map(|_| {
        let mut signature = [0; 64];
        (signature[31], signature[63]) = (7, 8);
        signature
    }))
    .collect()
}

fn body(raw: &[u8]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(compress_to_vec(raw, 6));
    body
}

#[test]
fn columns_of_a_batch_are_these_bytes() {
    let encoded = encode(&sample()).unwrap();
    assert_eq!(encoded[0], 0);
    let raw = miniz_oxide::inflate::decompress_to_vec(&encoded[1..]).unwrap();
    assert_eq!(hex::encode(raw), hex::encode(sample_columns()));
    assert_eq!(decode(&body(&sample_columns()), limit()), Ok(sample()));
}

#[test]
fn deviating_bodies_are_rejected() {
    let good = body(&sample_columns());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good.clone();
        change(&mut body);
        decode(&body, limit())
    };
    let raw = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut raw = sample_columns();
        change(&mut raw);
        decode(&body(&raw), limit())
    };
    assert_eq!(decode(&[], limit()), Err(BatchFault::Version));
    assert_eq!(decode(&[0], limit()), Err(BatchFault::Deflate));
    assert_eq!(with(&|body| body[0] = 1), Err(BatchFault::Version));
    assert_eq!(with(&|body| body.push(0)), Err(BatchFault::Deflate));
    assert_eq!(with(&|body| body.truncate(body.len() - 1)), Err(BatchFault::Deflate));
    let columns = Err(BatchFault::Columns);
    assert_eq!(raw(&|raw| raw.push(0)), columns);
    assert_eq!(raw(&|raw| raw.truncate(raw.len() - 1)), columns);
    assert_eq!(raw(&|raw| raw.clear()), columns);
    // A varint that is not the shortest: 9 as 0x89 0x00.
    assert_eq!(raw(&|raw| drop(raw.splice(0..1, [0x89, 0]))), columns);
    // A varint beyond 64 bits as the first number.
    assert_eq!(raw(&|raw| drop(raw.splice(0..1, [0xff; 18].into_iter().chain([0x01])))), columns);
    // A bit set beyond the last block.
    assert_eq!(raw(&|raw| raw[26] |= 4), columns);
    // A transaction more in the counts than in the columns, and one less.
    assert_eq!(raw(&|raw| raw[29] = 2), columns);
    assert_eq!(raw(&|raw| raw[29] = 0), columns);
    // A blob transaction, a deposit, an unknown kind.
    for kind in [3, 0x7e, 0xff] {
        assert_eq!(raw(&|raw| raw[31] = kind), columns);
    }
    // No blocks.
    let mut empty = sample_columns()[..21].to_vec();
    empty.extend([0; 19]);
    assert_eq!(decode(&body(&empty), limit()), Err(BatchFault::Empty));
}

#[test]
fn a_batch_has_a_most_number_of_blocks() {
    let most = params().max_batch_blocks as usize;
    let mut batch = Batch { blocks: vec![BatchBlock::default(); most], ..sample() };
    assert_eq!(decode(&encode(&batch).unwrap(), limit()), Ok(batch.clone()));
    batch.blocks.push(BatchBlock::default());
    assert!(batch.decoded_size() < limit());
    assert_eq!(decode(&encode(&batch).unwrap(), limit()), Err(BatchFault::TooManyBlocks));
}

#[test]
fn bombs_are_bounded_by_the_limit() {
    let max = 100_000;
    let zeros = body(&vec![0; 10 * max]);
    assert!(zeros.len() < 2_000);
    assert_eq!(decode(&zeros, max), Err(BatchFault::TooLarge));

    // Many empty blocks.
    let block = BatchBlock::default();
    let many = Batch { blocks: vec![block; max / 64 + 1], ..sample() };
    let encoded = encode(&many).unwrap();
    assert!(encoded.len() < 200);
    assert_eq!(decode(&encoded, max), Err(BatchFault::TooLarge));
    assert_eq!(decode(&encoded, many.decoded_size()), Ok(many));

    // One transaction that names one address very often.
    let access = vec![(Address::ZERO, vec![]); max / 20];
    let fields = Fields {
        ty: 1,
        chain_id: 1,
        protected: true,
        nonce: 0,
        gas_limit: 0,
        fees: (0, 0),
        to: None,
        value: U256::ZERO,
        input: vec![],
        access,
        authorizations: vec![],
        signature: (U256::ZERO, U256::ZERO, false),
    };
    let block = BatchBlock { transactions: vec![fields.raw()], ..Default::default() };
    let batch = Batch { blocks: vec![block], ..sample() };
    let encoded = encode(&batch).unwrap();
    assert!(encoded.len() < 300);
    assert!(decode(&encoded, max).is_err());
    assert_eq!(decode(&encoded, batch.decoded_size()), Ok(batch));
}

#[test]
fn a_batch_takes_what_it_decodes_to_from_the_budget() {
    let whole = Budget::of(params());
    assert_eq!(whole, Budget { bytes: limit(), blocks: params().max_batch_blocks });
    let batch = sample();
    let (encoded, size) = (encode(&batch).unwrap(), batch.decoded_size());
    assert!(size > sample_columns().len());
    let mut budget = whole;
    assert_eq!(batch::decode(&encoded, &mut budget), Ok(batch.clone()));
    let left = Budget { bytes: whole.bytes - size, blocks: whole.blocks - 2 };
    assert_eq!(budget, left);
    // Inflated to more than it decodes to: a dictionary of addresses that nothing names.
    let mut columns = sample_columns();
    let at = columns.windows(21).position(|part| part == [&[20][..], &[0xaa; 20]].concat());
    let dictionary = [&[0xd0, 0x0f][..], &[0xaa; 2_000]].concat();
    columns.splice(at.unwrap()..at.unwrap() + 21, dictionary);
    assert_eq!(batch::decode(&body(&columns), &mut budget), Ok(batch.clone()));
    let bytes = left.bytes - columns.len();
    assert_eq!(budget, Budget { bytes, blocks: left.blocks - 2 });
    // Exactly what is left is enough, and then there is nothing.
    let mut exact = Budget { bytes: size, blocks: 2 };
    assert_eq!(batch::decode(&encoded, &mut exact), Ok(batch));
    let none = Budget { bytes: 0, blocks: 0 };
    assert_eq!(exact, none);
    for (budget, fault) in [
        (Budget { bytes: size - 1, blocks: 2 }, BatchFault::TooLarge),
        (Budget { bytes: size, blocks: 1 }, BatchFault::TooManyBlocks),
        (none, BatchFault::TooLarge),
    ] {
        let mut left = budget;
        assert_eq!(batch::decode(&encoded, &mut left), Err(fault));
        assert_eq!(left, none);
    }
}

#[test]
fn a_body_that_is_no_batch_takes_the_whole_budget() {
    let cut = encode(&sample()).unwrap();
    let bodies = [vec![], vec![1], cut[..cut.len() - 1].to_vec(), body(&[0; 30])];
    for bad in bodies {
        let mut budget = Budget::of(params());
        assert!(batch::decode(&bad, &mut budget).is_err());
        assert_eq!(budget, Budget { bytes: 0, blocks: 0 });
    }
}

#[test]
fn what_a_batch_cannot_carry_is_not_encoded() {
    let none = Batch { blocks: vec![], ..sample() };
    assert_eq!(encode(&none), Err(EncodeError::Empty));
    let mut back = sample();
    back.blocks[1].timestamp = 999;
    assert_eq!(encode(&back), Err(EncodeError::Time { block: 1 }));
    for bad in ["", "00", "c0", "7ec0", "03c0", "02c0", "f8"] {
        let mut batch = sample();
        batch.blocks[0].transactions[1] = hex::decode(bad).unwrap().into();
        assert_eq!(encode(&batch), Err(EncodeError::Transaction { block: 0, number: 1 }), "{bad}");
    }
    let mut trailing = sample();
    let mut raw = trailing.blocks[1].transactions[0].to_vec();
    raw.push(0);
    trailing.blocks[1].transactions[0] = raw.into();
    assert_eq!(encode(&trailing), Err(EncodeError::Transaction { block: 1, number: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn batches_round_trip_to_the_same_bytes(batch in batches()) {
        let encoded = encode(&batch).unwrap();
        prop_assert_eq!(decode(&encoded, 2 * batch.decoded_size()), Ok(batch.clone()));
        prop_assert!(decode(&encoded, batch.decoded_size() - 1).is_err());
    }

    #[test]
    fn mutated_columns_never_panic_and_what_decodes_encodes_again(
        batch in batches(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let encoded = encode(&batch).unwrap();
        let mut raw = miniz_oxide::inflate::decompress_to_vec(&encoded[1..]).unwrap();
        for (place, byte) in places {
            let place = place.index(raw.len());
            raw[place] = byte;
        }
        if let Ok(decoded) = decode(&body(&raw), limit()) {
            prop_assert_eq!(decode(&encode(&decoded).unwrap(), limit()), Ok(decoded));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&noise, 10_000);
        let _ = decode(&body(&noise), 10_000);
    }
}
