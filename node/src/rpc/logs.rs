//! `eth_getLogs`.

use super::{chain::View, error::RpcError, guard::Deadline, server::RpcConfig};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use kedge_genesis::L2Number;
use kedge_store::LogTerms;
use std::time::Duration;

/// What a filter asks of a log.
fn terms_of(filter: &Filter) -> LogTerms {
    LogTerms {
        addresses: filter.address.clone().into_iter().collect(),
        topics: filter.topics.clone().map(|topics| topics.into_iter().collect()),
    }
}

/// How much one request may look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    pub(super) blocks: u64,
    pub(super) results: usize,
    pub(super) time: Duration,
}

impl From<&RpcConfig> for LogLimits {
    fn from(config: &RpcConfig) -> Self {
        Self { blocks: config.log_blocks, results: config.log_results, time: config.trace_time }
    }
}

impl View<'_> {
    /// The logs that a filter matches, in order. The log index says which blocks may hold some, and a block
    /// is read only if its header's bloom says so too.
    pub(super) fn logs(&self, filter: &Filter, limits: LogLimits) -> Result<Vec<Log>, RpcError> {
        let (first, last) = self.log_range(filter)?;
        let terms = terms_of(filter);
        let too_many =
            || RpcError::Limit(format!("query exceeds max block range {}", limits.blocks));
        // Nothing narrows it down, so there is no need to begin.
        if terms.is_empty() && last.0 - first.0 >= limits.blocks {
            return Err(too_many());
        }
        let (mut found, mut looked_at) = (Vec::new(), 0_u64);
        let deadline = Deadline::after(limits.time);
        for number in self.reader.blocks_with_logs(&terms, first, last) {
            if deadline.is_over() {
                let time = limits.time;
                return Err(RpcError::Limit(format!(
                    "query timeout: the search for logs takes longer than {time:?}"
                )));
            }
            let Some(number) = number? else { continue };
            if looked_at >= limits.blocks {
                return Err(too_many());
            }
            looked_at += 1;
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

    fn log_range(&self, filter: &Filter) -> Result<(L2Number, L2Number), RpcError> {
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
                Ok((first, last))
            }
        }
    }

    fn reader_number(&self, hash: alloy_primitives::B256) -> Result<L2Number, RpcError> {
        self.find(BlockId::from(hash))?.ok_or_else(|| RpcError::Execution("unknown block".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::World;
    use crate::rpc::chain::Chain;
    use alloy_primitives::{Address, B256};
    use bitcoin::ScriptBuf;
    use kedge_genesis::predeploys;
    use std::collections::BTreeSet;

    const LIMITS: LogLimits =
        LogLimits { blocks: 3, results: 1_000, time: Duration::from_secs(1_000) };

    /// A chain of twelve blocks, of which three hold withdrawals.
    fn world() -> (World, Chain, Vec<u64>) {
        let mut world = World::new();
        let deposit = world.deposit(crate::engine::tests::world::account().address(), 100_000_000);
        world.mine(vec![deposit]);
        world.build(vec![]).unwrap();
        let script = ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat());
        let mut holding = Vec::new();
        for number in 2..=12 {
            let tx = if number % 4 == 0 {
                holding.push(number);
                world.withdrawal(&script, 200_000)
            } else {
                world.transfer(Address::repeat_byte(3), 1)
            };
            assert_eq!(world.build(vec![tx]).unwrap().header.number, number);
        }
        let store = world.engine.store().clone();
        let chain = Chain::new(world.params, store, world.engine.clone());
        (world, chain, holding)
    }

    fn everywhere() -> Filter {
        Filter::new().from_block(0).to_block(12)
    }

    /// The logs of all blocks that match, without the index.
    fn naive(view: &View<'_>, filter: &Filter) -> Vec<Log> {
        (0..=12)
            .flat_map(|number| view.block(L2Number(number)).unwrap().matching(filter, false))
            .collect()
    }

    #[test]
    fn only_blocks_that_hold_such_logs_are_looked_at_however_long_the_chain_is() {
        let (_world, chain, holding) = world();
        let view = chain.view();
        let events = naive(&view, &everywhere().address(predeploys::BITCOIN_BRIDGE));
        let queued = *events.last().unwrap().topic0().unwrap();
        let filter = everywhere().address(predeploys::BITCOIN_BRIDGE).event_signature(queued);
        let blocks = view.reader.blocks_with_logs(&terms_of(&filter), L2Number(0), L2Number(12));
        let blocks = blocks.filter_map(Result::unwrap).map(|number| number.0);
        assert_eq!(blocks.collect::<Vec<_>>(), holding);
        // The limit is of blocks that are looked at, and there are no more.
        let found = view.logs(&filter, LIMITS).unwrap();
        assert_eq!(found, naive(&view, &filter));
        let in_blocks: BTreeSet<u64> = found.iter().filter_map(|log| log.block_number).collect();
        assert_eq!(in_blocks.into_iter().collect::<Vec<_>>(), holding);
        let error = view.logs(&filter, LogLimits { blocks: 2, ..LIMITS }).unwrap_err();
        assert!(matches!(error, RpcError::Limit(_)), "{error}");
    }

    #[test]
    fn a_filter_that_names_nothing_is_refused_beyond_the_range() {
        let (_world, chain, _) = world();
        let view = chain.view();
        let error = view.logs(&everywhere(), LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "query exceeds max block range 3");
        let all = view.logs(&everywhere(), LogLimits { blocks: 13, ..LIMITS }).unwrap();
        assert_eq!(all, naive(&view, &everywhere()));
    }

    #[test]
    fn a_block_that_leaves_the_chain_takes_its_logs_with_it() {
        let (world, chain, holding) = world();
        let filter = Filter::new().address(predeploys::BITCOIN_BRIDGE).from_block(0);
        let blocks = |chain: &Chain| {
            let logs = chain.view().logs(&filter, LogLimits { blocks: 100, ..LIMITS }).unwrap();
            let blocks: BTreeSet<u64> = logs.iter().filter_map(|log| log.block_number).collect();
            blocks.into_iter().filter(|number| holding.contains(number)).collect::<Vec<_>>()
        };
        assert_eq!(blocks(&chain), [4, 8, 12]);
        world.engine.unwind_unsafe_to(L2Number(8)).unwrap();
        assert_eq!(blocks(&chain), [4, 8]);
        world.engine.unwind_unsafe_to(L2Number(7)).unwrap();
        assert_eq!(blocks(&chain), [4]);
    }

    #[test]
    fn a_search_that_takes_longer_than_its_time_is_refused() {
        let (_world, chain, _) = world();
        let view = chain.view();
        let filter = everywhere().address(predeploys::BITCOIN_BRIDGE);
        let limits = LogLimits { time: Duration::ZERO, ..LIMITS };
        let error = view.logs(&filter, limits).unwrap_err();
        assert_eq!(error.code(), crate::rpc::error::code::LIMIT);
        assert!(error.to_string().starts_with("query timeout"), "{error}");
    }

    #[test]
    fn an_address_or_topic_that_nobody_logged_finds_nothing() {
        let (_world, chain, _) = world();
        let view = chain.view();
        for filter in [
            everywhere().address(Address::repeat_byte(9)),
            everywhere().topic2(B256::repeat_byte(9)),
        ] {
            assert_eq!(view.logs(&filter, LIMITS).unwrap(), []);
        }
    }
}
