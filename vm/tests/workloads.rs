//! The workloads of `kedge-workloads` do what they say, to their last gas.

mod common;

use alloy_evm::Evm as _;
use alloy_op_evm::OpTx;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use common::*;
use kedge_genesis::{GenesisAccount, alloc};
use kedge_vm::{MemoryDb, genesis_block};
use kedge_workloads::code::MAX_CODE_BYTES;
use kedge_workloads::{Workload, instruction_loops, precompile_loops, token};
use op_revm::OpHaltReason;
use revm::context_interface::result::{ExecutionResult, HaltReason};

/// A contract with that code.
const AT: Address = Address::repeat_byte(0x77);

fn chain(code: Vec<u8>, storage: Vec<(U256, U256)>) -> Chain {
    let mut accounts = alloc(params(), &[0x51]);
    let balance = U256::ZERO;
    accounts.push(GenesisAccount { address: AT, nonce: 1, balance, code: code.into(), storage });
    let genesis = genesis_block(params(), &accounts).unwrap();
    let db = MemoryDb::new(&genesis);
    Chain { config: config(), genesis: db.clone(), db, head: genesis.header, blocks: vec![] }
}

fn call(chain: &mut Chain, to: Address, gas: u64, input: &[u8]) -> ExecutionResult<OpHaltReason> {
    let env = chain.config.call_env(&chain.head);
    let mut evm = chain.config.evm(env, &mut chain.db);
    let mut tx = OpTx::default();
    tx.0.base.caller = account(0).address;
    tx.0.base.kind = TxKind::Call(to);
    tx.0.base.data = input.to_vec().into();
    tx.0.base.gas_limit = gas;
    tx.0.base.chain_id = Some(params().chain_id);
    tx.0.enveloped_tx = Some(Bytes::new());
    evm.transact_raw(tx).unwrap().result
}

#[test]
fn loops_go_on_until_the_gas_is_used_up() {
    let all: Vec<Workload> = [instruction_loops(), precompile_loops()].concat();
    let mut names: Vec<_> = all.iter().map(|of| of.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "a name is there twice");
    for Workload { name, runtime, .. } in all {
        assert_eq!(runtime.len(), MAX_CODE_BYTES, "{name}");
        let result = call(&mut chain(runtime, vec![]), AT, 1_000_000, &[]);
        let ExecutionResult::Halt { reason: OpHaltReason::Base(reason), gas, .. } = result else {
            panic!("{name}: {result:?}")
        };
        assert!(matches!(reason, HaltReason::OutOfGas(_)), "{name}: {reason:?}");
        assert_eq!(gas.total_gas_spent(), 1_000_000, "{name}");
    }
}

#[test]
fn every_precompile_accepts_its_input() {
    let mut called = std::collections::BTreeSet::new();
    for Workload { name, call: of, .. } in precompile_loops() {
        let (address, input) = of.unwrap();
        let result = call(&mut chain(vec![], vec![]), address, 16_000_000, &input);
        assert!(result.is_success(), "{name}: {result:?}");
        assert!(!result.into_output().unwrap().is_empty(), "{name}");
        called.insert(address);
    }
    let precompiles = config().precompiles().addresses().copied().collect();
    assert_eq!(called, precompiles, "every precompile has a workload");
}

#[test]
fn the_token_moves() {
    let (from, to) = (account(0).address, Address::repeat_byte(9));
    let slot = token::balance_slot(from);
    let mut chain = chain(token::RUNTIME.to_vec(), vec![(slot, U256::from(100))]);
    let result = call(&mut chain, AT, 100_000, &token::transfer(to, U256::from(30)));
    assert!(result.is_success(), "{result:?}");
    assert_eq!(result.logs().len(), 1);
    assert_eq!(result.into_output().unwrap()[..], B256::with_last_byte(1)[..]);
    let result = call(&mut chain, AT, 100_000, &token::transfer(to, U256::from(101)));
    assert!(!result.is_success());
}
