//! What blocks look like in JSON, encoded once: blocks and their receipts are asked for again and again, and
//! making their JSON takes far longer than sending it.
//!
//! Entries are known by the block's hash and say nothing that is not a function of the block, so none is ever
//! stale, whatever becomes of the chain.

use super::{chain::View, error::RpcError};
use alloy_primitives::B256;
use kedge_genesis::L2Number;
use quick_cache::{Weighter, sync::Cache};
use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};
use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::sync::Arc;

/// Bytes of JSON that are kept.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// How many entries that is, about: the cache is divided accordingly, and no entry is larger than a part.
const KEPT: usize = 64;

/// Fewer items than this are not worth another thread.
const AT_ONCE: usize = 32;

/// Something of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// The block with the hashes of its transactions.
    Hashes,
    /// The block with whole transactions.
    Transactions,
    /// The receipts.
    Receipts,
}

impl Part {
    /// A block as `eth_getBlockByNumber` and its kind have it.
    pub(super) const fn block(full: bool) -> Self {
        if full { Self::Transactions } else { Self::Hashes }
    }
}

/// Encoded JSON, cheap to share.
#[derive(Clone, Debug)]
pub struct Json(Arc<RawValue>);

impl Json {
    pub(super) fn of(value: &impl Serialize) -> Result<Self, RpcError> {
        let json = to_raw_value(value).map_err(|error| RpcError::Internal(error.into()))?;
        Ok(Self(json.into()))
    }

    /// A list of what `item` gives for these indices, encoded on all cores.
    pub(super) fn list<T: Serialize>(
        count: usize,
        item: impl Fn(usize) -> Option<T> + Sync,
    ) -> Result<Self, RpcError> {
        let indices = (0..count).into_par_iter().with_min_len(AT_ONCE);
        let items = indices.filter_map(|index| item(index).map(|item| to_raw_value(&item)));
        let items: Vec<Box<RawValue>> =
            items.collect::<Result<_, _>>().map_err(|error| RpcError::Internal(error.into()))?;
        Self::of(&items)
    }

    pub(super) fn get(&self) -> &str {
        self.0.get()
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<(B256, Part), Json> for Bytes {
    fn weight(&self, _: &(B256, Part), json: &Json) -> u64 {
        json.get().len() as u64
    }
}

/// The encoded JSON of recently shown blocks.
#[derive(Debug)]
pub(super) struct Encoded(Cache<(B256, Part), Json, Bytes>);

impl Encoded {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(KEPT, KEPT_BYTES, Bytes))
    }
}

impl View<'_> {
    /// Part of a block if it is at hand.
    pub(super) fn encoded_before(
        &self,
        number: L2Number,
        part: Part,
    ) -> Result<Option<Json>, RpcError> {
        Ok(self.chain.encoded.0.get(&(self.hash(number)?, part)))
    }

    /// Part of a block.
    pub(super) fn encoded(&self, number: L2Number, part: Part) -> Result<Json, RpcError> {
        let key = (self.hash(number)?, part);
        if let Some(json) = self.chain.encoded.0.get(&key) {
            return Ok(json);
        }
        let block = self.block(number)?;
        let json = match part {
            Part::Hashes => Json::of(&block.rpc_block(false)),
            Part::Transactions => Json::of(&block.rpc_block(true)),
            Part::Receipts => {
                let l1 = self.l1_fees(number)?;
                let evm = &self.chain.evm;
                Json::list(block.transactions.len(), |index| block.receipt(index, evm, &l1))
            }
        }?;
        self.chain.encoded.0.insert(key, json.clone());
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_encoded_as_one_after_the_other_would_be() {
        for count in [0, 1, AT_ONCE, 10 * AT_ONCE + 1] {
            let item =
                |index: usize| (index % 3 != 1).then(|| serde_json::json!({ "index": index }));
            let items: Vec<_> = (0..count).filter_map(item).collect();
            assert_eq!(Json::list(count, item).unwrap().get(), Json::of(&items).unwrap().get());
        }
    }
}
