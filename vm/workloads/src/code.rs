//! EVM code from parts.

use alloy_primitives::{Address, B256, U256};

/// The most bytes of a contract's code (EIP-170).
pub const MAX_CODE_BYTES: usize = 24_576;

/// Opcodes that the workloads use beyond single bytes in their tables.
mod op {
    pub(super) const JUMP: u8 = 0x56;
    pub(super) const JUMPI: u8 = 0x57;
    pub(super) const JUMPDEST: u8 = 0x5b;
    pub(super) const PUSH0: u8 = 0x5f;
    pub(super) const CODECOPY: u8 = 0x39;
    pub(super) const RETURN: u8 = 0xf3;
}

/// EVM code under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code(Vec<u8>);

impl Code {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// The shortest push of a number.
    pub fn push(mut self, value: U256) -> Self {
        let bytes = value.to_be_bytes_trimmed_vec();
        self.0.push(op::PUSH0 + u8::try_from(bytes.len()).unwrap_or(32));
        self.raw(bytes)
    }

    /// A push of an address.
    pub fn address(mut self, address: Address) -> Self {
        self.0.push(op::PUSH0 + 20);
        self.raw(address)
    }

    /// A push of 32 bytes.
    pub fn word(mut self, word: B256) -> Self {
        self.0.push(op::PUSH0 + 32);
        self.raw(word)
    }

    /// A push of two bytes, whatever the number: a place in code.
    pub fn place(mut self, place: usize) -> Self {
        self.0.push(op::PUSH0 + 2);
        self.raw(u16::try_from(place).unwrap_or(u16::MAX).to_be_bytes())
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A place to jump to.
    pub fn label(self) -> (Self, usize) {
        let at = self.len();
        (self.raw([op::JUMPDEST]), at)
    }

    /// A jump.
    pub fn jump(self, to: usize) -> Self {
        self.place(to).raw([op::JUMP])
    }

    /// A jump if the top of the stack is not zero.
    pub fn jump_if(self, to: usize) -> Self {
        self.place(to).raw([op::JUMPI])
    }

    /// Copies `data`, which will stand at `at` in the code, to the start of memory.
    pub fn load(self, at: usize, length: usize) -> Self {
        self.place(length).place(at).raw([op::PUSH0, op::CODECOPY])
    }

    /// `body`, which leaves the stack as it was, until the gas is used up: unrolled over the whole of the
    /// largest code, whose last bytes are `tail`. `self` runs once, before.
    pub fn forever(self, body: &[u8], tail: &[u8]) -> Vec<u8> {
        let (mut code, start) = self.label();
        let end = MAX_CODE_BYTES.saturating_sub(tail.len());
        // A jump takes four bytes.
        while code.len() + body.len() + 4 <= end {
            code = code.raw(body);
        }
        let mut code = code.jump(start).into_bytes();
        code.resize(end, 0);
        code.extend_from_slice(tail);
        code
    }

    /// The code.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Init code that deploys `runtime`.
pub fn deployer(runtime: &[u8]) -> Vec<u8> {
    let code = |start: usize| {
        Code::new().load(start, runtime.len()).place(runtime.len()).raw([op::PUSH0, op::RETURN, 0])
    };
    let start = code(0).len();
    code(start).raw(runtime).into_bytes()
}
