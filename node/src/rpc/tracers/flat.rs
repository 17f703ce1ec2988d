//! `flatCallTracer`: the calls as a list.

use super::call::CallInspector;
use alloy_rpc_types_eth::TransactionInfo;
use alloy_rpc_types_trace::{
    geth::FlatCallConfig,
    parity::{LocalizedTransactionTrace, TransactionTrace},
};
use revm_inspectors::tracing::types::CallTraceNode;
use serde_json::Value;

/// The list as go-ethereum shows it. [`CallInspector::set_transaction`] came before.
///
/// # Errors
/// When it is no JSON.
pub(super) fn list(
    calls: &CallInspector,
    config: FlatCallConfig,
    info: TransactionInfo,
) -> serde_json::Result<Value> {
    let mut list = List { calls, config, info, traces: Vec::new() };
    if let Some(root) = calls.nodes().first() {
        list.add(root, Vec::new())?;
    }
    Ok(Value::Array(list.traces))
}

struct List<'c> {
    calls: &'c CallInspector,
    config: FlatCallConfig,
    info: TransactionInfo,
    traces: Vec<Value>,
}

impl List<'_> {
    /// Adds a call and those within it.
    fn add(&mut self, node: &CallTraceNode, address: Vec<usize>) -> serde_json::Result<()> {
        let all = self.config.include_precompiles.unwrap_or_default();
        let inner: Vec<&CallTraceNode> = node
            .children
            .iter()
            .filter(|child| all || !self.calls.is_precompile(**child))
            .filter_map(|child| self.calls.nodes().get(*child))
            .collect();
        let mut trace = node.parity_transaction_trace(address.clone());
        trace.subtraces = inner.len() + usize::from(node.is_selfdestruct());
        trace.error = self.calls.error(node);
        if self.config.convert_parity_errors.unwrap_or_default() {
            trace.error = trace.error.map(parity_error);
        }
        let unfinished = node.kind().is_any_create() && node.trace.is_error();
        self.push(trace, unfinished)?;
        let inside = |position: usize| [&address[..], &[position]].concat();
        let count = inner.len();
        for (position, child) in inner.into_iter().enumerate() {
            self.add(child, inside(position))?;
        }
        match node.parity_selfdestruct_trace(inside(count)) {
            Some(trace) => self.push(trace, false),
            None => Ok(()),
        }
    }

    /// go-ethereum leaves out a result that there is not, and the address of what was not created, where the
    /// types, which are OpenEthereum's, have null and some address.
    fn push(&mut self, trace: TransactionTrace, unfinished: bool) -> serde_json::Result<()> {
        let TransactionInfo { hash, index, block_hash, block_number, .. } = self.info;
        let mut trace = serde_json::to_value(LocalizedTransactionTrace {
            trace,
            transaction_position: index,
            transaction_hash: hash,
            block_number,
            block_hash,
        })?;
        if let Some(trace) = trace.as_object_mut() {
            if trace.get("result").is_some_and(Value::is_null) {
                trace.remove("result");
            }
            let result = trace.get_mut("result").and_then(Value::as_object_mut);
            if let Some(result) = result.filter(|_| unfinished) {
                result.remove("address");
            }
        }
        self.traces.push(trace);
        Ok(())
    }
}

/// OpenEthereum's words for go-ethereum's.
fn parity_error(geth: String) -> String {
    let parity = match geth.as_str() {
        "contract creation code storage out of gas"
        | "out of gas"
        | "gas uint64 overflow"
        | "max code size exceeded" => "Out of gas",
        "invalid jump destination" => "Bad jump destination",
        "execution reverted" => "Reverted",
        "return data out of bounds" => "Out of bounds",
        "stack limit reached 1024 (1023)" => "Out of stack",
        "precompiled failed" | "invalid input length" => "Built-in failed",
        other if other.starts_with("out of gas:") => "Out of gas",
        other if other.starts_with("invalid opcode:") => "Bad instruction",
        other if other.starts_with("stack underflow") => "Stack underflow",
        _ => return geth,
    };
    parity.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_converted_as_go_ethereum_does() {
        let table = [
            ("execution reverted", "Reverted"),
            ("out of gas: not enough gas for reentrancy sentry", "Out of gas"),
            ("invalid opcode: PUSH0", "Bad instruction"),
            ("stack underflow (1 <=> 2)", "Stack underflow"),
            ("write protection", "write protection"),
        ];
        for (geth, parity) in table {
            assert_eq!(parity_error(geth.into()), parity);
        }
    }
}
