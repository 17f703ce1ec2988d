//! What to do, as a function of what is known. No I/O: everything here is a table in the tests.

use super::event::{Abandonment, Alert};
use super::record::{Book, Record, reference};
use crate::publisher::{PublicationId, PublicationStatus};
use alloy_primitives::B256;
use bitcoin::Amount;
use kedge_fraud_proof::{AssertionNode, AssertionStatus};
use kedge_genesis::L1Height;

/// Publications against one assertion that may end in blocks without any effect. More would only burn fees:
/// that one had none is explained by a reorg that moved it before the assertion, or chunks that came late.
const MAX_ATTEMPTS: u32 = 8;
/// Blocks to spare below which an alert is due.
const SPARE_BLOCKS: u32 = 1;

/// All that decisions depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The last L1 block that the node processed.
    pub(super) tip: L1Height,
    /// The key that this challenger's proofs are published with, x-only.
    pub(super) own: B256,
    /// The assertions as of the tip, parents before children.
    pub(super) assertions: &'a [AssertionNode],
    /// What this challenger remembers.
    pub(super) book: &'a Book,
    /// Its publications.
    pub(super) publications: &'a [PublicationStatus],
    /// L1 blocks after its first chunk within which all of a proof must be there.
    pub(super) channel_timeout: u32,
    /// L1 blocks after which nothing is taken back any more.
    pub(super) final_depth: u32,
    /// Whether nothing must be published.
    pub(super) dry_run: bool,
}

/// Something to do. All of it may be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Take note of an assertion that is new, or that a reorg moved.
    Note { id: B256, falls_with_parent: bool },
    /// Build and check the proof and say that it would be published.
    Rehearse { id: B256 },
    /// Build, check and publish the proof, as the publication of that number.
    Publish { id: B256, attempt: u32, by: L1Height },
    /// See that a publication is in the chain by then.
    Press { publication: PublicationId, by: L1Height },
    /// Leave a publication as it is.
    Hold { publication: PublicationId },
    /// Give a publication up.
    Abandon { id: B256, publication: PublicationId, reason: Abandonment },
    /// Look for the bond and take it.
    Reward { id: B256 },
    /// Forget an assertion.
    Forget { id: B256 },
    /// Say that something is wrong.
    Alert(Alert),
}

/// What to do now. Publications with the nearest deadline come first: they get the money that there is.
pub(super) fn decide(view: &View<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for node in view.assertions {
        view.on_assertion(node, &mut actions);
    }
    for (id, record) in view.book {
        if view.assertions.iter().all(|node| node.id != *id) {
            view.on_unknown(*id, record, &mut actions);
        }
    }
    actions.sort_by_key(|action| match action {
        Action::Note { .. } => (0, L1Height(0)),
        Action::Abandon { .. } => (1, L1Height(0)),
        Action::Publish { by, .. } => (2, *by),
        _ => (3, L1Height(0)),
    });
    actions
}

impl View<'_> {
    fn publication(&self, id: B256, record: &Record) -> Option<&PublicationStatus> {
        let name = reference(id, record.attempt);
        self.publications.iter().find(|of| of.reference.as_deref() == Some(name.as_str()))
    }

    /// Whether an assertion continues one that is wrong. What is forgotten of a chain is settled; whether
    /// that was right shows when the proof is built.
    fn falls_with_parent(&self, node: &AssertionNode) -> bool {
        self.assertions.iter().any(|other| other.id == node.parent && !other.agrees)
    }

    /// Blocks that are still to come and count.
    fn left(&self, deadline: L1Height) -> u32 {
        deadline.0.saturating_sub(self.tip.0)
    }

    fn on_assertion(&self, node: &AssertionNode, actions: &mut Vec<Action>) {
        let id = node.id;
        let falls_with_parent = self.falls_with_parent(node);
        let fresh = Record::new(node);
        let known = self.book.get(&id);
        if known.is_none_or(|known| {
            (known.confirmed_at, known.deadline) != (fresh.confirmed_at, fresh.deadline)
        }) {
            actions.push(Action::Note { id, falls_with_parent });
        }
        if node.agrees {
            return;
        }
        let record = known.unwrap_or(&fresh);
        match node.status {
            AssertionStatus::Proposed | AssertionStatus::Challenged if falls_with_parent => {
                self.stop(id, record, Abandonment::FellWithParent, actions);
            }
            AssertionStatus::Proposed | AssertionStatus::Challenged => {
                self.on_wrong(node, record, actions);
            }
            AssertionStatus::Rejected { proof: None, .. } => {
                self.stop(id, record, Abandonment::FellWithParent, actions);
            }
            AssertionStatus::Rejected { proof: Some(proof), .. }
                if proof.challenger == self.own.0 =>
            {
                self.stop(id, record, Abandonment::ProvenByUs, actions);
                if self.tip >= node.deadline && !record.is_rewarded(self.tip, self.final_depth) {
                    actions.push(Action::Reward { id });
                }
            }
            AssertionStatus::Rejected { proof: Some(proof), .. } => {
                let earlier = self
                    .publication(id, record)
                    .filter(|of| of.committed.is_some_and(|at| at < proof.committed))
                    .filter(|of| !of.is_abandoned && self.left(node.deadline) > 0);
                match earlier {
                    // Revealed in time it takes the bond back from whoever committed later.
                    Some(publication) => self.press(node, publication, actions),
                    None => self.stop(id, record, Abandonment::ProvenByOthers, actions),
                }
            }
            AssertionStatus::Settled { .. } => {
                self.stop(id, record, Abandonment::Settled, actions);
                actions.push(Action::Alert(Alert::SettledWrong { assertion: id }));
            }
        }
    }

    /// A wrong assertion that nobody has proven wrong and that does not fall by itself.
    fn on_wrong(&self, node: &AssertionNode, record: &Record, actions: &mut Vec<Action>) {
        let (id, by) = (node.id, node.deadline);
        if self.dry_run {
            if !record.told.would_publish {
                actions.push(Action::Rehearse { id });
            }
            return;
        }
        let publication = self.publication(id, record);
        let in_chain = |of: &PublicationStatus| of.confirmed().is_some_and(|at| at <= self.tip);
        match publication {
            None => {
                let attempt = record.attempt.max(1);
                actions.push(Action::Publish { id, attempt, by });
            }
            Some(of) if of.is_abandoned => {
                actions.push(Action::Publish { id, attempt: record.attempt + 1, by });
            }
            Some(of) if in_chain(of) => {
                let attempts = record.attempt;
                actions.push(Action::Alert(Alert::NoEffect { assertion: id, attempts }));
                if attempts < MAX_ATTEMPTS {
                    actions.push(Action::Publish { id, attempt: attempts + 1, by });
                }
            }
            Some(of) => self.press(node, of, actions),
        }
        let committed = publication.is_some_and(|of| of.committed.is_some() && !of.is_abandoned);
        let needed = if committed { 1 } else { 2 };
        let left = self.left(node.deadline);
        if left <= needed + SPARE_BLOCKS {
            let alert = Alert::DeadlineNear { assertion: id, blocks_left: left, needed };
            actions.push(Action::Alert(alert));
        }
    }

    fn press(&self, node: &AssertionNode, of: &PublicationStatus, actions: &mut Vec<Action>) {
        // Chunks that come too long after the first are none.
        let first = of.reveals.iter().filter_map(|reveal| reveal.confirmed).min();
        let channel = first.map_or(node.deadline, |first| first.plus(self.channel_timeout));
        let by = node.deadline.min(channel);
        actions.push(Action::Press { publication: of.id, by });
    }

    /// Gives the current publication up, unless nothing of it is left to give up.
    fn stop(&self, id: B256, record: &Record, reason: Abandonment, actions: &mut Vec<Action>) {
        if let Some(of) = self.publication(id, record)
            && !of.is_abandoned
            && !of.is_final
            && of.confirmed().is_none()
        {
            actions.push(Action::Abandon { id, publication: of.id, reason });
        }
    }

    /// An assertion that is not in the chain, or no longer remembered.
    fn on_unknown(&self, id: B256, record: &Record, actions: &mut Vec<Action>) {
        let publication = self.publication(id, record);
        let over = self.tip > L1Height(record.deadline).plus(self.final_depth);
        let open = publication.is_some_and(|of| !of.is_abandoned && !of.is_final);
        if open && over {
            self.stop(id, record, Abandonment::Gone, actions);
        } else if let Some(of) = publication.filter(|_| open) {
            actions.push(Action::Hold { publication: of.id });
        }
        let rewarded = record.is_rewarded(self.tip, self.final_depth);
        if record.is_won(self.own) && !rewarded {
            if self.tip >= L1Height(record.deadline) {
                actions.push(Action::Reward { id });
            }
        } else if over && publication.is_none_or(|of| of.is_final) {
            actions.push(Action::Forget { id });
        }
    }
}

/// Whether money is too short: for what is under way, by what it says itself, else for a proof that costs
/// `needed`. `address` is where to pay to.
pub(super) fn short_of_funds(
    publications: &[PublicationStatus],
    available: Amount,
    needed: Amount,
    address: &str,
) -> Option<Alert> {
    let under_way = |of: &&PublicationStatus| !of.is_final && !of.is_abandoned;
    let mut under_way = publications.iter().filter(under_way).peekable();
    let is_short = match under_way.peek() {
        Some(_) => under_way.any(|of| of.is_short),
        None => available < needed,
    };
    is_short.then(|| Alert::NoFunds {
        available: available.to_sat(),
        needed: needed.to_sat(),
        address: address.to_owned(),
    })
}
