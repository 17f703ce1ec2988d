//! Assertions that lie, each in a way of its own. Only `kedge dev --dishonest-proposer` and tests make them.

use alloy_primitives::{B256, keccak256};
use kedge_bridge::assertion::AssertionBody;
use kedge_fraud_proof::{Claim, first_divergence};
use kedge_genesis::{L2Number, Params};
use kedge_store::{L1Rows, L2Rows, OwnClaims, Reader, StoreError};
use kedge_vm::{Header, output_root};

/// What is wrong with an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// An output root that is none.
    OutputRoot,
    /// The true root under the number of the next block.
    BlockNumber,
    /// The last segments are left out.
    MissingSegments,
    /// A segment follows the last.
    ExtraSegments,
    /// The output root of a block with a withdrawal that nobody made.
    InventedWithdrawal,
    /// Another derive state, as if a deposit were still to be taken.
    DeriveState,
    /// A segment that ends a payload later.
    SegmentBoundary,
    /// A true root at the height of the next L1 block.
    L1Block,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OutputRoot,
        Self::BlockNumber,
        Self::MissingSegments,
        Self::ExtraSegments,
        Self::InventedWithdrawal,
        Self::DeriveState,
        Self::SegmentBoundary,
        Self::L1Block,
    ];

    /// What it is, for people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OutputRoot => "an output root that is none",
            Self::BlockNumber => "a wrong block number",
            Self::MissingSegments => "missing segments",
            Self::ExtraSegments => "an extra segment",
            Self::InventedWithdrawal => "an invented withdrawal",
            Self::DeriveState => "a wrong derive state",
            Self::SegmentBoundary => "a wrong segment boundary",
            Self::L1Block => "a wrong L1 block",
        }
    }

    /// The claim hashes of an assertion that lies about segment number `segment` and is true otherwise. `own`
    /// are the true claims of the L1 blocks that it spans, `header` that of the L2 block at the segment's
    /// end. None when there is no such segment, and when leaving out from there on would leave none.
    pub fn claims(self, own: &[Claim], segment: usize, header: &Header) -> Option<Vec<B256>> {
        let truth = *own.get(segment)?;
        let mut hashes: Vec<B256> = own.iter().map(Claim::hash).collect();
        let next = L2Number(truth.number.0.saturating_add(1));
        let wrong = match self {
            Self::OutputRoot => Claim { output_root: B256::ZERO, ..truth },
            Self::BlockNumber => Claim { number: next, ..truth },
            Self::InventedWithdrawal => {
                Claim { output_root: with_invented_withdrawal(header), ..truth }
            }
            Self::DeriveState => Claim { derive_state: B256::ZERO, ..truth },
            Self::SegmentBoundary => Claim { offset: truth.offset.saturating_add(1), ..truth },
            Self::L1Block => Claim { l1_height: truth.l1_height.next(), ..truth },
            Self::MissingSegments => {
                hashes.truncate(segment);
                return (!hashes.is_empty()).then_some(hashes);
            }
            Self::ExtraSegments => {
                hashes.push(Claim { number: next, ..*own.last()? }.hash());
                return Some(hashes);
            }
        };
        *hashes.get_mut(segment)? = wrong.hash();
        Some(hashes)
    }

    /// The assertion that an honest proposer would make now, but with this lie about one of its segments:
    /// the one of that number, counted round and round. With it the number of its first wrong segment. None
    /// when there is nothing new to say, or too little for this lie.
    ///
    /// # Errors
    /// When the store fails.
    pub fn assertion(
        self,
        params: &Params,
        reader: &Reader<'_>,
        segment: usize,
    ) -> Result<Option<(AssertionBody, u32)>, StoreError> {
        let tracker = reader.tracker()?;
        let Some(body) = tracker.build_assertion(params, &OwnClaims(reader))? else {
            return Ok(None);
        };
        let mut own = Vec::new();
        let mut height = tracker.best().1.next();
        while height <= body.l1.height {
            own.extend(reader.claims(height)?.unwrap_or_default());
            height = height.next();
        }
        let Some(segment) = segment.checked_rem(own.len()) else { return Ok(None) };
        let Some(truth) = own.get(segment) else { return Ok(None) };
        let Some(header) = reader.header(truth.number)? else { return Ok(None) };
        let Some(claims) = self.claims(&own, segment, &header) else { return Ok(None) };
        let first_wrong =
            first_divergence(&own.iter().map(Claim::hash).collect::<Vec<_>>(), &claims);
        Ok(first_wrong.map(|first_wrong| (AssertionBody { claims, ..body }, first_wrong)))
    }
}

/// The output root of this block if the storage of `L2ToL1MessagePasser` were that of another.
fn with_invented_withdrawal(header: &Header) -> B256 {
    let storage = keccak256(header.withdrawals_root.unwrap_or_default());
    output_root(header.state_root, storage, header.hash_slow())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::world::World;
    use kedge_fraud_proof::{FraudKind, Verdict, verify};

    /// What the verdict names each lie.
    const NAMES: [(Lie, FraudKind); 8] = [
        (Lie::OutputRoot, FraudKind::OutputRoot),
        (Lie::BlockNumber, FraudKind::BlockNumber),
        (Lie::MissingSegments, FraudKind::MissingSegments),
        (Lie::ExtraSegments, FraudKind::ExtraSegments),
        (Lie::InventedWithdrawal, FraudKind::OutputRoot),
        (Lie::DeriveState, FraudKind::DeriveState),
        (Lie::SegmentBoundary, FraudKind::SegmentBoundary),
        (Lie::L1Block, FraudKind::L1Block),
    ];

    #[test]
    fn every_lie_is_proven_wrong_and_named() {
        assert_eq!(NAMES.map(|(lie, _)| lie), Lie::ALL);
        for (number, (lie, kind)) in NAMES.into_iter().enumerate() {
            let mut world = World::new();
            for _ in 0..8 {
                world.mine(vec![]);
                world.build(vec![]);
            }
            let reader = world.store().reader();
            let segment = number % 3 + 1;
            let (body, wrong) = lie.assertion(world.params, &reader, segment).unwrap().unwrap();
            drop(reader);
            let reveal = world.assertion_with(|claims| *claims = body.claims).unwrap();
            world.mine(vec![reveal]);
            let tracker = world.engine.tracker().unwrap();
            let node = &tracker.nodes()[0];
            assert!(!node.agrees, "{lie:?}");
            let proof = world.engine.build_proof(node.id).unwrap().unwrap();
            let verdict =
                verify(world.params, &**world.engine.store(), &node.view(), &proof.encode());
            let expected = Verdict::Fraud { segment: wrong, kind };
            assert_eq!(verdict.unwrap(), expected, "{lie:?}");
            let about_others = matches!(lie, Lie::MissingSegments | Lie::ExtraSegments);
            assert!(about_others || wrong as usize == segment, "{lie:?}");
        }
    }
}
