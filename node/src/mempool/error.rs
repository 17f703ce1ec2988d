//! Why a transaction is not admitted. The messages are go-ethereum's, because wallets match on them.

use alloy_primitives::{Address, U256};

/// Why the pool refused a transaction.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The bytes are no transaction.
    #[error("rlp: {0}")]
    Undecodable(alloy_eips::eip2718::Eip2718Error),
    /// The bytes decode, but are not what the transaction encodes to.
    #[error("rlp: non-canonical encoding of a transaction")]
    NonCanonical,
    /// A blob, deposit or unknown transaction.
    #[error("transaction type not supported")]
    UnsupportedType {
        /// The EIP-2718 type byte.
        found: u8,
    },
    /// The signature is not over this chain's id.
    #[error("invalid sender: invalid chain id for signer: have {found} want {expected}")]
    WrongChain {
        /// This chain.
        expected: u64,
        /// What was signed.
        found: u64,
    },
    /// A legacy transaction that does not name a chain.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// The signature recovers to nobody.
    #[error("invalid sender")]
    InvalidSender,
    /// More bytes than the pool takes.
    #[error("oversized data: transaction size {found}, limit {limit}")]
    Oversized {
        /// Bytes of the transaction.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// EIP-3860.
    #[error("max initcode size exceeded: code size {found}, limit {limit}")]
    InitcodeTooLarge {
        /// Bytes of init code.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// An EIP-7702 transaction without authorizations.
    #[error("set code tx must have at least one authorization tuple")]
    EmptyAuthorizations,
    /// The nonce cannot be incremented (EIP-2681).
    #[error("nonce has max value")]
    NonceMax,
    /// The transaction asks for more gas than a block or a transaction can have (EIP-7825).
    #[error("exceeds block gas limit: transaction gas limit too high (cap: {limit}, tx: {found})")]
    GasLimitTooHigh {
        /// Gas that the transaction asks for.
        found: u64,
        /// The cap.
        limit: u64,
    },
    /// Less gas than the transaction costs before it runs.
    #[error("intrinsic gas too low: gas {found}, minimum needed {needed}")]
    IntrinsicGasTooLow {
        /// Gas that the transaction brings.
        found: u64,
        /// Gas it needs.
        needed: u64,
    },
    /// EIP-7623.
    #[error("insufficient gas for floor data gas cost: gas {found}, minimum needed {needed}")]
    FloorGasTooLow {
        /// Gas that the transaction brings.
        found: u64,
        /// Gas it needs.
        needed: u64,
    },
    /// Priority fee above the fee cap.
    #[error(
        "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: {tip}, \
         maxFeePerGas: {cap}"
    )]
    TipAboveCap {
        /// Wei per gas.
        tip: u128,
        /// Wei per gas.
        cap: u128,
    },
    /// The base fee never gets that low.
    #[error("transaction underpriced: max fee per gas {found}, minimum needed {needed}")]
    Underpriced {
        /// Wei per gas that the transaction pays at most.
        found: u128,
        /// The lowest base fee.
        needed: u64,
    },
    /// The transaction's data alone exceeds what a block may post.
    #[error("exceeds block gas limit: data footprint {found}, limit {limit}")]
    FootprintTooLarge {
        /// In gas.
        found: u64,
        /// In gas.
        limit: u64,
    },
    /// The nonce is used.
    #[error("nonce too low: next nonce {next}, tx nonce {found}")]
    NonceTooLow {
        /// The account's nonce.
        next: u64,
        /// The transaction's.
        found: u64,
    },
    /// EIP-3607.
    #[error("sender not an eoa: address {0}")]
    SenderIsContract(Address),
    /// The balance does not cover gas, value and the fee for Bitcoin space.
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {}", .cost.saturating_sub(*.balance))]
    InsufficientFunds {
        /// Wei.
        balance: U256,
        /// Wei, the fee for Bitcoin space included.
        cost: U256,
    },
    /// The balance covers this transaction, but not the ones before it as well.
    #[error("insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}, overshot {}", .cost.saturating_add(*.queued).saturating_sub(*.balance))]
    InsufficientFundsForAll {
        /// Wei.
        balance: U256,
        /// Wei that the sender's waiting transactions cost at most.
        queued: U256,
        /// Wei that this one costs at most.
        cost: U256,
    },
    /// The transaction is in the pool.
    #[error("already known")]
    AlreadyKnown,
    /// Another transaction with this nonce waits and this one does not pay enough more.
    #[error("replacement transaction underpriced")]
    ReplacementUnderpriced,
    /// The pool is full and all of it is worth at least as much.
    #[error("transaction underpriced: the mempool is full")]
    UnderpricedForFull,
    /// The pool is full of transactions that a block can take, and none can take this one yet.
    #[error("future transaction tries to replace pending")]
    FutureReplacesPending,
    /// The pool is full, and what could give way does not make enough room.
    #[error("txpool is full")]
    Full,
    /// The sender has as many transactions waiting as one sender may, or as many that wait for a nonce.
    #[error("account limit exceeded: pooled {pooled} txs")]
    SenderLimit {
        /// How many the sender has.
        pooled: usize,
    },
    /// The sender is delegated or about to be (EIP-7702), and has a transaction that can be executed.
    #[error("in-flight transaction limit reached for delegated accounts")]
    InFlightLimit,
    /// The sender is delegated or about to be (EIP-7702), and this is not its next nonce.
    #[error("gapped-nonce tx from delegated accounts")]
    GappedFromDelegated,
    /// Who signed an authorisation (EIP-7702) has more than one transaction waiting.
    #[error("authority already reserved")]
    AuthorityReserved,
    /// The sequencer does not admit transactions now.
    #[error("transactions are not admitted now: {reason}")]
    Closed {
        /// Why, for the user.
        reason: String,
    },
    /// This machine failed.
    #[error("internal error")]
    State(#[source] anyhow::Error),
}

impl PoolError {
    /// Whether the bytes are no transaction of this chain, whatever its state.
    pub(super) const fn is_about_the_bytes(&self) -> bool {
        matches!(
            self,
            Self::Undecodable(_)
                | Self::NonCanonical
                | Self::UnsupportedType { .. }
                | Self::WrongChain { .. }
                | Self::Unprotected
                | Self::InvalidSender
        )
    }
}
