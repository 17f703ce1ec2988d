//! A claim that is not true can name any state, and a proof about what follows is executed on what a liar made
//! up: at worst that ends in an error.

mod common;

use alloy_eips::{
    eip2935::HISTORY_STORAGE_ADDRESS,
    eip4788::{BEACON_ROOTS_ADDRESS, SYSTEM_ADDRESS},
};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, keccak256};
use common::*;
use kedge_genesis::predeploys;
use kedge_vm::{AccountInfo, Header, PayloadTx, execute};
use proptest::prelude::*;

fn number() -> impl Strategy<Value = u64> {
    let extremes = &[0, 1, 2, u64::MAX / 2, u64::MAX - 1, u64::MAX][..];
    prop_oneof![prop::sample::select(extremes), any::<u64>()]
}

fn word() -> impl Strategy<Value = U256> {
    prop_oneof![
        Just(U256::ZERO),
        Just(U256::MAX),
        Just(U256::MAX >> 1),
        any::<[u8; 32]>().prop_map(|bytes| U256::from_be_bytes(bytes)),
        number().prop_map(U256::from),
    ]
}

/// Any bytes, many of them instructions that touch the state; or a delegation (EIP-7702).
fn code() -> impl Strategy<Value = Bytes> {
    let instructions = &[
        0x0a, 0x1e, 0x20, 0x30, 0x31, 0x33, 0x34, 0x37, 0x39, 0x3b, 0x3c, 0x3e, 0x3f, 0x40, 0x47,
        0x48, 0x49, 0x4a, 0x51, 0x52, 0x54, 0x55, 0x56, 0x57, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60,
        0x80, 0x81, 0x90, 0xa0, 0xa1, 0xf0, 0xf1, 0xf2, 0xf4, 0xf5, 0xfa, 0xff,
    ][..];
    let byte = prop_oneof![any::<u8>(), prop::sample::select(instructions)];
    let delegation = |to: Address| [&[0xef, 1, 0][..], to.as_slice()].concat().into();
    prop_oneof![
        3 => prop::collection::vec(byte, 0..80).prop_map(Bytes::from),
        1 => any::<u8>().prop_map(move |to| delegation(Address::with_last_byte(to))),
        1 => (0u8..8).prop_map(move |to| delegation(account(to).address)),
    ]
}

/// What a liar says about one account.
#[derive(Clone, Debug)]
struct Lie {
    address: Address,
    nonce: u64,
    balance: U256,
    code: Option<Bytes>,
    slots: Vec<(u64, U256)>,
}

fn address() -> impl Strategy<Value = Address> {
    let special = [
        predeploys::L1_BLOCK,
        predeploys::DEPOSITOR,
        predeploys::BRIDGE_DEPOSITOR,
        predeploys::BITCOIN_BRIDGE,
        predeploys::L2_TO_L1_MESSAGE_PASSER,
        predeploys::SEQUENCER_FEE_VAULT,
        predeploys::BASE_FEE_VAULT,
        predeploys::L1_FEE_VAULT,
        predeploys::OPERATOR_FEE_VAULT,
        HISTORY_STORAGE_ADDRESS,
        BEACON_ROOTS_ADDRESS,
        SYSTEM_ADDRESS,
        Address::with_last_byte(1),
        account(0).address.create(0),
    ];
    prop_oneof![(0u8..8).prop_map(|of| account(of).address), prop::sample::select(special.to_vec())]
}

fn lie() -> impl Strategy<Value = Lie> {
    let slots = prop::collection::vec((0u64..12, word()), 0..8);
    (address(), number(), word(), prop::option::of(code()), slots).prop_map(
        |(address, nonce, balance, code, slots)| Lie { address, nonce, balance, code, slots },
    )
}

/// The header of the block before, with fee parameters in one of their forms or in none.
fn parent(head: Header) -> impl Strategy<Value = Header> {
    let fees = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        number().prop_map(|fees| [&[0][..], &fees.to_be_bytes()].concat()),
        (number(), number()).prop_map(|(fees, least)| [
            &[1][..],
            &fees.to_be_bytes(),
            &least.to_be_bytes()
        ]
        .concat()),
    ];
    let made_up = (fees, number(), number(), number(), prop::option::of(number()));
    let honest = head.clone();
    let made_up = made_up.prop_map(move |(fees, base_fee, gas_used, gas_limit, blob)| Header {
        extra_data: fees.into(),
        base_fee_per_gas: Some(base_fee),
        gas_used,
        gas_limit,
        blob_gas_used: blob,
        ..head.clone()
    });
    prop_oneof![Just(honest), made_up]
}

/// A user's transaction, but for its nonce.
fn listed() -> impl Strategy<Value = (u8, u8, TxKind, U256, Bytes, u64, u128)> {
    let to = prop_oneof![Just(TxKind::Create), address().prop_map(TxKind::Call)];
    (0u8..8, 0u8..4, to, word(), code(), 21_000u64..10_000_000, any::<u128>())
}

proptest! {
    #[test]
    fn executing_on_a_state_that_a_liar_made_up_never_panics(
        lies in prop::collection::vec(lie(), 0..10),
        parent in parent(Chain::funded().head),
        timestamp in number(),
        listed in prop::collection::vec(listed(), 0..6),
    ) {
        let mut chain = Chain::funded();
        for Lie { address, nonce, balance, code, slots } in lies {
            let before = chain.db.accounts.get(&address).map(|account| account.code_hash);
            let code_hash = code.map_or(before.unwrap_or(KECCAK256_EMPTY), |code| {
                let hash = keccak256(&code);
                chain.db.codes.insert(hash, code);
                hash
            });
            chain.db.accounts.insert(address, AccountInfo { nonce, balance, code_hash });
            for (slot, value) in slots {
                chain.db.storage.insert((address, U256::from(slot)), value);
            }
        }
        let mut list: Vec<PayloadTx> = vec![attributes(2), mint(account(1).address, u128::MAX >> 1)];
        for (from, form, to, value, input, gas_limit, price) in listed {
            let signer = account(from);
            let nonce = chain.nonce(signer.address);
            let mut tx = call(nonce, to, 0, input);
            (tx.value, tx.gas_limit) = (value, gas_limit);
            let tx = match (form, to) {
                (0, _) => signer.sign(legacy(&tx)),
                (1, TxKind::Call(to)) => {
                    let own = signer.authorize(nonce.saturating_add(1), to);
                    let others = account(2).authorize(nonce, to);
                    signer.sign(eip7702(&tx, to, vec![own, others]))
                }
                (2, _) => {
                    (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (price, price);
                    signer.sign(tx)
                }
                _ => signer.sign(tx),
            };
            list.push(user(&tx));
        }
        let mut payload = chain.payload(list);
        payload.timestamp = timestamp;
        let parent_hash = B256::repeat_byte(7);
        let _ = execute(&chain.config, &parent, parent_hash, &payload, &mut chain.db);
    }
}
