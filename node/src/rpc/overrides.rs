//! What a request pretends about precompiled contracts: moved elsewhere, or overridden by code.

use super::error::RpcError;
use alloy_evm::precompiles::PrecompilesMap;
use alloy_primitives::Address;
use alloy_rpc_types_eth::state::StateOverride;
use kedge_vm::EvmConfig;

/// Changes of the precompiles that the overrides of accounts ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct PrecompileChanges {
    moved: Vec<(Address, Address)>,
    replaced: Vec<Address>,
}

impl PrecompileChanges {
    /// Reads them off the overrides.
    pub(super) fn of(config: &EvmConfig, overrides: &StateOverride) -> Result<Self, RpcError> {
        let precompiles = config.precompiles();
        let mut changes = Self::default();
        for (address, account) in overrides {
            match account.move_precompile_to {
                Some(to) if to != *address => changes.moved.push((*address, to)),
                // An account with other properties is an account, no precompile.
                _ if precompiles.contains(address) => changes.replaced.push(*address),
                _ => {}
            }
        }
        changes.moved.sort_unstable();
        for (from, to) in &changes.moved {
            if !precompiles.contains(from) {
                let text = format!("account {from} is not a precompile");
                return Err(RpcError::Execution(text));
            }
            if overrides.contains_key(to) {
                let text = format!("account {to} has already been overridden by a precompile");
                return Err(RpcError::Execution(text));
            }
        }
        Ok(changes)
    }

    /// Makes them in an EVM's precompiles.
    pub(super) fn apply(&self, precompiles: &mut PrecompilesMap) -> Result<(), RpcError> {
        for address in &self.replaced {
            precompiles.apply_precompile(address, |_| None);
        }
        precompiles
            .move_precompiles(self.moved.iter().copied())
            .map_err(|error| RpcError::Execution(error.to_string()))
    }
}
