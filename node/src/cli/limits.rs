//! What the JSON-RPC server gives at most: options of every command that has one.

use super::heavy::HeavyLimits;
use crate::rpc::RpcConfig;
use clap::Args;
use std::time::Duration;

/// Bytes in the unit of the options.
const MIB: u32 = 1024 * 1024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits of the JSON-RPC server")]
pub(super) struct RpcLimits {
    /// Largest request, batches included
    #[arg(long, value_name = "MIB", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    rpc_max_request: u32,
    /// Largest answer, batches included
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    rpc_max_response: u32,
    /// Most requests in a batch
    #[arg(long, value_name = "REQUESTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rpc_max_batch: u32,
    /// Most connections at a time
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    rpc_max_connections: u32,
    /// Most subscriptions of one connection
    #[arg(long, value_name = "SUBSCRIPTIONS", default_value_t = 128)]
    rpc_max_subscriptions: u32,
    /// Most filters at a time that are polled (eth_newFilter)
    #[arg(long, value_name = "FILTERS", default_value_t = 1_024)]
    rpc_max_filters: usize,
    /// After how long a filter is removed that nobody polls
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    rpc_filter_expiry: u64,
    /// Most blocks that one eth_getLogs looks at
    #[arg(long, value_name = "BLOCKS", default_value_t = 100_000)]
    rpc_max_log_blocks: u64,
    /// Most logs of one answer
    #[arg(long, value_name = "LOGS", default_value_t = 20_000)]
    rpc_max_logs: usize,
    /// Most gas of one eth_call, eth_estimateGas or eth_simulateV1
    #[arg(long, value_name = "GAS", default_value_t = 50_000_000)]
    rpc_call_gas: u64,
    /// Most calls that are executed at a time; 0 is two for each core
    #[arg(long, value_name = "CALLS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=65_536))]
    rpc_concurrent_calls: u32,
    #[command(flatten)]
    heavy: HeavyLimits,
}

impl RpcLimits {
    /// The configuration with these limits.
    pub(super) fn apply(&self, config: RpcConfig) -> RpcConfig {
        let config = self.heavy.apply(config);
        RpcConfig {
            max_request_bytes: self.rpc_max_request.saturating_mul(MIB),
            max_response_bytes: self.rpc_max_response.saturating_mul(MIB),
            max_batch: self.rpc_max_batch,
            max_connections: self.rpc_max_connections,
            max_subscriptions: self.rpc_max_subscriptions,
            max_filters: self.rpc_max_filters,
            filter_expiry: Duration::from_secs(self.rpc_filter_expiry),
            log_blocks: self.rpc_max_log_blocks,
            log_results: self.rpc_max_logs,
            call_gas: self.rpc_call_gas,
            concurrent_calls: match self.rpc_concurrent_calls {
                0 => config.concurrent_calls,
                calls => calls as usize,
            },
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        limits: RpcLimits,
    }

    fn config(options: &[&str]) -> RpcConfig {
        let all = ["kedge"].iter().chain(options);
        let options = Options::try_parse_from(all).expect("options");
        options.limits.apply(RpcConfig::new(([127, 0, 0, 1], 0).into()))
    }

    #[test]
    fn without_options_the_limits_are_the_server_s_own() {
        let own = RpcConfig::new(([127, 0, 0, 1], 0).into());
        assert_eq!(format!("{:?}", config(&[])), format!("{own:?}"));
    }

    #[test]
    fn options_change_their_limit() {
        let config = config(&["--rpc-max-request", "1", "--rpc-max-logs=7", "--rpc-call-gas=9"]);
        assert_eq!(config.max_request_bytes, 1_048_576);
        assert_eq!((config.log_results, config.call_gas), (7, 9));
        let traces = self::config(&["--rpc-trace-time=3"]).trace_time;
        assert_eq!(traces, Duration::from_secs(3));
        for refused in [
            ["--rpc-max-response", "4096"],
            ["--rpc-max-batch", "0"],
            ["--rpc-max-connections", "0"],
            ["--rpc-filter-expiry", "18446744073709551615"],
            ["--rpc-concurrent-calls", "18446744073709551615"],
        ] {
            let options = ["kedge"].into_iter().chain(refused);
            assert!(Options::try_parse_from(options).is_err(), "{refused:?}");
        }
    }
}
