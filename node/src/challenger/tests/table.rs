//! What is decided in which situation.

use super::super::{
    Lasting,
    decide::{Action, View, decide, short_of_funds},
    event::{Abandonment, Alert},
    record::{Book, Paid, Progress, Record, Reward, Told, Verdict, reference, tell_progress},
};
use crate::challenger::ChallengerEvent;
use crate::publisher::{PublicationId, PublicationStatus, RevealStatus};
use alloy_primitives::B256;
use bitcoin::{Amount, OutPoint, Txid, hashes::Hash as _};
use kedge_bridge::derive::ChunkRef;
use kedge_fraud_proof::{AssertionNode, AssertionStatus, FraudKind, Rejection};
use kedge_genesis::{L1Height, L1Ref, Sats};
use std::time::{Duration, Instant};

const OWN: B256 = B256::repeat_byte(0xaa);
const OTHER: B256 = B256::repeat_byte(0xbb);
const ID: B256 = B256::repeat_byte(1);
const PUBLICATION: PublicationId = PublicationId(7);
const CONFIRMED: u32 = 100;
const DEADLINE: u32 = 120;

fn assertion(status: AssertionStatus) -> AssertionNode {
    AssertionNode {
        id: ID,
        parent: B256::ZERO,
        from: L1Height(0),
        base: B256::ZERO,
        l1: L1Ref { height: L1Height(90), hash: B256::ZERO },
        claims: Vec::new(),
        confirmed_at: L1Height(CONFIRMED),
        deadline: L1Height(DEADLINE),
        bond: OutPoint::null(),
        bond_value: Sats(1_000),
        proposer: [0; 32],
        status,
        agrees: false,
    }
}

fn rejected_by(challenger: B256, committed: u32) -> AssertionStatus {
    let proof = Rejection {
        segment: 0,
        kind: FraudKind::OutputRoot,
        challenger: challenger.0,
        committed: L1Height(committed),
        reveal: ChunkRef { height: L1Height(110), txid: Txid::all_zeros(), input: 0 },
    };
    AssertionStatus::Rejected { at: L1Height(110), proof: Some(proof) }
}

/// A publication whose commit and reveals are confirmed there.
fn publication(attempt: u32, committed: Option<u32>, reveals: &[Option<u32>]) -> PublicationStatus {
    PublicationStatus {
        id: PUBLICATION,
        kind: 3,
        reference: Some(reference(ID, attempt)),
        commit: Some(Txid::all_zeros()),
        commits: 1,
        commit_fee: None,
        committed: committed.map(L1Height),
        reveals: reveals
            .iter()
            .map(|confirmed| RevealStatus {
                txid: None,
                versions: 0,
                fee: None,
                confirmed: confirmed.map(L1Height),
            })
            .collect(),
        is_final: false,
        is_abandoned: false,
        problem: None,
        is_short: false,
    }
}

fn abandoned(attempt: u32) -> PublicationStatus {
    PublicationStatus { is_abandoned: true, ..publication(attempt, Some(101), &[None]) }
}

fn record(attempt: u32) -> Record {
    Record { attempt, ..Record::new(&assertion(AssertionStatus::Proposed)) }
}

struct Case {
    tip: u32,
    dry_run: bool,
    assertions: Vec<AssertionNode>,
    record: Option<Record>,
    publication: Option<PublicationStatus>,
}

impl Case {
    /// An assertion that is known, in the middle of its challenge window.
    fn new(status: AssertionStatus) -> Self {
        Self {
            tip: 110,
            dry_run: false,
            assertions: vec![assertion(status)],
            record: Some(record(0)),
            publication: None,
        }
    }

    fn published(status: AssertionStatus, attempt: u32, publication: PublicationStatus) -> Self {
        Self { record: Some(record(attempt)), publication: Some(publication), ..Self::new(status) }
    }

    fn decide(&self) -> Vec<Action> {
        let book: Book = self.record.iter().map(|record| (ID, record.clone())).collect();
        let publications: Vec<_> = self.publication.iter().cloned().collect();
        decide(&View {
            tip: L1Height(self.tip),
            own: OWN,
            assertions: &self.assertions,
            book: &book,
            publications: &publications,
            channel_timeout: 6,
            final_depth: 3,
            dry_run: self.dry_run,
        })
    }
}

fn publish(attempt: u32) -> Action {
    Action::Publish { id: ID, attempt, by: L1Height(DEADLINE) }
}

fn press(by: u32) -> Action {
    Action::Press { publication: PUBLICATION, by: L1Height(by) }
}

fn abandon(reason: Abandonment) -> Action {
    Action::Abandon { id: ID, publication: PUBLICATION, reason }
}

use AssertionStatus::{Challenged, Proposed};

#[test]
fn what_is_done_about_an_assertion_follows_from_its_status_and_the_publication() {
    let near = |blocks_left, needed| {
        Action::Alert(Alert::DeadlineNear { assertion: ID, blocks_left, needed })
    };
    let settled = AssertionStatus::Settled { at: L1Height(DEADLINE) };
    let with_parent = AssertionStatus::Rejected { at: L1Height(110), proof: None };
    let cases = [
        (
            "a new wrong one is noted and proven wrong",
            Case { record: None, ..Case::new(Proposed) },
            vec![Action::Note { id: ID, falls_with_parent: false }, publish(1)],
        ),
        (
            "a right one is noted and left alone",
            Case {
                record: None,
                assertions: vec![AssertionNode { agrees: true, ..assertion(Proposed) }],
                ..Case::new(Proposed)
            },
            vec![Action::Note { id: ID, falls_with_parent: false }],
        ),
        (
            "one against which somebody has begun is proven wrong all the same",
            Case::new(Challenged),
            vec![publish(1)],
        ),
        (
            "a reorganisation that moved it is noted",
            Case {
                assertions: vec![AssertionNode { deadline: L1Height(121), ..assertion(Proposed) }],
                ..Case::published(Proposed, 1, publication(1, None, &[None]))
            },
            vec![Action::Note { id: ID, falls_with_parent: false }, press(121)],
        ),
        (
            "a publication that a crash prevented is made under the same number",
            Case { record: Some(record(2)), ..Case::new(Proposed) },
            vec![publish(2)],
        ),
        (
            "one on its way is pressed for",
            Case::published(Proposed, 1, publication(1, None, &[None])),
            vec![press(DEADLINE)],
        ),
        (
            "chunks must come within the channel's time after the first",
            Case::published(Proposed, 1, publication(1, Some(102), &[Some(109), None])),
            vec![press(115)],
        ),
        (
            "one that is in the chain above the processed tip is waited for",
            Case::published(Proposed, 1, publication(1, Some(102), &[Some(111)])),
            vec![press(117)],
        ),
        (
            "one that had no effect is made again",
            Case::published(Proposed, 1, publication(1, Some(102), &[Some(110)])),
            vec![publish(2), Action::Alert(Alert::NoEffect { assertion: ID, attempts: 1 })],
        ),
        (
            "but not without end",
            Case::published(Proposed, 8, publication(8, Some(102), &[Some(110)])),
            vec![Action::Alert(Alert::NoEffect { assertion: ID, attempts: 8 })],
        ),
        (
            "one that was given up is made anew when the assertion is open again",
            Case::published(Proposed, 3, abandoned(3)),
            vec![publish(4)],
        ),
        (
            "three blocks before the end, before the commit, time is short",
            Case { tip: 117, ..Case::published(Proposed, 1, publication(1, None, &[None])) },
            vec![press(DEADLINE), near(3, 2)],
        ),
        (
            "three blocks before the end, after the commit, it is not",
            Case { tip: 117, ..Case::published(Proposed, 1, publication(1, Some(112), &[None])) },
            vec![press(DEADLINE)],
        ),
        (
            "two blocks before the end it is",
            Case { tip: 118, ..Case::published(Proposed, 1, publication(1, Some(112), &[None])) },
            vec![press(DEADLINE), near(2, 1)],
        ),
        (
            "one block is tried for as well",
            Case { tip: 119, ..Case::new(Proposed) },
            vec![publish(1), near(1, 2)],
        ),
        (
            "a dry run says what it would do",
            Case { dry_run: true, ..Case::new(Proposed) },
            vec![Action::Rehearse { id: ID }],
        ),
        (
            "once",
            Case {
                dry_run: true,
                record: Some(Record {
                    told: Told { would_publish: true, ..Told::default() },
                    ..record(0)
                }),
                ..Case::new(Proposed)
            },
            vec![],
        ),
        (
            "somebody else was first",
            Case::published(rejected_by(OTHER, 105), 1, publication(1, None, &[None])),
            vec![abandon(Abandonment::ProvenByOthers)],
        ),
        (
            "at the same height the first is first",
            Case::published(rejected_by(OTHER, 105), 1, publication(1, Some(105), &[None])),
            vec![abandon(Abandonment::ProvenByOthers)],
        ),
        (
            "whoever committed earlier still reveals",
            Case::published(rejected_by(OTHER, 105), 1, publication(1, Some(104), &[None])),
            vec![press(DEADLINE)],
        ),
        (
            "unless it is too late",
            Case {
                tip: DEADLINE,
                ..Case::published(rejected_by(OTHER, 105), 1, publication(1, Some(104), &[None]))
            },
            vec![abandon(Abandonment::ProvenByOthers)],
        ),
        (
            "nothing is left to give up of what is in the chain",
            Case::published(rejected_by(OTHER, 105), 1, publication(1, Some(106), &[Some(110)])),
            vec![],
        ),
        (
            "nor of what was given up",
            Case::published(rejected_by(OTHER, 105), 1, abandoned(1)),
            vec![],
        ),
        (
            "our proof rejected it",
            Case::published(rejected_by(OWN, 105), 1, publication(1, Some(105), &[Some(110)])),
            vec![],
        ),
        (
            "an earlier publication of ours did",
            Case::published(rejected_by(OWN, 105), 2, publication(2, Some(108), &[None])),
            vec![abandon(Abandonment::ProvenByUs)],
        ),
        (
            "after the window the reward is looked for",
            Case {
                tip: DEADLINE,
                ..Case::published(rejected_by(OWN, 105), 1, publication(1, Some(105), &[Some(110)]))
            },
            vec![Action::Reward { id: ID }],
        ),
        (
            "it fell with what it continues",
            Case::published(with_parent, 1, publication(1, None, &[None])),
            vec![abandon(Abandonment::FellWithParent)],
        ),
        (
            "it settled",
            Case { tip: DEADLINE, ..Case::published(settled, 1, publication(1, None, &[None])) },
            vec![
                abandon(Abandonment::Settled),
                Action::Alert(Alert::SettledWrong { assertion: ID }),
            ],
        ),
        (
            "it left the chain: wait",
            Case {
                assertions: vec![],
                ..Case::published(Proposed, 1, publication(1, None, &[None]))
            },
            vec![Action::Hold { publication: PUBLICATION }],
        ),
        (
            "it did not come back",
            Case {
                assertions: vec![],
                tip: DEADLINE + 4,
                ..Case::published(Proposed, 1, publication(1, None, &[None]))
            },
            vec![abandon(Abandonment::Gone)],
        ),
    ];
    for (name, case, expected) in cases {
        assert_eq!(case.decide(), expected, "{name}");
    }
}

#[test]
fn of_a_branch_only_the_first_wrong_assertion_is_proven_wrong() {
    let child = AssertionNode { id: OTHER, parent: ID, ..assertion(Proposed) };
    let case = Case { assertions: vec![assertion(Proposed), child.clone()], ..Case::new(Proposed) };
    let note = Action::Note { id: OTHER, falls_with_parent: true };
    assert_eq!(case.decide(), vec![note, publish(1)]);

    // The same continuing a right one, and continuing one that is no longer remembered.
    let right = AssertionNode { agrees: true, ..assertion(Proposed) };
    for assertions in [vec![right, child.clone()], vec![child]] {
        let case = Case { assertions, ..Case::new(Proposed) };
        let by = L1Height(DEADLINE);
        let actions = case.decide();
        assert!(actions.contains(&Action::Publish { id: OTHER, attempt: 1, by }), "{actions:?}");
    }
}

#[test]
fn money_is_short_when_the_wallet_has_too_little_or_what_is_under_way_says_so() {
    let under_way = |is_short| PublicationStatus { is_short, ..publication(1, None, &[None]) };
    let is_final = PublicationStatus { is_final: true, ..under_way(true) };
    for (publications, available, expected) in [
        (vec![], 999, true),
        (vec![], 1_000, false),
        // What is under way has its money.
        (vec![under_way(false)], 0, false),
        (vec![under_way(false), under_way(true)], 5_000, true),
        (vec![is_final, abandoned(1)], 1_000, false),
    ] {
        let (available, needed) = (Amount::from_sat(available), Amount::from_sat(1_000));
        let found = short_of_funds(&publications, available, needed, "here");
        let address = "here".to_owned();
        let alert = Alert::NoFunds { available: available.to_sat(), needed: 1_000, address };
        assert_eq!(found, expected.then_some(alert), "{publications:?} {available}");
    }
}

#[test]
fn being_behind_counts_when_it_lasts() {
    let (begun, patience) = (Instant::now(), Duration::from_secs(60));
    let mut behind = Lasting::default();
    for (second, lags, expected) in [
        (0, true, false),
        (59, true, false),
        (60, true, true),
        (70, true, true),
        // Caught up: it begins anew.
        (71, false, false),
        (72, true, false),
        (131, true, false),
        (132, true, true),
    ] {
        let now = begun + Duration::from_secs(second);
        assert_eq!(behind.note(lags, now, patience), expected, "at {second} s");
    }
}

#[test]
fn the_nearest_deadline_is_served_first() {
    let at = |byte: u8, deadline| AssertionNode {
        id: B256::repeat_byte(byte),
        deadline: L1Height(deadline),
        ..assertion(Proposed)
    };
    let case = Case {
        assertions: vec![at(2, 130), at(3, 115), at(4, 125)],
        record: None,
        ..Case::new(Proposed)
    };
    let order: Vec<u32> = case
        .decide()
        .into_iter()
        .filter_map(|action| match action {
            Action::Publish { by, .. } => Some(by.0),
            _ => None,
        })
        .collect();
    assert_eq!(order, [115, 125, 130]);
}

#[test]
fn a_won_bond_is_remembered_until_it_is_in_the_wallet_for_good() {
    let won = |taken| Record {
        told: Told { rejected: Some(Verdict::Proof(OWN)), ..Told::default() },
        reward: Some(Reward::Paid(Paid {
            outpoint: OutPoint::null(),
            value: 1_000,
            takings: vec![],
            taken,
        })),
        ..record(1)
    };
    for (tip, taken, expected) in [
        (DEADLINE + 40, None, Action::Reward { id: ID }),
        (DEADLINE + 40, Some(DEADLINE + 39), Action::Reward { id: ID }),
        (DEADLINE + 40, Some(DEADLINE + 38), Action::Forget { id: ID }),
    ] {
        let case =
            Case { tip, assertions: vec![], record: Some(won(taken)), ..Case::new(Proposed) };
        assert_eq!(case.decide(), vec![expected], "{taken:?}");
    }
}

#[test]
fn progress_is_told_once_and_told_again_after_a_reorganisation() {
    let txid = Txid::all_zeros();
    let mut told = Progress::default();
    let names = |told: &mut Progress, status: &PublicationStatus| -> Vec<&'static str> {
        tell_progress(ID, told, status).iter().map(ChallengerEvent::label).collect()
    };
    let mut status = publication(1, None, &[None]);
    assert!(names(&mut told, &status).is_empty());
    status.committed = Some(L1Height(102));
    status.reveals[0].txid = Some(txid);
    status.reveals[0].versions = 1;
    assert_eq!(names(&mut told, &status), ["commit_confirmed", "revealed"]);
    assert!(names(&mut told, &status).is_empty());
    status.reveals[0].versions = 2;
    assert_eq!(names(&mut told, &status), ["raised"]);
    status.reveals[0].confirmed = Some(L1Height(104));
    assert_eq!(names(&mut told, &status), ["confirmed"]);
    // The commit and the reveal are in other blocks now.
    status.committed = Some(L1Height(103));
    status.reveals[0].confirmed = None;
    assert_eq!(names(&mut told, &status), ["commit_confirmed"]);
    status.reveals[0].confirmed = Some(L1Height(105));
    assert_eq!(names(&mut told, &status), ["confirmed"]);
}
