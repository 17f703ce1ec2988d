//! The vault: where deposits go and payouts come from.
//!
//! Output: P2TR, internal key = BIP-341's point `H`, which nobody can spend by key, and two leaves of
//! version `0xc0` at depth 1:
//! * *spend*: `<key> CHECKSIG <key> CHECKSIGADD … <k> NUMEQUAL` over the signers;
//! * *recovery*: `<recovery_delay> CSV DROP <recovery key> CHECKSIG`.
//!
//! The vault is a chain with one head: the first vault output that confirms after the chain's start, then
//! output 0 of the last transaction that spent the head. Signers sign nothing that does not spend the
//! head, so all their transactions conflict by construction. [`VaultState::apply`] follows that.

use crate::{
    multisig::{self, Signers},
    op_return::{Tagged, parse_tx},
};
use alloc::vec::Vec;
use bitcoin::{
    Address, Amount, FeeRate, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Witness, XOnlyPublicKey, absolute::LockTime, key::Keypair, taproot::TaprootSpendInfo,
    transaction::Version,
};
use kedge_genesis::{L1Height, Params, Sats, tags};

/// The scripts of one vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    signers: Signers,
    recovery_delay: u16,
    spend_leaf: ScriptBuf,
    recovery_leaf: ScriptBuf,
    tree: TaprootSpendInfo,
}

impl Vault {
    /// The vault of these keys. None never happens in practice: a tweak would have to be out of range.
    pub fn new(signers: Signers, recovery: &XOnlyPublicKey, recovery_delay: u16) -> Option<Self> {
        let spend_leaf = signers.multi_a(bitcoin::script::Builder::new());
        let recovery_leaf = multisig::delayed(recovery_delay, recovery);
        let tree = multisig::two_leaves(&spend_leaf, &recovery_leaf)?;
        Some(Self { signers, recovery_delay, spend_leaf, recovery_leaf, tree })
    }

    /// The vault that the parameters name; none on a network that has not been launched.
    pub fn of(params: &Params) -> Option<Self> {
        let recovery = XOnlyPublicKey::from_slice(&params.keys.as_ref()?.recovery).ok()?;
        Self::new(Signers::of(params)?, &recovery, params.recovery_delay)
    }

    /// The output script.
    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2tr_tweaked(self.tree.output_key())
    }

    /// The output script as an address.
    pub fn address(&self, network: bitcoin::Network) -> Address {
        Address::p2tr_tweaked(self.tree.output_key(), network)
    }

    /// Who signs.
    pub const fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The leaf that the signers spend, and its control block.
    pub fn spend_leaf(&self) -> (ScriptBuf, Vec<u8>) {
        (self.spend_leaf.clone(), multisig::control(&self.tree, &self.spend_leaf))
    }

    /// An output of this vault that holds `value`.
    pub fn tx_out(&self, value: Sats) -> TxOut {
        TxOut { value: Amount::from_sat(value.0), script_pubkey: self.script() }
    }

    /// The recovery key's spend of vault outputs to `to`, signed. Valid `recovery_delay` blocks after the
    /// youngest of them confirmed. None when the coins do not pay the fee and more than dust, or the key
    /// cannot sign.
    pub fn recover(
        &self,
        coins: &[VaultHead],
        to: ScriptBuf,
        fee_rate: FeeRate,
        recovery: &Keypair,
    ) -> Option<Transaction> {
        let control = multisig::control(&self.tree, &self.recovery_leaf);
        let prevouts: Vec<_> = coins.iter().map(|coin| self.tx_out(coin.value)).collect();
        let held = coins.iter().try_fold(Sats::ZERO, |sum, coin| sum.checked_add(coin.value))?;
        let mut tx = sweep(coins.iter().map(|coin| coin.outpoint), self.recovery_delay, to);
        let sign = |tx: &mut Transaction| {
            (0..coins.len()).try_for_each(|input| {
                multisig::sign_single(tx, input, &prevouts, &self.recovery_leaf, &control, recovery)
            })
        };
        sign(&mut tx)?;
        pay_the_rest(&mut tx, held, fee_rate)?;
        sign(&mut tx)?;
        Some(tx)
    }
}

/// The vault's output script of the parameters; none on a network that has not been launched.
pub fn vault_script(params: &Params) -> Option<ScriptBuf> {
    Vault::of(params).map(|vault| vault.script())
}

/// A transaction that spends `coins` after `delay` blocks (BIP-68) to one output, still of no value.
pub(crate) fn sweep(
    coins: impl Iterator<Item = OutPoint>,
    delay: u16,
    to: ScriptBuf,
) -> Transaction {
    let input = coins
        .map(|previous_output| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::from_height(delay),
            witness: Witness::new(),
        })
        .collect();
    let output = alloc::vec![TxOut { value: Amount::ZERO, script_pubkey: to }];
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// Gives the single output what the fee leaves; the witnesses must have their final sizes.
pub(crate) fn pay_the_rest(tx: &mut Transaction, held: Sats, fee_rate: FeeRate) -> Option<()> {
    let fee = fee_rate.fee_wu(tx.weight())?;
    let value = Amount::from_sat(held.0).checked_sub(fee)?;
    let output = tx.output.first_mut()?;
    output.value = value;
    (value >= output.script_pubkey.minimal_non_dust()).then_some(())
}

/// An unspent vault output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultHead {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it holds.
    pub value: Sats,
}

/// The scripts that count as the vault at a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultScripts {
    /// Where the head goes.
    pub current: ScriptBuf,
    /// The script before the last rotation, and the last height at which it credits deposits.
    pub previous: Option<(ScriptBuf, L1Height)>,
}

impl VaultScripts {
    /// A vault that was never rotated.
    pub const fn new(current: ScriptBuf) -> Self {
        Self { current, previous: None }
    }

    /// Whether an output script is a vault's that credits deposits at this height.
    pub fn credits(&self, script: &Script, height: L1Height) -> bool {
        script == self.current.as_script()
            || self
                .previous
                .as_ref()
                .is_some_and(|(old, until)| script == old.as_script() && height <= *until)
    }

    /// Whether an output script is a vault's, at whatever height.
    pub fn contains(&self, script: &Script) -> bool {
        self.credits(script, L1Height(0))
    }
}

/// Whether a witness counts as a spend of a vault: it spends a leaf under the vaults' internal key. A vault has
/// no key path, so every spend of one shows that. So does every spend of another script that nobody can
/// spend by key: to tell them apart takes a multiplication on the curve for each, and anybody can fill Bitcoin
/// blocks with those.
pub fn spends_vault(witness: &Witness) -> bool {
    let Some(control) = witness.taproot_control_block() else { return false };
    control.get(1..33) == Some(tags::NUMS_KEY.as_slice())
}

/// Whether any input of a transaction counts as a spend of a vault.
pub fn tx_spends_vault(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| spends_vault(&input.witness))
}

/// The head and the scripts, as Bitcoin's transactions move them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultState {
    /// The head; none before the first vault output.
    pub head: Option<OutPoint>,
    /// The scripts that count.
    pub scripts: VaultScripts,
}

/// What a transaction did to the vault's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadMove {
    /// Nothing.
    None,
    /// It made the first head.
    First,
    /// It spent the head; its output 0 is the next.
    Spent,
    /// The same, and output 0 pays the script that it declared.
    Rotated,
}

impl VaultState {
    /// Applies one transaction of the block at `height`.
    pub fn apply(&mut self, tx: &Transaction, height: L1Height, params: &Params) -> HeadMove {
        match self.head {
            None => {
                let first = tx
                    .output
                    .iter()
                    .position(|output| self.scripts.credits(&output.script_pubkey, height))
                    .and_then(|vout| u32::try_from(vout).ok());
                let Some(vout) = first else { return HeadMove::None };
                self.head = Some(OutPoint::new(tx.compute_txid(), vout));
                HeadMove::First
            }
            Some(head) => {
                if !tx.input.iter().any(|input| input.previous_output == head) {
                    return HeadMove::None;
                }
                self.head = Some(OutPoint::new(tx.compute_txid(), 0));
                let Ok(Some(Tagged::Rotation(next))) = parse_tx(tx) else { return HeadMove::Spent };
                let pays = tx.output.first().is_some_and(|output| output.script_pubkey == next);
                if !pays || next == self.scripts.current {
                    return HeadMove::Spent;
                }
                let old = core::mem::replace(&mut self.scripts.current, next);
                self.scripts.previous = Some((old, height.plus(params.rotation_grace)));
                HeadMove::Rotated
            }
        }
    }
}
