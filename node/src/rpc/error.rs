//! What a request is answered when it fails: the codes of the execution-apis specification with
//! go-ethereum's messages, which wallets and libraries match on.

use crate::engine::{EngineError, NoProof};
use crate::mempool::PoolError;
use alloy_primitives::{B256, Bytes, hex};
use alloy_sol_types::{Panic, Revert, SolError};
use jsonrpsee::types::{ErrorObjectOwned, error::INTERNAL_ERROR_MSG};
use kedge_store::StoreError;
use std::time::Duration;

/// Codes of the execution-apis catalogue and of JSON-RPC 2.0.
pub mod code {
    /// The nonce is used.
    pub const NONCE_TOO_LOW: i32 = 1;
    /// The call or transaction reverted; `data` is what it returned.
    pub const REVERTED: i32 = 3;
    /// The transaction is in the pool, and no block took it in time (EIP-7966); `data` is its hash.
    pub const NOT_INCLUDED: i32 = 4;
    /// Less gas than the transaction costs before it runs.
    pub const INTRINSIC_GAS: i32 = 800;
    /// A fee below the lowest possible one.
    pub const UNDERPRICED: i32 = 802;
    /// More gas than a block has.
    pub const GAS_LIMIT: i32 = 803;
    /// Priority fee above the fee cap.
    pub const TIP_ABOVE_CAP: i32 = 804;
    /// The balance does not cover the cost.
    pub const INSUFFICIENT_FUNDS: i32 = 809;
    /// The transaction is in the pool.
    pub const ALREADY_KNOWN: i32 = 1000;
    /// The signature is not a sender's on this chain.
    pub const INVALID_SENDER: i32 = 1001;
    /// Pruned history.
    pub const PRUNED: i32 = 4444;
    /// Invalid input.
    pub const INVALID_INPUT: i32 = -32000;
    /// Not available now.
    pub const UNAVAILABLE: i32 = -32002;
    /// The transaction is refused.
    pub const REJECTED: i32 = -32003;
    /// Not supported here.
    pub const UNSUPPORTED: i32 = -32004;
    /// A limit of this server.
    pub const LIMIT: i32 = -32005;
    /// `eth_simulateV1`: nonce below the account's.
    pub const SIMULATION_NONCE_LOW: i32 = -38010;
    /// `eth_simulateV1`: nonce above the account's.
    pub const SIMULATION_NONCE_HIGH: i32 = -38011;
    /// `eth_simulateV1`: fee cap below the base fee.
    pub const SIMULATION_FEE_CAP: i32 = -38012;
    /// `eth_simulateV1`: less gas than a call costs before it runs.
    pub const SIMULATION_INTRINSIC_GAS: i32 = -38013;
    /// `eth_simulateV1`: the balance does not cover fees and value.
    pub const SIMULATION_FUNDS: i32 = -38014;
    /// `eth_simulateV1`: calls declare more gas than the block has.
    pub const BLOCK_GAS_LIMIT: i32 = -38015;
    /// `eth_simulateV1`: block numbers do not rise.
    pub const BLOCK_NUMBER_ORDER: i32 = -38020;
    /// `eth_simulateV1`: block times do not rise.
    pub const BLOCK_TIME_ORDER: i32 = -38021;
    /// `eth_simulateV1`: initcode is too large.
    pub const SIMULATION_INITCODE: i32 = -38025;
    /// `eth_simulateV1`: more than this server simulates.
    pub const SIMULATION_LIMIT: i32 = -38026;
    /// Parameters that contradict each other or are out of range.
    pub const INVALID_PARAMS: i32 = -32602;
    /// This machine failed.
    pub const INTERNAL: i32 = -32603;
}

/// Why a request fails.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The mempool refused the transaction.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The call reverted.
    #[error("execution reverted{}", reason(.0))]
    Reverted(Bytes),
    /// The call or transaction cannot be executed, or ended exceptionally.
    #[error("{0}")]
    Execution(String),
    /// The parameters make no sense.
    #[error("{0}")]
    InvalidParams(String),
    /// There is no such block.
    #[error("header not found")]
    HeaderNotFound,
    /// The state of that block is not kept.
    #[error("historical state of block {0} is not available")]
    StateUnavailable(u64),
    /// The state of that block was pruned.
    #[error(
        "historical state of block {number} is pruned; the oldest kept is that of block {oldest}"
    )]
    StatePruned {
        /// The block's number.
        number: u64,
        /// The oldest block whose state is kept.
        oldest: u64,
    },
    /// The request would take more than this server gives.
    #[error("{0}")]
    Limit(String),
    /// This node does not take transactions.
    #[error("{0}")]
    NoSequencer(String),
    /// Something that this node depends on does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// There is no such fraud proof.
    #[error(transparent)]
    NoProof(#[from] NoProof),
    /// The sequencer's own answer.
    #[error("{}", .0.message())]
    Sequencer(ErrorObjectOwned),
    /// A simulation cannot be run: with a code of its own.
    #[error("{message}")]
    Simulation {
        /// Its code.
        code: i32,
        /// Why.
        message: String,
    },
    /// The transaction was taken and is in no block yet.
    #[error(
        "the transaction was added to the mempool but was not included in a block within {}s",
        wait.as_secs_f64()
    )]
    NotIncluded {
        /// Its hash.
        hash: B256,
        /// How long was waited.
        wait: Duration,
    },
    /// This machine failed.
    #[error("{INTERNAL_ERROR_MSG}")]
    Internal(#[source] anyhow::Error),
}

/// `: reason` of a revert with one that Solidity encodes as `Error(string)` or `Panic(uint256)`, else
/// nothing.
fn reason(data: &Bytes) -> String {
    if let Ok(revert) = Revert::abi_decode(data) {
        format!(": {}", revert.reason)
    } else if let Ok(panic) = Panic::abi_decode(data) {
        let text = panic.kind().map_or_else(
            || format!("unknown panic code: {:#x}", panic.code),
            |kind| kind.as_str().to_owned(),
        );
        format!(": {text}")
    } else {
        String::new()
    }
}

impl From<anyhow::Error> for RpcError {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::StateUnavailable { number } => Self::StateUnavailable(number),
            StoreError::StatePruned { number, oldest } => Self::StatePruned { number, oldest },
            error => Self::Internal(error.into()),
        }
    }
}

impl From<EngineError> for RpcError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            error => Self::Internal(error.into()),
        }
    }
}

impl RpcError {
    /// The code of the execution-apis catalogue.
    pub fn code(&self) -> i32 {
        match self {
            Self::Pool(error) => pool_code(error),
            Self::Reverted(_) => code::REVERTED,
            Self::Execution(_) | Self::HeaderNotFound | Self::NoProof(_) => code::INVALID_INPUT,
            Self::InvalidParams(_) => code::INVALID_PARAMS,
            Self::StateUnavailable(_) | Self::StatePruned { .. } => code::PRUNED,
            Self::Limit(_) => code::LIMIT,
            Self::NoSequencer(_) => code::UNSUPPORTED,
            Self::Unavailable(_) => code::UNAVAILABLE,
            Self::Sequencer(answer) => answer.code(),
            Self::Simulation { code, .. } => *code,
            Self::NotIncluded { .. } => code::NOT_INCLUDED,
            Self::Internal(_) => code::INTERNAL,
        }
    }
}

fn pool_code(error: &PoolError) -> i32 {
    match error {
        PoolError::Undecodable(_) | PoolError::NonCanonical => code::INVALID_INPUT,
        PoolError::WrongChain { .. } | PoolError::InvalidSender => code::INVALID_SENDER,
        PoolError::NonceTooLow { .. } => code::NONCE_TOO_LOW,
        PoolError::IntrinsicGasTooLow { .. } | PoolError::FloorGasTooLow { .. } => {
            code::INTRINSIC_GAS
        }
        PoolError::Underpriced { .. } | PoolError::UnderpricedForFull => code::UNDERPRICED,
        PoolError::GasLimitTooHigh { .. } => code::GAS_LIMIT,
        PoolError::TipAboveCap { .. } => code::TIP_ABOVE_CAP,
        PoolError::InsufficientFunds { .. } | PoolError::InsufficientFundsForAll { .. } => {
            code::INSUFFICIENT_FUNDS
        }
        PoolError::AlreadyKnown => code::ALREADY_KNOWN,
        PoolError::UnsupportedType { .. }
        | PoolError::Unprotected
        | PoolError::Oversized { .. }
        | PoolError::InitcodeTooLarge { .. }
        | PoolError::EmptyAuthorizations
        | PoolError::NonceMax
        | PoolError::FootprintTooLarge { .. }
        | PoolError::SenderIsContract(_)
        | PoolError::ReplacementUnderpriced
        | PoolError::FutureReplacesPending
        | PoolError::Full
        | PoolError::SenderLimit { .. }
        | PoolError::InFlightLimit
        | PoolError::GappedFromDelegated
        | PoolError::AuthorityReserved => code::REJECTED,
        PoolError::Closed { .. } => code::UNAVAILABLE,
        PoolError::State(_) => code::INTERNAL,
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        match &error {
            RpcError::Internal(source) | RpcError::Pool(PoolError::State(source)) => {
                tracing::error!(error = format!("{source:#}"), "request failed");
            }
            _ => {}
        }
        match error {
            RpcError::Sequencer(answer) => answer,
            RpcError::Reverted(ref data) => {
                Self::owned(error.code(), error.to_string(), Some(hex::encode_prefixed(data)))
            }
            RpcError::NotIncluded { hash, .. } => {
                Self::owned(error.code(), error.to_string(), Some(hash))
            }
            error => Self::owned(error.code(), error.to_string(), None::<()>),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::U256;
    use alloy_sol_types::PanicKind;

    fn answer(error: impl Into<RpcError>) -> (i32, String, Option<String>) {
        let object = ErrorObjectOwned::from(error.into());
        let data = object.data().map(|data| data.get().trim_matches('"').to_owned());
        (object.code(), object.message().to_owned(), data)
    }

    #[test]
    fn a_revert_has_code_3_its_reason_and_its_data() {
        let data: Bytes = Revert::from("not enough").abi_encode().into();
        assert_eq!(
            answer(RpcError::Reverted(data.clone())),
            (3, "execution reverted: not enough".into(), Some(data.to_string()))
        );
        let bare = answer(RpcError::Reverted(Bytes::new()));
        assert_eq!(bare, (3, "execution reverted".into(), Some("0x".into())));
        let panic: Bytes = Panic::from(PanicKind::UnderOverflow).abi_encode().into();
        let (code, message, _) = answer(RpcError::Reverted(panic));
        assert_eq!(code, 3);
        assert_eq!(message, "execution reverted: arithmetic underflow or overflow");
    }

    #[test]
    fn custom_errors_keep_their_data_and_invent_no_reason() {
        for data in [&[0xde, 0xad, 0xbe, 0xef, 1][..], b"wrong-calldatasize"] {
            let data = Bytes::from_static(data);
            assert_eq!(
                answer(RpcError::Reverted(data.clone())),
                (3, "execution reverted".into(), Some(data.to_string()))
            );
        }
    }

    #[test]
    fn the_pool_answers_with_the_catalogue_s_codes() {
        let table: Vec<(PoolError, i32)> = vec![
            (PoolError::NonceTooLow { next: 2, found: 1 }, 1),
            (PoolError::IntrinsicGasTooLow { found: 1, needed: 21_000 }, 800),
            (PoolError::FloorGasTooLow { found: 1, needed: 21_000 }, 800),
            (PoolError::Underpriced { found: 1, needed: 2 }, 802),
            (PoolError::GasLimitTooHigh { found: 2, limit: 1 }, 803),
            (PoolError::TipAboveCap { tip: 2, cap: 1 }, 804),
            (PoolError::InsufficientFunds { balance: U256::ZERO, cost: U256::ONE }, 809),
            (PoolError::AlreadyKnown, 1000),
            (PoolError::InvalidSender, 1001),
            (PoolError::WrongChain { expected: 1, found: 2 }, 1001),
            (PoolError::UnsupportedType { found: 3 }, -32003),
            (PoolError::ReplacementUnderpriced, -32003),
            (PoolError::UnderpricedForFull, 802),
            (PoolError::Full, -32003),
            (PoolError::AuthorityReserved, -32003),
            (PoolError::Closed { reason: "busy".into() }, -32002),
            (PoolError::NonCanonical, -32000),
        ];
        for (error, expected) in table {
            let text = error.to_string();
            assert_eq!(answer(error), (expected, text, None));
        }
    }

    #[test]
    fn a_pruned_state_is_refused_with_the_oldest_one_kept() {
        let message = "historical state of block 5 is pruned; the oldest kept is that of block 90";
        let error = StoreError::StatePruned { number: 5, oldest: 90 };
        assert_eq!(answer(error), (4444, message.into(), None));
    }

    #[test]
    fn the_inside_of_a_failure_stays_inside() {
        let (code, message, data) = answer(anyhow::anyhow!("disk /var/x is broken"));
        assert_eq!((code, message.as_str(), data), (-32603, "Internal error", None));
    }
}
