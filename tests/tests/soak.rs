//! A short soak. `make soak` runs one that is long enough to tell whether memory stays as it is.

use anyhow::{Result, ensure};
use kedge_tests::soak::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_and_its_follower_answer_mixed_requests_and_none_wrong() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = Options { requests: 2_000, transactions: 200, seed: 1 };
    let outcome = run(options, dir.path()).await?;
    ensure!(outcome.wrong.is_empty(), "{outcome}");
    ensure!(outcome.answered >= options.requests && outcome.counts.len() > 60, "{outcome}");
    Ok(())
}
