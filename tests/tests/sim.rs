//! Runs of the seeded simulator.

use kedge_tests::sim::run;

/// Runs seeds and shows the story of the first that fails.
fn seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Some(failure) = run(seed).failure() {
            panic!("{failure}");
        }
    }
}

#[test]
fn seeds_0_to_49_hold() {
    seeds(0..50);
}

#[test]
fn seeds_50_to_99_hold() {
    seeds(50..100);
}

#[test]
fn seeds_100_to_149_hold() {
    seeds(100..150);
}

#[test]
fn seeds_150_to_199_hold() {
    seeds(150..200);
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in [3, 77, 1_000_003] {
        let (one, two) = (run(seed), run(seed));
        assert_eq!(one.story.hash(), two.story.hash(), "seed {seed}");
        assert_eq!(one.failure(), None, "seed {seed}");
    }
}
