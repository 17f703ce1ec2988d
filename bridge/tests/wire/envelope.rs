use crate::{params, publisher, sequencer};
use alloy_primitives::{B256, b256};
use bitcoin::{
    ScriptBuf, Witness,
    opcodes::all::{OP_CHECKSIG, OP_ENDIF, OP_IF, OP_NOP, OP_PUSHNUM_1},
    script::{Builder, PushBytesBuf},
};
use kedge_bridge::{
    commit::{Commit, reveal_vsize},
    envelope::{
        EnvelopeError, EnvelopeHeader, Kind, chunk_hash, leaf_script, parse_input, parse_leaf,
        sign_batch, split,
    },
};
use kedge_genesis::Network;
use proptest::prelude::*;

const KINDS: [Kind; 4] = [Kind::Batch, Kind::Forced, Kind::Assertion, Kind::Proof];

/// One signed chunk of a kind.
fn message(kind: Kind, body: &[u8]) -> (EnvelopeHeader, Vec<u8>) {
    let mut parts =
        split(kind, params().chain_id, 5, B256::repeat_byte(9), body, params()).unwrap();
    if kind.is_signed() {
        sign_batch(&mut parts, &sequencer());
    }
    parts.remove(0)
}

fn leaf(kind: Kind, body: &[u8]) -> ScriptBuf {
    let (header, chunk) = message(kind, body);
    leaf_script(&publisher(), kind, &header, &chunk).unwrap()
}

fn witness(leaf: &ScriptBuf) -> Witness {
    let mut control = vec![0xc0];
    control.extend(publisher().serialize());
    Witness::from_slice(&[vec![1; 64], leaf.to_bytes(), control])
}

fn push(bytes: &[u8]) -> PushBytesBuf {
    PushBytesBuf::try_from(bytes.to_vec()).unwrap()
}

#[test]
fn a_forced_envelope_is_these_bytes() {
    assert_eq!(
        hex::encode(leaf(Kind::Forced, b"hello").as_bytes()),
        concat!(
            "20745c50b925d316af866089b85eee5acc456f9cd8b2ef4198d53e2e7bb38b2ebd", // publisher
            "ac0063",                                                             // CHECKSIG 0 IF
            "056b65646765",                                                       // "kedge"
            "020001",                                                             // version, kind
            "4c54",                                                               // header push
            "0000000000005357",                                                   // chain id
            "0000000000000005",                                                   // index
            "0909090909090909090909090909090909090909090909090909090909090909",
            "0000", // chunk
            "0001", // chunks
            "CHUNK",
            "0568656c6c6f", // "hello"
            "68",           // ENDIF
        )
        .replace("CHUNK", &hex::encode(chunk_hash(b"hello")))
    );
}

#[test]
fn tagged_hashes_of_a_channel_are_these() {
    assert_eq!(
        chunk_hash(b"hello"),
        b256!("93124644789bd6cfc2a92f685c427661e1cac94592a1bfdf4ebaea19c20c9051")
    );
    let (header, _) = message(Kind::Batch, b"hello");
    assert_eq!(
        header.body_hash(),
        b256!("ef3edca8709d8efdde7b56d269858d20b18cea2637f293fed712c2a7f0590fe3")
    );
    assert_eq!(
        header.channel_id(Kind::Batch),
        b256!("9cfef3291a3b633e75368cfa52845216a4675b14f019d57f409c0c0fcbf677a9")
    );
}

#[test]
fn wire_discriminants_of_kinds_are_these() {
    assert_eq!(KINDS.map(Kind::wire), [0, 1, 2, 3]);
    assert_eq!((0..=255).filter_map(Kind::from_wire).collect::<Vec<_>>(), KINDS);
}

/// Spoils the items of a witness.
type Change<'a> = &'a dyn Fn(&mut Vec<Vec<u8>>);

#[test]
fn only_the_exact_witness_is_an_envelope() {
    let leaf = leaf(Kind::Forced, b"hello");
    let good = witness(&leaf);
    assert!(parse_input(&good).is_some());
    let items = good.to_vec();
    let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut items = items.clone();
        change(&mut items);
        parse_input(&Witness::from_slice(&items))
    };
    // The other parity of the output key is the same template.
    assert!(with(&|items| items[2][0] = 0xc1).is_some());
    let table: [(&str, Change<'_>); 7] = [
        ("another leaf version", &|items| items[2][0] = 0xc2),
        ("a sibling in the control block", &|items| items[2].extend([7; 32])),
        ("a short control block", &|items| items[2].truncate(32)),
        ("an empty control block", &|items| items[2].clear()),
        ("an annex", &|items| items.push(vec![0x50, 1])),
        ("a second signature", &|items| items.insert(0, vec![1; 64])),
        ("no signature", &|items| drop(items.remove(0))),
    ];
    for (name, change) in table {
        assert_eq!(with(change), None, "{name}");
    }
    assert_eq!(parse_input(&Witness::new()), None);
}

#[test]
fn deviations_from_the_template_are_not_envelopes() {
    let (header, body) = message(Kind::Forced, &[3; 600]);
    let good = leaf_script(&publisher(), Kind::Forced, &header, &body).unwrap();
    let at = good.as_bytes().windows(5).position(|window| window == b"kedge").unwrap();
    let header_push = push(&good.as_bytes()[at + 5 + 3 + 2..][..84]);
    let build = |magic: &[u8], version: &[u8], body: &[&[u8]]| {
        let mut builder = Builder::new()
            .push_x_only_key(&publisher())
            .push_opcode(OP_CHECKSIG)
            .push_slice([])
            .push_opcode(OP_IF)
            .push_slice(push(magic))
            .push_slice(push(version))
            .push_slice(&header_push);
        for part in body {
            builder = builder.push_slice(push(part));
        }
        builder
    };
    let (long, short) = body.split_at(520);
    let whole = build(b"kedge", &[0, 1], &[long, short]).push_opcode(OP_ENDIF);
    assert_eq!(whole.as_script(), good.as_script());
    assert!(parse_leaf(&good).is_some());

    let mut with_prefix = Builder::new().push_opcode(OP_NOP).into_bytes();
    with_prefix.extend_from_slice(good.as_bytes());
    let mut bad_key = good.to_bytes();
    bad_key[1..33].fill(0xff);
    // The last push (80 bytes) as PUSHDATA2 instead of PUSHDATA1.
    let mut padded = good.to_bytes();
    let place = padded.len() - 83;
    assert_eq!(padded[place..place + 2], [0x4c, 80]);
    padded.splice(place..place + 2, [0x4d, 80, 0]);
    let mut flipped = good.to_bytes();
    *flipped.iter_mut().nth_back(1).unwrap() ^= 1;

    let table = [
        (
            "another magic",
            build(b"kedgf", &[0, 1], &[long, short]).push_opcode(OP_ENDIF).into_script(),
        ),
        (
            "another version",
            build(b"kedge", &[1, 1], &[long, short]).push_opcode(OP_ENDIF).into_script(),
        ),
        (
            "an unknown kind",
            build(b"kedge", &[0, 4], &[long, short]).push_opcode(OP_ENDIF).into_script(),
        ),
        (
            "a kind that is signed",
            build(b"kedge", &[0, 0], &[long, short]).push_opcode(OP_ENDIF).into_script(),
        ),
        (
            "three bytes of version",
            build(b"kedge", &[0, 1, 0], &[long, short]).push_opcode(OP_ENDIF).into_script(),
        ),
        ("no body", build(b"kedge", &[0, 1], &[]).push_opcode(OP_ENDIF).into_script()),
        ("half a body", build(b"kedge", &[0, 1], &[long]).push_opcode(OP_ENDIF).into_script()),
        (
            "other push lengths",
            build(b"kedge", &[0, 1], &[short, long]).push_opcode(OP_ENDIF).into_script(),
        ),
        (
            "an empty push more",
            build(b"kedge", &[0, 1], &[long, short, &[]]).push_opcode(OP_ENDIF).into_script(),
        ),
        ("no end", build(b"kedge", &[0, 1], &[long, short]).into_script()),
        (
            "an opcode before the end",
            build(b"kedge", &[0, 1], &[long, short])
                .push_opcode(OP_PUSHNUM_1)
                .push_opcode(OP_ENDIF)
                .into_script(),
        ),
        (
            "an opcode after the end",
            build(b"kedge", &[0, 1], &[long, short])
                .push_opcode(OP_ENDIF)
                .push_opcode(OP_NOP)
                .into_script(),
        ),
        ("an opcode first", ScriptBuf::from_bytes(with_prefix)),
        ("no key on the curve", ScriptBuf::from_bytes(bad_key)),
        ("a push that is not minimal", ScriptBuf::from_bytes(padded)),
        ("another byte in the chunk", ScriptBuf::from_bytes(flipped)),
        ("nothing", ScriptBuf::new()),
    ];
    for (name, script) in table {
        assert_eq!(parse_leaf(&script), None, "{name}");
    }
}

#[test]
fn builders_refuse_what_parsers_would() {
    let (header, body) = message(Kind::Forced, b"hello");
    let build =
        |kind, header: &EnvelopeHeader, body: &[u8]| leaf_script(&publisher(), kind, header, body);
    assert_eq!(build(Kind::Forced, &header, b""), Err(EnvelopeError::Empty));
    assert_eq!(build(Kind::Forced, &header, b"hellp"), Err(EnvelopeError::ChunkMismatch));
    assert_eq!(
        build(Kind::Batch, &header, &body),
        Err(EnvelopeError::Signature { kind: Kind::Batch })
    );
    let second = EnvelopeHeader { chunk: 1, ..header.clone() };
    assert_eq!(build(Kind::Forced, &second, &body), Err(EnvelopeError::ChunkMismatch));
    let two = EnvelopeHeader { chunks: vec![header.chunks[0]; 2], ..header };
    assert_eq!(build(Kind::Forced, &two, &body), Err(EnvelopeError::ChunkMismatch));
    assert!(build(Kind::Proof, &two, &body).is_ok());

    let size = params().max_chunk_bytes as usize;
    let cut =
        |kind, len| split(kind, 1, 0, B256::ZERO, &vec![1; len], params()).map(|parts| parts.len());
    assert_eq!(cut(Kind::Batch, size), Ok(1));
    assert_eq!(cut(Kind::Batch, size + 1), Ok(2));
    assert_eq!(cut(Kind::Batch, 12 * size), Ok(12));
    assert_eq!(cut(Kind::Batch, 12 * size + 1), Err(EnvelopeError::TooManyChunks { found: 13 }));
    assert_eq!(cut(Kind::Assertion, size + 1), Err(EnvelopeError::TooManyChunks { found: 2 }));
    assert_eq!(cut(Kind::Assertion, 0), Err(EnvelopeError::Empty));
}

#[test]
fn a_full_channel_fits_one_header_push_and_a_full_chunk_one_standard_reveal() {
    for network in Network::ALL {
        let params = network.params();
        let body = vec![0; params.max_chunk_bytes as usize * usize::from(params.max_chunks)];
        let mut parts = split(Kind::Batch, 1, 0, B256::ZERO, &body, params).unwrap();
        sign_batch(&mut parts, &sequencer());
        let (header, chunk) = parts.last().unwrap();
        let leaf = leaf_script(&publisher(), Kind::Batch, header, chunk).unwrap();
        assert!(parse_leaf(&leaf).is_some());
        let commit = Commit::new(publisher(), leaf).unwrap();
        let outputs = [crate::pay(crate::elsewhere(), 1), crate::pay(crate::elsewhere(), 1)];
        assert!(reveal_vsize(&[commit], &outputs) * 4 <= 400_000);
    }
}

#[test]
fn a_signature_covers_the_channel_and_nothing_else() {
    let (header, _) = message(Kind::Batch, b"hello");
    let key = publisher().serialize();
    assert!(header.signed_by(Kind::Batch, &key));
    assert!(EnvelopeHeader { chunk: 9, ..header.clone() }.signed_by(Kind::Batch, &key));
    assert!(!header.signed_by(Kind::Proof, &key));
    assert!(!header.signed_by(Kind::Batch, &params().keys.unwrap().recovery));
    assert!(!header.signed_by(Kind::Batch, &[0xff; 32]));
    let others = [
        EnvelopeHeader { chain_id: 1, ..header.clone() },
        EnvelopeHeader { index: 6, ..header.clone() },
        EnvelopeHeader { prev_body: B256::ZERO, ..header.clone() },
        EnvelopeHeader { chunks: vec![B256::ZERO], ..header.clone() },
        EnvelopeHeader { signature: None, ..header.clone() },
        EnvelopeHeader { signature: Some([0; 64]), ..header },
    ];
    for other in others {
        assert!(!other.signed_by(Kind::Batch, &key), "{other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_built_is_what_is_parsed(
        kind in 0..4usize,
        body in prop::collection::vec(any::<u8>(), 1..2_000),
    ) {
        let kind = KINDS[kind];
        let (header, chunk) = message(kind, &body);
        let found = parse_input(&witness(&leaf(kind, &body))).unwrap();
        prop_assert_eq!(found.kind, kind);
        prop_assert_eq!(&found.header, &header);
        prop_assert_eq!(found.body.as_slice(), chunk.as_slice());
        prop_assert_eq!(found.publisher, publisher());
        prop_assert!(found.fits(params()));
        prop_assert!(!found.fits(Network::Dev.params()));
    }

    #[test]
    fn mutations_are_not_envelopes_or_say_the_same(
        kind in 0..4usize,
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let script = leaf(KINDS[kind], &[7; 700]);
        let mut bytes = script.to_bytes();
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] = byte }
        let mutated = ScriptBuf::from_bytes(bytes);
        if let Some(found) = parse_leaf(&mutated) {
            let rebuilt =
                leaf_script(&found.publisher, found.kind, &found.header, &found.body).unwrap();
            prop_assert_eq!(rebuilt, mutated);
            prop_assert_eq!(found.body, vec![7; 700]);
        }
    }

    #[test]
    fn noise_is_not_an_envelope(items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..5)) {
        prop_assert_eq!(parse_input(&Witness::from_slice(&items)), None);
    }
}
