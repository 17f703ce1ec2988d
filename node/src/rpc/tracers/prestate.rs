//! `prestateTracer`: the accounts that a transaction looks at as they were, or what it changed of them.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rpc_types_trace::geth::PreStateConfig;
use revm::{
    DatabaseRef, Inspector,
    bytecode::{Bytecode, opcode},
    context_interface::{Block, ContextTr, Transaction, transaction::AuthorizationTr},
    inspector::JournalExt,
    interpreter::{
        CreateInputs, CreateOutcome, Interpreter,
        interpreter_types::{InputsTr, Jumps, LoopControl},
    },
    primitives::KECCAK_EMPTY,
    state::{AccountInfo, EvmState},
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What an account takes in the answer, about, and each of its slots.
const ACCOUNT_BYTES: usize = 512;
const SLOT_BYTES: usize = 384;
/// A byte of code, which is also shown as two digits.
const CODE_BYTES: usize = 3;

/// What an instruction looks at.
#[derive(Clone, Copy, Debug)]
enum Look {
    Slot(U256),
    Account(Address),
    /// An account to call, whose code may be that of another one (EIP-7702).
    Callee(Address),
}

/// Records which accounts and slots instructions look at, as go-ethereum's tracer does: whatever else the
/// EVM loads, say for an access list, is not part of the answer.
#[derive(Clone, Debug)]
pub struct PrestateInspector {
    seen: BTreeMap<Address, BTreeSet<U256>>,
    look: Option<Look>,
    /// How many bytes the answer may take.
    pub(super) most: usize,
}

impl<C: ContextTr<Journal: JournalExt>> Inspector<C> for PrestateInspector {
    fn step(&mut self, interp: &mut Interpreter, _: &mut C) {
        let word = |depth| interp.stack.peek(depth).ok();
        let address = |depth| word(depth).map(|word| Address::from_word(word.into()));
        self.look = match interp.bytecode.opcode() {
            opcode::SLOAD | opcode::SSTORE => word(0).map(Look::Slot),
            opcode::BALANCE
            | opcode::EXTCODECOPY
            | opcode::EXTCODEHASH
            | opcode::EXTCODESIZE
            | opcode::SELFDESTRUCT => address(0).map(Look::Account),
            opcode::CALL | opcode::CALLCODE | opcode::DELEGATECALL | opcode::STATICCALL => {
                address(1).map(Look::Callee)
            }
            _ => None,
        };
    }

    fn step_end(&mut self, interp: &mut Interpreter, context: &mut C) {
        let Some(look) = self.look.take() else { return };
        if interp.bytecode.instruction_result().is_some_and(|result| result.is_error()) {
            return;
        }
        match look {
            Look::Slot(slot) => {
                self.seen.entry(interp.input.target_address()).or_default().insert(slot);
            }
            Look::Account(address) => {
                self.seen.entry(address).or_default();
            }
            Look::Callee(address) => {
                self.seen.entry(address).or_default();
                let callee = context.journal_ref().evm_state().get(&address);
                let code = callee.and_then(|callee| callee.info.code.as_ref());
                if let Some(delegate) = code.and_then(Bytecode::eip7702_address) {
                    self.seen.entry(delegate).or_default();
                }
            }
        }
    }

    fn create(&mut self, context: &mut C, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        let creator = context.journal_ref().evm_state().get(&inputs.caller());
        let nonce = creator.map(|creator| creator.info.nonce).unwrap_or_default();
        self.seen.entry(inputs.created_address(nonce)).or_default();
        None
    }
}

/// An account, or what changed of it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<U256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_hash: Option<B256>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    storage: BTreeMap<B256, B256>,
}

pub(super) type Accounts = BTreeMap<Address, Account>;

/// What the tracer answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Prestate {
    Before(Accounts),
    Changes { post: Accounts, pre: Accounts },
}

/// How the tracer was asked for.
#[derive(Clone, Copy, Debug)]
pub struct PrestateConfig {
    pub(super) common: PreStateConfig,
    /// Whether accounts are shown that do not exist.
    pub(super) include_empty: bool,
}

impl Account {
    fn bytes(&self) -> usize {
        let code = self.code.as_ref().map_or(0, |code| code.len());
        ACCOUNT_BYTES + code * CODE_BYTES + self.storage.len() * SLOT_BYTES
    }
}

impl PrestateInspector {
    /// A fresh one, whose answer takes no more than so many bytes.
    pub(super) const fn new(most: usize) -> Self {
        Self { seen: BTreeMap::new(), look: None, most }
    }

    /// The answer for a transaction that left `after`; `db` is the state before it. None when it is too large.
    ///
    /// # Errors
    /// When `db` fails.
    pub(super) fn result<DB: DatabaseRef>(
        &self,
        config: PrestateConfig,
        tx: &impl Transaction,
        block: &impl Block,
        after: &EvmState,
        db: &DB,
    ) -> Result<Option<Prestate>, DB::Error> {
        let seen = self.all_seen(tx, block, after, db)?;
        let mut left = self.most;
        let (mut pre, mut post) = (Accounts::new(), Accounts::new());
        for (address, slots) in seen {
            let info = db.basic_ref(address)?.unwrap_or_default();
            let storage = config.common.storage_enabled();
            let slots = slots.into_iter().filter(|_| storage);
            let mut before = Account {
                balance: Some(info.balance),
                nonce: (info.nonce != 0).then_some(info.nonce),
                code: config.code(&info, db)?.filter(|code| !code.is_empty()),
                code_hash: has_code(&info).then_some(info.code_hash),
                storage: slots
                    .map(|slot| Ok((slot.into(), db.storage_ref(address, slot)?.into())))
                    .collect::<Result<_, DB::Error>>()?,
            };
            // All that accounts hold is read one after the other, so no more than one is read in vain.
            let Some(rest) = left.checked_sub(before.bytes()) else { return Ok(None) };
            left = rest;
            let destroyed = after.get(&address).is_some_and(|account| account.is_selfdestructed());
            if config.common.is_diff_mode() && !destroyed {
                let change = config.change(address, &info, &mut before, after, db)?;
                let Some(change) = change else { continue };
                post.insert(address, change);
            }
            if config.include_empty || !info.is_empty() {
                pre.insert(address, before);
            }
        }
        Ok(Some(if config.common.is_diff_mode() {
            Prestate::Changes { post, pre }
        } else {
            Prestate::Before(pre)
        }))
    }

    /// What instructions looked at, the transaction's own accounts, and what changed besides, which are the
    /// vaults of the fees.
    fn all_seen<DB: DatabaseRef>(
        &self,
        tx: &impl Transaction,
        block: &impl Block,
        after: &EvmState,
        db: &DB,
    ) -> Result<BTreeMap<Address, BTreeSet<U256>>, DB::Error> {
        let mut seen = self.seen.clone();
        let mut own = vec![tx.caller(), block.beneficiary()];
        own.extend(tx.authorization_list().filter_map(|authorization| authorization.authority()));
        if let Some(to) = tx.kind().to().copied() {
            own.push(to);
            let callee = db.basic_ref(to)?.unwrap_or_default();
            own.extend(code(&callee, db)?.eip7702_address());
        }
        for (address, account) in after {
            if account.is_touched() && account.info != db.basic_ref(*address)?.unwrap_or_default() {
                own.push(*address);
            }
        }
        for address in own {
            seen.entry(address).or_default();
        }
        Ok(seen)
    }
}

impl PrestateConfig {
    /// The code that is to be shown.
    fn code<DB: DatabaseRef>(
        &self,
        info: &AccountInfo,
        db: &DB,
    ) -> Result<Option<Bytes>, DB::Error> {
        if self.common.code_enabled() {
            Ok(Some(code(info, db)?.original_bytes()))
        } else {
            Ok(None)
        }
    }

    /// What is different after the transaction, if anything is. Leaves only the slots that changed in `before`;
    /// zero is no value on either side.
    fn change<DB: DatabaseRef>(
        &self,
        address: Address,
        info: &AccountInfo,
        before: &mut Account,
        after: &EvmState,
        db: &DB,
    ) -> Result<Option<Account>, DB::Error> {
        let Some(account) = after.get(&address) else { return Ok(None) };
        let mut change = Account::default();
        let new = &account.info;
        change.balance = (new.balance != info.balance).then_some(new.balance);
        change.nonce = (new.nonce != info.nonce).then_some(new.nonce);
        if new.code_hash != info.code_hash {
            change.code_hash = Some(new.code_hash);
            change.code = self.code(new, db)?;
        }
        let mut changed = *new != *info;
        before.storage.retain(|slot, old| {
            let new = account.storage.get(&U256::from_be_bytes(slot.0));
            let new = new.map_or(*old, |new| new.present_value.into());
            changed |= new != *old;
            if new != *old && new != B256::ZERO {
                change.storage.insert(*slot, new);
            }
            new != *old && *old != B256::ZERO
        });
        Ok(changed.then_some(change))
    }
}

fn has_code(info: &AccountInfo) -> bool {
    info.code_hash != KECCAK_EMPTY && info.code_hash != B256::ZERO
}

fn code<DB: DatabaseRef>(info: &AccountInfo, db: &DB) -> Result<Bytecode, DB::Error> {
    match &info.code {
        Some(code) => Ok(code.clone()),
        None if has_code(info) => db.code_by_hash_ref(info.code_hash),
        None => Ok(Bytecode::default()),
    }
}
