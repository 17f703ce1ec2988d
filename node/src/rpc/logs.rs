//! `eth_getLogs`.

use super::{chain::View, error::RpcError};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use kedge_genesis::L2Number;

/// How much one request may look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) blocks: u64,
    pub(super) results: usize,
}

impl View<'_> {
    /// The logs that a filter matches, in order. A block is read only if its header's bloom says that
    /// it may hold some.
    pub(super) fn logs(&self, filter: &Filter, limits: LogLimits) -> Result<Vec<Log>, RpcError> {
        let (first, last) = self.log_range(filter, limits)?;
        let mut found = Vec::new();
        for number in first.0..=last.0 {
            let number = L2Number(number);
            if !filter.matches_bloom(self.header(number)?.logs_bloom) {
                continue;
            }
            found.extend(self.block(number)?.matching(filter, false));
            if found.len() > limits.results {
                return Err(RpcError::Limit(format!(
                    "query returned more than {} results",
                    limits.results
                )));
            }
        }
        Ok(found)
    }

    fn log_range(
        &self,
        filter: &Filter,
        limits: LogLimits,
    ) -> Result<(L2Number, L2Number), RpcError> {
        match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => {
                let number = self.reader_number(hash)?;
                Ok((number, number))
            }
            FilterBlockOption::Range { from_block, to_block } => {
                let resolve = |tag: Option<BlockNumberOrTag>| {
                    self.find(BlockId::Number(tag.unwrap_or_default()))?.ok_or_else(|| {
                        RpcError::InvalidParams(
                            "block range extends beyond current head block".into(),
                        )
                    })
                };
                if let (Some(BlockNumberOrTag::Number(from)), Some(BlockNumberOrTag::Number(to))) =
                    (from_block, to_block)
                    && from > to
                {
                    return Err(RpcError::InvalidParams("invalid block range params".into()));
                }
                let (first, last) = (resolve(from_block)?, resolve(to_block)?);
                if first > last {
                    return Err(RpcError::InvalidParams("invalid block range params".into()));
                }
                if last.0 - first.0 >= limits.blocks {
                    return Err(RpcError::Limit(format!(
                        "query exceeds max block range {}",
                        limits.blocks
                    )));
                }
                Ok((first, last))
            }
        }
    }

    fn reader_number(&self, hash: alloy_primitives::B256) -> Result<L2Number, RpcError> {
        self.find(BlockId::from(hash))?.ok_or_else(|| RpcError::Execution("unknown block".into()))
    }
}
