//! The OpenRPC files: methods and the schemas of their results, with what the OP Stack adds to them.

use kedge_vectors::Vectors;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields that receipts have on OP Stack chains (OP Stack specifications, "L1 cost" and "deposits").
const RECEIPT_FIELDS: &[&str] = &[
    "l1GasPrice",
    "l1GasUsed",
    "l1Fee",
    "l1BaseFeeScalar",
    "l1BlobBaseFee",
    "l1BlobBaseFeeScalar",
    "operatorFeeScalar",
    "operatorFeeConstant",
    "daFootprintGasScalar",
    "depositNonce",
    "depositReceiptVersion",
    "blobGasUsed",
];

/// The specification.
pub(crate) struct Spec {
    results: BTreeMap<String, Value>,
    schemas: Map<String, Value>,
}

impl Spec {
    pub(crate) fn load(vectors: &Vectors) -> Self {
        let mut spec = Self { results: BTreeMap::new(), schemas: Map::new() };
        for file in vectors.files().iter().filter(|file| file.starts_with("openrpc/")) {
            let text = String::from_utf8(vectors.read(file)).expect("UTF-8");
            let yaml: Value =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            match yaml {
                Value::Array(methods) => {
                    for method in methods {
                        let name = method["name"].as_str().expect("a name").to_owned();
                        spec.results.insert(name, method["result"]["schema"].clone());
                    }
                }
                // Error groups are objects too, but their names are no schema's.
                Value::Object(schemas) => spec.schemas.extend(schemas),
                other => panic!("{file}: {other}"),
            }
        }
        spec.add_op_stack();
        spec
    }

    /// Deposits (type 0x7e) and the fields of [`RECEIPT_FIELDS`].
    fn add_op_stack(&mut self) {
        let uint = json!({ "$ref": "#/components/schemas/uint" });
        let receipt = self.schemas["ReceiptInfo"]["properties"].as_object_mut().expect("fields");
        for field in RECEIPT_FIELDS {
            receipt.insert((*field).into(), uint.clone());
        }
        let hash = json!({ "$ref": "#/components/schemas/hash32" });
        let deposit = json!({
            "type": "object",
            "required": ["type", "sourceHash", "to", "value", "gas", "input"],
            "properties": {
                "type": { "const": "0x7e" },
                "sourceHash": hash,
                "value": uint,
                "mint": { "anyOf": [{ "type": "null" }, uint] },
                "gas": uint,
                "input": { "$ref": "#/components/schemas/bytes" },
                "isSystemTx": { "type": "boolean" },
                "depositReceiptVersion": uint,
                "nonce": uint,
            },
        });
        self.schemas["TransactionSigned"]["oneOf"].as_array_mut().expect("kinds").push(deposit);
    }

    pub(crate) fn methods(&self) -> impl Iterator<Item = &str> {
        self.results.keys().map(String::as_str)
    }

    /// What of an answer is not as the method's schema has it; nothing for a method that the specification
    /// does not have.
    pub(crate) fn violations(&self, method: &str, answer: &Value) -> Vec<String> {
        let Some(result) = self.results.get(method) else { return Vec::new() };
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2019-09/schema",
            "components": { "schemas": self.schemas },
            "allOf": [result],
        });
        let validator = jsonschema::validator_for(&schema)
            .unwrap_or_else(|error| panic!("schema of {method}: {error}"));
        validator
            .iter_errors(answer)
            .map(|error| {
                let text = error.to_string();
                format!("{} {}", error.instance_path(), text.chars().take(400).collect::<String>())
            })
            .collect()
    }
}
