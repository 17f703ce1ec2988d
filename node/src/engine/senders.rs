//! The senders of transactions, recovered on all cores.
//!
//! Recovering a sender takes many times longer than a transfer's execution, and nothing else has to be known
//! for it.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_eips::Decodable2718;
use alloy_primitives::{Address, B256, Bytes};
use kedge_vm::{OpTxEnvelope, Payload, PayloadTx, Senders};
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

/// Fewer transactions than this are not worth another thread.
const AT_ONCE: usize = 16;

/// The senders of the users' transactions among these. What is no transaction, or has no sender, is left out.
pub(crate) fn recover_senders(transactions: &[OpTxEnvelope]) -> Senders {
    on_all_cores(transactions, |tx| {
        let is_users = !matches!(tx, OpTxEnvelope::Deposit(_));
        is_users.then(|| sender(tx)).flatten()
    })
}

/// The same for the transactions of a payload, which are for execution to skip where they are none.
pub(super) fn recover_payload(payload: &Payload) -> Senders {
    let users = payload.transactions.iter().filter_map(|tx| match tx {
        PayloadTx::System(_) => None,
        PayloadTx::User(bytes) => Some(bytes),
    });
    let users: Vec<&Bytes> = users.collect();
    on_all_cores(&users, |bytes| sender(&OpTxEnvelope::decode_2718_exact(bytes).ok()?))
}

fn sender(tx: &OpTxEnvelope) -> Option<(B256, Address)> {
    Some((tx.tx_hash(), tx.recover_signer().ok()?))
}

fn on_all_cores<T: Sync>(
    items: &[T],
    each: impl Fn(&T) -> Option<(B256, Address)> + Sync + Send,
) -> Senders {
    items.par_iter().with_min_len(AT_ONCE).filter_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::account;
    use alloy_consensus::{SignableTransaction, TxEip1559};
    use alloy_eips::Encodable2718;
    use alloy_signer::SignerSync;
    use kedge_genesis::{L1Ref, L2Number};
    use kedge_vm::TxDeposit;

    fn signed(nonce: u64) -> OpTxEnvelope {
        let tx = TxEip1559 { chain_id: 1, nonce, ..Default::default() };
        let signature = account().sign_hash_sync(&tx.signature_hash()).unwrap();
        OpTxEnvelope::from(tx.into_signed(signature))
    }

    #[test]
    fn all_senders_are_found_whatever_stands_between_them() {
        for count in [0, 1, AT_ONCE as u64, 1_001] {
            let mut all: Vec<_> = (0..count).map(signed).collect();
            let expected: Senders =
                all.iter().map(|tx| (tx.tx_hash(), account().address())).collect();
            let user = |tx: &OpTxEnvelope| PayloadTx::User(tx.encoded_2718().into());
            let mut transactions: Vec<_> = all.iter().map(user).collect();
            transactions.insert(0, PayloadTx::User(Bytes::from_static(b"no transaction")));
            transactions.push(PayloadTx::System(TxDeposit::default()));
            let (number, origin) = (L2Number(1), L1Ref::default());
            let payload =
                Payload { number, timestamp: 1, origin, sequence_number: 0, transactions };
            assert_eq!(recover_payload(&payload), expected);
            all.push(TxDeposit::default().into());
            assert_eq!(recover_senders(&all), expected);
        }
    }
}
