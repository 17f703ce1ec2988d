//! Runs many seeds of the simulator on all cores, or one with its story. `make sim` calls it.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SEED` | run this seed alone and print its story |
//! | `SEEDS` | how many seeds to run, 1,000 when it is not given |
//! | `FIRST` | the first of them, 0 when it is not given |

use anyhow::{Context, Result};
use kedge_tests::sim::run;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The number in an environment variable, if it is set.
fn number(name: &str) -> Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            Ok(Some(text.parse().with_context(|| format!("{name}={text} is no number"))?))
        }
        _ => Ok(None),
    }
}

fn replay(seed: u64) -> ExitCode {
    let done = run(seed);
    match done.failure() {
        None => {
            println!("{}\nseed {seed} holds; story {}", done.story, done.story.hash());
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(first: u64, count: u64) -> Result<ExitCode> {
    // A panic is a failure of its seed, told with the others.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let cores = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let outcome = run(first + at).outcome;
                    let mut failed = failed.lock().expect("nobody panics while holding it");
                    if let Err(error) = outcome {
                        println!("\rseed {}: {error:#}", first + at);
                        failed.push(first + at);
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    print!("\r{done} of {count} seeds, {} failed", failed.len());
                    // A progress line that cannot be written is no reason to stop.
                    let _ = std::io::stdout().flush();
                }
            });
        }
    });
    println!();
    let mut failed = failed.into_inner().expect("nobody panicked while holding it");
    failed.sort_unstable();
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed: {failed:?}");
    println!("the story of one: SEED={} make sim", failed.first().copied().unwrap_or_default());
    Ok(ExitCode::FAILURE)
}

fn main() -> Result<ExitCode> {
    if let Some(seed) = number("SEED")? {
        return Ok(replay(seed));
    }
    many(number("FIRST")?.unwrap_or(0), number("SEEDS")?.unwrap_or(1_000))
}
