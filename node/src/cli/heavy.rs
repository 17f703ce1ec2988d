//! What calls may take that execute again, search or prove.

use crate::rpc::{HeavyPool, RpcConfig};
use clap::{Args, value_parser};
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub(super) struct HeavyLimits {
    /// How many calls run at a time that trace, search logs or prove state, apart from all others; as
    /// many as there are cores by default
    #[arg(long, value_name = "CALLS", value_parser = value_parser!(u16).range(1..))]
    rpc_heavy_calls: Option<u16>,
    /// Longest that one trace, or one search for logs, takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = value_parser!(u32).range(1..))]
    rpc_trace_time: u32,
    /// Most that the trace of one transaction holds, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = value_parser!(u32).range(1..=65_536))]
    rpc_trace_memory: u32,
}

impl HeavyLimits {
    /// That server with these limits.
    pub(super) fn apply(&self, config: RpcConfig) -> RpcConfig {
        let heavy = self.rpc_heavy_calls.map(|calls| HeavyPool::new(usize::from(calls)));
        RpcConfig {
            heavy: heavy.unwrap_or_default(),
            trace_time: Duration::from_secs(u64::from(self.rpc_trace_time)),
            trace_bytes: (self.rpc_trace_memory as usize) << 20,
            ..config
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        limits: HeavyLimits,
    }

    fn server() -> RpcConfig {
        RpcConfig::new(([127, 0, 0, 1], 0).into())
    }

    fn parse(options: &[&str]) -> Result<RpcConfig, clap::Error> {
        let program = Program::try_parse_from(["program"].iter().chain(options))?;
        Ok(program.limits.apply(server()))
    }

    #[test]
    fn limits_are_the_server_s_defaults_until_an_option_changes_them() {
        let (own, server) = (parse(&[]).unwrap(), server());
        assert_eq!(own.heavy.free(), server.heavy.free());
        assert_eq!(own.trace_time, server.trace_time);
        assert_eq!(own.trace_bytes, server.trace_bytes);
        let options = ["--rpc-heavy-calls=3", "--rpc-trace-time=60", "--rpc-trace-memory=1"];
        let changed = parse(&options).unwrap();
        assert_eq!(changed.heavy.free(), 3);
        assert_eq!(changed.trace_time, Duration::from_secs(60));
        assert_eq!(changed.trace_bytes, 1_048_576);
        for senseless in ["--rpc-heavy-calls=0", "--rpc-trace-time=0", "--rpc-trace-memory=0"] {
            assert!(parse(&[senseless]).is_err(), "{senseless}");
        }
    }
}
