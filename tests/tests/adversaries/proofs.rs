//! Proofs that prove nothing: none rejects an assertion, right or wrong, and none keeps anybody from proving
//! a wrong one wrong.

use crate::Result;
use alloy_primitives::{B256, Bytes, keccak256};
use anyhow::{Context, ensure};
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut, key::Keypair};
use kedge::publisher::Part;
use kedge_bridge::{
    commit::{Commit, CommitOutput, reveal},
    deflate::{InflateFault, deflate},
    envelope::{Kind, leaf_script, split},
};
use kedge_fraud_proof::{
    AssertionEvent, AssertionStatus, FraudKind, Malformed, Proof, ProofFault, ProofIgnored,
    Verdict,
    proof::{HEAD_BYTES, MAX_CONTENT_BYTES},
    verify,
};
use kedge_genesis::Params;
use kedge_tests::adversary::{Arena, End, Ground, Lie, key, sequencer};

/// A wrong and a right assertion, and the proof that the wrong one is wrong.
struct Case {
    arena: Arena,
    /// Publishes the proofs that prove nothing.
    hostile: Keypair,
    wrong: B256,
    right: B256,
    segment: usize,
    proof: Vec<u8>,
}

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Failed(B256, Verdict),
    Ignored(ProofIgnored),
}

impl Case {
    async fn new(ground: Ground, adjust: impl FnOnce(&mut Params)) -> Result<Self> {
        let mut arena = Arena::busy_with(ground, adjust).await?;
        let last = arena.engine.heads().finalized.number;
        let Lie { body, segment, .. } = arena.lie_about(last)?;
        let (wrong, one) = arena.assertion(&key("liar"), &body)?;
        let (right, two) = arena.assertion(&key("proposer"), &arena.truth()?)?;
        arena.mine(&[one.all(), two.all()].concat()).await?;
        let proof = arena.proof_of(wrong)?;
        Ok(Self { arena, hostile: key("hostile prover"), wrong, right, segment, proof })
    }

    /// Mines these proofs in one block and gives what became of them.
    async fn publish(&mut self, proofs: &[Vec<u8>]) -> Result<Vec<Outcome>> {
        let mut txs = Vec::new();
        for proof in proofs {
            txs.extend(self.arena.proof(&self.hostile, proof)?.all());
        }
        self.mine(&txs).await
    }

    async fn mine(&mut self, txs: &[Transaction]) -> Result<Vec<Outcome>> {
        let events = self.arena.mine(txs).await?;
        events
            .iter()
            .map(|event| match event {
                AssertionEvent::ProofFailed { id, verdict, .. } => {
                    Ok(Outcome::Failed(*id, *verdict))
                }
                AssertionEvent::ProofIgnored { reason, .. } => Ok(Outcome::Ignored(*reason)),
                other => anyhow::bail!("a proof that proves nothing has come to {other:?}"),
            })
            .collect()
    }

    /// Publishes one proof against the wrong assertion after the other, in one block.
    async fn fail(&mut self, proofs: &[Vec<u8>], expected: &[Malformed]) -> Result {
        let expected: Vec<_> = expected
            .iter()
            .map(|reason| Outcome::Failed(self.wrong, Verdict::Malformed { reason: *reason }))
            .collect();
        let found = self.publish(proofs).await?;
        ensure!(found == expected, "they came to {found:#?}, not to {expected:#?}");
        Ok(())
    }

    /// The wrong assertion is still proven wrong by the challenger, the right one still settles.
    async fn ends(mut self) -> Result {
        ensure!(self.arena.node(self.wrong)?.is_open() && self.arena.node(self.right)?.is_open());
        self.arena.challenge().await?;
        self.arena.mine_past_deadlines().await?;
        let challenger = self.arena.challenger();
        let rejected = End::rejected(self.segment, FraudKind::OutputRoot, &challenger);
        let ends = [(self.wrong, rejected), (self.right, End::Settled)];
        self.arena.ends(&ends).await?;
        self.arena.bonds_pay(&ends).await
    }

    /// The proof with another content.
    fn with(&self, change: impl FnOnce(&mut Proof) -> Result) -> Result<Vec<u8>> {
        let mut proof = Proof::decode(&self.proof)?;
        change(&mut proof)?;
        Ok(proof.encode())
    }

    /// What a proof would come to against the wrong assertion.
    fn verdict(&self, proof: &[u8]) -> Result<Verdict> {
        let (engine, node) = (&self.arena.engine, self.arena.node(self.wrong)?);
        Ok(verify(self.arena.params, &**engine.store(), &node.view(), proof)?)
    }
}

const STREAM: Malformed = Malformed::Encoding(ProofFault::Compression(InflateFault::Stream));

/// True statements about the right assertion, the proof against the wrong one readdressed to it, and one that
/// says another claim follows than does.
pub(crate) async fn proof_for_right_assertion(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let engine = case.arena.engine.clone();
    ensure!(engine.build_proof(case.right)?.is_none(), "the node would prove a right one wrong");
    let node = case.arena.node(case.right)?;
    let mut proofs = Vec::new();
    let mut verdicts = Vec::new();
    for segment in [1, node.claims.len() - 1] {
        let proof = case.arena.proof_about(&node.view(), segment)?;
        proofs.push(proof.encode());
        verdicts.push(Verdict::NoFraud);
        let mut other = proof.clone();
        other.run.as_mut().context("it executes")?.post.output_root = B256::ZERO;
        proofs.push(other.encode());
        verdicts.push(Verdict::NoFraud);
        let mut missing = proof;
        missing.run = None;
        proofs.push(missing.encode());
        verdicts.push(Verdict::Malformed { reason: Malformed::Run });
    }
    let readdressed = case.with(|proof| {
        proof.head.assertion = node.id;
        proof.asserted = None;
        Ok(())
    })?;
    proofs.push(readdressed);
    verdicts.push(Verdict::NoFraud);
    for (proof, expected) in proofs.iter().zip(verdicts) {
        let found = verify(case.arena.params, &**engine.store(), &node.view(), proof)?;
        assert_eq!(found, expected);
    }
    // Nodes that agree with an assertion do not execute proofs against it: nothing can come of them.
    let expected = vec![Outcome::Failed(case.right, Verdict::NoFraud); proofs.len()];
    assert_eq!(case.publish(&proofs).await?, expected);
    case.ends().await
}

/// The right proof, cut at its head, in its head, and in its content.
pub(crate) async fn proof_truncated(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let lengths = [HEAD_BYTES, HEAD_BYTES + 1, case.proof.len() / 2, case.proof.len() - 1];
    let cut: Vec<_> = lengths.map(|length| case.proof[..length].to_vec()).into();
    case.fail(&cut, &[STREAM; 4]).await?;
    let cut: Vec<_> = [1, 33, HEAD_BYTES - 1].map(|length| case.proof[..length].to_vec()).into();
    let short = Outcome::Ignored(ProofIgnored::Head(ProofFault::Short));
    assert_eq!(case.publish(&cut).await?, [short; 3]);
    for length in (0..case.proof.len()).step_by(19) {
        let verdict = case.verdict(&case.proof[..length])?;
        ensure!(matches!(verdict, Verdict::Malformed { .. }), "{length} bytes are {verdict:?}");
    }
    case.ends().await
}

/// The right proof with one bit flipped, everywhere in its head and here and there in its compressed and its
/// plain content: none of that is fraud.
pub(crate) async fn proof_bit_flipped(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let flipped = |at: usize, bit: usize| {
        let mut proof = case.proof.clone();
        proof[at] ^= 1 << bit;
        proof
    };
    let is_fraud = |proof: &[u8]| -> Result<bool> {
        Ok(matches!(case.verdict(proof)?, Verdict::Fraud { .. }))
    };
    for at in 0..HEAD_BYTES {
        ensure!(!is_fraud(&flipped(at, at % 8))?, "a flip in byte {at} is fraud");
    }
    let content = Proof::decode(&case.proof)?.content();
    for at in (0..content.len()).step_by(41) {
        let mut content = content.clone();
        content[at] ^= 1 << (at % 8);
        let proof = [&case.proof[..HEAD_BYTES], &deflate(&content)].concat();
        ensure!(!is_fraud(&proof)?, "a flip in byte {at} of the content is fraud");
    }
    let mut changed = content;
    *changed.last_mut().context("it is not empty")? ^= 1;
    let changed = [&case.proof[..HEAD_BYTES], &deflate(&changed)].concat();
    let (version, params, id, segment) =
        (flipped(0, 0), flipped(1, 0), flipped(33, 0), flipped(HEAD_BYTES - 1, 0));
    let verdict = case.verdict(&changed)?;
    ensure!(matches!(verdict, Verdict::Malformed { .. }), "{verdict:?}");
    let wrong = case.wrong;
    let expected = [
        Outcome::Ignored(ProofIgnored::Head(ProofFault::Version { found: 1 })),
        Outcome::Ignored(ProofIgnored::NotOurs),
        Outcome::Ignored(ProofIgnored::Unknown),
        Outcome::Failed(wrong, Verdict::Malformed { reason: Malformed::Pre }),
        Outcome::Failed(wrong, verdict),
    ];
    assert_eq!(case.publish(&[version, params, id, segment, changed]).await?, expected);
    case.ends().await
}

/// The right proof with a trie node and a code more than the segment reads.
pub(crate) async fn proof_with_extra_nodes(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let bytes = Bytes::from(vec![0xc0; 40]);
    let node = case.with(|proof| {
        let run = proof.run.as_mut().context("it executes")?;
        run.witness.nodes.insert(keccak256(&bytes), bytes.clone());
        Ok(())
    })?;
    let code = case.with(|proof| {
        let run = proof.run.as_mut().context("it executes")?;
        run.witness.codes.insert(keccak256(&bytes), bytes.clone());
        Ok(())
    })?;
    case.fail(&[node, code], &[Malformed::Excess; 2]).await?;
    case.ends().await
}

/// The right proof without one of the trie nodes or codes that the segment reads, whichever it is.
pub(crate) async fn proof_with_missing_node(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let whole = Proof::decode(&case.proof)?.run.context("it executes")?.witness;
    let mut proofs = Vec::new();
    for hash in whole.nodes.keys().chain(whole.codes.keys()) {
        proofs.push(case.with(|proof| {
            let run = proof.run.as_mut().context("it executes")?;
            run.witness.nodes.remove(hash);
            run.witness.codes.remove(hash);
            Ok(())
        })?);
    }
    ensure!(proofs.len() > 20, "{} nodes are few", proofs.len());
    for proof in &proofs {
        assert_eq!(case.verdict(proof)?, Verdict::Malformed { reason: Malformed::Incomplete });
    }
    let some: Vec<_> = proofs.into_iter().step_by(5).collect();
    case.fail(&some, &vec![Malformed::Incomplete; some.len()]).await?;
    case.ends().await
}

/// A chunk larger than a chunk may be, and a proof of more chunks than a channel may have. A miner takes the
/// first though nobody would relay it.
pub(crate) async fn proof_over_size(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let params = case.arena.params;
    let most = params.max_chunk_bytes as usize;
    let mut large = case.proof.clone();
    large.resize(most + 1, 0);
    // What the format can say is more than what this chain takes.
    let other = Params { max_chunk_bytes: params.max_chunk_bytes + 1, ..*params };
    let part = split(Kind::Proof, params.chain_id, 0, B256::ZERO, &large, &other)?;
    let parts: Vec<Part> = part.into_iter().map(Part::from).collect();
    let large = case.arena.envelopes(&case.hostile, Kind::Proof, &parts)?;
    let count = u32::from(params.max_chunks) + 1;
    let size = u32::try_from(case.proof.len())?.div_ceil(count);
    let other = Params { max_chunk_bytes: size, max_chunks: params.max_chunks + 1, ..*params };
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, &case.proof, &other)?;
    assert_eq!(parts.len(), count as usize);
    let parts: Vec<Part> = parts.into_iter().map(Part::from).collect();
    let many = case.arena.envelopes(&case.hostile, Kind::Proof, &parts)?;
    let found = case.mine(&[large.all(), many.all()].concat()).await?;
    assert_eq!(found, vec![Outcome::Ignored(ProofIgnored::NotOurs); 1 + parts.len()]);
    // As a file it is as worthless.
    let whole = vec![0; most * usize::from(params.max_chunks) + 1];
    assert_eq!(case.verdict(&whole)?, Verdict::Malformed { reason: Malformed::TooLarge });
    case.ends().await
}

/// A few hundred kilobytes that inflate to as many megabytes: a verifier stops at its limit.
pub(crate) async fn proof_decompression_bomb(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let head = case.proof[..HEAD_BYTES].to_vec();
    let zeros = [&head[..], &deflate(&vec![0; 128 << 20])].concat();
    ensure!(zeros.len() < case.arena.params.max_chunk_bytes as usize);
    // One that is what it should be up to the limit, and then goes on.
    let mut content = Proof::decode(&case.proof)?.content();
    content.resize(MAX_CONTENT_BYTES + 1, 0);
    let after = [&head[..], &deflate(&content)].concat();
    content.pop();
    let full = [&head[..], &deflate(&content)].concat();
    let large = Malformed::Encoding(ProofFault::Compression(InflateFault::TooLarge));
    let content = Malformed::Encoding(ProofFault::Content);
    case.fail(&[zeros, after, full], &[large, large, content]).await?;
    case.ends().await
}

/// The right proof in envelopes of another chain, and one that names the parameters of another chain.
pub(crate) async fn proof_for_other_chain(ground: Ground) -> Result {
    let mut case = Case::new(ground, |_| {}).await?;
    let params = case.arena.params;
    let parts = split(Kind::Proof, params.chain_id + 1, 0, B256::ZERO, &case.proof, params)?;
    let parts: Vec<Part> = parts.into_iter().map(Part::from).collect();
    let envelopes = case.arena.envelopes(&case.hostile, Kind::Proof, &parts)?;
    let other = Params { challenge_window: params.challenge_window + 1, ..*params }.hash();
    let proof = case.with(|proof| {
        proof.head.params = other;
        Ok(())
    })?;
    assert_eq!(case.verdict(&proof)?, Verdict::Malformed { reason: Malformed::OtherChain });
    let named = case.arena.proof(&case.hostile, &proof)?;
    let found = case.mine(&[envelopes.all(), named.all()].concat()).await?;
    assert_eq!(found, vec![Outcome::Ignored(ProofIgnored::NotOurs); parts.len() + 1]);
    case.ends().await
}

/// Small chunks, so that a proof and a batch have several.
fn chunked(params: &mut Params) {
    params.max_chunk_bytes = 1_500;
}

/// The reveal of a leaf that is an envelope with one byte of its body changed: the header is a copy.
fn spoiled(arena: &mut Arena, by: &Keypair, kind: Kind, part: &Part) -> Result<Vec<Transaction>> {
    let publisher = by.x_only_public_key().0;
    let leaf = leaf_script(&publisher, kind, &part.header, &part.body)?;
    let mut bytes = leaf.to_bytes();
    // The last byte of the last push, before OP_ENDIF.
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    let commit = Commit::new(publisher, ScriptBuf::from_bytes(bytes)).context("a key")?;
    let output = TxOut { value: Amount::from_sat(20_000), script_pubkey: commit.script_pubkey() };
    let tx = arena.purse.pay(vec![output], Amount::from_sat(1_000))?;
    let outpoint = bitcoin::OutPoint::new(tx.compute_txid(), 0);
    let input = CommitOutput { outpoint, value: Amount::from_sat(20_000), commit };
    let change = TxOut { value: Amount::from_sat(10_000), script_pubkey: arena.purse.script() };
    Ok(vec![tx, reveal(&[input], vec![change], by)?])
}

/// Before each chunk of a proof, and of a batch, comes one with its very header and other bytes, and before
/// those of the proof another's copy of it: the chunks that are meant still complete their channels.
pub(crate) async fn chunk_with_copied_header(ground: Ground) -> Result {
    let mut case = Case::new(ground, chunked).await?;
    let params = case.arena.params;
    let (challenger, hostile) = (case.arena.challenger(), case.hostile);
    let parts = split(Kind::Proof, params.chain_id, 0, B256::ZERO, &case.proof, params)?;
    let parts: Vec<Part> = parts.into_iter().map(Part::from).collect();
    ensure!(parts.len() > 2, "{} chunks are few", parts.len());
    let honest = case.arena.envelopes(&challenger, Kind::Proof, &parts)?;
    let copies = case.arena.envelopes(&hostile, Kind::Proof, &parts)?;
    let mut txs = vec![honest.commit, copies.commit];
    let last = parts.len() - 1;
    for (at, part) in parts.iter().enumerate() {
        txs.extend(spoiled(&mut case.arena, &hostile, Kind::Proof, part)?);
        // The copier stops before the last chunk: else it would be a proof as well.
        if at < last {
            txs.push(copies.reveals[at].clone());
        }
        txs.push(honest.reveals[at].clone());
    }
    let (wrong, right, segment) = (case.wrong, case.right, case.segment);
    let mut arena = case.arena;
    arena.mine(&txs).await?;
    assert_eq!(arena.tracker()?.channels().len(), 1);

    // A batch whose calldata does not compress, between copies of its headers by anybody.
    let mut data = vec![1; 32];
    while data.len() < 6_000 {
        data.extend(keccak256(&data));
    }
    let to = arena.bob.address();
    let call = arena.alice.call(to, 500_000, data)?;
    let number = arena.build(vec![call])?.header.number;
    let state = arena.derive_state()?;
    let heads = arena.engine.heads();
    let body = arena.batch_body(heads.safe.number.next(), heads.latest.number)?;
    let parts = arena.signed_batch(state.next_batch, state.prev_body, &body)?;
    ensure!(parts.len() > 2, "{} chunks are few", parts.len());
    let hand = arena.envelopes(&sequencer()?, Kind::Batch, &parts)?;
    let mut txs = vec![hand.commit];
    for (part, reveal) in parts.iter().zip(hand.reveals) {
        txs.extend(spoiled(&mut arena, &hostile, Kind::Batch, part)?);
        txs.push(reveal);
    }
    arena.mine(&txs).await?;
    assert_eq!(arena.engine.heads().safe.number.0, number);

    arena.mine_past_deadlines().await?;
    // The copier's channel was never completed and is closed by now.
    let rejected = End::rejected(segment, FraudKind::OutputRoot, &challenger);
    arena.ends(&[(wrong, rejected), (right, End::Settled)]).await
}

/// Everything at once and a lot of it, against a right and a wrong assertion: proofs that are none, true
/// statements, channels that nobody completes. The right one settles when it should, the wrong one is rejected,
/// and the channels are closed when their time has come.
pub(crate) async fn dishonest_challenger_flood(ground: Ground) -> Result {
    let mut case = Case::new(ground, chunked).await?;
    let mut channels = 0;
    for round in 0..3_u8 {
        let mut txs = Vec::new();
        for number in 0..20_u8 {
            let against = if number.is_multiple_of(2) { case.right } else { case.wrong };
            // Another proof each time, and another prover.
            let proof = case.with(|proof| {
                proof.head.assertion = against;
                let run = proof.run.as_mut().context("it executes")?;
                run.post.output_root = keccak256([round, number]);
                Ok(())
            })?;
            let by = key(&format!("flood {round} {number}"));
            let mut hand = case.arena.proof(&by, &proof)?;
            if number % 4 < 2 {
                hand.reveals.pop();
                channels += 1;
            }
            txs.extend(hand.all());
        }
        case.arena.mine(&txs).await?;
        assert_eq!(case.arena.tracker()?.channels().len(), channels);
    }
    for id in [case.wrong, case.right] {
        assert_eq!(case.arena.node(id)?.status, AssertionStatus::Challenged);
    }
    case.ends().await
}
