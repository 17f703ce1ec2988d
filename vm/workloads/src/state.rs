//! Contracts that make execution load much state: one access for each word of the call data, or for each
//! number of a range.

use crate::code::Code;
use alloy_primitives::U256;

/// What a contract does with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `SLOAD` of the slot.
    Read,
    /// `SSTORE` of 1 into the slot.
    Fill,
    /// `SSTORE` of 0 into the slot: takes a leaf out of the trie, which may pull in its neighbour.
    Clear,
    /// `BALANCE` of the address.
    Balance,
    /// `EXTCODESIZE` of the address: loads its whole code.
    CodeSize,
    /// `EXTCODEHASH` of the address: loads the account alone.
    CodeHash,
}

impl Access {
    /// Code that consumes the word on top of the stack.
    const fn code(self) -> &'static [u8] {
        match self {
            Self::Read => &[0x54, 0x50],
            Self::Fill => &[0x60, 0x01, 0x90, 0x55],
            Self::Clear => &[0x5f, 0x90, 0x55],
            Self::Balance => &[0x31, 0x50],
            Self::CodeSize => &[0x3b, 0x50],
            Self::CodeHash => &[0x3f, 0x50],
        }
    }
}

/// Accesses every word of the call data.
pub fn each_word(access: Access) -> Vec<u8> {
    // PUSH0; loop: DUP1, CALLDATALOAD, …, PUSH1 32, ADD, CALLDATASIZE, DUP2, LT
    let (code, start) = Code::new().raw([0x5f]).label();
    let code = code.raw([0x80, 0x35]).raw(access.code());
    code.raw([0x60, 0x20, 0x01, 0x36, 0x81, 0x10]).jump_if(start).into_bytes()
}

/// Call data of [`each_word`].
pub fn words(words: impl IntoIterator<Item = U256>) -> Vec<u8> {
    words.into_iter().flat_map(|word| word.to_be_bytes::<32>()).collect()
}

/// Accesses the numbers from the first word of the call data up to, not including, the second.
pub fn each_number(access: Access) -> Vec<u8> {
    // PUSH1 32, CALLDATALOAD, PUSH0, CALLDATALOAD; loop: DUP1, …, PUSH1 1, ADD, DUP2, DUP2, LT
    let (code, start) = Code::new().raw([0x60, 0x20, 0x35, 0x5f, 0x35]).label();
    let code = code.raw([0x80]).raw(access.code());
    code.raw([0x60, 0x01, 0x01, 0x81, 0x81, 0x10]).jump_if(start).into_bytes()
}

/// A contract of the largest size that is like no other, and does not compress: `PUSH0 STOP`, then bytes
/// made from `number`.
pub fn largest_code(number: u64) -> Vec<u8> {
    let mut code = vec![0x5f, 0x00];
    let mut word = alloy_primitives::keccak256(number.to_be_bytes());
    while code.len() < crate::code::MAX_CODE_BYTES {
        code.extend_from_slice(word.as_slice());
        word = alloy_primitives::keccak256(word);
    }
    code.truncate(crate::code::MAX_CODE_BYTES);
    code
}

/// Creates a contract with the call data as init code and runs that contract's code as its own: whoever
/// calls it has any code run on its storage.
pub fn runner() -> Vec<u8> {
    // CALLDATACOPY all; CREATE; then DELEGATECALL what was created with all gas.
    Code::new()
        .raw([0x36, 0x5f, 0x5f, 0x37, 0x36, 0x5f, 0x5f, 0xf0])
        .raw([0x5f, 0x5f, 0x5f, 0x5f, 0x84, 0x5a, 0xf4, 0x00])
        .into_bytes()
}
