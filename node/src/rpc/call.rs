//! Executing calls that nobody signed, and finding out how much gas a transaction needs.

use super::{brief::Brief, error::RpcError, overrides::PrecompileChanges};
use alloy_eips::Encodable2718;
use alloy_evm::{
    Evm as _, EvmEnv,
    overrides::{apply_block_overrides, apply_state_overrides},
    rpc::{CallFeesError, EthTxEnvError, TryIntoTxEnv},
};
use alloy_op_evm::{OpTx, OpTxError};
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256};
use alloy_rpc_types_eth::{
    AccessListResult, BlockOverrides, TransactionRequest, state::StateOverride,
};
use kedge_vm::{EvmConfig, Header};
use op_alloy_consensus::OpTypedTransaction;
use op_alloy_rpc_types::OpTransactionRequest;
use op_revm::{L1BlockInfo, OpHaltReason, OpSpecId, OpTransaction, OpTransactionError};
use revm::{
    Database as _,
    context::{
        TxEnv,
        result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    },
    database::State,
};
use revm_inspectors::access_list::AccessListInspector;

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;
/// What a callee that receives value is given on top.
const CALL_STIPEND: u64 = 2_300;
/// How close an estimate must be, as in go-ethereum: 1.5 %.
const TOLERANCE_PER_THOUSAND: u64 = 15;

/// What a call pretends about the state and the block.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    pub(super) state: Option<StateOverride>,
    pub(super) block: Option<BlockOverrides>,
}

/// A call or transaction with all that it runs on.
pub(super) struct Parts<DB> {
    pub(super) env: EvmEnv<OpSpecId>,
    /// With what is pretended of it.
    pub(super) state: State<DB>,
    pub(super) precompiles: PrecompileChanges,
    pub(super) tx: OpTx,
}

/// A call that is ready to run, as often as wanted, on the state after a block.
pub(super) struct Prepared<'a, DB: alloy_evm::Database> {
    config: &'a EvmConfig,
    env: EvmEnv<OpSpecId>,
    state: State<DB>,
    tx: TxEnv,
    declared_gas: Option<u64>,
    precompiles: PrecompileChanges,
    /// Wei for the Bitcoin space that a signed transaction of this content takes.
    data_fee: U256,
}

impl<'a, DB: alloy_evm::Database> Prepared<'a, DB> {
    /// Puts a request on the state after the block with that header, in which Bitcoin space costs what
    /// `l1` says. No request gets more than `gas_cap`.
    pub(super) fn new(
        config: &'a EvmConfig,
        header: &Header,
        db: DB,
        l1: L1BlockInfo,
        mut request: TransactionRequest,
        overrides: Overrides,
        gas_cap: u64,
    ) -> Result<Self, RpcError> {
        let mut env = config.call_env(header);
        let mut state = State::builder().with_database(db).build();
        if let Some(block) = overrides.block {
            apply_block_overrides(block, &mut state, &mut env.block_env);
        }
        let mut precompiles = PrecompileChanges::default();
        if let Some(accounts) = overrides.state {
            precompiles = PrecompileChanges::of(config, &accounts)?;
            apply_state_overrides(accounts, &mut state)
                .map_err(|error| RpcError::InvalidParams(error.to_string()))?;
        }
        if request.chain_id.is_some_and(|found| found != config.chain_id) {
            return Err(RpcError::Execution("invalid chain id".into()));
        }
        let declared_gas = request.gas;
        request.gas = Some(declared_gas.unwrap_or(gas_cap).min(gas_cap));
        let fee_cap = request.max_fee_per_gas.or(request.gas_price).unwrap_or_default();
        let (from, gas) = (request.from.unwrap_or_default(), request.gas.unwrap_or_default());
        let base_fee = env.block_env.basefee;
        let data_fee = if fee_cap > 0 { data_fee(config, l1, &request) } else { U256::ZERO };
        let tx: TxEnv =
            request.try_into_tx_env(&env).map_err(|error| match error {
                EthTxEnvError::CallFees(CallFeesError::FeeCapTooLow) => {
                    RpcError::Execution(fee_cap_too_low(from, fee_cap, base_fee, gas))
                }
                EthTxEnvError::CallFees(CallFeesError::TipAboveFeeCap) => RpcError::Execution(
                    refusal(&InvalidTransaction::PriorityFeeGreaterThanMaxFee, from, gas),
                ),
                error => RpcError::InvalidParams(error.to_string()),
            })?;
        let sender = state.basic(tx.caller).map_err(|error| unreadable(tx.caller, &error))?;
        let balance = sender.map(|account| account.balance).unwrap_or_default();
        if tx.value > balance {
            let short = InvalidTransaction::LackOfFundForMaxFee {
                fee: Box::new(tx.value),
                balance: Box::new(balance),
            };
            return Err(RpcError::Execution(refusal(&short, tx.caller, tx.gas_limit)));
        }
        Ok(Self { config, env, state, tx, declared_gas, precompiles, data_fee })
    }

    fn transaction(&self, gas: u64) -> OpTx {
        OpTx(OpTransaction {
            base: TxEnv { gas_limit: gas, ..self.tx.clone() },
            // No bytes, no charge for Bitcoin space.
            enveloped_tx: Some(Bytes::new()),
            deposit: Default::default(),
        })
    }

    /// What the call runs on, for running it otherwise.
    pub(super) fn into_parts(self) -> Parts<DB> {
        let tx = self.transaction(self.tx.gas_limit);
        Parts { env: self.env, state: self.state, precompiles: self.precompiles, tx }
    }

    /// Runs the call with that much gas. The state stays as it is.
    fn run(&mut self, gas: u64) -> Result<ExecutionResult<OpHaltReason>, RpcError> {
        let tx = self.transaction(gas);
        let mut evm = self.config.evm(self.env.clone(), &mut self.state);
        self.precompiles.apply(evm.precompiles_mut())?;
        match evm.transact(tx) {
            Ok(outcome) => Ok(outcome.result),
            Err(error) => Err(refused(error, self.tx.caller, gas)),
        }
    }

    /// `eth_call`: what the call returns.
    pub(super) fn call(mut self) -> Result<Bytes, RpcError> {
        match self.run(self.tx.gas_limit)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            ExecutionResult::Revert { output, .. } => Err(RpcError::Reverted(output)),
            ExecutionResult::Halt { reason, .. } => Err(RpcError::Execution(halt(&reason))),
        }
    }

    /// `eth_call` of what is brief: what it returns; none where it is not brief or does not succeed.
    pub(super) fn brief(mut self) -> Result<Option<Bytes>, RpcError> {
        let mut brief = Brief::new(self.config.precompiles());
        let (tx, from, gas) =
            (self.transaction(self.tx.gas_limit), self.tx.caller, self.tx.gas_limit);
        let mut evm = self.config.evm_with_inspector(self.env, &mut self.state, &mut brief);
        let outcome = evm.transact(tx).map_err(|error| refused(error, from, gas))?;
        drop(evm);
        Ok(match outcome.result {
            ExecutionResult::Success { output, .. } if !brief.is_over() => Some(output.into_data()),
            _ => None,
        })
    }

    /// `eth_createAccessList`: what the call touches, and the gas it uses when that is declared.
    pub(super) fn access_list(mut self) -> Result<AccessListResult, RpcError> {
        let mut inspector = AccessListInspector::new(std::mem::take(&mut self.tx.access_list));
        let tx = self.transaction(self.tx.gas_limit);
        let from = self.tx.caller;
        let mut evm =
            self.config.evm_with_inspector(self.env.clone(), &mut self.state, &mut inspector);
        self.precompiles.apply(evm.precompiles_mut())?;
        evm.transact(tx).map_err(|error| refused(error, from, self.tx.gas_limit))?;
        drop(evm);
        let access_list = inspector.into_access_list();
        self.tx.access_list = access_list.clone();
        self.tx.tx_type = self.tx.tx_type.max(1);
        let result = self.run(self.tx.gas_limit)?;
        let error = match &result {
            ExecutionResult::Success { .. } => None,
            ExecutionResult::Revert { output, .. } => {
                Some(RpcError::Reverted(output.clone()).to_string())
            }
            ExecutionResult::Halt { reason, .. } => Some(halt(reason)),
        };
        let gas_used = U256::from(result.tx_gas_used());
        Ok(AccessListResult { access_list, gas_used, error })
    }

    /// `eth_estimateGas`: the least gas (nearly) with which the call succeeds. More than one
    /// transaction can declare is never answered.
    pub(super) fn estimate(mut self) -> Result<u64, RpcError> {
        let mut high = self
            .declared_gas
            .filter(|gas| *gas >= TRANSFER_GAS)
            .unwrap_or(u64::MAX)
            .min(self.tx.gas_limit.max(TRANSFER_GAS))
            .min(self.config.max_transaction_gas());
        if self.tx.gas_price > 0 {
            high = high.min(self.allowance()?);
        }
        if self.is_plain_transfer()?
            && high >= TRANSFER_GAS
            && matches!(self.run(TRANSFER_GAS), Ok(ExecutionResult::Success { .. }))
        {
            return Ok(TRANSFER_GAS);
        }
        let (used, refunded) = match self.run(high)? {
            ExecutionResult::Success { gas, .. } => (gas.tx_gas_used(), gas.inner_refunded()),
            ExecutionResult::Revert { output, .. } => return Err(RpcError::Reverted(output)),
            ExecutionResult::Halt { reason, .. } => {
                return Err(if is_out_of_gas(&reason) {
                    RpcError::Execution(format!("gas required exceeds allowance ({high})"))
                } else {
                    RpcError::Execution(halt(&reason))
                });
            }
        };
        let mut low = used.saturating_sub(1);
        // A call passes on at most 63/64 of its gas (EIP-150), so this mostly is enough.
        let likely =
            used.saturating_add(refunded).saturating_add(CALL_STIPEND).saturating_mul(64) / 63;
        if likely < high {
            if self.succeeds(likely)? { high = likely } else { low = likely }
        }
        while low.saturating_add(1) < high {
            if (high - low).saturating_mul(1_000) < high.saturating_mul(TOLERANCE_PER_THOUSAND) {
                break;
            }
            // Most need little more than they use, so the middle is not too far from the bottom.
            let middle = (low + (high - low) / 2).min(low.saturating_mul(2).max(1));
            if self.succeeds(middle)? { high = middle } else { low = middle }
        }
        Ok(high)
    }

    /// The gas that the sender can pay for besides the value and the Bitcoin space.
    fn allowance(&mut self) -> Result<u64, RpcError> {
        let from = self.tx.caller;
        let account = self.state.basic(from).map_err(|error| unreadable(from, &error))?;
        let balance = account.map(|account| account.balance).unwrap_or_default();
        let fixed = self.tx.value.saturating_add(self.data_fee);
        let price = U256::from(self.tx.gas_price);
        // Nothing costs less than a transfer.
        let least = fixed.saturating_add(U256::from(TRANSFER_GAS).saturating_mul(price));
        if least > balance {
            let short = InvalidTransaction::LackOfFundForMaxFee {
                fee: Box::new(least),
                balance: Box::new(balance),
            };
            return Err(RpcError::Execution(refusal(&short, from, self.tx.gas_limit)));
        }
        Ok((balance.saturating_sub(fixed) / price).saturating_to())
    }

    fn is_plain_transfer(&mut self) -> Result<bool, RpcError> {
        let TxKind::Call(to) = self.tx.kind else { return Ok(false) };
        if !self.tx.data.is_empty()
            || !self.tx.access_list.is_empty()
            || !self.tx.authorization_list.is_empty()
            || self.config.precompiles().contains(&to)
        {
            return Ok(false);
        }
        let account = self.state.basic(to).map_err(|error| unreadable(to, &error))?;
        Ok(account.is_none_or(|account| account.is_empty_code_hash()))
    }

    /// Whether that much gas is enough. A refusal for too little gas is a no.
    fn succeeds(&mut self, gas: u64) -> Result<bool, RpcError> {
        match self.run(gas) {
            Ok(result) => Ok(result.is_success()),
            Err(RpcError::Execution(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What the Bitcoin space of a request costs, once it is signed: wei, operator fee included.
fn data_fee(config: &EvmConfig, mut l1: L1BlockInfo, request: &TransactionRequest) -> U256 {
    let mut request = request.clone();
    request.nonce.get_or_insert_default();
    request.chain_id.get_or_insert(config.chain_id);
    request.value.get_or_insert_default();
    request.to.get_or_insert(TxKind::Create);
    if request.gas_price.is_none() {
        request.max_priority_fee_per_gas.get_or_insert_default();
    }
    request.normalize_input();
    let gas = U256::from(request.gas.unwrap_or_default());
    // A request that is no transaction is refused elsewhere.
    let Some(unsigned) = unsigned(request) else { return U256::ZERO };
    // Signatures do not compress: any that is not zero takes as much space as the real one.
    let word = U256::from_be_bytes(alloy_primitives::keccak256("signature").0);
    let signed = unsigned.into_envelope(Signature::new(word, word.rotate_left(97), true));
    l1.tx_cost(&signed.encoded_2718(), gas, config.spec)
}

/// The transaction that a complete request stands for.
pub(super) fn unsigned(request: TransactionRequest) -> Option<OpTypedTransaction> {
    let request: OpTransactionRequest = request.into();
    request.build_typed_tx().ok()
}

/// go-ethereum's words for a fee cap below the base fee.
pub(super) fn fee_cap_too_low(from: Address, fee_cap: u128, base_fee: u64, gas: u64) -> String {
    format!(
        "err: max fee per gas less than block base fee: address {from}, maxFeePerGas: {fee_cap}, \
         baseFee: {base_fee} (supplied gas {gas})"
    )
}

fn unreadable(address: Address, error: &impl std::fmt::Display) -> RpcError {
    RpcError::Internal(anyhow::anyhow!("account {address}: {error}"))
}

fn is_out_of_gas(reason: &OpHaltReason) -> bool {
    matches!(reason, OpHaltReason::Base(HaltReason::OutOfGas(_)))
}

/// go-ethereum's words for an exceptional end.
pub(super) fn halt(reason: &OpHaltReason) -> String {
    match reason {
        OpHaltReason::Base(HaltReason::OutOfGas(_)) => "out of gas".into(),
        OpHaltReason::Base(HaltReason::InvalidFEOpcode) => "invalid opcode: INVALID".into(),
        OpHaltReason::Base(HaltReason::OpcodeNotFound | HaltReason::NotActivated) => {
            "invalid opcode".into()
        }
        OpHaltReason::Base(HaltReason::CreateCollision) => "contract address collision".into(),
        OpHaltReason::Base(HaltReason::CreateContractSizeLimit) => "max code size exceeded".into(),
        OpHaltReason::Base(HaltReason::CreateContractStartingWithEF) => {
            "invalid code: must not begin with 0xef".into()
        }
        OpHaltReason::Base(HaltReason::StateChangeDuringStaticCall) => "write protection".into(),
        OpHaltReason::Base(reason) => reason.to_string(),
        OpHaltReason::FailedDeposit => "deposit failed".into(),
    }
}

/// A call that the EVM did not run.
pub(super) fn refused<E: std::fmt::Display>(
    error: EVMError<E, OpTxError>,
    from: Address,
    gas: u64,
) -> RpcError {
    match error {
        EVMError::Transaction(OpTxError(OpTransactionError::Base(error))) => {
            RpcError::Execution(refusal(&error, from, gas))
        }
        EVMError::Transaction(error) => RpcError::Execution(error.to_string()),
        error => RpcError::Internal(anyhow::anyhow!("call failed: {error}")),
    }
}

/// go-ethereum's words for a call that the EVM refuses to begin.
pub(super) fn refusal(error: &InvalidTransaction, from: Address, gas: u64) -> String {
    let reason = match error {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => format!(
            "insufficient funds for gas * price + value: address {from} have {balance} want {fee}"
        ),
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        InvalidTransaction::PriorityFeeGreaterThanMaxFee => {
            "max priority fee per gas higher than max fee per gas".into()
        }
        InvalidTransaction::GasPriceLessThanBasefee => {
            "max fee per gas less than block base fee".into()
        }
        InvalidTransaction::CreateInitCodeSizeLimit => "max initcode size exceeded".into(),
        error => error.to_string(),
    };
    format!("err: {reason} (supplied gas {gas})")
}
