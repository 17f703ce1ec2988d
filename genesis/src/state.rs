//! The genesis state: contracts and their storage, no balances. Every coin on L2 is a deposit.

use crate::{code, params::Params, predeploys};
use alloc::vec::Vec;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};

/// Slots that genesis sets; the storage layouts in `artifacts/` are checked against them.
mod slots {
    /// `L1Block.number` (lowest 64 bits) and `.timestamp` (the next 64).
    pub(super) const L1_NUMBER_AND_TIME: u8 = 0;
    /// `L1Block.hash`.
    pub(super) const L1_HASH: u8 = 2;
    /// `L1Block.sequenceNumber` (lowest 64 bits), `.blobBaseFeeScalar` and `.baseFeeScalar` (32 each).
    pub(super) const L1_SCALARS: u8 = 3;
    /// `L1Block.batcherHash`.
    pub(super) const L1_BATCHER: u8 = 4;
    /// `L1Block.blobBaseFee`.
    pub(super) const L1_BLOB_BASE_FEE: u8 = 7;
    /// The mapping `BitcoinBridge.isVaultScript`.
    pub(super) const BRIDGE_VAULT_SCRIPTS: u8 = 3;
    /// `BitcoinBridge.minWithdrawalSats`.
    pub(super) const BRIDGE_MIN_WITHDRAWAL: u8 = 4;
    /// `FeeVault.recipient`.
    pub(super) const VAULT_RECIPIENT: u8 = 1;
}

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

/// The accounts of block 0, ascending by address.
///
/// `vault_script` is the `scriptPubKey` of the vault, to which no withdrawal may pay; empty on a
/// network without keys.
pub fn alloc(params: &Params, vault_script: &[u8]) -> Vec<GenesisAccount> {
    let of = |address, code: &'static [u8], storage| {
        contract(address, Bytes::from_static(code), storage)
    };
    let recipient = U256::from_be_slice(params.fee_recipient.as_slice());
    let vault = |address| {
        of(address, code::FEE_VAULT, alloc::vec![(U256::from(slots::VAULT_RECIPIENT), recipient)])
    };
    let mut accounts = alloc::vec![
        of(predeploys::L1_BLOCK, code::L1_BLOCK, l1_block(params)),
        of(predeploys::BITCOIN_BRIDGE, code::BITCOIN_BRIDGE, bridge(params, vault_script)),
        of(predeploys::BITCOIN_HEADERS, code::BITCOIN_HEADERS, Vec::new()),
        of(predeploys::GAS_PRICE_ORACLE, code::GAS_PRICE_ORACLE, Vec::new()),
        of(predeploys::L2_TO_L1_MESSAGE_PASSER, code::L2_TO_L1_MESSAGE_PASSER, Vec::new()),
        of(predeploys::MULTICALL3, code::MULTICALL3, Vec::new()),
        of(predeploys::DETERMINISTIC_DEPLOYER, code::DETERMINISTIC_DEPLOYER, Vec::new()),
        vault(predeploys::SEQUENCER_FEE_VAULT),
        vault(predeploys::BASE_FEE_VAULT),
        vault(predeploys::L1_FEE_VAULT),
        vault(predeploys::OPERATOR_FEE_VAULT),
        contract(
            predeploys::HISTORY_STORAGE,
            alloy_eips::eip2935::HISTORY_STORAGE_CODE.clone(),
            Vec::new(),
        ),
        contract(
            predeploys::BEACON_ROOTS,
            alloy_eips::eip4788::BEACON_ROOTS_CODE.clone(),
            Vec::new(),
        ),
    ];
    accounts.sort_unstable_by_key(|account| account.address);
    accounts
}

fn contract(address: Address, code: Bytes, mut storage: Vec<(U256, U256)>) -> GenesisAccount {
    storage.retain(|(_, value)| !value.is_zero());
    storage.sort_unstable();
    GenesisAccount { address, nonce: 1, balance: U256::ZERO, code, storage }
}

/// `L1Block` at `l1_start`. The fee rate stays zero, so that the first origin's is taken as it is.
fn l1_block(params: &Params) -> Vec<(U256, U256)> {
    let number = U256::from(params.l1_start.height.0);
    let time = U256::from(params.l1_start_time);
    let batcher = params.keys.map_or(U256::ZERO, |keys| U256::from_be_bytes(keys.sequencer));
    alloc::vec![
        (U256::from(slots::L1_NUMBER_AND_TIME), number | time.wrapping_shl(64)),
        (U256::from(slots::L1_HASH), params.l1_start.hash.into()),
        (U256::from(slots::L1_SCALARS), U256::from(params.fees.l1_fee_scalar).wrapping_shl(96)),
        (U256::from(slots::L1_BATCHER), batcher),
        (U256::from(slots::L1_BLOB_BASE_FEE), U256::ONE),
    ]
}

fn bridge(params: &Params, vault_script: &[u8]) -> Vec<(U256, U256)> {
    let mut storage = alloc::vec![(
        U256::from(slots::BRIDGE_MIN_WITHDRAWAL),
        U256::from(params.min_withdrawal.0)
    )];
    if !vault_script.is_empty() {
        storage
            .push((mapping_slot(keccak256(vault_script), slots::BRIDGE_VAULT_SCRIPTS), U256::ONE));
    }
    storage
}

/// Where Solidity keeps the value of `key` in the mapping at `slot`.
fn mapping_slot(key: B256, slot: u8) -> U256 {
    let mut preimage = [0; 64];
    let (head, tail) = preimage.split_at_mut(32);
    head.copy_from_slice(key.as_slice());
    tail.copy_from_slice(&U256::from(slot).to_be_bytes::<32>());
    keccak256(preimage).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Network;
    use alloy_primitives::b256;
    use serde_json::Value;

    /// Slot and byte offset of a variable in a committed artifact.
    fn layout(artifact: &str, label: &str) -> (u8, u64) {
        let artifact: Value = serde_json::from_str(artifact).unwrap();
        let variables = artifact["storage"].as_array().unwrap();
        let variable = variables.iter().find(|variable| variable["label"] == label).unwrap();
        (
            variable["slot"].as_u64().unwrap().try_into().unwrap(),
            variable["offset"].as_u64().unwrap(),
        )
    }

    #[test]
    fn slots_are_those_of_the_compiled_contracts() {
        let l1_block = include_str!("../artifacts/L1Block.json");
        for (label, expected) in [
            ("number", (slots::L1_NUMBER_AND_TIME, 0)),
            ("timestamp", (slots::L1_NUMBER_AND_TIME, 8)),
            ("basefee", (1, 0)),
            ("hash", (slots::L1_HASH, 0)),
            ("sequenceNumber", (slots::L1_SCALARS, 0)),
            ("blobBaseFeeScalar", (slots::L1_SCALARS, 8)),
            ("baseFeeScalar", (slots::L1_SCALARS, 12)),
            ("batcherHash", (slots::L1_BATCHER, 0)),
            ("blobBaseFee", (slots::L1_BLOB_BASE_FEE, 0)),
            ("operatorFeeConstant", (8, 0)),
            ("operatorFeeScalar", (8, 8)),
            ("daFootprintGasScalar", (8, 12)),
        ] {
            assert_eq!(layout(l1_block, label), expected, "{label}");
        }
        let bridge = include_str!("../artifacts/BitcoinBridge.json");
        assert_eq!(layout(bridge, "isVaultScript"), (slots::BRIDGE_VAULT_SCRIPTS, 0));
        assert_eq!(layout(bridge, "minWithdrawalSats"), (slots::BRIDGE_MIN_WITHDRAWAL, 0));
        let passer = include_str!("../artifacts/L2ToL1MessagePasser.json");
        assert_eq!(layout(passer, "sentMessages"), (0, 0));
        assert_eq!(layout(passer, "msgNonce"), (1, 0));
        let vault = include_str!("../artifacts/FeeVault.json");
        assert_eq!(layout(vault, "recipient"), (slots::VAULT_RECIPIENT, 0));
    }

    #[test]
    fn genesis_holds_contracts_without_a_coin() {
        for network in Network::ALL {
            let accounts = alloc(network.params(), &[0x51; 34]);
            assert_eq!(accounts.len(), 13);
            assert!(accounts.is_sorted_by(|a, b| a.address < b.address));
            for account in accounts {
                assert!(account.balance.is_zero() && account.nonce == 1);
                // A failed decoding would leave zeros.
                assert!(account.code.len() > 60 && account.code[0] != 0, "{}", account.address);
                assert!(account.storage.is_sorted_by(|a, b| a.0 < b.0));
                assert!(account.storage.iter().all(|(_, value)| !value.is_zero()));
            }
        }
    }

    #[test]
    fn deterministic_deployer_is_the_code_found_on_other_chains() {
        assert_eq!(
            keccak256(code::DETERMINISTIC_DEPLOYER),
            b256!("2fa86add0aed31f33a762c9d88e807c475bd51d0f52bd0955754b2608f7e4989")
        );
    }
}
