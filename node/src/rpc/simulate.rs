//! `eth_simulateV1`: blocks of unsigned calls on top of the chain.

use super::{
    block::{FullBlock, RpcBlock},
    call::{self, halt, refusal, unsigned},
    chain::{Chain, View},
    error::{RpcError, code},
    overrides::PrecompileChanges,
};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Receipt, Transaction as _, TxReceipt, Typed2718,
    proofs::ordered_trie_root_with_encoder,
};
use alloy_eips::{
    BlockId, Encodable2718, eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS,
    eip4788::SYSTEM_ADDRESS, eip7685::EMPTY_REQUESTS_HASH,
};
use alloy_evm::{
    Evm as _, EvmEnv,
    overrides::{apply_block_overrides, apply_state_overrides},
    rpc::{CallFeesError, EthTxEnvError, TryIntoTxEnv},
};
use alloy_op_evm::{OpTx, OpTxError};
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, Signature, U256};
use alloy_rpc_types_eth::{
    TransactionRequest,
    simulate::{MAX_SIMULATE_BLOCKS, SimBlock, SimCallResult, SimulateError, SimulatePayload},
};
use kedge_genesis::{L2Number, predeploys::L2_TO_L1_MESSAGE_PASSER};
use kedge_store::StateAt;
use kedge_vm::{Header, OpReceiptEnvelope, OpTxEnvelope, next_base_fee, trie};
use op_revm::{OpSpecId, OpTransaction, OpTransactionError};
use revm::{
    Database as _, DatabaseCommit,
    context::{
        TxEnv,
        result::{EVMError, ExecutionResult, InvalidTransaction},
    },
    database::{State, states::bundle_state::BundleRetention},
};
use revm_inspectors::transfer::TransferInspector;

/// A simulated block and what its calls gave.
pub(super) type Simulated = alloy_rpc_types_eth::simulate::SimulatedBlock<RpcBlock>;

/// A simulation while it runs.
struct Simulation<'v, 's> {
    chain: &'v Chain,
    view: &'v View<'s>,
    base: L2Number,
    base_root: B256,
    state: State<StateAt<'v, 's>>,
    payload: SimulatePayload,
    /// Gas that is left for all calls together.
    budget: u64,
}

/// A call that was executed.
struct Executed {
    tx: OpTxEnvelope,
    sender: Address,
    result: SimCallResult,
    logs: Vec<Log>,
}

/// Runs a payload's blocks on the state after `block`. All calls together get `gas_cap` gas.
pub(super) fn simulate(
    chain: &Chain,
    mut payload: SimulatePayload,
    block: Option<BlockId>,
    gas_cap: u64,
) -> Result<Vec<Simulated>, RpcError> {
    let view = chain.view();
    let base = view.number(block)?;
    let mut parent = view.header(base)?;
    let mut parent_hash = view.hash(base)?;
    let blocks = in_order(&parent, std::mem::take(&mut payload.block_state_calls))?;
    let state =
        State::builder().with_database(view.reader.state_at(base)?).with_bundle_update().build();
    let mut simulation = Simulation {
        chain,
        view: &view,
        base,
        base_root: parent.state_root,
        state,
        payload,
        budget: gas_cap,
    };
    let mut simulated = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (block, calls) = simulation.block(&parent, parent_hash, block)?;
        simulation.state.block_hashes.insert(block.header.number, block.hash);
        simulated.push(show(&block, calls, simulation.payload.return_full_transactions));
        (parent, parent_hash) = (block.header, block.hash);
    }
    Ok(simulated)
}

fn rejected(code: i32, message: String) -> RpcError {
    RpcError::Simulation { code, message }
}

/// The blocks with numbers and times, and with empty ones where numbers were left out.
fn in_order(base: &Header, blocks: Vec<SimBlock>) -> Result<Vec<SimBlock>, RpcError> {
    let too_many = || rejected(code::SIMULATION_LIMIT, "too many blocks".into());
    if blocks.is_empty() {
        return Err(RpcError::InvalidParams("empty input".into()));
    }
    if blocks.len() as u64 > MAX_SIMULATE_BLOCKS {
        return Err(too_many());
    }
    let (mut last, mut last_time) = (base.number, base.timestamp);
    let mut ordered = Vec::with_capacity(blocks.len());
    for mut block in blocks {
        let overrides = block.block_overrides.get_or_insert_default();
        let number = match overrides.number {
            Some(number) => u64::try_from(number).map_err(|_| too_many())?,
            None => last.saturating_add(1),
        };
        if number <= last {
            let text = format!("block numbers must be in order: {number} <= {last}");
            return Err(rejected(code::BLOCK_NUMBER_ORDER, text));
        }
        if number - base.number > MAX_SIMULATE_BLOCKS {
            return Err(too_many());
        }
        for number in last + 1..number {
            last_time = last_time.saturating_add(1);
            let mut gap = SimBlock::default();
            let overrides = gap.block_overrides.get_or_insert_default();
            overrides.number = Some(U256::from(number));
            overrides.time = Some(last_time);
            ordered.push(gap);
        }
        let time = overrides.time.unwrap_or(last_time.saturating_add(1));
        if time <= last_time {
            let text = format!("block timestamps must be in order: {time} <= {last_time}");
            return Err(rejected(code::BLOCK_TIME_ORDER, text));
        }
        overrides.number = Some(U256::from(number));
        overrides.time = Some(time);
        (last, last_time) = (number, time);
        ordered.push(block);
    }
    Ok(ordered)
}

impl Simulation<'_, '_> {
    fn block(
        &mut self,
        parent: &Header,
        parent_hash: B256,
        block: SimBlock,
    ) -> Result<(FullBlock, Vec<SimCallResult>), RpcError> {
        let mut env = self.env(parent);
        if let Some(overrides) = block.block_overrides {
            apply_block_overrides(overrides, &mut self.state, &mut env.block_env);
        }
        let overrides = block.state_overrides.unwrap_or_default();
        let precompiles = PrecompileChanges::of(&self.chain.evm, &overrides)?;
        apply_state_overrides(overrides, &mut self.state)
            .map_err(|error| RpcError::InvalidParams(error.to_string()))?;
        for (contract, word) in
            [(HISTORY_STORAGE_ADDRESS, parent_hash), (BEACON_ROOTS_ADDRESS, B256::ZERO)]
        {
            let mut evm = self.chain.evm.evm(env.clone(), &mut self.state);
            let result = evm
                .transact_system_call(SYSTEM_ADDRESS, contract, word.into())
                .map_err(|error| RpcError::Internal(anyhow::anyhow!("system call: {error}")))?;
            drop(evm);
            self.state.commit(result.state);
        }
        let mut executed = Vec::with_capacity(block.calls.len());
        let mut gas_used = 0;
        for call in block.calls {
            let call = self.call(&env, &precompiles, call, gas_used)?;
            gas_used += call.result.gas_used;
            executed.push(call);
        }
        self.seal(parent, parent_hash, &env, executed)
    }

    /// The block after `parent`, as far as nothing is overridden.
    fn env(&self, parent: &Header) -> EvmEnv<OpSpecId> {
        let validation = self.payload.validation;
        let mut header = parent.clone();
        header.mix_hash = B256::ZERO;
        header.base_fee_per_gas = if validation { next_base_fee(parent) } else { Some(0) };
        let mut env = self.chain.evm.env(&header);
        let cfg = &mut env.cfg_env;
        cfg.disable_nonce_check = !validation;
        cfg.disable_base_fee = !validation;
        // Whatever is validated: nobody signs these, and the block's gas is counted here.
        cfg.disable_eip3607 = true;
        cfg.disable_block_gas_limit = true;
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        env
    }

    /// Fills in what a call leaves out.
    fn complete(
        &mut self,
        env: &EvmEnv<OpSpecId>,
        mut call: TransactionRequest,
        gas_used: u64,
    ) -> Result<TransactionRequest, RpcError> {
        let from = *call.from.get_or_insert_default();
        if call.nonce.is_none() {
            let account = self.state.basic(from).map_err(|e| RpcError::Internal(e.into()))?;
            call.nonce = Some(account.map_or(0, |account| account.nonce));
        }
        let limit = env.block_env.gas_limit;
        let gas = call.gas.unwrap_or(limit.saturating_sub(gas_used));
        if gas_used.saturating_add(gas) > limit {
            let text = format!("block gas limit reached: {gas_used} >= {limit}");
            return Err(rejected(code::BLOCK_GAS_LIMIT, text));
        }
        call.gas = Some(gas.min(self.budget));
        let chain_id = *call.chain_id.get_or_insert(self.chain.evm.chain_id);
        if chain_id != self.chain.evm.chain_id {
            let expected = self.chain.evm.chain_id;
            let text = format!("chainId does not match node's (have={chain_id}, want={expected})");
            return Err(RpcError::InvalidParams(text));
        }
        if call.gas_price.is_none() {
            call.max_fee_per_gas.get_or_insert_default();
            call.max_priority_fee_per_gas.get_or_insert_default();
        }
        call.value.get_or_insert_default();
        if call.to.is_none() {
            call.to = Some(alloy_primitives::TxKind::Create);
        }
        call.normalize_input();
        Ok(call)
    }

    fn call(
        &mut self,
        env: &EvmEnv<OpSpecId>,
        precompiles: &PrecompileChanges,
        call: TransactionRequest,
        gas_used: u64,
    ) -> Result<Executed, RpcError> {
        if call.has_eip4844_fields() {
            return Err(RpcError::InvalidParams("blob transactions are not supported".into()));
        }
        let call = self.complete(env, call, gas_used)?;
        let sender = call.from.unwrap_or_default();
        let invalid = |error: EthTxEnvError| match error {
            EthTxEnvError::CallFees(CallFeesError::FeeCapTooLow) => fee_cap_too_low(
                sender,
                call.max_fee_per_gas.or(call.gas_price).unwrap_or_default(),
                env,
                call.gas.unwrap_or_default(),
            ),
            error => RpcError::InvalidParams(error.to_string()),
        };
        let base: TxEnv = call.clone().try_into_tx_env(env).map_err(invalid)?;
        let unsigned = unsigned(call.clone())
            .ok_or_else(|| RpcError::InvalidParams("the call is no transaction".into()))?;
        let signature = Signature::new(U256::ZERO, U256::ZERO, false);
        let tx = unsigned.into_envelope(signature);
        // With validation the call pays for its Bitcoin space as a transaction of its size does.
        let enveloped =
            if self.payload.validation { tx.encoded_2718().into() } else { Bytes::new() };
        let gas = base.gas_limit;
        let (nonce, fee_cap) = (base.nonce, tx.max_fee_per_gas());
        let transaction = OpTx(OpTransaction {
            base,
            enveloped_tx: Some(enveloped),
            deposit: Default::default(),
        });
        let inspector = TransferInspector::new(false).with_logs(self.payload.trace_transfers);
        let mut evm = self.chain.evm.evm_with_inspector(env.clone(), &mut self.state, inspector);
        precompiles.apply(evm.precompiles_mut())?;
        let outcome = evm.transact(transaction);
        drop(evm);
        let outcome = outcome.map_err(|error| match error {
            EVMError::Transaction(OpTxError(OpTransactionError::Base(error))) => {
                refused(&error, sender, nonce, fee_cap, env, gas)
            }
            EVMError::Transaction(error) => RpcError::Execution(error.to_string()),
            error => RpcError::Internal(anyhow::anyhow!("simulated call failed: {error}")),
        })?;
        self.state.commit(outcome.state);
        let result = outcome.result;
        self.budget = self.budget.saturating_sub(result.tx_gas_used());
        // What a call that failed had logged, or transferred, did not happen.
        let logs = if result.is_success() { result.logs().to_vec() } else { Vec::new() };
        Ok(Executed { tx, sender, logs, result: shown(result) })
    }

    /// Root of the state that all blocks so far made of the base's, and of the message passer's storage.
    fn roots(&mut self) -> Result<(B256, B256), RpcError> {
        self.state.merge_transitions(BundleRetention::PlainState);
        let mut wiped = kedge_vm::StateDiff::default();
        let mut diff = kedge_vm::StateDiff::default();
        for (address, account) in &self.state.bundle_state.state {
            if account.was_destroyed() {
                wiped.accounts.insert(*address, None);
            }
            let info = account.info.as_ref().filter(|info| !info.is_empty());
            if account.is_info_changed() || account.was_destroyed() {
                diff.accounts.insert(*address, info.map(kedge_vm::AccountInfo::from));
            }
            let slots = account.storage.iter().map(|(slot, value)| (*slot, value.present_value));
            diff.storage.extend(slots.map(|(slot, value)| ((*address, slot), value)));
        }
        let mut nodes = self.view.reader.state_at(self.base)?;
        let failed = |error| RpcError::Internal(anyhow::anyhow!("state root: {error}"));
        let (root, changed) = if wiped.accounts.is_empty() {
            (self.base_root, kedge_vm::TrieDiff::default())
        } else {
            let (root, changed, _) =
                trie::apply(self.base_root, &wiped, &[], &mut nodes).map_err(failed)?;
            (root, changed)
        };
        let mut nodes = Overlay { changed, below: nodes };
        let (root, _, roots) =
            trie::apply(root, &diff, &[L2_TO_L1_MESSAGE_PASSER], &mut nodes).map_err(failed)?;
        let passer = roots.get(&L2_TO_L1_MESSAGE_PASSER).copied();
        Ok((root, passer.unwrap_or(trie::EMPTY_ROOT_HASH)))
    }

    fn seal(
        &mut self,
        parent: &Header,
        parent_hash: B256,
        env: &EvmEnv<OpSpecId>,
        executed: Vec<Executed>,
    ) -> Result<(FullBlock, Vec<SimCallResult>), RpcError> {
        let (state_root, withdrawals_root) = self.roots()?;
        let mut block = FullBlock {
            header: Header::default(),
            hash: B256::ZERO,
            transactions: Vec::with_capacity(executed.len()),
            senders: Vec::with_capacity(executed.len()),
            receipts: Vec::with_capacity(executed.len()),
        };
        let mut results = Vec::with_capacity(executed.len());
        let mut gas_used = 0;
        for Executed { tx, sender, result, logs } in executed {
            gas_used += result.gas_used;
            let receipt = Receipt {
                status: Eip658Value::Eip658(result.status),
                cumulative_gas_used: gas_used,
                logs,
            };
            block.receipts.push(match tx.ty() {
                1 => OpReceiptEnvelope::Eip2930(receipt.with_bloom()),
                2 => OpReceiptEnvelope::Eip1559(receipt.with_bloom()),
                4 => OpReceiptEnvelope::Eip7702(receipt.with_bloom()),
                _ => OpReceiptEnvelope::Legacy(receipt.with_bloom()),
            });
            block.transactions.push(tx);
            block.senders.push(sender);
            results.push(result);
        }
        let fields = &env.block_env;
        block.header = Header {
            parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: fields.beneficiary,
            state_root,
            transactions_root: ordered_trie_root_with_encoder(&block.transactions, |tx, out| {
                tx.encode_2718(out);
            }),
            receipts_root: ordered_trie_root_with_encoder(&block.receipts, |receipt, out| {
                receipt.encode_2718(out);
            }),
            logs_bloom: block
                .receipts
                .iter()
                .fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom()),
            number: fields.number.saturating_to(),
            gas_limit: fields.gas_limit,
            gas_used,
            timestamp: fields.timestamp.saturating_to(),
            extra_data: parent.extra_data.clone(),
            mix_hash: fields.prevrandao.unwrap_or_default(),
            base_fee_per_gas: Some(fields.basefee),
            withdrawals_root: Some(withdrawals_root),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::ZERO),
            requests_hash: Some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        };
        block.hash = block.header.hash_slow();
        Ok((block, results))
    }
}

/// Trie nodes with changes on top.
struct Overlay<N> {
    changed: kedge_vm::TrieDiff,
    below: N,
}

impl<N: kedge_vm::TrieNodes> kedge_vm::TrieNodes for Overlay<N> {
    type Error = N::Error;

    fn trie_node(
        &mut self,
        owner: Option<B256>,
        path: &kedge_vm::Nibbles,
        hash: B256,
    ) -> Result<Bytes, Self::Error> {
        match self.changed.nodes.get(&(owner, *path)) {
            Some(Some(node)) => Ok(node.clone()),
            // A node that the change removed is asked for by nobody.
            _ => self.below.trie_node(owner, path, hash),
        }
    }
}

fn shown(result: ExecutionResult<op_revm::OpHaltReason>) -> SimCallResult {
    let gas = result.gas();
    let mut shown = SimCallResult {
        gas_used: result.tx_gas_used(),
        max_used_gas: Some(gas.total_gas_spent().max(gas.floor_gas())),
        ..Default::default()
    };
    match result {
        ExecutionResult::Success { output, .. } => {
            shown.status = true;
            shown.return_data = output.into_data();
        }
        ExecutionResult::Revert { output, .. } => {
            shown.error = Some(SimulateError {
                code: SimulateError::EXECUTION_REVERTED_CODE,
                message: RpcError::Reverted(output.clone()).to_string(),
                data: Some(output),
            });
        }
        ExecutionResult::Halt { reason, .. } => {
            shown.error = Some(SimulateError {
                code: SimulateError::VM_EXECUTION_ERROR_CODE,
                message: format!("vm execution error: {}", halt(&reason)),
                data: None,
            });
        }
    }
    shown
}

fn fee_cap_too_low(from: Address, fee_cap: u128, env: &EvmEnv<OpSpecId>, gas: u64) -> RpcError {
    let text = call::fee_cap_too_low(from, fee_cap, env.block_env.basefee, gas);
    rejected(code::SIMULATION_FEE_CAP, text)
}

/// A call that the EVM does not begin: the codes of `eth_simulateV1`.
fn refused(
    error: &InvalidTransaction,
    from: Address,
    nonce: u64,
    fee_cap: u128,
    env: &EvmEnv<OpSpecId>,
    gas: u64,
) -> RpcError {
    let text = |text: String| format!("err: {text} (supplied gas {gas})");
    match error {
        InvalidTransaction::GasPriceLessThanBasefee => fee_cap_too_low(from, fee_cap, env, gas),
        InvalidTransaction::NonceTooLow { state, .. } => rejected(
            code::SIMULATION_NONCE_LOW,
            text(format!("nonce too low: address {from}, tx: {nonce} state: {state}")),
        ),
        InvalidTransaction::NonceTooHigh { state, .. } => rejected(
            code::SIMULATION_NONCE_HIGH,
            text(format!("nonce too high: address {from}, tx: {nonce} state: {state}")),
        ),
        InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
        | InvalidTransaction::GasFloorMoreThanGasLimit { .. } => {
            rejected(code::SIMULATION_INTRINSIC_GAS, refusal(error, from, gas))
        }
        InvalidTransaction::LackOfFundForMaxFee { .. } => {
            rejected(code::SIMULATION_FUNDS, refusal(error, from, gas))
        }
        InvalidTransaction::CreateInitCodeSizeLimit => {
            rejected(code::SIMULATION_INITCODE, refusal(error, from, gas))
        }
        error => RpcError::Execution(refusal(error, from, gas)),
    }
}

/// The block as JSON-RPC shows it, with each call's logs where they belong.
fn show(block: &FullBlock, mut calls: Vec<SimCallResult>, full: bool) -> Simulated {
    let logs = block.logs(false);
    for (index, call) in calls.iter_mut().enumerate() {
        let own = logs.iter().filter(|log| log.transaction_index == Some(index as u64));
        call.logs = own.cloned().collect();
    }
    Simulated { inner: block.rpc_block(full), calls }
}
