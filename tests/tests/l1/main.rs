//! The node's view of Bitcoin, its wallet and its publisher, on the embedded chain, on Bitcoin Core and on the
//! simulated chain alike.

/// Runs each test on every kind of chain.
macro_rules! on_all {
    ($($law:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $law() -> crate::Result {
                super::$law(crate::chain::Chain::embedded()?).await
            })*
        }
        mod core {
            $(#[tokio::test]
            async fn $law() -> crate::Result {
                super::$law(crate::chain::Chain::core().await?).await
            })*
        }
        mod simulated {
            $(#[tokio::test]
            async fn $law() -> crate::Result {
                super::$law(crate::chain::Chain::simulated()?).await
            })*
        }
    };
}

mod chain;
mod client;
mod embedded;
mod publisher;
mod wallet;

type Result<T = ()> = anyhow::Result<T>;
