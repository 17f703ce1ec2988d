//! Segments that have a verifier work as hard as gas lets them.

use crate::big_state::{BigState, Shape, contract};
use crate::case::{Call, Case, accounts, at, params};
use kedge_workloads::{Workload, instruction_loops, precompile_loops};

/// A segment of as much gas as there can be, an equal part for each workload.
fn segment_of(workloads: &[Workload]) {
    let params = params();
    let contracts = workloads.iter().map(|of| contract(at(of.name), of.runtime.clone(), vec![]));
    let accounts = accounts(contracts);
    let mut case = Case::new(BigState::new(&params, &accounts, Shape::default(), &[]));
    let calls = |of: &[Workload], gas: u64| -> Vec<Call> {
        let gas = gas / of.len() as u64;
        of.iter().map(|of| Call { to: at(of.name), gas, input: vec![] }).collect()
    };
    // Codes count as witness, so the first block has few.
    let first = calls(&workloads[..8], params.segment_target_gas - 150_000);
    let second = calls(workloads, params.block_gas_limit - 150_000);
    let lists = case.fill([first, second]);
    let proven = case.prove(&lists);
    assert!(proven.blocks.iter().all(|block| block.skipped.is_empty()));
    assert_eq!(proven.gas(), params.segment_target_gas - 1 + params.block_gas_limit);
    assert!(proven.sizes.code_count >= workloads.len());
    let calls = proven.blocks.iter().flat_map(|block| &block.receipts).count();
    assert_eq!(calls, 2 * 2 + 8 + workloads.len());
}

#[test]
fn precompile_heavy_segment() {
    segment_of(&precompile_loops());
}

#[test]
fn instruction_heavy_segment() {
    segment_of(&instruction_loops());
}
