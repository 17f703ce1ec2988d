//! Blocks full of one kind of transaction.

use crate::state::{PAIR, People, TOKEN, params};
use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, keccak256};
use anyhow::{Context, Result, ensure};
use kedge::block_file::write_blocks;
use kedge::engine::Engine;
use kedge_genesis::L2Number;
use kedge_vm::{OpTxEnvelope, Senders};
use kedge_workloads::{swap, token};

/// What the transactions of a block do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Coins to somebody.
    Transfer,
    /// Tokens to somebody.
    Token,
    /// A swap of two coins.
    Swap,
}

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Transfer, Self::Token, Self::Swap];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transfer => "ETH transfers",
            Self::Token => "ERC-20 transfers",
            Self::Swap => "AMM swaps",
        }
    }

    /// More than fit a block by gas or by what they read.
    const fn in_a_block(self) -> usize {
        match self {
            Self::Transfer => 700,
            Self::Token => 460,
            Self::Swap => 260,
        }
    }

    const fn gas(self) -> u64 {
        match self {
            Self::Transfer => 21_000,
            Self::Token => 60_000,
            Self::Swap => 150_000,
        }
    }

    /// Recipient, value and input of a transaction that means `somebody`.
    fn call(self, number: u64, somebody: Address) -> (Address, U256, Vec<u8>) {
        match self {
            Self::Transfer => (somebody, U256::from(1_000 + number), Vec::new()),
            Self::Token => {
                (TOKEN, U256::ZERO, token::transfer(somebody, U256::from(1_000 + number)))
            }
            Self::Swap => {
                let paid = U256::from(1_000_000 + number);
                (PAIR, U256::ZERO, swap::swap(number.is_multiple_of(2), paid))
            }
        }
    }
}

/// Adds `count` full blocks to an engine and gives them as a file.
pub(crate) fn fill(engine: &Engine, people: &People, work: Work, count: u64) -> Result<Vec<u8>> {
    let mut nonces = vec![0_u64; people.senders.len()];
    let mut salt = 0_u64;
    for _ in 0..count {
        let position = engine.position()?;
        let step = position.cursor.epoch_complete
            && position.cursor.origin.height < position.l1_tip.height;
        // Each from another sender, so that those that do not fit can be left out.
        let mut list = Vec::new();
        while list.len() < work.in_a_block().min(people.senders.len()) {
            salt += 1;
            let random = keccak256(salt.to_be_bytes());
            let pick = |from: usize, below: u64| {
                let bytes = random[from..from + 8].try_into().expect("eight bytes");
                u64::from_be_bytes(bytes) % below
            };
            let sender = (salt as usize) % people.senders.len();
            let somebody = people.address(pick(0, people.count()));
            list.push((sender, sign(people, work, sender, nonces[sender], salt, somebody)?));
        }
        let bytes = |list: &[(usize, Bytes)]| list.iter().map(|(_, tx)| tx.clone()).collect();
        let (payload, _) = engine.plan(step, None, bytes(&list))?.context("a block is due")?;
        let before = payload.transactions.len() - list.len();
        for (index, _) in engine.preview(&payload, &Senders::default())?.skipped.iter().rev() {
            list.remove(index - before);
        }
        let (payload, cursor) = engine.plan(step, None, bytes(&list))?.context("a block is due")?;
        let block = engine.append_unsafe(&payload, &cursor)?;
        ensure!(block.skipped.is_empty(), "{:?}", block.skipped);
        let failed = block.receipts.iter().filter(|receipt| !receipt.status()).count();
        ensure!(failed == 0, "{failed} transactions of {work:?} failed");
        list.iter().for_each(|(sender, _)| nonces[*sender] += 1);
    }
    let mut file = Vec::new();
    let last = engine.heads().latest.number;
    write_blocks(&engine.store().reader(), L2Number(1), last, &mut file, || {})?;
    Ok(file)
}

fn sign(
    people: &People,
    work: Work,
    sender: usize,
    nonce: u64,
    number: u64,
    somebody: Address,
) -> Result<Bytes> {
    let (to, value, input) = work.call(number, somebody);
    let tx = TxEip1559 {
        chain_id: params().chain_id,
        nonce,
        gas_limit: work.gas(),
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: TxKind::Call(to),
        value,
        input: input.into(),
        ..Default::default()
    };
    let hash = tx.signature_hash();
    let (signature, parity) = people.senders[sender].0.sign_prehash_recoverable(hash.as_slice())?;
    let signed = tx.into_signed(Signature::from((signature, parity)));
    Ok(OpTxEnvelope::from(signed).encoded_2718().into())
}
