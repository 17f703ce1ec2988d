//! `eth_*` about the node and the chain: what is in force, what is kept, and further look-ups.

use super::{
    block::{FullBlock, RpcHeader, pending_transaction},
    chain::View,
    error::RpcError,
    eth::{Eth, parse_slot},
};
use alloy_consensus::Transaction as _;
use alloy_eips::{
    BlockId, BlockNumberOrTag,
    eip2124::ForkHash,
    eip2935::HISTORY_STORAGE_ADDRESS,
    eip4788::BEACON_ROOTS_ADDRESS,
    eip7840::BlobParams,
    eip7910::{EthConfig, EthForkConfig, SystemContract},
};
use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::Index;
use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use kedge_genesis::L2Number;
use kedge_store::oldest_state;
use op_alloy_rpc_types::Transaction;
use serde::Serialize;
use std::collections::BTreeMap;

/// Most slots of one `eth_getStorageValues`, as in go-ethereum.
const MAX_SLOTS: usize = 1_024;

/// What the node is and has.
#[rpc(server, namespace = "eth")]
pub trait EthInfoApi {
    /// The rules in force (EIP-7910).
    #[method(name = "config")]
    fn config(&self) -> RpcResult<EthConfig>;

    /// Which blocks, states, logs and proofs this node has.
    #[method(name = "capabilities")]
    fn capabilities(&self) -> RpcResult<Capabilities>;

    /// Base fee of the next block, wei per gas.
    #[method(name = "baseFee")]
    fn base_fee(&self) -> RpcResult<U256>;

    /// Who receives the priority fees of this chain's blocks.
    #[method(name = "coinbase")]
    fn coinbase(&self) -> RpcResult<Address>;

    /// Slots of several contracts, 1,024 in all at most.
    #[method(name = "getStorageValues", blocking)]
    fn storage_values(
        &self,
        slots: BTreeMap<Address, Vec<String>>,
        block: Option<BlockId>,
    ) -> RpcResult<BTreeMap<Address, Vec<B256>>>;

    /// A block's header by number or tag; null when there is none.
    #[method(name = "getHeaderByNumber", blocking)]
    fn header_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<RpcHeader>>;

    /// A block's header by hash; null when there is none.
    #[method(name = "getHeaderByHash", blocking)]
    fn header_by_hash(&self, hash: B256) -> RpcResult<Option<RpcHeader>>;

    /// Null: there are no uncles.
    #[method(name = "getUncleByBlockNumberAndIndex")]
    fn uncle_by_number(
        &self,
        number: BlockNumberOrTag,
        index: Index,
    ) -> RpcResult<Option<RpcHeader>>;

    /// Null: there are no uncles.
    #[method(name = "getUncleByBlockHashAndIndex")]
    fn uncle_by_hash(&self, hash: B256, index: Index) -> RpcResult<Option<RpcHeader>>;

    /// A transaction's EIP-2718 bytes by its place.
    #[method(name = "getRawTransactionByBlockNumberAndIndex", blocking)]
    fn raw_by_number(&self, number: BlockNumberOrTag, index: Index) -> RpcResult<Option<Bytes>>;

    /// A transaction's EIP-2718 bytes by its place.
    #[method(name = "getRawTransactionByBlockHashAndIndex", blocking)]
    fn raw_by_hash(&self, hash: B256, index: Index) -> RpcResult<Option<Bytes>>;

    /// The transaction that used a nonce of an account, or waits to; null when there is none.
    #[method(name = "getTransactionBySenderAndNonce", blocking)]
    fn transaction_by_nonce(&self, sender: Address, nonce: U64) -> RpcResult<Option<Transaction>>;
}

/// What `eth_capabilities` answers: per resource from which block on it is there.
#[derive(Clone, Debug, Serialize)]
pub struct Capabilities {
    head: Head,
    state: Resource,
    tx: Resource,
    logs: Resource,
    receipts: Resource,
    blocks: Resource,
    stateproofs: Resource,
}

#[derive(Clone, Debug, Serialize)]
struct Head {
    number: U64,
    hash: B256,
}

/// From which block on a resource is there; from the first one by default.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    disabled: bool,
    oldest_block: U64,
}

impl EthInfoApiServer for Eth {
    fn config(&self) -> RpcResult<EthConfig> {
        let view = self.chain.view();
        let evm = &self.chain.evm;
        let precompiles = evm
            .precompiles()
            .inner()
            .iter()
            .map(|(address, precompile)| (precompile.id().name().to_owned(), *address));
        // All rules are in force from block 0, so there is neither a last nor a next set.
        let current = EthForkConfig {
            activation_time: 0,
            blob_schedule: BlobParams {
                target_blob_count: 0,
                max_blob_count: 0,
                ..BlobParams::osaka()
            },
            chain_id: evm.chain_id,
            fork_id: Bytes::copy_from_slice(&ForkHash::from(view.hash(L2Number(0))?).0),
            precompiles: precompiles.collect(),
            system_contracts: BTreeMap::from([
                (SystemContract::BeaconRoots, BEACON_ROOTS_ADDRESS),
                (SystemContract::HistoryStorage, HISTORY_STORAGE_ADDRESS),
            ]),
        };
        Ok(EthConfig { current, next: None, last: None })
    }

    fn capabilities(&self) -> RpcResult<Capabilities> {
        let view = self.chain.view();
        let latest = view.latest()?;
        let all = Resource::default();
        let oldest = oldest_state(&view.reader).map_err(RpcError::from)?;
        let states = Resource { oldest_block: U64::from(oldest.0), ..all };
        Ok(Capabilities {
            head: Head { number: U64::from(latest.0), hash: view.hash(latest)? },
            state: states,
            tx: all,
            logs: all,
            receipts: all,
            blocks: all,
            stateproofs: states,
        })
    }

    fn base_fee(&self) -> RpcResult<U256> {
        Ok(U256::from(self.chain.view().next_base_fee()?))
    }

    fn coinbase(&self) -> RpcResult<Address> {
        Ok(self.chain.evm.beneficiary)
    }

    fn storage_values(
        &self,
        slots: BTreeMap<Address, Vec<String>>,
        block: Option<BlockId>,
    ) -> RpcResult<BTreeMap<Address, Vec<B256>>> {
        let asked: usize = slots.values().map(Vec::len).sum();
        if asked > MAX_SLOTS {
            let text = format!("too many slots (max {MAX_SLOTS})");
            return Err(RpcError::Limit(text).into());
        }
        if asked == 0 {
            return Err(RpcError::InvalidParams("empty request".into()).into());
        }
        let view = self.chain.view();
        let state = view.state(block)?;
        let read = |(address, slots): (Address, Vec<String>)| {
            let value = |slot: String| Ok(state.slot(address, parse_slot(&slot)?)?.into());
            let values = slots.into_iter().map(value).collect::<Result<Vec<B256>, RpcError>>()?;
            Ok((address, values))
        };
        Ok(slots.into_iter().map(read).collect::<Result<_, RpcError>>()?)
    }

    fn header_by_number(&self, number: BlockNumberOrTag) -> RpcResult<Option<RpcHeader>> {
        self.of_block(number.into(), |view, number| {
            Ok(Some(view.block(number)?.rpc_block(false).header))
        })
    }

    fn header_by_hash(&self, hash: B256) -> RpcResult<Option<RpcHeader>> {
        self.of_block(hash.into(), |view, number| {
            Ok(Some(view.block(number)?.rpc_block(false).header))
        })
    }

    fn uncle_by_number(&self, _: BlockNumberOrTag, _: Index) -> RpcResult<Option<RpcHeader>> {
        Ok(None)
    }

    fn uncle_by_hash(&self, _: B256, _: Index) -> RpcResult<Option<RpcHeader>> {
        Ok(None)
    }

    fn raw_by_number(&self, number: BlockNumberOrTag, index: Index) -> RpcResult<Option<Bytes>> {
        self.of_block(number.into(), |view, number| {
            Ok(view.block(number)?.raw_transaction(index.into()))
        })
    }

    fn raw_by_hash(&self, hash: B256, index: Index) -> RpcResult<Option<Bytes>> {
        self.of_block(hash.into(), |view, number| {
            Ok(view.block(number)?.raw_transaction(index.into()))
        })
    }

    fn transaction_by_nonce(&self, sender: Address, nonce: U64) -> RpcResult<Option<Transaction>> {
        let nonce = nonce.to();
        let view = self.chain.view();
        if let Some(number) = view.nonce_used_in(sender, nonce)? {
            let block = view.block(number)?;
            return Ok(block.index_of(sender, nonce).and_then(|index| block.transaction(index)));
        }
        let waiting = self.submission.mempool().and_then(|pool| pool.at_nonce(&sender, nonce));
        Ok(waiting.map(|tx| pending_transaction(&tx)))
    }
}

impl View<'_> {
    /// The block in which an account's nonce went past `nonce`, by bisection: nonces never fall.
    fn nonce_used_in(&self, sender: Address, nonce: u64) -> Result<Option<L2Number>, RpcError> {
        let past = |number: u64| -> Result<bool, RpcError> {
            let account = self.reader.state_at(L2Number(number))?.account(sender)?;
            Ok(account.is_some_and(|account| account.nonce > nonce))
        };
        let (mut low, mut high) = (0, self.latest()?.0);
        if !past(high)? {
            return Ok(None);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if past(middle)? { high = middle } else { low = middle + 1 }
        }
        Ok(Some(L2Number(high)))
    }
}

impl FullBlock {
    /// The place of the transaction with that sender and nonce.
    fn index_of(&self, sender: Address, nonce: u64) -> Option<usize> {
        (0..self.transactions.len()).find(|index| {
            let used = || {
                let deposit = self.receipts.get(*index)?.deposit_nonce();
                deposit.or_else(|| Some(self.transactions.get(*index)?.nonce()))
            };
            self.senders.get(*index) == Some(&sender) && used() == Some(nonce)
        })
    }
}
