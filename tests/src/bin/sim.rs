//! Runs many seeds of the simulator on all cores, or one with its story. `make sim` calls it.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SEED` | run this seed alone and print its story |
//! | `SEEDS` | how many seeds to run, 1,000 when it is not given |
//! | `FIRST` | the first of them, 0 when it is not given |

use anyhow::{Context, Result};
use kedge_tests::sim::{Story, run, run_telling};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A seed takes seconds. One that takes this long waits for what never comes, and its thread cannot be ended:
/// the story is told and the whole run is over.
const ENDLESS: Duration = Duration::from_secs(600);

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

/// Seeds under way, since when, and what has happened.
type Running = Mutex<BTreeMap<u64, (Instant, Story)>>;

/// Ends the program when a seed has no end. Returns when nobody holds the other side of `ended` any more.
fn watch(running: &Running, ended: &mpsc::Receiver<()>) {
    while ended.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Disconnected) {
        for (seed, (since, story)) in &*running.lock().expect("nobody panics while holding it") {
            if since.elapsed() > ENDLESS {
                println!("\n{story}\nseed {seed} has not ended after {} s", ENDLESS.as_secs());
                std::process::exit(1);
            }
        }
    }
}

fn many(first: u64, count: u64) -> Result<ExitCode> {
    // A panic is a failure of its seed, told with the others.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let cores = thread::available_parallelism()?.get();
    let running = Running::default();
    thread::scope(|scope| {
        let (alive, ended) = mpsc::channel();
        let running = &running;
        scope.spawn(move || watch(running, &ended));
        for _ in 0..cores {
            let alive = alive.clone();
            let (next, done, failed) = (&next, &done, &failed);
            scope.spawn(move || {
                let _alive = alive;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let (seed, story) = (first + at, Story::default());
                    let lock = || running.lock().expect("nobody panics while holding it");
                    lock().insert(seed, (Instant::now(), story.clone()));
                    let outcome = run_telling(seed, story).outcome;
                    lock().remove(&seed);
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
