//! Whether a process keeps what it should not.

use anyhow::{Context, Result};
use parking_lot::Mutex;
use std::fmt;

/// A part of a page is what a mebibyte is counted in: kibibytes, as `/proc` tells them.
const KIB_PER_MIB: f64 = 1_024.0;

/// Samples over a run.
const SAMPLES: u64 = 400;
/// What memory may grow by from the third quarter of a run to the last, of what it was: see [`Course::is_flat`].
const TOLERANCE: f64 = 0.03;

/// How much memory a process takes, KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Requests answered before.
    pub answered: u64,
    /// Resident set.
    pub resident: u64,
    /// The part of it that is no file's.
    pub anonymous: u64,
}

impl Sample {
    /// Of a process, now.
    ///
    /// # Errors
    /// When it does not run.
    pub fn of(process: u32, answered: u64) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let digits = line.and_then(|line| line.split_whitespace().next());
            digits.with_context(|| format!("no {name}"))?.parse().context("no number")
        };
        Ok(Self { answered, resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
    }
}

/// How memory went over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Median of the resident set in each quarter, MiB.
    pub quarters: [f64; 4],
    /// The same of the anonymous part.
    pub anonymous: [f64; 4],
    /// The largest resident set, MiB.
    pub peak: f64,
    /// Least squares over the second half, MiB for 100,000 requests.
    pub slope: f64,
}

impl Course {
    /// Of samples in order; none when a quarter has none.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let quarter = samples.len() / 4;
        let part = |number: usize| samples.get(number * quarter..(number + 1) * quarter);
        let medians = |of: fn(&Sample) -> u64| -> Option<[f64; 4]> {
            let mut all = [0.0; 4];
            for (number, place) in all.iter_mut().enumerate() {
                let mut values: Vec<u64> = part(number)?.iter().map(of).collect();
                values.sort_unstable();
                *place = *values.get(values.len() / 2)? as f64 / KIB_PER_MIB;
            }
            Some(all)
        };
        let peak = samples.iter().map(|sample| sample.resident).max()?;
        Some(Self {
            quarters: medians(|sample| sample.resident)?,
            anonymous: medians(|sample| sample.anonymous)?,
            peak: peak as f64 / KIB_PER_MIB,
            slope: slope(samples.get(2 * quarter..)?) / KIB_PER_MIB * 100_000.0,
        })
    }
}

impl Course {
    /// Whether memory does not grow any more.
    pub fn is_flat(&self) -> bool {
        let [.., third, last] = self.quarters;
        last <= third * (1.0 + TOLERANCE)
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.quarters;
        write!(f, "{a:7.1} {b:7.1} {c:7.1} {d:7.1}   {:7.1}   {:+7.2}", self.peak, self.slope)
    }
}

/// Samples of the nodes' memory at even distances.
#[derive(Debug)]
pub(super) struct Samples {
    processes: Vec<u32>,
    taken: Mutex<Vec<Vec<Sample>>>,
}

impl Samples {
    pub(super) fn new(processes: Vec<u32>) -> Self {
        let taken = Mutex::new(vec![Vec::new(); processes.len()]);
        Self { processes, taken }
    }

    /// Takes one if it is time.
    pub(super) fn take(&self, answered: u64, of: u64) -> Result<()> {
        let mut taken = self.taken.lock();
        let count = taken.first().map_or(0, Vec::len) as u64;
        if answered.saturating_mul(SAMPLES) < (count + 1).saturating_mul(of) {
            return Ok(());
        }
        for (process, samples) in self.processes.iter().zip(taken.iter_mut()) {
            samples.push(Sample::of(*process, answered)?);
        }
        if (count + 1).is_multiple_of(SAMPLES / 20) {
            let mib = |samples: &Vec<Sample>| {
                samples
                    .last()
                    .map(|it| format!("{} MiB ({})", it.resident >> 10, it.anonymous >> 10))
            };
            let all: Vec<_> = taken.iter().filter_map(mib).collect();
            println!("{answered:8} requests   {}", all.join("   "));
        }
        Ok(())
    }

    pub(super) fn courses(&self) -> Vec<Option<Course>> {
        self.taken.lock().iter().map(|samples| Course::of(samples)).collect()
    }
}

/// KiB for one request, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&Sample) -> u64| {
        samples.iter().map(|sample| of(sample) as f64).sum::<f64>() / count
    };
    let (x, y) = (mean(|sample| sample.answered), mean(|sample| sample.resident));
    let (mut products, mut squares) = (0.0, 0.0);
    for sample in samples {
        let dx = sample.answered as f64 - x;
        products += dx * (sample.resident as f64 - y);
        squares += dx * dx;
    }
    if squares == 0.0 { 0.0 } else { products / squares }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The course of a process that takes so many KiB after so many requests of 200,000.
    fn course(resident: impl Fn(u64) -> u64) -> Course {
        let samples: Vec<_> = (1..=SAMPLES)
            .map(|number| number * 200_000 / SAMPLES)
            .map(|answered| Sample { answered, resident: resident(answered), anonymous: 0 })
            .collect();
        Course::of(&samples).expect("samples in every quarter")
    }

    #[test]
    fn caches_that_fill_are_flat_in_the_end_and_what_is_kept_of_every_request_is_not() {
        let filling = course(|answered| 200_000 + answered.min(90_000));
        assert!(filling.is_flat(), "{filling}");
        let noisy = course(|answered| 200_000 + answered % 7 * 2_000);
        assert!(noisy.is_flat(), "{noisy}");
        // 200 bytes a request.
        let leaking = course(|answered| 200_000 + answered / 5);
        assert!(!leaking.is_flat(), "{leaking}");
        assert!((leaking.slope - 100_000.0 / 5.0 / KIB_PER_MIB).abs() < 0.1, "{leaking}");
    }

    #[test]
    fn a_running_process_takes_memory() {
        let sample = Sample::of(std::process::id(), 7).expect("this process runs");
        assert!(sample.resident >= sample.anonymous && sample.anonymous > 0, "{sample:?}");
        assert_eq!(sample.answered, 7);
    }
}
