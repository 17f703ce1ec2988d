//! Reading the chain for requests: one consistent snapshot of the store each.

use super::{block::FullBlock, encoded::Encoded, error::RpcError};
use crate::engine::{Engine, Heads};
use alloy_consensus::Header;
use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use anyhow::Context as _;
use kedge_genesis::{L2Number, Params};
use kedge_store::{BlockInfo, L2Rows, Reader, StateAt, Store};
use kedge_vm::EvmConfig;
use parking_lot::Mutex;
use std::{collections::VecDeque, sync::Arc};

/// How many decoded blocks are kept: the newest are asked for again and again.
const RECENT_BLOCKS: usize = 64;

/// The chain as requests see it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) params: &'static Params,
    pub(super) evm: EvmConfig,
    pub(super) store: Arc<Store>,
    pub(super) engine: Arc<Engine>,
    recent: Mutex<VecDeque<Arc<FullBlock>>>,
    pub(super) encoded: Encoded,
}

impl Chain {
    pub(super) fn new(params: &'static Params, store: Arc<Store>, engine: Arc<Engine>) -> Self {
        Self {
            params,
            evm: EvmConfig::from_params(params),
            store,
            engine,
            recent: Mutex::new(VecDeque::with_capacity(RECENT_BLOCKS)),
            encoded: Encoded::new(),
        }
    }

    /// A consistent view of this moment.
    pub(super) fn view(&self) -> View<'_> {
        View { chain: self, reader: self.store.reader() }
    }

    /// The newest block's number.
    pub(super) fn latest(&self) -> Result<L2Number, RpcError> {
        Ok(self.store.latest()?.context("the store holds no block")?)
    }

    fn recent(&self, hash: B256) -> Option<Arc<FullBlock>> {
        self.recent.lock().iter().find(|block| block.hash == hash).cloned()
    }

    fn remember(&self, block: &Arc<FullBlock>) {
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT_BLOCKS {
            recent.pop_front();
        }
        recent.push_back(block.clone());
    }
}

/// The chain at one moment.
pub(super) struct View<'a> {
    pub(super) chain: &'a Chain,
    pub(super) reader: Reader<'a>,
}

impl<'a> View<'a> {
    /// The newest block's number.
    pub(super) fn latest(&self) -> Result<L2Number, RpcError> {
        Ok(self.reader.latest()?.context("the store holds no block")?)
    }

    /// The block that a request names; none when there is no such block. `pending` is `latest`, as on
    /// other OP Stack chains.
    pub(super) fn find(&self, id: BlockId) -> Result<Option<L2Number>, RpcError> {
        let latest = self.latest()?;
        let heads = || -> Heads { self.chain.engine.heads() };
        let number = match id {
            BlockId::Hash(hash) => return Ok(self.reader.number(hash.block_hash)?),
            BlockId::Number(BlockNumberOrTag::Latest | BlockNumberOrTag::Pending) => latest,
            BlockId::Number(BlockNumberOrTag::Safe) => heads().safe.number.min(latest),
            BlockId::Number(BlockNumberOrTag::Finalized) => heads().finalized.number.min(latest),
            BlockId::Number(BlockNumberOrTag::Earliest) => L2Number(0),
            BlockId::Number(BlockNumberOrTag::Number(number)) => L2Number(number),
        };
        Ok((number <= latest).then_some(number))
    }

    /// The block that a request names, `latest` when it names none.
    pub(super) fn number(&self, id: Option<BlockId>) -> Result<L2Number, RpcError> {
        self.find(id.unwrap_or_default())?.ok_or(RpcError::HeaderNotFound)
    }

    /// A block's header.
    pub(super) fn header(&self, number: L2Number) -> Result<Header, RpcError> {
        self.reader.header(number)?.ok_or(RpcError::HeaderNotFound)
    }

    /// A block's hash.
    pub(super) fn hash(&self, number: L2Number) -> Result<B256, RpcError> {
        self.reader.hash(number)?.ok_or(RpcError::HeaderNotFound)
    }

    /// What is known of a block beyond its header.
    pub(super) fn info(&self, number: L2Number) -> Result<BlockInfo, RpcError> {
        Ok(self.reader.block_info(number)?.context("block without info")?)
    }

    /// The state after the block that a request names.
    pub(super) fn state(&self, id: Option<BlockId>) -> Result<StateAt<'_, 'a>, RpcError> {
        Ok(self.reader.state_at(self.number(id)?)?)
    }

    /// A whole block.
    pub(super) fn block(&self, number: L2Number) -> Result<Arc<FullBlock>, RpcError> {
        let hash = self.hash(number)?;
        if let Some(block) = self.chain.recent(hash) {
            return Ok(block);
        }
        let part = |what: &'static str| move || format!("block {number} has no {what}");
        let block = Arc::new(FullBlock {
            header: self.header(number)?,
            hash,
            transactions: self.reader.transactions(number)?.with_context(part("transactions"))?,
            senders: self.reader.block_info(number)?.with_context(part("senders"))?.senders,
            receipts: self.reader.receipts(number)?.with_context(part("receipts"))?,
        });
        self.chain.remember(&block);
        Ok(block)
    }

    /// What the transactions of a block paid for Bitcoin space by.
    pub(super) fn l1_fees(&self, number: L2Number) -> Result<op_revm::L1BlockInfo, RpcError> {
        let mut state = self.reader.state_at(number)?;
        Ok(self.chain.evm.l1_block_info(number.0, &mut state)?)
    }

    /// The block that includes a transaction, and the index in it.
    pub(super) fn place(&self, hash: B256) -> Result<Option<(Arc<FullBlock>, usize)>, RpcError> {
        match self.reader.transaction_place(hash)? {
            Some((number, index)) => Ok(Some((self.block(number)?, index as usize))),
            None => Ok(None),
        }
    }
}
