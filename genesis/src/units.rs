//! Units as types: a Bitcoin height is not an L2 block number, and satoshis are not wei.

use alloy_primitives::{B256, U256};
use core::fmt;

/// Wei in one satoshi: the native currency is BTC with 18 decimals, so 1 sat = 10^10 wei.
pub const WEI_PER_SAT: u64 = 10_000_000_000;

/// Height of a Bitcoin block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L1Height(pub u32);

impl L1Height {
    /// The height `blocks` above this one, saturating at the largest height.
    pub const fn plus(self, blocks: u32) -> Self {
        Self(self.0.saturating_add(blocks))
    }

    /// The next height.
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The height before this one; none below the first block.
    pub const fn prev(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(height) => Some(Self(height)),
            None => None,
        }
    }

    /// How many blocks this height lies above `other`, zero when it is not above.
    pub const fn since(self, other: Self) -> u32 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for L1Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of an L2 block; genesis is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L2Number(pub u64);

impl L2Number {
    /// The next number.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number before this one; none before genesis.
    pub const fn prev(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for L2Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An amount of bitcoin in satoshis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sats(pub u64);

impl Sats {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum, or none on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or none when `other` is larger.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The same amount in wei. Cannot overflow: 2^64 * 10^10 < 2^256.
    pub fn to_wei(self) -> U256 {
        U256::from(self.0).saturating_mul(U256::from(WEI_PER_SAT))
    }

    /// The amount of whole satoshis in `wei`, none when `wei` is not a whole number of satoshis or
    /// does not fit.
    pub fn from_wei_exact(wei: U256) -> Option<Self> {
        let (sats, rest) = wei.div_rem(U256::from(WEI_PER_SAT));
        if rest.is_zero() { u64::try_from(sats).ok().map(Self) } else { None }
    }
}

impl fmt::Display for Sats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

/// A Bitcoin block by height and hash. The hash is in internal byte order, the order in which
/// Bitcoin serialises it, not reversed as it is displayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct L1Ref {
    /// Height of the block.
    pub height: L1Height,
    /// Hash of the block, internal byte order.
    pub hash: B256,
}
