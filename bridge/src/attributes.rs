//! The L1 attributes deposit, the first transaction of an epoch: it tells L2 of its L1 origin.
//!
//! A deposit transaction from [`predeploys::DEPOSITOR`] to [`predeploys::L1_BLOCK`] with the packed call
//! data of [`attributes_calldata`], no value, `params.attributes_gas` gas and the source hash of the OP
//! Stack's domain 1: `keccak(1 ‖ keccak(origin hash ‖ sequence number))`, both numbers 32 bytes.

use alloy_primitives::{TxKind, U256};
use kedge_genesis::{
    Params,
    abi::{L1Attributes, attributes_calldata},
    predeploys,
};
use op_alloy_consensus::{L1InfoDepositSource, TxDeposit};

/// The attributes deposit of an epoch.
pub fn attributes_tx(params: &Params, at: &L1Attributes) -> TxDeposit {
    TxDeposit {
        source_hash: L1InfoDepositSource::new(at.hash, at.sequence_number).source_hash(),
        from: predeploys::DEPOSITOR,
        to: TxKind::Call(predeploys::L1_BLOCK),
        mint: 0,
        value: U256::ZERO,
        gas_limit: params.attributes_gas,
        is_system_transaction: false,
        input: attributes_calldata(params, at),
    }
}
