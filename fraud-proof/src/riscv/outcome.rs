//! What the verifier's program says: an exit code and one page of output.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | the segment is valid |
//! | 16 to 31 | 16 and [`FraudKind::wire`]: the assertion is wrong |
//! | 32 to 63 | the proof proves nothing: [`Malformed`] |
//! | 64 to 79 | no verdict: [`InputFault`] |
//! | 254, 255 | no verdict: out of memory, panic ([`super::layout`]) |
//!
//! Page at [`OUTPUT`], numbers little-endian, zero where there is nothing to say:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | the wrong segment |
//! | 4 | 4 | version of a proof whose version is not known |
//! | 8 | 32 | id of the assertion |
//! | 40 | 32 | hash of the claim before its first segment |
//! | 72 | 32 | hash of its body ([`chunk_hash`]) |

use super::input::{Input, InputFault};
use super::layout::OUTPUT;
use super::machine::{Halt, Machine};
use crate::proof::ProofFault;
use crate::verify::{AssertionView, FraudKind, Malformed, Verdict, verify};
use alloy_primitives::B256;
use kedge_bridge::deflate::InflateFault;
use kedge_bridge::envelope::chunk_hash;

/// Bytes of the output page that mean something.
pub const PAGE_BYTES: usize = 104;

const VALID: u32 = 0;
const FRAUD: u32 = 16;

/// What the program found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A verdict.
    Verdict {
        /// What it is about.
        subject: Subject,
        /// The verdict.
        verdict: Verdict,
    },
    /// The input is not one.
    Refused(InputFault),
}

/// What a verdict is about. It holds for nothing else: whoever relies on it has to find this assertion on
/// Bitcoin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Id of the assertion.
    pub id: B256,
    /// Hash of the claim before its first segment.
    pub base: B256,
    /// Hash of its body, as its envelope lists it. The body names the parameters and the Bitcoin block.
    pub body: B256,
}

/// The program: judges the proof of an input ([`super::input`]).
pub fn judge(input: &[u8]) -> Outcome {
    let Input { params, id, base, body, assertion, blocks, proof } = match Input::decode(input) {
        Ok(input) => input,
        Err(fault) => return Outcome::Refused(fault),
    };
    let view = AssertionView { id, base, l1: assertion.l1, claims: &assertion.claims };
    match verify(&params, &blocks, &view, proof) {
        Ok(verdict) => {
            Outcome::Verdict { subject: Subject { id, base, body: chunk_hash(body) }, verdict }
        }
        Err(fault) => Outcome::Refused(fault),
    }
}

impl Outcome {
    /// The exit code.
    pub const fn exit_code(&self) -> u32 {
        match self {
            Self::Verdict { verdict: Verdict::NoFraud, .. } => VALID,
            Self::Verdict { verdict: Verdict::Fraud { kind, .. }, .. } => {
                FRAUD | kind.wire() as u32
            }
            Self::Verdict { verdict: Verdict::Malformed { reason }, .. } => reason.exit_code(),
            Self::Refused(fault) => fault.exit_code(),
        }
    }

    /// The start of the output page.
    pub fn page(&self) -> [u8; PAGE_BYTES] {
        let Self::Verdict { subject: Subject { id, base, body }, verdict } = self else {
            return [0; PAGE_BYTES];
        };
        let (segment, version) = match verdict {
            Verdict::Fraud { segment, .. } => (*segment, 0),
            Verdict::Malformed { reason: Malformed::Encoding(ProofFault::Version { found }) } => {
                (0, u32::from(*found))
            }
            Verdict::Malformed { .. } | Verdict::NoFraud => (0, 0),
        };
        let mut page = [0; PAGE_BYTES];
        let fields = segment.to_le_bytes().into_iter().chain(version.to_le_bytes());
        let hashes = [id, base, body].into_iter().flat_map(|hash| hash.0);
        page.iter_mut().zip(fields.chain(hashes)).for_each(|(to, byte)| *to = byte);
        page
    }

    /// The outcome with that exit code and output page. None when the program did not end itself in its own
    /// way: no verdict.
    pub fn read(exit_code: u32, page: &[u8; PAGE_BYTES]) -> Option<Self> {
        if let Some(fault) = InputFault::ALL.into_iter().find(|f| f.exit_code() == exit_code) {
            return Some(Self::Refused(fault));
        }
        let (segment, rest) = page.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let (base, body) = rest.split_first_chunk::<32>()?;
        let subject = Subject {
            id: B256::new(*id),
            base: B256::new(*base),
            body: B256::new(*body.first_chunk::<32>()?),
        };
        let kind = FraudKind::ALL.into_iter().find(|k| FRAUD | u32::from(k.wire()) == exit_code);
        let verdict = match kind {
            _ if exit_code == VALID => Verdict::NoFraud,
            Some(kind) => Verdict::Fraud { segment: u32::from_le_bytes(*segment), kind },
            None => {
                let found = u8::try_from(u32::from_le_bytes(*version)).ok()?;
                let reason = Malformed::with_version(found)
                    .into_iter()
                    .find(|reason| reason.exit_code() == exit_code)?;
                Verdict::Malformed { reason }
            }
        };
        Some(Self::Verdict { subject, verdict })
    }

    /// What the program on a machine found. None when it has not ended itself: no verdict.
    pub fn of(machine: &Machine) -> Option<Self> {
        let Some(Halt::Exit(code)) = machine.halt() else { return None };
        let page = machine.read(OUTPUT, PAGE_BYTES as u32);
        Self::read(code, page.first_chunk()?)
    }
}

impl InputFault {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Record, Self::Params, Self::Headers, Self::Block, Self::Missing];

    const fn exit_code(self) -> u32 {
        match self {
            Self::Record => 64,
            Self::Params => 65,
            Self::Headers => 66,
            Self::Block => 67,
            Self::Missing => 68,
        }
    }
}

impl Malformed {
    /// All reasons; that of an unknown version says `found`.
    const fn with_version(found: u8) -> [Self; 20] {
        [
            Self::TooLarge,
            Self::OtherChain,
            Self::OtherAssertion,
            Self::Segment,
            Self::Pre,
            Self::Asserted,
            Self::Run,
            Self::State,
            Self::Header,
            Self::Chain,
            Self::Position,
            Self::Incomplete,
            Self::Excess,
            Self::Execution,
            Self::Post,
            Self::Encoding(ProofFault::Short),
            Self::Encoding(ProofFault::Version { found }),
            Self::Encoding(ProofFault::Compression(InflateFault::Stream)),
            Self::Encoding(ProofFault::Compression(InflateFault::TooLarge)),
            Self::Encoding(ProofFault::Content),
        ]
    }

    const fn exit_code(self) -> u32 {
        match self {
            Self::TooLarge => 32,
            Self::OtherChain => 33,
            Self::OtherAssertion => 34,
            Self::Segment => 35,
            Self::Pre => 36,
            Self::Asserted => 37,
            Self::Run => 38,
            Self::State => 39,
            Self::Header => 40,
            Self::Chain => 41,
            Self::Position => 42,
            Self::Incomplete => 43,
            Self::Excess => 44,
            Self::Execution => 45,
            Self::Post => 46,
            Self::Encoding(ProofFault::Short) => 48,
            Self::Encoding(ProofFault::Version { .. }) => 49,
            Self::Encoding(ProofFault::Compression(InflateFault::Stream)) => 50,
            Self::Encoding(ProofFault::Compression(InflateFault::TooLarge)) => 51,
            Self::Encoding(ProofFault::Content) => 52,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const SUBJECT: Subject = Subject {
        id: B256::repeat_byte(1),
        base: B256::repeat_byte(2),
        body: B256::repeat_byte(3),
    };

    fn all() -> Vec<Outcome> {
        let frauds = FraudKind::ALL.map(|kind| Verdict::Fraud { segment: 0x0102_0304, kind });
        let malformed = Malformed::with_version(7).map(|reason| Verdict::Malformed { reason });
        let verdicts = [Verdict::NoFraud].into_iter().chain(frauds).chain(malformed);
        let verdicts = verdicts.map(|verdict| Outcome::Verdict { subject: SUBJECT, verdict });
        verdicts.chain(InputFault::ALL.map(Outcome::Refused)).collect()
    }

    #[test]
    fn exit_codes_are_these() {
        let codes: Vec<u32> = all().iter().map(Outcome::exit_code).collect();
        let expected: Vec<u32> =
            [0].into_iter().chain(16..23).chain(32..47).chain(48..53).chain(64..69).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn every_outcome_comes_back_from_its_exit_code_and_page() {
        for outcome in all() {
            assert_eq!(Outcome::read(outcome.exit_code(), &outcome.page()), Some(outcome));
        }
        for code in [1, 15, 23, 31, 47, 53, 63, 69, super::super::layout::EXIT_PANIC] {
            assert_eq!(Outcome::read(code, &[0; PAGE_BYTES]), None, "{code}");
        }
    }

    #[test]
    fn the_page_is_these_bytes() {
        let kind = FraudKind::BlockNumber;
        let verdict = Verdict::Fraud { segment: 0x0102_0304, kind };
        let page = Outcome::Verdict { subject: SUBJECT, verdict }.page();
        let expected = [&[4, 3, 2, 1, 0, 0, 0, 0][..], &[1; 32], &[2; 32], &[3; 32]].concat();
        assert_eq!(page[..], expected[..]);
    }
}
