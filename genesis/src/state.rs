//! The genesis state: contracts and their storage, no balances. Every coin on L2 is a deposit.

use crate::{params::Params, predeploys};
use alloc::vec::Vec;
use alloy_primitives::{Address, Bytes, U256};

/// One account of the genesis state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisAccount {
    /// Where.
    pub address: Address,
    /// Nonce; 1 for a contract, as EIP-161 gives a created one.
    pub nonce: u64,
    /// Balance in wei, always zero.
    pub balance: U256,
    /// Runtime code.
    pub code: Bytes,
    /// Storage slots that are not zero, ascending.
    pub storage: Vec<(U256, U256)>,
}

impl GenesisAccount {
    fn contract(address: Address, code: Bytes) -> Self {
        Self { address, nonce: 1, balance: U256::ZERO, code, storage: Vec::new() }
    }
}

/// The accounts of block 0, ascending by address.
///
/// `vault_script` is the `scriptPubKey` of the vault, to which no withdrawal may pay; empty on a
/// network without keys.
pub fn alloc(params: &Params, vault_script: &[u8]) -> Vec<GenesisAccount> {
    let _ = (params, vault_script);
    let mut accounts = alloc::vec![
        GenesisAccount::contract(
            predeploys::HISTORY_STORAGE,
            alloy_eips::eip2935::HISTORY_STORAGE_CODE.clone(),
        ),
        GenesisAccount::contract(
            predeploys::BEACON_ROOTS,
            alloy_eips::eip4788::BEACON_ROOTS_CODE.clone(),
        ),
    ];
    accounts.sort_unstable_by_key(|account| account.address);
    accounts
}
