//! Claims about a chain that is not: what a liar's node would derive if payloads were others.

use super::{Arena, End, key};
use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use kedge_bridge::assertion::AssertionBody;
use kedge_bridge::derive::{L1Block, L1Lookup, L2Cursor};
use kedge_fraud_proof::{
    Applied, AssertionEvent, AssertionView, Claim, Executor, FraudKind, PreState, Proof,
    build_proof, genesis_claim, step,
};
use kedge_genesis::{L1Height, L2Number};
use kedge_store::{L1Rows, L2Rows};
use kedge_vm::{EvmConfig, ExecuteError, Payload, StateSource, TrieDb, TrieDbError};

/// Executes payloads after changing them.
struct Altered<S, F> {
    config: EvmConfig,
    db: TrieDb<S>,
    alter: F,
}

impl<S: StateSource, F: FnMut(&mut Payload)> Executor for Altered<S, F> {
    type Error = ExecuteError<TrieDbError<S::Error>>;

    fn apply(&mut self, payload: &Payload, _: &L2Cursor) -> Result<Applied, Self::Error> {
        let mut payload = payload.clone();
        (self.alter)(&mut payload);
        let block = self.db.execute(&self.config, &payload)?;
        Ok(Applied {
            number: payload.number,
            output_root: block.output_root,
            metered_gas: block.metered_gas,
            witness_bytes: block.witness_bytes,
        })
    }
}

impl Arena {
    /// The claims of the Bitcoin blocks above `from` up to `to` if every payload were as `alter` makes it:
    /// really executed, with all that follows from it.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn claims_if(
        &self,
        from: L1Height,
        to: L1Height,
        alter: impl FnMut(&mut Payload),
    ) -> Result<Vec<Claim>> {
        let store = self.engine.store();
        let reader = store.reader();
        let base = if from == self.params.l1_start.height {
            genesis_claim(self.params)
        } else {
            reader.claims(from)?.and_then(|claims| claims.last().copied())
        };
        let base = base.with_context(|| format!("no claim at {from}"))?;
        let mut state = reader.derive_state(from)?.context("no derive state")?;
        let head = reader.header(base.number)?.context("no header")?;
        let mut executor = Altered {
            config: EvmConfig::from_params(self.params),
            db: TrieDb::new(reader.state_at(base.number)?, head),
            alter,
        };
        let mut root = base.output_root;
        let mut claims = Vec::new();
        for height in (from.next().0..=to.0).map(L1Height) {
            let l1 = L1Block::new(height, store.l1_block(height)?);
            let out = step(self.params, &state, root, &l1, &**store, &mut executor)
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            root = out.claims.last().context("a step has a claim")?.output_root;
            state = out.post;
            claims.extend(out.claims);
        }
        Ok(claims)
    }
}

/// What an adversary asserts, and what has to come out.
#[derive(Clone, Debug)]
pub struct Lie {
    /// The assertion.
    pub body: AssertionBody,
    /// The segment that the proof has to be about.
    pub segment: usize,
    /// What has to be wrong in it.
    pub kind: FraudKind,
}

impl Arena {
    /// The true chain but for a wrong root after block `number`.
    ///
    /// # Errors
    /// When no assertion covers that block yet.
    pub fn lie_about(&self, number: L2Number) -> Result<Lie> {
        let mut body = self.truth()?;
        let claims = self.claims(self.params.l1_start.height, body.l1.height)?;
        let segment = claims.iter().position(|claim| claim.number >= number);
        let segment = segment.with_context(|| format!("block {number} is not final yet"))?;
        let claim = Claim { output_root: B256::repeat_byte(0xbd), ..claims[segment] };
        body.claims[segment] = claim.hash();
        Ok(Lie { body, segment, kind: FraudKind::OutputRoot })
    }

    /// What an honest challenger would publish about a segment of an assertion that continues nothing and
    /// is true before that segment.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn proof_about(&self, view: &AssertionView<'_>, segment: usize) -> Result<Proof> {
        let claims = self.claims(self.params.l1_start.height, view.l1.height)?;
        let before = segment.checked_sub(1).and_then(|before| claims.get(before)).copied();
        let claim =
            before.or_else(|| genesis_claim(self.params)).context("the network has keys")?;
        let reader = self.engine.store().reader();
        let state = reader.derive_state(claim.l1_height)?.context("no derive state")?;
        let header = reader.header(claim.number)?.context("no header")?;
        let (pre, source) = (PreState { claim, state, header }, reader.state_at(claim.number)?);
        let segment = u32::try_from(segment)?;
        Ok(build_proof(self.params, &**self.engine.store(), view, segment, &pre, source)?)
    }

    /// The same about the segment of a lie.
    ///
    /// # Errors
    /// When this machine fails.
    pub fn proof_against(&self, lie: &Lie) -> Result<Proof> {
        let base = genesis_claim(self.params).context("the network has keys")?.hash();
        let Lie { body, segment, .. } = lie;
        let view = AssertionView { id: B256::ZERO, base, l1: body.l1, claims: &body.claims };
        self.proof_about(&view, *segment)
    }

    /// Lies about an honest chain: all are asserted in one block, then the honest proposer asserts. The honest
    /// challenger proves each wrong, whom their bonds pay; the honest assertion settles, and its bond returns.
    ///
    /// # Errors
    /// When it is otherwise.
    pub async fn overturns(mut self, lies: Vec<Lie>) -> Result<()> {
        let (mut txs, mut events, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for lie in &lies {
            let (id, hand) = self.assertion(&key("liar"), &lie.body)?;
            txs.extend(hand.all());
            events.push(AssertionEvent::Proposed { id, agrees: false });
            ends.push((id, End::rejected(lie.segment, lie.kind, &self.challenger())));
        }
        let found = self.mine(&txs).await?;
        ensure!(found == events, "the node says {found:?}");
        ends.push((self.propose().await?, End::Settled));
        self.challenge().await?;
        self.mine_past_deadlines().await?;
        self.ends(&ends).await?;
        self.bonds_pay(&ends).await?;
        self.everybody_is_paid(&ends).await?;
        self.ends(&ends).await
    }
}
