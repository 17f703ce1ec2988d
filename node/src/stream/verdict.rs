//! What is counted of a source.

use super::SignatureFault;

/// What became of something that a source sent, or of the connection to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// A block was added.
    Adopted,
    /// A block's L1 origin is not in this node's Bitcoin chain, or not yet.
    Waiting,
    /// The sequencer signed another block of a number that this node has, and no longer chain with it.
    Conflict,
    /// Bitcoin says otherwise than a signed block.
    Contradicted,
    /// The chain of this node and the source's could not be brought together.
    Unresolved,
    /// There is no connection.
    Unreachable,
    /// The connection ended: the source closed it, or sent a message above the limit.
    Disconnected,
    /// Blocks came faster than they could be taken.
    Lagged,
    /// No answer in time.
    Silent,
    /// The source does not serve blocks.
    Refused,
    /// Not what was asked for.
    Malformed,
    /// Another version of the format.
    Version,
    /// A block larger than any can be.
    Oversized,
    /// Not the sequencer's signature.
    Signature,
    /// The sequencer signed it, and it is no block by the rules or executes to something else.
    Invalid,
    /// Old blocks again and again.
    Repeats,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Adopted,
        Self::Waiting,
        Self::Conflict,
        Self::Contradicted,
        Self::Unresolved,
        Self::Unreachable,
        Self::Disconnected,
        Self::Lagged,
        Self::Silent,
        Self::Refused,
        Self::Malformed,
        Self::Version,
        Self::Oversized,
        Self::Signature,
        Self::Invalid,
        Self::Repeats,
    ];

    /// Its name in metrics and answers.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Adopted => "adopted",
            Self::Waiting => "waiting",
            Self::Conflict => "conflict",
            Self::Contradicted => "contradicted",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Disconnected => "disconnected",
            Self::Lagged => "lagged",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Oversized => "oversized",
            Self::Signature => "signature",
            Self::Invalid => "invalid",
            Self::Repeats => "repeats",
        }
    }

    /// Whether it is an accident of the network more often than a fault of the source.
    pub(super) const fn is_accident(self) -> bool {
        matches!(self, Self::Unreachable | Self::Disconnected)
    }
}

impl From<SignatureFault> for Verdict {
    fn from(fault: SignatureFault) -> Self {
        match fault {
            SignatureFault::Version(_) => Self::Version,
            SignatureFault::Oversized => Self::Oversized,
            SignatureFault::Signature => Self::Signature,
        }
    }
}
