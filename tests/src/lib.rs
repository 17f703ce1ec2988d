//! What the end-to-end tests share: processes, a real Bitcoin, and the clients that people use.
//!
//! Nothing here waits by sleeping: a process is ready when it says so or when its RPC answers, and every other
//! wait is [`until`] on a condition, with a deadline.

pub mod adversary;
pub mod bitcoind;
pub mod chain;
pub mod clients;
pub mod kedge;
pub mod l1;
pub mod process;
pub mod regtest;
pub mod rpc;
pub mod sim;
pub mod sim_bitcoin;
pub mod soak;
pub mod tools;
pub mod wallet;

use anyhow::{Result, anyhow};
use std::{future::Future, time::Duration};
use tokio::time::{Instant, MissedTickBehavior};

/// The longest that any single step of a flow may take on a slow, shared machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Polls until the condition holds and gives its value.
///
/// # Errors
/// When it does not hold by [`DEADLINE`], with the last error of the poll if there was one.
pub async fn until<T, F, P>(what: &str, mut poll: P) -> Result<T>
where
    P: FnMut() -> F,
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match poll().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() > end => return Err(anyhow!("waited in vain: {what}")),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("waited in vain: {what}")));
            }
            Ok(None) | Err(_) => {}
        }
    }
}
