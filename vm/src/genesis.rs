//! Block 0.

use crate::{
    AccountInfo, EvmConfig, ExecuteError, Header, StateDiff, TrieDiff, TrieNodes,
    exec::{
        header::{BlockAttributes, Outcome, seal},
        output_root,
    },
    trie::{self, Nibbles},
};
use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, keccak256};
use core::convert::Infallible;
use kedge_genesis::{GenesisAccount, Params, predeploys::L2_TO_L1_MESSAGE_PASSER};

/// Block 0 and its state, as differences from nothing.
#[derive(Clone, Debug)]
pub struct GenesisBlock {
    /// Its header: no parent, no transactions, the L1 start as its origin.
    pub header: Header,
    /// The header's hash.
    pub hash: B256,
    /// Its output root.
    pub output_root: B256,
    /// The state by key.
    pub state: StateDiff,
    /// The state's tries by path.
    pub trie: TrieDiff,
}

/// The state before block 0 has no nodes.
struct Nothing;

impl TrieNodes for Nothing {
    type Error = Infallible;

    fn trie_node(&mut self, _: Option<B256>, _: &Nibbles, _: B256) -> Result<Bytes, Infallible> {
        Ok(Bytes::new())
    }
}

/// Block 0 of a network with these accounts.
///
/// # Errors
/// Never: a state that is built from nothing reads no nodes. The error is there because the type of the
/// trie's functions says so.
pub fn genesis_block(
    params: &Params,
    alloc: &[GenesisAccount],
) -> Result<GenesisBlock, ExecuteError<Infallible>> {
    let mut state = StateDiff::default();
    for account in alloc {
        let code_hash = if account.code.is_empty() {
            KECCAK256_EMPTY
        } else {
            let hash = keccak256(&account.code);
            state.codes.insert(hash, account.code.clone());
            hash
        };
        let info = AccountInfo { nonce: account.nonce, balance: account.balance, code_hash };
        state.accounts.insert(account.address, Some(info));
        for (slot, value) in &account.storage {
            if !value.is_zero() {
                state.storage.insert((account.address, *slot), *value);
            }
        }
    }
    let (state_root, trie, roots) =
        trie::apply(trie::EMPTY_ROOT_HASH, &state, &[L2_TO_L1_MESSAGE_PASSER], &mut Nothing)?;
    let withdrawals_root =
        roots.get(&L2_TO_L1_MESSAGE_PASSER).copied().unwrap_or(trie::EMPTY_ROOT_HASH);
    let config = EvmConfig::from_params(params);
    let attributes = BlockAttributes {
        number: 0,
        timestamp: u64::from(params.l1_start_time),
        beneficiary: config.beneficiary,
        prev_randao: params.l1_start.hash,
        gas_limit: config.gas_limit,
        base_fee: params.fees.initial_base_fee,
        parent_beacon_block_root: B256::ZERO,
        extra_data: config.extra_data(),
    };
    let outcome = Outcome { state_root, withdrawals_root, gas_used: 0, footprint: 0 };
    let header = seal(config.spec, &attributes, B256::ZERO, &[], &[], outcome);
    let hash = header.hash_slow();
    Ok(GenesisBlock {
        output_root: output_root(state_root, withdrawals_root, hash),
        header,
        hash,
        state,
        trie,
    })
}
