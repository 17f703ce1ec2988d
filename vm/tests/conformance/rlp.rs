//! RLP, which blocks, transactions and witnesses are written in.

use alloy_primitives::{Bytes, U512, hex};
use alloy_rlp::{BufMut, Decodable, Encodable};
use kedge_vectors::Vectors;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq)]
enum Item {
    Bytes(Bytes),
    List(Vec<Self>),
}

impl Encodable for Item {
    fn encode(&self, out: &mut dyn BufMut) {
        match self {
            Self::Bytes(bytes) => bytes.encode(out),
            Self::List(items) => items.encode(out),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.length(),
            Self::List(items) => items.length(),
        }
    }
}

impl Decodable for Item {
    fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
        match buf.first() {
            Some(0xc0..) => Vec::decode(buf).map(Self::List),
            _ => Bytes::decode(buf).map(Self::Bytes),
        }
    }
}

fn item(value: &Value) -> Item {
    match value {
        Value::Array(items) => Item::List(items.iter().map(item).collect()),
        Value::String(text) => match text.strip_prefix('#') {
            Some(digits) => Item::Bytes(number(digits)),
            None => Item::Bytes(text.clone().into_bytes().into()),
        },
        Value::Number(digits) => Item::Bytes(number(&digits.to_string())),
        other => panic!("{other}"),
    }
}

fn number(digits: &str) -> Bytes {
    digits.parse::<U512>().unwrap().to_be_bytes_trimmed_vec().into()
}

fn decode(mut bytes: &[u8]) -> alloy_rlp::Result<Item> {
    let item = Item::decode(&mut bytes)?;
    if bytes.is_empty() { Ok(item) } else { Err(alloy_rlp::Error::UnexpectedLength) }
}

fn check(test: &Value) -> Result<(), String> {
    let encoded = hex::decode(test["out"].as_str().unwrap()).unwrap();
    let decoded = decode(&encoded);
    let expected = match test["in"].as_str() {
        Some("INVALID") => return decoded.map_or(Ok(()), |item| Err(format!("{item:?}"))),
        Some("VALID") => None,
        _ => Some(item(&test["in"])),
    };
    let decoded = decoded.map_err(|error| error.to_string())?;
    if expected.is_some_and(|expected| decoded != expected) {
        return Err(format!("decodes to {decoded:?}"));
    }
    let again = alloy_rlp::encode(&decoded);
    if again == encoded { Ok(()) } else { Err(format!("encodes to {}", hex::encode(again))) }
}

#[test]
fn rlp_is_that_of_the_vectors() {
    let Some(vectors) = Vectors::find("ethereum/RLPTests", &[]) else { return };
    let tally = vectors.run(|file, tally| {
        let tests: BTreeMap<String, Value> = serde_json::from_slice(&vectors.read(file)).unwrap();
        for (name, test) in tests {
            tally.case(|| format!("{file}: {name}"), None, check(&test));
        }
    });
    vectors.finish(tally);
}
