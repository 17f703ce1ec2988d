//! What a Bitcoin answers, and what is said when it does not.

use crate::{
    Result,
    chain::{Chain, nobody},
};
use bitcoin::{Amount, OutPoint, Txid, hashes::Hash};
use kedge::l1::{Auth, Bitcoin as _, L1Error, RpcClient, check_ready};
use kedge_genesis::{BitcoinNetwork, L1Height, Network};
use kedge_tests::bitcoind::Bitcoind;
use std::time::Duration;

on_all! {
    a_node_answers_what_the_chain_is
}

async fn a_node_answers_what_the_chain_is(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let genesis = Network::Regtest.params().l1_start;
    let hash = bitcoin.block_hash(L1Height(0)).await?.expect("there is a genesis block");
    assert_eq!(hash.to_byte_array(), genesis.hash.0);
    let before = bitcoin.chain_info().await?;
    assert_eq!((before.chain.as_str(), before.height), ("regtest", L1Height(0)));

    let wait = tokio::time::timeout(Duration::from_secs(20), bitcoin.wait_tip_change(before.best));
    let to = nobody();
    let (waited, mined) = tokio::join!(wait, chain.mine(3, &to));
    waited??;
    mined?;
    let info = check_ready(bitcoin, BitcoinNetwork::Regtest, L1Height(1)).await?;
    assert_eq!(info.height, L1Height(3));
    let block = bitcoin.block(&info.best).await?;
    assert_eq!(block.block_hash(), info.best);
    assert!(block.check_merkle_root() && block.check_witness_commitment());
    assert_eq!(bitcoin.header(&info.best).await?, block.header);
    assert_eq!(bitcoin.block_hash(L1Height(4)).await?, None);

    let unknown = bitcoin::BlockHash::all_zeros();
    assert!(matches!(bitcoin.block(&unknown).await, Err(L1Error::BlockNotFound { .. })));
    assert!(matches!(bitcoin.header(&unknown).await, Err(L1Error::BlockNotFound { .. })));
    let missing = OutPoint::new(Txid::all_zeros(), 0);
    assert_eq!(bitcoin.tx_out(&missing, true).await?, None);
    assert!(!bitcoin.in_mempool(&missing.txid).await?);
    let other = check_ready(bitcoin, BitcoinNetwork::Signet, L1Height(0)).await;
    assert!(matches!(other, Err(L1Error::WrongNetwork { .. })));

    let coinbase = block.txdata.first().expect("a block has a coinbase").compute_txid();
    let unspent = bitcoin.tx_out(&OutPoint::new(coinbase, 0), false).await?.expect("unspent");
    assert_eq!(unspent.output.value, Amount::from_btc(50.0)?);
    assert!(unspent.coinbase && unspent.confirmations == 1);
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_with_the_connection_is_said() -> Result {
    let dir = tempfile::tempdir()?;
    let cookie = dir.path().join(".cookie");
    let at = |url: &str, auth| RpcClient::new(url, auth);
    let missing = at("http://127.0.0.1:1", Auth::Cookie(cookie.clone()));
    assert!(matches!(missing, Err(L1Error::CookieFile { .. })));
    std::fs::write(&cookie, "not a cookie")?;
    let bad = at("http://127.0.0.1:1", Auth::Cookie(cookie));
    assert!(matches!(bad, Err(L1Error::CookieFile { .. })));
    assert!(matches!(at("127.0.0.1:8332", Auth::None), Err(L1Error::BadUrl { .. })));
    assert!(matches!(at("https://127.0.0.1", Auth::None), Err(L1Error::BadUrl { .. })));
    let silent = at("http://127.0.0.1:1", Auth::None)?.chain_info().await;
    assert!(matches!(&silent, Err(error @ L1Error::Unreachable { .. }) if error.is_temporary()));

    let core = Bitcoind::start().await?;
    let password = "wrong".into();
    let wrong = Auth::Password { user: "nobody".into(), password };
    let refused = at(&core.url(), wrong)?.chain_info().await;
    assert!(matches!(refused, Err(L1Error::Unauthorized { status: 401, .. })), "{refused:?}");
    let none = at(&core.url(), Auth::None)?.chain_info().await;
    assert!(matches!(none, Err(L1Error::Unauthorized { .. })), "{none:?}");
    Ok(())
}
