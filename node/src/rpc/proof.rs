//! `eth_getProof`.

use super::{chain::View, error::RpcError, eth::parse_slot};
use alloy_primitives::{Address, B256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use alloy_serde::JsonStorageKey;
use kedge_genesis::L2Number;
use kedge_vm::trie::prove_account;

/// Most slots of one request, as in go-ethereum.
const MAX_SLOTS: usize = 1_024;

/// Proves an account and slots of it against the state root of block `number`. Of an old block's tries the
/// nodes on the paths are read from the nodes' history, and nothing else.
pub(super) fn prove(
    view: &View<'_>,
    number: L2Number,
    address: Address,
    slots: &[String],
) -> Result<EIP1186AccountProofResponse, RpcError> {
    if slots.len() > MAX_SLOTS {
        return Err(RpcError::InvalidParams(format!("too many keys (max {MAX_SLOTS})")));
    }
    let keys: Vec<_> = slots.iter().map(|slot| parse_slot(slot)).collect::<Result<_, _>>()?;
    let root = view.header(number)?.state_root;
    let mut nodes = view.reader.state_at(number)?;
    let proof = prove_account(root, address, &keys, &mut nodes)
        .map_err(|error| RpcError::Internal(anyhow::anyhow!("proof of {address}: {error:?}")))?;
    let storage_proof = slots.iter().zip(proof.slots).map(|(asked, (slot, value, nodes))| {
        // Answered in the form in which it was asked, as go-ethereum does.
        let key = if asked.len() == 66 {
            JsonStorageKey::Hash(B256::from(slot))
        } else {
            JsonStorageKey::Number(slot)
        };
        EIP1186StorageProof { key, value, proof: nodes }
    });
    Ok(EIP1186AccountProofResponse {
        address,
        balance: proof.account.balance,
        code_hash: proof.account.code_hash,
        nonce: proof.account.nonce,
        storage_hash: proof.account.storage_root,
        account_proof: proof.nodes,
        storage_proof: storage_proof.collect(),
    })
}
