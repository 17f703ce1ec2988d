//! Bitcoin blocks, forwards and backwards.

use super::execute::{StoreExecutor, unwind};
use super::{Engine, EngineError, EngineEvent, L1Outcome, bonds, bridge};
use bitcoin::Block;
use kedge_bridge::derive::{BatchOutcome, BatchSeen, L1Block, Note};
use kedge_fraud_proof::{AssertionEvent, AssertionTracker, Verdict, step};
use kedge_genesis::{L1Height, L1Ref, L2Number};
use kedge_store::{
    AssertionRow, BatchRow, Change, Domain, L1Row, L1Rows, L2Rows, NoteRow, OwnClaims, StoreError,
    Table, finalized,
};
use std::{collections::BTreeMap, sync::Arc};

/// L1 blocks below finality whose undo records are kept, for reorganisations that contradict nothing
/// final.
const UNDO_MARGIN: u32 = 100;

impl Engine {
    /// Processes the next Bitcoin block: derives its payloads, promotes or executes them, follows the
    /// bridge and the assertions. One atomic write.
    ///
    /// # Errors
    /// [`EngineError::NotNext`] when the block does not follow the processed tip; otherwise only when this
    /// machine failed, and then nothing is changed.
    pub fn connect_l1(
        &self,
        height: L1Height,
        block: impl Into<Arc<Block>>,
    ) -> Result<Arc<L1Outcome>, EngineError> {
        let l1 = L1Block::new(height, block.into());
        let mut live = self.live.lock();
        let pre = live.derive.clone();
        let parent = bitcoin::hashes::Hash::to_byte_array(l1.block.header.prev_blockhash);
        if height != pre.l1.height.next() || parent != pre.l1.hash.0 {
            return Err(EngineError::NotNext { tip: pre.l1, found: l1.at });
        }

        let mut change = self.store.change();
        change.begin(Domain::L1, u64::from(height.0))?;
        let safe = change.block_info(pre.cursor.number)?.ok_or_else(|| StoreError::Missing {
            table: Table::Blocks.name(),
            key: pre.cursor.number.to_string(),
        })?;
        let mut executor = StoreExecutor {
            change: &mut change,
            evm: &self.evm,
            tries: &mut live.tries,
            verify: self.options.verify_witness,
            journal: self.options.journal_removed,
            appended: Vec::new(),
            removed: Vec::new(),
            promoted: 0,
        };
        let out = step(self.params, &pre, safe.output_root, &l1, &*self.store, &mut executor)?;
        let StoreExecutor { appended, removed, promoted, .. } = executor;

        let found = bridge::write(&mut change, self.params, &pre, &out.post, &l1)?;
        let mut notes: Vec<NoteRow> = out.derived.notes.iter().map(note_row).collect();
        notes.extend(found.notes);
        for batch in &out.derived.batches {
            change.put_batch(&batch_row(batch, l1.at))?;
        }
        let row = L1Row {
            hash: l1.at.hash,
            time: l1.block.header.time,
            safe: out.post.cursor.number,
            deposits: u32::try_from(found.deposits.len()).unwrap_or(u32::MAX),
            notes: 0,
        };
        change.put_l1_block(l1.at, Some(&l1.block), &row)?;
        change.put_derived(&out.post, &out.claims)?;

        // The tracker asks for this block's own claims, which the change holds by now.
        let mut tracker = change.tracker()?;
        let assertions =
            tracker.on_l1_block(self.params, &l1, &OwnClaims(&change), &*self.store)?;
        notes.extend(write_assertions(&mut change, &tracker, &assertions)?);
        notes.extend(bonds::write(&mut change, self.params, &l1, &assertions)?);
        let count = u32::try_from(notes.len()).unwrap_or(u32::MAX);
        change.put_l1_block(l1.at, None, &L1Row { notes: count, ..row })?;
        change.put_notes(height, &notes)?;
        change.end(Domain::L1)?;
        self.finalize(&mut change, height)?;

        let outcome = Arc::new(L1Outcome {
            at: l1.at,
            appended,
            promoted,
            removed,
            batches: out.derived.batches,
            notes,
            assertions,
            deposits: found.deposits,
            paid: found.paid,
            safe: out.post.cursor.number,
            solvency: change.solvency()?,
        });
        report(&outcome);
        let removed = outcome.removed.iter().cloned().map(EngineEvent::Removed);
        let added = outcome.appended.iter().cloned().map(EngineEvent::NewBlock);
        let mut events: Vec<EngineEvent> = removed.chain(added).collect();
        events.push(EngineEvent::L1Connected(outcome.clone()));
        self.commit(&mut live, change, events)?;
        Ok(outcome)
    }

    /// Takes the processed tip back: Bitcoin has another block there. Blocks that it made safe are unsafe
    /// again, and those whose origin it is are unwound. One atomic write. Returns the new tip.
    ///
    /// # Errors
    /// [`EngineError::PastFinality`] when that would contradict a final block, the one halt;
    /// [`EngineError::StartOrphaned`] at the network's start; otherwise when this machine failed.
    pub fn disconnect_l1(&self) -> Result<L1Ref, EngineError> {
        let mut live = self.live.lock();
        let orphan = live.derive.l1;
        if orphan.height <= self.params.l1_start.height {
            return Err(EngineError::StartOrphaned { start: self.params.l1_start });
        }
        let mut change = self.store.change();
        let last_final = finalized(&change)?;
        let past_finality = || EngineError::PastFinality { orphan, finalized: last_final };
        match change.undo(Domain::L1, u64::from(orphan.height.0)) {
            Err(StoreError::NoUndo { .. }) => return Err(past_finality()),
            other => other?,
        }
        let tip = change.l1_tip()?.ok_or_else(past_finality)?;
        if change.safe_at(tip.height)? < last_final {
            return Err(past_finality());
        }
        let mut events = Vec::new();
        while let Some(latest) = change.latest()? {
            let origin = change.block_info(latest)?.map(|info| info.cursor.origin.height);
            if latest <= last_final || origin.is_none_or(|origin| origin <= tip.height) {
                break;
            }
            events.push(EngineEvent::Removed(Arc::new(unwind(
                &mut change,
                self.options.journal_removed,
            )?)));
        }
        tracing::info!(
            height = orphan.height.0, hash = %orphan.hash, unwound = events.len(),
            "an L1 block left Bitcoin's chain"
        );
        events.push(EngineEvent::L1Disconnected(orphan));
        self.commit(&mut live, change, events)?;
        Ok(tip)
    }

    /// Moves finality up, and drops undo records that it makes useless, but those that tell what to prune.
    fn finalize(&self, change: &mut Change<'_>, height: L1Height) -> Result<(), EngineError> {
        let above = self.params.finality_depth.saturating_sub(1);
        let Some(deep) = height.0.checked_sub(above) else { return Ok(()) };
        let before = finalized(change)?;
        let now = change.safe_at(L1Height(deep))?;
        if now > before {
            change.put_finalized(now)?;
            for number in before.next().0..=now.0 {
                if !self.options.prune {
                    change.forget(Domain::L2, number);
                }
                change.forget_signature(L2Number(number))?;
            }
        }
        if let Some(old) = deep.checked_sub(UNDO_MARGIN) {
            change.forget(Domain::L1, u64::from(old));
        }
        Ok(())
    }
}

/// Stores every assertion that moved, and says what did not count.
fn write_assertions(
    change: &mut Change<'_>,
    tracker: &AssertionTracker,
    events: &[AssertionEvent],
) -> Result<Vec<NoteRow>, EngineError> {
    let mut notes = Vec::new();
    for event in events {
        match event {
            AssertionEvent::Proposed { id, .. }
            | AssertionEvent::Settled { id, .. }
            | AssertionEvent::Challenged { id }
            | AssertionEvent::Unchallenged { id }
            | AssertionEvent::Rejected { id, .. } => {
                if let Some(node) = tracker.get(id) {
                    change.put_assertion(&AssertionRow::from(node))?;
                }
            }
            AssertionEvent::ProofFailed { id, at, verdict } => {
                let (label, why) = match verdict {
                    Verdict::Malformed { reason } => (reason.label(), reason.to_string()),
                    _ => ("no_fraud", "the segment is as the assertion says".to_owned()),
                };
                notes.push(NoteRow {
                    label: format!("proof_{label}"),
                    text: format!("proof against {id} in input {} of {}: {why}", at.input, at.txid),
                });
            }
            AssertionEvent::ProofIgnored { at, reason } => notes.push(NoteRow {
                label: format!("proof_{}", reason.label()),
                text: format!("proof in input {} of {}: {reason}", at.input, at.txid),
            }),
            AssertionEvent::Ignored { txid, input, fault } => notes.push(NoteRow {
                label: format!("assertion_{}", fault.label()),
                text: format!("assertion in input {input} of {txid}: {fault}"),
            }),
        }
    }
    change.put_tracker(tracker)?;
    Ok(notes)
}

fn batch_row(batch: &BatchSeen, l1: L1Ref) -> BatchRow {
    let (blocks, dropped) = match &batch.outcome {
        BatchOutcome::Accepted { first, last } => (Some((*first, *last)), None),
        BatchOutcome::Dropped(reason) => (None, Some(reason.to_string())),
    };
    BatchRow {
        index: batch.index,
        channel: batch.channel,
        body_hash: batch.body_hash,
        txids: batch.txids.clone(),
        l1,
        blocks,
        dropped,
    }
}

fn note_row(note: &Note) -> NoteRow {
    let text = match note {
        Note::Ignored { kind, txid, input, reason } => {
            format!("{kind:?} in input {input} of {txid}: {reason}")
        }
        Note::ChannelTimedOut { channel } => format!("channel {channel} was not complete in time"),
        Note::BatchDropped { index, reason } => format!("batch {index}: {reason}"),
        Note::BatchCut { index, number, fault } => {
            format!("batch {index} from block {number} on: {fault}")
        }
    };
    NoteRow { label: note.label().to_owned(), text }
}

/// How many notes there are of each label, as `label=count` in the order of labels. Anybody can put any
/// number of messages without effect into a block, so the log has one line for all.
fn counts(notes: &[NoteRow]) -> String {
    let mut counts = BTreeMap::<&str, usize>::new();
    for note in notes {
        *counts.entry(&note.label).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(label, n)| format!("{label}={n}")).collect();
    counts.join(" ")
}

fn report(outcome: &L1Outcome) {
    for note in &outcome.notes {
        tracing::debug!(
            height = outcome.at.height.0,
            label = note.label,
            "passed over: {}",
            note.text
        );
    }
    if !outcome.notes.is_empty() {
        let reasons = counts(&outcome.notes);
        tracing::info!(height = outcome.at.height.0, reasons, "passed over messages");
    }
    for note in outcome.notes.iter().filter(|note| note.label == bonds::SEIZED) {
        tracing::error!("the signers took a bond: {}", note.text);
    }
    for event in &outcome.assertions {
        match event {
            AssertionEvent::Settled { id, agrees: false } => tracing::error!(
                %id, "an assertion settled that contradicts this node: nobody challenged it"
            ),
            AssertionEvent::Proposed { id, agrees: false } => {
                tracing::error!(%id, "an assertion contradicts this node");
            }
            AssertionEvent::Proposed { id, agrees: true } => {
                tracing::info!(%id, "assertion proposed")
            }
            AssertionEvent::Settled { id, agrees: true } => {
                tracing::info!(%id, "assertion settled")
            }
            AssertionEvent::Challenged { id } => {
                tracing::warn!(%id, "a proof against an assertion has begun");
            }
            AssertionEvent::Unchallenged { id } => {
                tracing::info!(%id, "no proof against an assertion is under way any more");
            }
            AssertionEvent::Rejected { id, proof: Some(proof) } => tracing::warn!(
                %id, segment = proof.segment, kind = proof.kind.label(), "an assertion was proven wrong"
            ),
            AssertionEvent::Rejected { id, proof: None } => {
                tracing::warn!(%id, "an assertion fell with its parent");
            }
            AssertionEvent::Ignored { .. }
            | AssertionEvent::ProofFailed { .. }
            | AssertionEvent::ProofIgnored { .. } => {}
        }
    }
    if !outcome.solvency.holds() {
        tracing::error!(solvency = ?outcome.solvency, "the vault does not cover what it owes");
    }
    let height = outcome.at.height.0;
    let busy = outcome.promoted > 0
        || !outcome.removed.is_empty()
        || !outcome.batches.is_empty()
        || !outcome.deposits.is_empty()
        || !outcome.paid.is_empty();
    // A first synchronisation passes many Bitcoin blocks that hold nothing of ours.
    if busy || height.is_multiple_of(1000) {
        tracing::info!(
            height,
            safe = outcome.safe.0,
            promoted = outcome.promoted,
            executed = outcome.appended.len(),
            unwound = outcome.removed.len(),
            batches = outcome.batches.len(),
            deposits = outcome.deposits.len(),
            paid = outcome.paid.len(),
            "processed an L1 block"
        );
    } else {
        tracing::debug!(height, safe = outcome.safe.0, "processed an L1 block");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_without_effect_are_counted_by_reason() {
        let note = |label: &str| NoteRow { label: label.to_owned(), text: String::new() };
        let notes = [note("signature"), note("index"), note("signature")];
        assert_eq!(counts(&notes), "index=1 signature=2");
    }
}
