//! Answers that take microseconds, given where the request is read: no task, no other thread.
//!
//! Only results are: whatever is not simple, does not parse or fails goes the way of all requests and gets
//! its answer, or its error, there.

use super::{
    api::EthApiServer,
    encoded::{Json, Part},
    eth::Eth,
};
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::{B256, Bytes};
use jsonrpsee::types::Request;
use serde::{Serialize, de::IgnoredAny};

/// Gives answers that are at hand.
#[derive(Clone, Debug)]
pub(super) struct AtHand {
    eth: Eth,
    /// Largest response, bytes.
    max: usize,
}

impl AtHand {
    pub(super) const fn new(eth: Eth, max_response_bytes: u32) -> Self {
        Self { eth, max: max_response_bytes as usize }
    }

    /// The response to a request if it is at hand and a result.
    pub(super) fn response(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let params = request.params();
        let mut params = params.sequence();
        let respond = Respond { request, max: self.max };
        match request.method_name() {
            "eth_blockNumber" => respond.result(&self.eth.block_number().ok()?),
            "eth_chainId" => respond.result(&self.eth.chain_id().ok()?),
            "eth_getBalance" => {
                let (address, block) = (params.next().ok()?, params.optional_next().ok()?);
                respond.result(&self.eth.balance(address, block).ok()?)
            }
            "eth_getTransactionCount" => {
                let (address, block) = (params.next().ok()?, params.optional_next().ok()?);
                if block == Some(BlockId::pending()) {
                    return None;
                }
                respond.result(&self.eth.nonce(address, block).ok()?)
            }
            "eth_getBlockByNumber" => {
                let number: BlockNumberOrTag = params.next().ok()?;
                let full: Option<bool> = params.optional_next().ok()?;
                respond.json(&self.block(number.into(), Part::block(full.unwrap_or(false)))?)
            }
            "eth_getBlockByHash" => {
                let hash: B256 = params.next().ok()?;
                let full: Option<bool> = params.optional_next().ok()?;
                respond.json(&self.block(hash.into(), Part::block(full.unwrap_or(false)))?)
            }
            "eth_getBlockReceipts" => {
                respond.json(&self.block(params.next().ok()?, Part::Receipts)?)
            }
            "eth_call" => {
                let (call, block) = (params.next().ok()?, params.optional_next().ok()?);
                if params.optional_next::<IgnoredAny>().ok()?.is_some()
                    || params.optional_next::<IgnoredAny>().ok()?.is_some()
                {
                    return None;
                }
                respond.result(&self.eth.brief_call(call, block)?)
            }
            _ => None,
        }
    }

    /// The response to a transaction that is handed in, if this node's mempool admits it.
    pub(super) async fn admitted(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        if request.method_name() != "eth_sendRawTransaction" {
            return None;
        }
        let mempool = self.eth.submission.mempool()?;
        let encoded: Bytes = request.params().one().ok()?;
        let hash = mempool.submit(encoded).await.ok()?;
        Respond { request, max: self.max }.result(&hash)
    }

    fn block(&self, id: BlockId, part: Part) -> Option<Json> {
        let view = self.eth.chain.view();
        let number = view.find(id).ok()??;
        view.encoded_before(number, part).ok()?
    }
}

/// Writes responses as the server writes them.
struct Respond<'r, 'a> {
    request: &'r Request<'a>,
    max: usize,
}

impl Respond<'_, '_> {
    fn result(&self, result: &impl Serialize) -> Option<Vec<u8>> {
        let mut out = self.begin(128)?;
        serde_json::to_writer(&mut out, result).ok()?;
        self.end(out)
    }

    fn json(&self, json: &Json) -> Option<Vec<u8>> {
        let mut out = self.begin(128 + json.get().len())?;
        out.extend(json.get().as_bytes());
        self.end(out)
    }

    fn begin(&self, capacity: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(capacity);
        out.extend(br#"{"jsonrpc":"2.0","id":"#);
        serde_json::to_writer(&mut out, &self.request.id).ok()?;
        out.extend(br#","result":"#);
        Some(out)
    }

    fn end(&self, mut out: Vec<u8>) -> Option<Vec<u8>> {
        out.push(b'}');
        (out.len() <= self.max).then_some(out)
    }
}
