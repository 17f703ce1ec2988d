//! What the deposits of one block can make execution load.

mod common;

use alloy_primitives::{Address, TxKind, U256, keccak256};
use common::*;
use kedge_genesis::{
    GenesisAccount, alloc,
    predeploys::{BITCOIN_BRIDGE, BRIDGE_DEPOSITOR},
};
use kedge_vm::{ExecutedBlock, MemoryDb, PayloadTx, TxDeposit, genesis_block};

/// EIP-170.
const MAX_CODE_BYTES: usize = 24_576;
/// What the deposits of a block leave of its witness to forced transactions, bytes.
const LEFT_TO_FORCED: u64 = 600_000;

/// An address that nothing else in a test has.
fn address(kind: u8, number: u8) -> Address {
    Address::from_word(keccak256([kind, number]))
}

/// A contract of the largest size whose code is like no other.
fn largest(at: Address, code: &[u8]) -> GenesisAccount {
    let mut code = code.to_vec();
    code.push(0x00);
    code.extend_from_slice(at.as_slice());
    code.resize(MAX_CODE_BYTES, 0);
    account_with(at, code)
}

fn account_with(address: Address, code: Vec<u8>) -> GenesisAccount {
    GenesisAccount { address, nonce: 1, balance: U256::ZERO, code: code.into(), storage: vec![] }
}

/// Call data of `BitcoinBridge.credit`.
fn calldata(recipient: Address) -> Vec<u8> {
    [&keccak256("credit(address)")[..4], recipient.into_word().as_slice()].concat()
}

/// Executes a block of as many deposits as one takes, to recipients that run `code` of their number;
/// `delegated` ones do so by EIP-7702. Kinds 2 to 5 of their number are contracts of the largest size.
fn credit(code: impl Fn(u8) -> Vec<u8>, delegated: bool) -> ExecutedBlock {
    let count = u8::try_from(params().deposits_gas_per_block / params().deposit_gas).unwrap();
    let mut accounts = alloc(params(), &[0x51]);
    for number in 0..count {
        let recipient = address(0, number);
        let runs = if delegated { address(1, number) } else { recipient };
        accounts.push(largest(runs, &code(number)));
        if delegated {
            let designator = [&[0xef, 0x01, 0x00], runs.as_slice()].concat();
            accounts.push(account_with(recipient, designator));
        }
        accounts.extend((2..6).map(|kind| largest(address(kind, number), &[])));
    }
    let genesis = genesis_block(params(), &accounts).unwrap();
    let db = MemoryDb::new(&genesis);
    let mut chain =
        Chain { config: config(), genesis: db.clone(), db, head: genesis.header, blocks: vec![] };
    let mut listed = vec![attributes(1)];
    listed.extend((0..count).map(|number| {
        PayloadTx::System(TxDeposit {
            source_hash: keccak256([number]),
            from: BRIDGE_DEPOSITOR,
            to: TxKind::Call(BITCOIN_BRIDGE),
            mint: COIN,
            value: U256::from(COIN),
            gas_limit: params().deposit_gas,
            input: calldata(address(0, number)).into(),
            ..Default::default()
        })
    }));
    chain.execute(listed)
}

/// `PUSH20 address`, then `rest`.
fn touch(address: Address, rest: &[u8]) -> Vec<u8> {
    [&[0x73], address.as_slice(), rest].concat()
}

#[test]
fn deposits_leave_room_for_the_witness_of_forced_transactions() {
    // Each recipient touches as many large contracts as its gas allows.
    let size = |number: u8| -> Vec<u8> {
        (2..6).flat_map(|kind| touch(address(kind, number), &[0x3b, 0x50])).collect()
    };
    // PUSH0 ×5, PUSH20, GAS, CALL, POP
    let call = |number: u8| -> Vec<u8> {
        (2..6)
            .flat_map(|kind| {
                let call = touch(address(kind, number), &[0x5a, 0xf1, 0x50]);
                [&[0x5f; 5], call.as_slice()].concat()
            })
            .collect()
    };
    // One large contract, then as many slots as fit.
    let slots = |number: u8| -> Vec<u8> {
        let mut code = touch(address(2, number), &[0x3b, 0x50]);
        code.extend((1..5).flat_map(|slot| [0x60, slot, 0x54, 0x50]));
        code
    };
    let limit = params().block_witness_limit - LEFT_TO_FORCED;
    for (name, code) in
        [("size", &size as &dyn Fn(u8) -> Vec<u8>), ("call", &call), ("slots", &slots)]
    {
        for delegated in [false, true] {
            let block = credit(code, delegated);
            assert!(
                block.witness_bytes <= limit,
                "{name}, delegated {delegated}: {} bytes",
                block.witness_bytes
            );
        }
    }
}
