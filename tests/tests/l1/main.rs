//! The node's view of Bitcoin, its wallet and its publisher, on the embedded chain and on Bitcoin Core alike.

/// Runs each test on both kinds of chain.
macro_rules! on_both {
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
    };
}

mod chain;
mod client;
mod embedded;
mod publisher;
mod wallet;

type Result<T = ()> = anyhow::Result<T>;
