//! EIP-7702.

use super::*;
use alloy_eips::eip7702::Authorization;
use alloy_signer::SignerSync;

fn authorization(index: u8, nonce: u64, chain_id: u64) -> SignedAuthorization {
    let authorization = Authorization {
        chain_id: U256::from(chain_id),
        address: Address::repeat_byte(0xc0),
        nonce,
    };
    let hash = authorization.signature_hash();
    authorization.into_signed(signer(index).sign_hash_sync(&hash).expect("signs"))
}

#[test]
fn a_delegated_account_has_one_transaction_at_a_time() {
    let (mempool, state, _) = pool();
    state.accounts.lock().get_mut(&signer(1).address()).expect("set").is_delegated = true;
    let gapped = mempool.add(sign(1, transfer(1, GWEI))).expect_err("not its next nonce");
    assert_eq!(gapped.to_string(), "gapped-nonce tx from delegated accounts");
    mempool.add(sign(1, transfer(0, GWEI))).expect("its next");
    let second = mempool.add(sign(1, transfer(1, GWEI))).expect_err("a second one");
    assert_eq!(second.to_string(), "in-flight transaction limit reached for delegated accounts");
    mempool.add(sign(1, transfer(0, 2 * GWEI))).expect("a replacement");
}

#[test]
fn an_account_whose_delegation_waits_has_one_transaction_at_a_time() {
    let (mempool, state, _) = pool();
    let chain = config().chain_id;
    let foreign = delegation(vec![authorization(1, 0, chain + 1)]);
    mempool.add(sign(0, foreign)).expect("ok");
    for nonce in [0, 1] {
        mempool
            .add(sign(1, transfer(nonce, GWEI)))
            .expect("an authorisation for another chain is nothing");
    }
    let auth = |nonce, list| sign(0, TxEip7702 { nonce, ..delegation(list) });
    let error = mempool.add(auth(1, vec![authorization(1, 0, 0)])).expect_err("two wait");
    assert_eq!(error.to_string(), "authority already reserved");
    let pending = mempool.add(auth(1, vec![authorization(2, 0, chain)])).expect("none waits");
    mempool.add(sign(2, transfer(1, GWEI))).expect_err("a gap");
    mempool.add(sign(2, transfer(0, GWEI))).expect("one");
    let second = mempool.add(sign(2, transfer(1, GWEI))).expect_err("two");
    assert!(matches!(second, PoolError::InFlightLimit));
    mempool.pool.lock().check_invariants();
    mempool.discard(&pending);
    mempool.add(sign(2, transfer(1, GWEI))).expect("nothing is delegated any more");
    // In a block, the authorisation used the authority's nonce.
    state.set(signer(2).address(), 1, RICH);
    mempool.on_block([signer(2).address()]);
    assert_eq!(nonces(&mempool, 2), [1]);
    mempool.pool.lock().check_invariants();
}
