//! Wallets, libraries and tools against a running node.

mod cast;
mod forge;

use anyhow::Result;
use kedge_tests::clients::Live;

#[tokio::test(flavor = "multi_thread")]
async fn viem_works() -> Result<()> {
    Live::start().await?.node("viem.mjs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn ethers_works() -> Result<()> {
    Live::start().await?.node("ethers.mjs").await
}

#[tokio::test(flavor = "multi_thread")]
async fn web3_py_works() -> Result<()> {
    Live::start().await?.python("web3_suite.py").await
}
