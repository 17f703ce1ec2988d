//! The rules of admission that need no other transaction.

use super::{HeadFees, MempoolConfig, PoolError, SenderState};
use alloy_consensus::{
    Transaction, crypto::secp256k1::recover_signer, transaction::SignerRecoverable,
};
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, U256};
use op_alloy_consensus::OpPooledTransaction;
use revm::context_interface::cfg::gas_params::GasParams;

/// EIP-3860 with Osaka's unchanged limit, bytes.
const MAX_INITCODE: usize = 49_152;

/// A transaction that passed every check at the head at which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledTransaction {
    /// Its hash.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// Itself.
    pub tx: OpPooledTransaction,
    /// Its EIP-2718 encoding, as it goes into a batch.
    pub encoded: Bytes,
    /// Wei for its Bitcoin space when it came.
    pub data_fee: U256,
    /// Who signed its EIP-7702 authorisations for this chain, each once.
    pub(super) authorities: Vec<Address>,
    /// Position in the order of arrival.
    pub(super) arrival: u64,
}

impl PooledTransaction {
    /// Its nonce.
    pub fn nonce(&self) -> u64 {
        self.tx.nonce()
    }

    /// The gas that it declares.
    pub fn gas_limit(&self) -> u64 {
        self.tx.gas_limit()
    }

    /// The most wei that it can cost its sender.
    pub fn cost(&self) -> U256 {
        U256::from(self.tx.gas_limit())
            .saturating_mul(U256::from(self.tx.max_fee_per_gas()))
            .saturating_add(self.tx.value())
            .saturating_add(self.data_fee)
    }

    /// What it pays above the base fee, wei per gas; none when it does not pay the base fee.
    pub fn tip(&self, base_fee: u64) -> Option<u128> {
        self.tx.effective_tip_per_gas(base_fee)
    }
}

/// The type of transactions that carry EIP-7702 authorisations.
const SET_CODE: u8 = 4;

/// Whether checking takes longer than one signature does: more signatures come with it, or many bytes.
pub(super) fn takes_long(encoded: &Bytes) -> bool {
    encoded.first() == Some(&SET_CODE) || encoded.len() > 16 * 1_024
}

/// The nonce inside encoded bytes, for sorting; undecodable ones come first.
pub(super) fn nonce_hint(encoded: &Bytes) -> Option<u64> {
    OpPooledTransaction::decode_2718_exact(encoded).ok().map(|tx| tx.nonce())
}

/// Checks everything that needs no state, and recovers the sender.
pub(super) fn stateless(
    config: &MempoolConfig,
    encoded: Bytes,
) -> Result<PooledTransaction, PoolError> {
    if encoded.len() > config.limits.max_transaction_bytes {
        return Err(PoolError::Oversized {
            found: encoded.len(),
            limit: config.limits.max_transaction_bytes,
        });
    }
    // Below 0xc0 the first byte is an EIP-2718 type; above it, a legacy transaction's list.
    if let Some(&ty) = encoded.first()
        && ty < 0xc0
        && !matches!(ty, 1 | 2 | 4)
    {
        return Err(PoolError::UnsupportedType { found: ty });
    }
    let tx = OpPooledTransaction::decode_2718_exact(&encoded).map_err(PoolError::Undecodable)?;
    if tx.encoded_2718() != encoded {
        return Err(PoolError::NonCanonical);
    }
    match tx.chain_id() {
        None => return Err(PoolError::Unprotected),
        Some(found) if found != config.chain_id => {
            return Err(PoolError::WrongChain { expected: config.chain_id, found });
        }
        Some(_) => {}
    }
    check_gas_and_fees(config, &tx)?;
    let sender = tx.recover_signer().map_err(|_| PoolError::InvalidSender)?;
    Ok(PooledTransaction {
        hash: *tx.hash(),
        sender,
        tx,
        encoded,
        data_fee: U256::ZERO,
        authorities: Vec::new(),
        arrival: 0,
    })
}

fn check_gas_and_fees(config: &MempoolConfig, tx: &OpPooledTransaction) -> Result<(), PoolError> {
    if tx.is_create() && tx.input().len() > MAX_INITCODE {
        return Err(PoolError::InitcodeTooLarge { found: tx.input().len(), limit: MAX_INITCODE });
    }
    if tx.authorization_list().is_some_and(<[_]>::is_empty) {
        return Err(PoolError::EmptyAuthorizations);
    }
    if tx.nonce() == u64::MAX {
        return Err(PoolError::NonceMax);
    }
    if tx.gas_limit() > config.max_gas {
        return Err(PoolError::GasLimitTooHigh { found: tx.gas_limit(), limit: config.max_gas });
    }
    let cap = tx.max_fee_per_gas();
    if let Some(tip) = tx.max_priority_fee_per_gas()
        && tip > cap
    {
        return Err(PoolError::TipAboveCap { tip, cap });
    }
    if cap < u128::from(config.min_base_fee) {
        return Err(PoolError::Underpriced { found: cap, needed: config.min_base_fee });
    }
    let (accounts, slots) = tx.access_list().map_or((0, 0), |list| {
        (list.len() as u64, list.iter().map(|item| item.storage_keys.len() as u64).sum())
    });
    let gas = GasParams::new_spec(config.spec.into_eth_spec()).initial_tx_gas(
        tx.input(),
        tx.is_create(),
        accounts,
        slots,
        tx.authorization_count().unwrap_or(0),
    );
    let found = tx.gas_limit();
    if found < gas.initial_total_gas {
        return Err(PoolError::IntrinsicGasTooLow { found, needed: gas.initial_total_gas });
    }
    if found < gas.floor_gas {
        return Err(PoolError::FloorGasTooLow { found, needed: gas.floor_gas });
    }
    Ok(())
}

/// Who signed the EIP-7702 authorisations that can have an effect on this chain, each once.
pub(super) fn authorities(config: &MempoolConfig, tx: &OpPooledTransaction) -> Vec<Address> {
    let chain = U256::from(config.chain_id);
    let mut authorities: Vec<Address> = tx
        .authorization_list()
        .into_iter()
        .flatten()
        .filter(|signed| signed.chain_id.is_zero() || signed.chain_id == chain)
        .filter_map(|signed| {
            let signature = signed.signature().ok()?;
            recover_signer(&signature, signed.signature_hash()).ok()
        })
        .collect();
    authorities.sort_unstable();
    authorities.dedup();
    authorities
}

/// Fills in a transaction's fee for Bitcoin space, and checks that a block has room for it.
pub(super) fn charge(
    config: &MempoolConfig,
    tx: &mut PooledTransaction,
    fees: &HeadFees,
) -> Result<(), PoolError> {
    let footprint = fees.footprint(&tx.encoded);
    if footprint > config.max_footprint {
        return Err(PoolError::FootprintTooLarge { found: footprint, limit: config.max_footprint });
    }
    tx.data_fee = fees.data_fee(&tx.encoded, tx.tx.gas_limit(), config.spec);
    Ok(())
}

/// Checks a transaction against its sender's account.
pub(super) fn at_head(tx: &PooledTransaction, account: &SenderState) -> Result<(), PoolError> {
    if account.is_contract {
        return Err(PoolError::SenderIsContract(tx.sender));
    }
    if tx.nonce() < account.nonce {
        return Err(PoolError::NonceTooLow { next: account.nonce, found: tx.nonce() });
    }
    let cost = tx.cost();
    if cost > account.balance {
        return Err(PoolError::InsufficientFunds { balance: account.balance, cost });
    }
    Ok(())
}
