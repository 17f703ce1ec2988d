//! A node answers a week's worth of requests. `make soak` calls it.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `REQUESTS` | how many requests, 200,000 when it is not given |
//! | `TRANSACTIONS` | how many transactions fill the chain before, 4,000 when it is not given |
//! | `SEED` | of the clients' choices, 0 when it is not given |

use anyhow::{Context, Result};
use kedge_tests::soak::{Options, run};
use std::process::ExitCode;

/// The number in an environment variable, or another.
fn number(name: &str, otherwise: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().with_context(|| format!("{name}={text} is no number"))
        }
        _ => Ok(otherwise),
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let options = Options {
        requests: number("REQUESTS", 200_000)?,
        transactions: number("TRANSACTIONS", 4_000)?,
        seed: number("SEED", 0)?,
    };
    let dir = tempfile::tempdir()?;
    let outcome = run(options, dir.path()).await?;
    print!("{outcome}");
    Ok(if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
