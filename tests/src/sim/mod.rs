//! The seeded simulator: the very code of the node as several parties on a simulated Bitcoin, and everything
//! that can happen to them, chosen by a seed.
//!
//! One event loop; nothing runs by itself, so a seed makes the same run every time. At every step the
//! invariants of the bridge, the order of heads and the verdicts on assertions are checked; at the end, after
//! a calm period, everything that was pending has to be done.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `world` | everybody, and what the parties do |
//! | `trouble` | what happens to them |
//! | `deeds` | what people do who run no node |
//! | `host` | a party: a node's parts over a store of its own |
//! | `link` | a party's connection to Bitcoin, and where its process can end |
//! | `users`, `purse` | users, and Bitcoin in the hands of those who run no node |
//! | `liars` | dishonest people |
//! | `ledger` | what Bitcoin's chain says, read by other code than the node's |
//! | `checks`, `watch` | what has to hold at every step: in every node, and of what goes to Bitcoin |
//! | `finish`, `same` | what has to hold at the end, and that all nodes hold the same |
//! | `start` | where every run begins |
//! | `story` | what happened, for a person |

mod checks;
mod deeds;
mod finish;
mod host;
mod ledger;
mod liars;
mod link;
mod purse;
mod same;
mod start;
mod story;
mod trouble;
mod users;
mod watch;
mod world;

pub use story::Story;

use anyhow::{Result, anyhow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// L1 blocks of trouble.
const STORM: u32 = 40;

/// One run that has ended.
#[derive(Debug)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What happened.
    pub story: Story,
    /// What did not hold, or went wrong.
    pub outcome: Result<()>,
}

impl Run {
    /// The whole story and how to see it again, when the run failed.
    pub fn failure(&self) -> Option<String> {
        let error = self.outcome.as_ref().err()?;
        let seed = self.seed;
        Some(format!("{}\nseed {seed}: {error:#}\nto replay: SEED={seed} make sim", self.story))
    }
}

/// Runs a seed.
pub fn run(seed: u64) -> Run {
    run_telling(seed, Story::default())
}

/// Runs a seed whose story somebody else can follow meanwhile.
pub fn run_telling(seed: u64, story: Story) -> Run {
    let told = story.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(async {
            let mut world = World::new(seed, told)?;
            world.fund().await?;
            let end = world.tip().0 + STORM;
            while world.tip().0 < end {
                world.tick().await?;
            }
            world.finish().await
        })
    }));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("a panic: {}", text.unwrap_or("without a message")))
    });
    Run { seed, story, outcome }
}
