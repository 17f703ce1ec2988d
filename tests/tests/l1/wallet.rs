//! The wallet: payments, fee bumps, reorgs.

use crate::{
    Result,
    chain::{Chain, nobody, open_wallet, output, vb},
};
use bitcoin::{Amount, OutPoint};
use kedge::{
    l1::{Broadcast, MISSING_INPUTS},
    wallet::{TxPlace, WalletError},
};

on_all! {
    a_payment_goes_through_mempool_and_block
    a_wallet_follows_a_reorg
    what_a_payment_spends_is_not_left_to_chance
}

pub(crate) async fn a_payment_goes_through_mempool_and_block(chain: Chain) -> Result {
    let bitcoin = &*chain.bitcoin;
    let (records, wallet) = chain.wallet(2).await?;
    assert_eq!(wallet.balance().confirmed, Amount::from_btc(100.0)?);
    let tx = wallet.send(bitcoin, &[output(70_000), output(80_000)], vb(3)).await?;
    let txid = tx.compute_txid();
    assert_eq!(tx.output.get(1), Some(&output(80_000)));
    assert!(bitcoin.in_mempool(&txid).await?);
    assert_eq!(bitcoin.tx_out(&OutPoint::new(txid, 0), false).await?, None);
    let waiting = bitcoin.tx_out(&OutPoint::new(txid, 0), true).await?.expect("in the mempool");
    assert_eq!((waiting.output, waiting.confirmations), (output(70_000), 0));
    bitcoin.broadcast(&tx).await?;

    // A wallet reopened from its records knows it.
    let again = open_wallet(&records)?;
    assert_eq!(again.balance(), wallet.balance());
    assert_eq!(again.place(txid), Some(TxPlace::Unconfirmed));

    let bumped = wallet.bump(txid, vb(20))?;
    assert_eq!(bitcoin.broadcast(&bumped).await?, Broadcast::Accepted);
    assert!(!bitcoin.in_mempool(&txid).await?);
    let back = bitcoin.broadcast(&tx).await?;
    assert!(matches!(back, Broadcast::Rejected { code: -26, .. }), "{back:?}");

    chain.mine(1, &nobody()).await?;
    wallet.sync(bitcoin).await?;
    let at = wallet.tip();
    assert_eq!(wallet.place(bumped.compute_txid()), Some(TxPlace::Confirmed(at)));
    assert_eq!(wallet.place(txid), None);
    assert_eq!(bitcoin.broadcast(&bumped).await?, Broadcast::AlreadyKnown);
    let gone = bitcoin.broadcast(&tx).await?;
    assert!(matches!(gone, Broadcast::Rejected { code: MISSING_INPUTS, .. }), "{gone:?}");

    let poor = wallet.pay(&[output(200_000_000_000)], vb(1));
    assert!(matches!(poor, Err(WalletError::Funds { .. })));
    Ok(())
}

async fn what_a_payment_spends_is_not_left_to_chance(chain: Chain) -> Result {
    let (records, _) = chain.wallet(12).await?;
    let mut payments = Vec::new();
    for _ in 0..4 {
        // Opened from the same records again: the one before has not broadcast anything.
        let wallet = open_wallet(&records)?;
        let tx = wallet.pay(&[output(70_000)], vb(3))?;
        wallet.forget(tx.compute_txid())?;
        payments.push(tx.input.iter().map(|input| input.previous_output).collect::<Vec<_>>());
    }
    assert!(payments.windows(2).all(|pair| pair[0] == pair[1]), "{payments:?}");
    Ok(())
}

async fn a_wallet_follows_a_reorg(chain: Chain) -> Result {
    let (_, wallet) = chain.wallet(2).await?;
    let tx = wallet.send(&*chain.bitcoin, &[output(70_000)], vb(3)).await?;
    chain.mine(2, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert!(matches!(wallet.place(tx.compute_txid()), Some(TxPlace::Confirmed(_))));
    chain.reorg(2, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert_eq!(wallet.place(tx.compute_txid()), Some(TxPlace::Unconfirmed));
    wallet.rebroadcast(&*chain.bitcoin).await?;
    assert!(chain.bitcoin.in_mempool(&tx.compute_txid()).await?);
    chain.mine(1, &nobody()).await?;
    wallet.sync(&*chain.bitcoin).await?;
    assert!(matches!(wallet.place(tx.compute_txid()), Some(TxPlace::Confirmed(_))));
    Ok(())
}
