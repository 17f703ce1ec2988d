//! `ots_*`: what the explorer Otterscan asks for beyond `eth_*`, level 8 of its interface.

use super::{
    block::{FullBlock, RpcBlock, RpcHeader},
    chain::{Chain, View},
    error::RpcError,
    guard::Deadline,
    ots_shapes::{OtsBlock, OtsPage, receipt},
    replay::{Replay, Tracing},
    trace::{calls, each_of_block, of_transaction},
};
use alloy_consensus::Transaction as _;
use alloy_eips::{
    BlockId, eip1898::LenientBlockNumberOrTag, eip7702::constants::EIP7702_DELEGATION_DESIGNATOR,
};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_rpc_types_trace::{
    otterscan::{BlockDetails, ContractCreator, InternalOperation, OperationType, TraceEntry},
    parity::{Action, CallType, CreationMethod, LocalizedTransactionTrace, TraceOutput},
};
use jsonrpsee::{
    core::{RpcResult, async_trait},
    proc_macros::rpc,
};
use kedge_genesis::L2Number;
use kedge_store::L2Rows as _;

/// The version of Otterscan's interface.
const API_LEVEL: u64 = 8;
/// Most transactions that a page is asked to hold.
const MOST_PER_PAGE: usize = 100;

/// A block that Otterscan names, by a JSON number mostly.
fn named(number: LenientBlockNumberOrTag) -> BlockId {
    BlockId::Number(number.into())
}

/// `ots_*`, and the one method of Erigon's that Otterscan begins with.
#[rpc(server, namespace = "ots")]
pub trait OtsApi {
    /// A header by number; null when there is none.
    #[method(name = "getHeaderByNumber", aliases = ["erigon_getHeaderByNumber"], blocking)]
    fn header_by_number(&self, number: LenientBlockNumberOrTag) -> RpcResult<Option<RpcHeader>>;

    /// The version of this interface.
    #[method(name = "getApiLevel")]
    fn api_level(&self) -> RpcResult<u64>;

    /// Whether an account has code.
    #[method(name = "hasCode", blocking)]
    fn has_code(&self, address: Address, block: Option<BlockId>) -> RpcResult<bool>;

    /// What moved coins, created or destroyed a contract inside a transaction.
    #[method(name = "getInternalOperations")]
    async fn internal_operations(&self, hash: B256) -> RpcResult<Vec<InternalOperation>>;

    /// What a failed transaction returned; nothing for one that succeeded.
    #[method(name = "getTransactionError")]
    async fn transaction_error(&self, hash: B256) -> RpcResult<Bytes>;

    /// Every call of a transaction.
    #[method(name = "traceTransaction")]
    async fn trace_transaction(&self, hash: B256) -> RpcResult<Option<Vec<TraceEntry>>>;

    /// A block without its transactions, with what they paid; null when there is no such block.
    #[method(name = "getBlockDetails", blocking)]
    fn block_details(
        &self,
        number: LenientBlockNumberOrTag,
    ) -> RpcResult<Option<BlockDetails<RpcHeader>>>;

    /// The same by hash.
    #[method(name = "getBlockDetailsByHash", blocking)]
    fn block_details_by_hash(&self, hash: B256) -> RpcResult<Option<BlockDetails<RpcHeader>>>;

    /// A page of a block's transactions; page 0 has the last ones. Null when there is no such block.
    #[method(name = "getBlockTransactions", blocking)]
    fn block_transactions(
        &self,
        number: LenientBlockNumberOrTag,
        page: usize,
        size: usize,
    ) -> RpcResult<Option<OtsBlock>>;

    /// Transactions that an address took part in, in blocks before `block` (0: up to the newest), newest
    /// first. A page ends with a whole block.
    #[method(name = "searchTransactionsBefore")]
    async fn search_before(&self, address: Address, block: u64, size: usize) -> RpcResult<OtsPage>;

    /// The same in blocks after `block` (0: from the first on), those closest to it, newest first.
    #[method(name = "searchTransactionsAfter")]
    async fn search_after(&self, address: Address, block: u64, size: usize) -> RpcResult<OtsPage>;

    /// The transaction of a sender with that nonce; null when there is none.
    #[method(name = "getTransactionBySenderAndNonce", blocking)]
    fn transaction_by_nonce(&self, sender: Address, nonce: u64) -> RpcResult<Option<B256>>;

    /// Who created a contract in which transaction; null when none did.
    #[method(name = "getContractCreator")]
    async fn contract_creator(&self, address: Address) -> RpcResult<Option<ContractCreator>>;
}

/// Implements [`OtsApiServer`] on the node's store.
#[derive(Clone, Debug)]
pub(super) struct Ots(pub(super) Tracing);

/// What the transactions of a block paid: for gas, and for Bitcoin space.
fn total_fees(chain: &Chain, block: &FullBlock, l1: &op_revm::L1BlockInfo) -> U256 {
    let receipts =
        (0..block.transactions.len()).filter_map(|index| block.receipt(index, &chain.evm, l1));
    receipts.fold(U256::ZERO, |sum, receipt| {
        let gas = U256::from(receipt.inner.gas_used);
        let price = U256::from(receipt.inner.effective_gas_price);
        let space = U256::from(receipt.l1_block_info.l1_fee.unwrap_or_default());
        sum.saturating_add(gas.saturating_mul(price)).saturating_add(space)
    })
}

fn details(chain: &Chain, id: BlockId) -> Result<Option<BlockDetails<RpcHeader>>, RpcError> {
    let view = chain.view();
    let Some(number) = view.find(id)? else { return Ok(None) };
    let block = view.block(number)?;
    let fees = total_fees(chain, &block, &view.l1_fees(number)?);
    let shown: RpcBlock = block.rpc_block(false);
    Ok(Some(BlockDetails::new(shown, Default::default(), fees)))
}

/// Whether a trace happened: neither it nor a call around it was reverted.
fn happened(traces: &[LocalizedTransactionTrace], trace: &LocalizedTransactionTrace) -> bool {
    !traces.iter().any(|other| {
        other.trace.error.is_some()
            && trace.trace.trace_address.starts_with(&other.trace.trace_address)
    })
}

fn created(trace: &LocalizedTransactionTrace) -> Option<Address> {
    match (&trace.trace.action, &trace.trace.result) {
        (Action::Create(_), Some(TraceOutput::Create(output))) => Some(output.address),
        _ => None,
    }
}

fn internal_operation(trace: &LocalizedTransactionTrace) -> Option<InternalOperation> {
    let inside = !trace.trace.trace_address.is_empty();
    let (r#type, from, to, value) = match &trace.trace.action {
        Action::Call(call) if inside && call.call_type == CallType::Call => {
            if call.value.is_zero() {
                return None;
            }
            (OperationType::OpTransfer, call.from, call.to, call.value)
        }
        Action::Create(create) if inside => {
            let kind = match create.creation_method {
                CreationMethod::Create2 => OperationType::OpCreate2,
                CreationMethod::None | CreationMethod::Create | CreationMethod::EofCreate => {
                    OperationType::OpCreate
                }
            };
            (kind, create.from, created(trace)?, create.value)
        }
        Action::Selfdestruct(end) => {
            (OperationType::OpSelfDestruct, end.address, end.refund_address, end.balance)
        }
        Action::Call(_) | Action::Create(_) | Action::Reward(_) => return None,
    };
    Some(InternalOperation { r#type, from, to, value })
}

fn trace_entry(trace: &LocalizedTransactionTrace) -> Option<TraceEntry> {
    let depth = u32::try_from(trace.trace.trace_address.len()).unwrap_or(u32::MAX);
    match &trace.trace.action {
        Action::Call(call) => {
            let mut entry = TraceEntry::from_transaction_trace(&trace.trace)?;
            // These move nothing; what is shown with them is their caller's.
            if matches!(call.call_type, CallType::DelegateCall | CallType::StaticCall) {
                entry.value = None;
            }
            Some(entry)
        }
        Action::Create(create) => {
            let method = match create.creation_method {
                CreationMethod::Create2 => "CREATE2",
                CreationMethod::None | CreationMethod::Create | CreationMethod::EofCreate => {
                    "CREATE"
                }
            };
            let output = trace.trace.result.as_ref().map(|result| result.output().clone());
            Some(TraceEntry {
                r#type: method.into(),
                depth,
                from: create.from,
                to: created(trace).unwrap_or_default(),
                value: Some(create.value),
                input: create.init.clone(),
                output: output.unwrap_or_default(),
            })
        }
        Action::Selfdestruct(end) => Some(TraceEntry {
            r#type: "SELFDESTRUCT".into(),
            depth,
            from: end.address,
            to: end.refund_address,
            value: Some(end.balance),
            input: Bytes::new(),
            output: Bytes::new(),
        }),
        Action::Reward(_) => None,
    }
}

/// Whether an address took part in a call.
fn takes_part(trace: &LocalizedTransactionTrace, address: Address) -> bool {
    match &trace.trace.action {
        Action::Call(call) => call.from == address || call.to == address,
        Action::Create(create) => create.from == address || created(trace) == Some(address),
        Action::Selfdestruct(end) => end.address == address || end.refund_address == address,
        Action::Reward(reward) => reward.author == address,
    }
}

/// Where a search goes.
#[derive(Clone, Copy)]
enum Direction {
    Down,
    Up,
}

/// Looks through the blocks that loaded `address`, from `at` on, until the page is full. Says whether there
/// may be more.
fn search(
    tracing: &Tracing,
    view: &View<'_>,
    address: Address,
    at: Option<L2Number>,
    direction: Direction,
    size: usize,
    deadline: Deadline,
) -> Result<(OtsPage, bool), RpcError> {
    if size == 0 || size > MOST_PER_PAGE {
        return Err(RpcError::InvalidParams(format!(
            "a page holds 1 to {MOST_PER_PAGE} transactions"
        )));
    }
    let chain = tracing.chain();
    let mut page = OtsPage::default();
    let mut at = at;
    while let Some(from) = at {
        let touched = match direction {
            Direction::Down => view.reader.touched_up_to(address, from)?,
            Direction::Up => view.reader.touched_from(address, from)?,
        };
        // Nothing was executed in block 0.
        let Some(number) = touched.filter(|number| number.0 > 0) else { break };
        if page.txs.len() >= size {
            reverse_if(&mut page, direction);
            return Ok((page, true));
        }
        deadline.check()?;
        let block = view.block(number)?;
        let mut hits = Vec::new();
        let mut index = 0;
        each_of_block(tracing, chain, view, &block, deadline, |traces| {
            if traces.iter().any(|trace| takes_part(trace, address)) {
                hits.push(index);
            }
            index += 1;
            Ok(true)
        })?;
        if matches!(direction, Direction::Down) {
            hits.reverse();
        }
        let l1 = view.l1_fees(number)?;
        for index in hits {
            page.txs.extend(block.transaction(index));
            page.receipts.extend(receipt(chain, &block, index, &l1));
        }
        at = match direction {
            Direction::Down => number.0.checked_sub(1).map(L2Number),
            Direction::Up => Some(number.next()),
        };
    }
    reverse_if(&mut page, direction);
    Ok((page, false))
}

/// Newest first, whichever way they were found.
fn reverse_if(page: &mut OtsPage, direction: Direction) {
    if matches!(direction, Direction::Up) {
        page.txs.reverse();
        page.receipts.reverse();
    }
}

/// The first block in `1..=latest` for which `holds`, which holds from some block on.
fn first_block(
    latest: L2Number,
    mut holds: impl FnMut(L2Number) -> Result<bool, RpcError>,
) -> Result<Option<L2Number>, RpcError> {
    if latest.0 == 0 || !holds(latest)? {
        return Ok(None);
    }
    let (mut low, mut high) = (0, latest.0);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(L2Number(middle))? { high = middle } else { low = middle }
    }
    Ok(Some(L2Number(high)))
}

/// Whether an account is a contract after a block; a delegation (EIP-7702) makes none.
fn is_contract(view: &View<'_>, address: Address, number: L2Number) -> Result<bool, RpcError> {
    let account = view.reader.state_at(number)?.account(address)?;
    let Some(account) = account.filter(|account| account.code_hash != KECCAK256_EMPTY) else {
        return Ok(false);
    };
    let code = view.reader.code(account.code_hash)?.unwrap_or_default();
    Ok(!code.starts_with(&EIP7702_DELEGATION_DESIGNATOR))
}

#[async_trait]
impl OtsApiServer for Ots {
    fn header_by_number(&self, number: LenientBlockNumberOrTag) -> RpcResult<Option<RpcHeader>> {
        let view = self.0.chain().view();
        match view.find(named(number))? {
            Some(number) => Ok(Some(view.block(number)?.rpc_header())),
            None => Ok(None),
        }
    }

    fn api_level(&self) -> RpcResult<u64> {
        Ok(API_LEVEL)
    }

    fn has_code(&self, address: Address, block: Option<BlockId>) -> RpcResult<bool> {
        let view = self.0.chain().view();
        let account = view.state(block)?.account(address).map_err(RpcError::from)?;
        Ok(account.is_some_and(|account| account.code_hash != KECCAK256_EMPTY))
    }

    async fn internal_operations(&self, hash: B256) -> RpcResult<Vec<InternalOperation>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let traces = of_transaction(tracing, chain, hash, deadline)?.unwrap_or_default();
            // A call's traces follow its own: those of the last that failed are passed over.
            let mut failed = None;
            let done = traces.iter().filter(|trace| {
                let place = trace.trace.trace_address.as_slice();
                if failed.is_some_and(|failed| place.starts_with(failed)) {
                    return false;
                }
                if trace.trace.error.is_some() {
                    failed = Some(place);
                }
                trace.trace.error.is_none()
            });
            Ok(done.filter_map(internal_operation).collect())
        };
        self.0.run(run).await
    }

    async fn transaction_error(&self, hash: B256) -> RpcResult<Bytes> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let missing = || RpcError::Execution("transaction not found".into());
            let (block, index) = view.place(hash)?.ok_or_else(missing)?;
            let inspector = calls(tracing.bytes, deadline);
            let mut replay = Replay::new(&chain.evm, &view, &block, inspector)?;
            replay.skip_to(index)?;
            let returned = replay.inspect(|_, traced| {
                let result = &traced.outcome.result;
                Ok(if result.is_success() { None } else { result.output().cloned() })
            })?;
            Ok(returned.flatten().unwrap_or_default())
        };
        self.0.run(run).await
    }

    async fn trace_transaction(&self, hash: B256) -> RpcResult<Option<Vec<TraceEntry>>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let traces = of_transaction(tracing, chain, hash, deadline)?;
            Ok(traces.map(|traces| traces.iter().filter_map(trace_entry).collect()))
        };
        self.0.run(run).await
    }

    fn block_details(
        &self,
        number: LenientBlockNumberOrTag,
    ) -> RpcResult<Option<BlockDetails<RpcHeader>>> {
        Ok(details(self.0.chain(), named(number))?)
    }

    fn block_details_by_hash(&self, hash: B256) -> RpcResult<Option<BlockDetails<RpcHeader>>> {
        Ok(details(self.0.chain(), hash.into())?)
    }

    fn block_transactions(
        &self,
        number: LenientBlockNumberOrTag,
        page: usize,
        size: usize,
    ) -> RpcResult<Option<OtsBlock>> {
        let chain = self.0.chain();
        let view = chain.view();
        let Some(number) = view.find(named(number))? else { return Ok(None) };
        let block = view.block(number)?;
        let end = block.transactions.len().saturating_sub(page.saturating_mul(size));
        let shown = end.saturating_sub(size)..end;
        let l1 = view.l1_fees(number)?;
        let receipts = shown.clone().filter_map(|index| receipt(chain, &block, index, &l1));
        let receipts = receipts.collect();
        let mut fullblock: alloy_rpc_types_trace::otterscan::OtsBlock<_, _> =
            block.rpc_block(true).into();
        if let Some(transactions) = fullblock.block.transactions.as_transactions() {
            let transactions = transactions.get(shown).unwrap_or_default().to_vec();
            fullblock.block.transactions = transactions.into();
        }
        Ok(Some(OtsBlock { fullblock, receipts }))
    }

    async fn search_before(&self, address: Address, block: u64, size: usize) -> RpcResult<OtsPage> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let at = match block {
                0 => Some(view.latest()?),
                block => Some(L2Number(block - 1)),
            };
            let (mut page, more) =
                search(tracing, &view, address, at, Direction::Down, size, deadline)?;
            page.first_page = block == 0;
            page.last_page = !more;
            Ok(page)
        };
        self.0.run(run).await
    }

    async fn search_after(&self, address: Address, block: u64, size: usize) -> RpcResult<OtsPage> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let at = block.checked_add(1).map(L2Number);
            let (mut page, more) =
                search(tracing, &view, address, at, Direction::Up, size, deadline)?;
            page.first_page = !more;
            page.last_page = block == 0;
            Ok(page)
        };
        self.0.run(run).await
    }

    fn transaction_by_nonce(&self, sender: Address, nonce: u64) -> RpcResult<Option<B256>> {
        let view = self.0.chain().view();
        let used = |number| -> Result<bool, RpcError> {
            let account = view.reader.state_at(number)?.account(sender)?;
            Ok(account.is_some_and(|account| account.nonce > nonce))
        };
        let Some(number) = first_block(view.latest()?, used)? else { return Ok(None) };
        let block = view.block(number)?;
        for ((tx, from), receipt) in
            block.transactions.iter().zip(&block.senders).zip(&block.receipts)
        {
            let its = receipt.deposit_nonce().unwrap_or_else(|| tx.nonce());
            if *from == sender && its == nonce {
                return Ok(Some(tx.tx_hash()));
            }
        }
        Ok(None)
    }

    async fn contract_creator(&self, address: Address) -> RpcResult<Option<ContractCreator>> {
        let run = move |tracing: &Tracing, chain: &Chain, deadline: Deadline| {
            let view = chain.view();
            let exists = |number| is_contract(&view, address, number);
            let Some(number) = first_block(view.latest()?, exists)? else { return Ok(None) };
            let block = view.block(number)?;
            let mut found = None;
            each_of_block(tracing, chain, &view, &block, deadline, |traces| {
                let by = traces
                    .iter()
                    .find(|trace| created(trace) == Some(address) && happened(&traces, trace));
                if let Some(trace) = by
                    && let Action::Create(create) = &trace.trace.action
                {
                    let hash = trace.transaction_hash.unwrap_or_default();
                    found = Some(ContractCreator { hash, creator: create.from });
                }
                Ok(found.is_none())
            })?;
            Ok(found)
        };
        self.0.run(run).await
    }
}
