//! Dishonest people: a proposer who asserts what is not, a challenger who proves what is not, somebody who
//! copies proofs that he sees, and somebody who has the sequencer's key and posts garbage.

use super::host::{key, sequencer_key};
use super::purse::Purse;
use super::users::User;
use crate::sim_bitcoin::SimBitcoin;
use alloy_primitives::{Address, B256};
use anyhow::{Context, Result};
use bitcoin::{OutPoint, TxOut, Txid};
use kedge::clock::Clock;
use kedge::engine::Engine;
use kedge::l1::Bitcoin as _;
use kedge::publisher::{FeePolicy, Part};
use kedge_bridge::assertion::AssertionBody;
use kedge_bridge::batch::{Batch, BatchBlock, encode};
use kedge_bridge::bond::Bond;
use kedge_bridge::envelope::{EnvelopeHeader, Kind, envelopes, sign_batch, split};
use kedge_fraud_proof::{AssertionNode, Claim, PreState, Proof, build_proof, genesis_claim};
use kedge_genesis::{L1Height, L2Number, Params, Sats};
use kedge_store::{L1Rows, L2Rows, OwnClaims};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All of them.
pub(super) struct Liars {
    params: &'static Params,
    liar: Purse,
    bluffer: Purse,
    copier: Purse,
    rogue: Purse,
    /// Reveals of the liar's assertions.
    bonds: BTreeSet<Txid>,
    /// Chunks of others' proofs, by channel.
    seen: BTreeMap<B256, BTreeMap<u16, (EnvelopeHeader, Vec<u8>)>>,
    copied: BTreeSet<B256>,
}

fn random_hash(rng: &mut StdRng) -> B256 {
    let mut hash = B256::ZERO;
    rng.fill_bytes(hash.as_mut_slice());
    hash
}

impl Liars {
    pub(super) fn new(
        params: &'static Params,
        bitcoin: &Arc<SimBitcoin>,
        clock: &Clock,
    ) -> Result<Self> {
        let purse = |name| Purse::new(name, params, bitcoin.clone(), clock.clone());
        Ok(Self {
            params,
            liar: purse("liar")?,
            bluffer: purse("bluffer")?,
            copier: purse("copier")?,
            rogue: purse("rogue")?,
            bonds: BTreeSet::new(),
            seen: BTreeMap::new(),
            copied: BTreeSet::new(),
        })
    }

    /// Sees to what they have published, and takes the liar's bonds back as soon as Bitcoin lets him.
    pub(super) async fn tick(&mut self) -> Result<()> {
        for purse in [&self.liar, &self.bluffer, &self.copier, &self.rogue] {
            purse.tick().await?;
        }
        for publication in self.liar.publisher.pending().await {
            self.bonds.extend(publication.reveals.iter().filter_map(|reveal| reveal.txid));
        }
        if self.bonds.is_empty() {
            return Ok(());
        }
        let key = key("liar");
        let bond = Bond::of(self.params, key.x_only_public_key().0).context("there are signers")?;
        for txid in &self.bonds {
            let outpoint = OutPoint::new(*txid, 0);
            let Some(unspent) = self.liar.bitcoin.tx_out(&outpoint, true).await? else { continue };
            if unspent.confirmations < u32::from(bond.delay()) {
                continue;
            }
            let value = Sats(unspent.output.value.to_sat());
            let to = self.liar.wallet.change_script()?;
            let rate = FeePolicy::default().now(&*self.liar.bitcoin).await?;
            if let Some(tx) = bond.return_spend(outpoint, value, to, rate, &key) {
                // Refused when a slash waits in the mempool that pays more.
                let _ = self.liar.bitcoin.submit(&tx);
            }
        }
        Ok(())
    }

    /// Asserts what is not so, or what is so without need.
    pub(super) async fn lie(
        &mut self,
        rng: &mut StdRng,
        engine: &Engine,
    ) -> Result<Option<String>> {
        let Some((what, body, bond)) = self.made_up(rng, engine)? else { return Ok(None) };
        let parts = split(
            Kind::Assertion,
            self.params.chain_id,
            0,
            B256::ZERO,
            &body.encode(),
            self.params,
        );
        let Ok(parts) = parts else { return Ok(None) };
        let owner = self.liar.publisher.key();
        let output = Bond::of(self.params, owner).context("there are signers")?.tx_out(bond);
        let parts = parts
            .into_iter()
            .map(|part| Part { output: Some(output.clone()), ..Part::from(part) })
            .collect();
        self.liar.publish(Kind::Assertion, parts).await?;
        Ok(Some(format!("liar asserts up to {}: {what}", body.l1.height)))
    }

    fn made_up(
        &self,
        rng: &mut StdRng,
        engine: &Engine,
    ) -> Result<Option<(&'static str, AssertionBody, Sats)>> {
        let reader = engine.store().reader();
        let tracker = reader.tracker()?;
        let own = OwnClaims(&reader);
        let Some(mut body) = tracker.build_assertion(self.params, &own)? else { return Ok(None) };
        let from = tracker
            .get(&body.parent)
            .map_or(self.params.l1_start.height, |parent| parent.l1.height);
        let mut claims: Vec<Claim> = Vec::new();
        for height in from.next().0..=body.l1.height.0 {
            claims.extend(reader.claims(L1Height(height))?.context("it has the claims")?);
        }
        let mut bond = self.params.proposer_bond;
        let wrong = rng.random_range(0..claims.len());
        let mut spoil = |change: &mut dyn FnMut(&mut Claim)| {
            if let Some(claim) = claims.get_mut(wrong) {
                change(claim);
            }
            // What follows a wrong claim may be right or not.
            body.claims = claims.iter().map(Claim::hash).collect();
        };
        let what = match rng.random_range(0..14) {
            0..=2 => {
                let root = random_hash(rng);
                spoil(&mut |claim| claim.output_root = root);
                "a wrong output root"
            }
            3 => {
                spoil(&mut |claim| claim.number = claim.number.next());
                "a wrong block number"
            }
            4 => {
                let state = random_hash(rng);
                spoil(&mut |claim| claim.derive_state = state);
                "a wrong derive state"
            }
            5 => {
                spoil(&mut |claim| claim.offset += 1);
                "a wrong boundary"
            }
            6 => {
                spoil(&mut |claim| claim.l1_height = claim.l1_height.next());
                "a wrong L1 height"
            }
            7 if body.claims.len() > 1 => {
                body.claims.pop();
                "a segment missing"
            }
            7 | 8 => {
                body.claims.push(random_hash(rng));
                "a segment too many"
            }
            9 => "the truth once more",
            10 => {
                body.parent = random_hash(rng);
                "a parent that is none"
            }
            11 => {
                body.params_hash = random_hash(rng);
                "other parameters"
            }
            12 => {
                bond = Sats(bond.0 - 1);
                "a bond too small"
            }
            _ => {
                let wrong: Vec<&AssertionNode> = tracker
                    .nodes()
                    .iter()
                    .filter(|node| !node.agrees && node.l1.height < body.l1.height)
                    .collect();
                let Some(parent) = wrong.choose(rng) else { return Ok(None) };
                body.parent = parent.id;
                body.claims = Vec::new();
                for height in parent.l1.height.next().0..=body.l1.height.0 {
                    let own = reader.claims(L1Height(height))?.context("it has the claims")?;
                    body.claims.extend(own.iter().map(Claim::hash));
                }
                "a wrong parent continued"
            }
        };
        Ok(Some((what, body, bond)))
    }

    /// Publishes a proof that proves nothing.
    pub(super) async fn bluff(
        &mut self,
        rng: &mut StdRng,
        engine: &Arc<Engine>,
    ) -> Result<Option<String>> {
        let tracker = engine.tracker()?;
        let open: Vec<&AssertionNode> =
            tracker.nodes().iter().filter(|node| node.is_open()).collect();
        let Some(node) = open.choose(rng) else { return Ok(None) };
        let segment = rng.random_range(0..=node.claims.len());
        let Some((what, proof)) = self.made_up_proof(rng, engine, node, segment)? else {
            return Ok(None);
        };
        let parts = split(Kind::Proof, self.params.chain_id, 0, B256::ZERO, &proof, self.params);
        let Ok(parts) = parts else { return Ok(None) };
        let parts = parts.into_iter().map(Part::from).collect();
        self.bluffer.publish(Kind::Proof, parts).await?;
        let (id, bytes) = (node.id, proof.len());
        Ok(Some(format!("bluffer posts {what} of {bytes} bytes against {id}")))
    }

    fn made_up_proof(
        &self,
        rng: &mut StdRng,
        engine: &Arc<Engine>,
        node: &AssertionNode,
        segment: usize,
    ) -> Result<Option<(&'static str, Vec<u8>)>> {
        let mut bytes = match self.built(engine, node, segment)? {
            Some(mut proof) => {
                if let (Some(run), true) = (&mut proof.run, rng.random_bool(0.5)) {
                    run.post.output_root = random_hash(rng);
                    return Ok(Some(("a proof with a made-up claim", proof.encode())));
                }
                proof.encode()
            }
            None => {
                let mut junk = vec![0; rng.random_range(1..3_000)];
                rng.fill_bytes(&mut junk);
                return Ok(Some(("noise", junk)));
            }
        };
        Ok(Some(match rng.random_range(0..4) {
            0 => ("a proof of what is not disputed", bytes),
            1 => {
                bytes.truncate(rng.random_range(1..bytes.len()));
                ("a truncated proof", bytes)
            }
            2 => {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                ("a proof with a bit flipped", bytes)
            }
            _ => {
                bytes.push(0);
                ("a proof with a byte too many", bytes)
            }
        }))
    }

    /// A proof about a segment before which the assertion is right, by the rules of building them.
    fn built(
        &self,
        engine: &Arc<Engine>,
        node: &AssertionNode,
        segment: usize,
    ) -> Result<Option<Proof>> {
        let reader = engine.store().reader();
        let mut own = vec![if node.from == self.params.l1_start.height {
            genesis_claim(self.params).context("there are keys")?
        } else {
            let claims = reader.claims(node.from)?.context("it has the claims")?;
            *claims.last().context("every block has one")?
        }];
        for height in node.from.next().0..=node.l1.height.0 {
            own.extend(reader.claims(L1Height(height))?.context("it has the claims")?);
        }
        let before = match segment.checked_sub(1) {
            None => Some(&node.base),
            Some(before) => node.claims.get(before),
        };
        let claim = own.get(segment).filter(|claim| Some(&claim.hash()) == before);
        let Some(claim) = claim.copied() else { return Ok(None) };
        let number: L2Number = claim.number;
        let pre = PreState {
            claim,
            state: reader.derive_state(claim.l1_height)?.context("it has the state")?,
            header: reader.header(number)?.context("it has the header")?,
        };
        let segment = u32::try_from(segment)?;
        let source = reader.state_at(number)?;
        let store = engine.store();
        Ok(build_proof(self.params, &**store, &node.view(), segment, &pre, source).ok())
    }

    /// Copies what proofs it sees revealed in the mempool, under its own key.
    pub(super) async fn copy(&mut self) -> Result<Vec<String>> {
        let mut copies = Vec::new();
        let own = [&self.copier, &self.bluffer].map(|purse| purse.publisher.key());
        for tx in self.copier.bitcoin.waiting() {
            for (_, envelope) in envelopes(&tx) {
                if envelope.kind != Kind::Proof || own.contains(&envelope.publisher) {
                    continue;
                }
                let channel = envelope.header.channel_id(Kind::Proof);
                let chunks = self.seen.entry(channel).or_default();
                chunks.insert(envelope.header.chunk, (envelope.header.clone(), envelope.body));
                if chunks.len() == envelope.header.chunks.len() && self.copied.insert(channel) {
                    let parts = chunks.values().cloned().map(Part::from).collect();
                    self.copier.publish(Kind::Proof, parts).await?;
                    copies.push(format!("copier copies a proof, channel {channel}"));
                }
            }
        }
        Ok(copies)
    }

    /// Posts a batch that the sequencer signed and that is worth nothing or little.
    pub(super) async fn garbage(
        &mut self,
        rng: &mut StdRng,
        engine: &Engine,
    ) -> Result<Option<String>> {
        let (state, latest) = {
            let reader = engine.store().reader();
            let heads = engine.heads();
            (reader.derive_state(heads.l1_tip.height)?.context("it has the state")?, heads.latest)
        };
        let cursor = state.cursor;
        let mut last_origin = [0; 20];
        last_origin.copy_from_slice(&cursor.origin.hash[..20]);
        let block = |timestamp, epoch_step, transactions| BatchBlock {
            timestamp,
            epoch_step,
            transactions,
        };
        let mut index = state.next_batch;
        let mut sign = true;
        let (what, batch) = match rng.random_range(0..7) {
            0 => ("noise", None),
            1 => {
                let blocks = vec![block(cursor.timestamp + 1, false, Vec::new())];
                let first = latest.number.next().next();
                ("a batch that starts too late", Some(Batch { first, last_origin, blocks }))
            }
            2 => {
                let blocks = vec![block(0, false, Vec::new())];
                let first = cursor.number.next();
                ("a batch of the past", Some(Batch { first, last_origin, blocks }))
            }
            3 => {
                // Nobody has given him anything.
                let pays = User::new(rng.next_u64())?.transfer(self.params, Address::ZERO, 1)?;
                let blocks = vec![block(cursor.timestamp + 1, false, vec![pays])];
                let first = cursor.number.next();
                ("a batch of what cannot be executed", Some(Batch { first, last_origin, blocks }))
            }
            4 => {
                // Valid where it stands, and not what the sequencer has made.
                let blocks = vec![block(cursor.timestamp + 7, false, Vec::new())];
                let first = cursor.number.next();
                ("another empty block", Some(Batch { first, last_origin, blocks }))
            }
            5 => {
                index += 1;
                ("a batch ahead of its turn", None)
            }
            _ => {
                sign = false;
                ("an unsigned batch", None)
            }
        };
        let body = match batch {
            Some(batch) => encode(&batch)?,
            None => {
                let mut junk = vec![0; rng.random_range(1..500)];
                rng.fill_bytes(&mut junk);
                junk
            }
        };
        let mut parts =
            split(Kind::Batch, self.params.chain_id, index, state.prev_body, &body, self.params)?;
        sign_batch(&mut parts, &if sign { sequencer_key() } else { key("rogue") });
        let parts = parts.into_iter().map(Part::from).collect();
        self.rogue.publish(Kind::Batch, parts).await?;
        Ok(Some(format!("rogue posts {what}, index {index}")))
    }

    /// Posts an envelope that says nothing, or says it wrongly.
    pub(super) async fn malformed(&mut self, rng: &mut StdRng, vault: &TxOut) -> Result<String> {
        let kinds = [Kind::Forced, Kind::Assertion, Kind::Proof];
        let kind = *kinds.choose(rng).context("there are kinds")?;
        let mut body = vec![0; rng.random_range(1..400)];
        rng.fill_bytes(&mut body);
        let chain = if rng.random_bool(0.3) { 1 } else { self.params.chain_id };
        let mut parts = split(kind, chain, rng.random_range(0..3), B256::ZERO, &body, self.params)?;
        if rng.random_bool(0.3) {
            for (header, _) in &mut parts {
                header.prev_body = random_hash(rng);
            }
        }
        let output = rng.random_bool(0.5).then(|| vault.clone());
        let parts =
            parts.into_iter().map(|part| Part { output: output.clone(), ..Part::from(part) });
        self.rogue.publish(kind, parts.collect()).await?;
        Ok(format!("rogue posts a malformed {kind:?}"))
    }
}
