//! Canonical RLP of records, field by field, for everything here that is hashed or stored.
//!
//! A record is an RLP list of its fields in the order of their declaration. An optional field is a
//! list of nothing or of one item. Decoding refuses what encoding would not have written.

use alloc::vec::Vec;
use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, Encodable, Header};
use bitcoin::hashes::Hash as _;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use kedge_genesis::{L1Height, L1Ref};

/// Bytes that are not the canonical encoding of the record that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the canonical encoding: {0}")]
pub struct CodecError(#[from] pub alloy_rlp::Error);

/// Writes the fields of one record.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The encoding of the record whose fields `fields` writes.
    pub fn record(fields: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut outer = Self::default();
        outer.list(fields);
        outer.0
    }

    /// Appends one field.
    pub fn item(&mut self, item: &impl Encodable) {
        item.encode(&mut self.0);
    }

    /// Appends a field that is itself a list.
    pub fn list(&mut self, fields: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fields(&mut inner);
        Header { list: true, payload_length: inner.0.len() }.encode(&mut self.0);
        self.0.extend_from_slice(&inner.0);
    }

    /// Appends a list with one entry for each of `items`.
    pub fn each<T>(&mut self, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.list(|list| items.into_iter().for_each(|item| write(list, item)));
    }

    /// Appends an L1 reference as its two fields.
    pub fn l1(&mut self, at: &L1Ref) {
        self.item(&at.height.0);
        self.item(&at.hash);
    }

    /// Appends an outpoint as its two fields; the transaction id is in internal byte order.
    pub fn outpoint(&mut self, outpoint: &OutPoint) {
        self.item(&txid_bytes(outpoint.txid));
        self.item(&outpoint.vout);
    }

    /// Appends a script as a byte string.
    pub fn script(&mut self, script: &ScriptBuf) {
        self.item(&script.as_bytes());
    }
}

/// Reads the fields of one record.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads the record that `bytes` hold and nothing else.
    ///
    /// # Errors
    /// When the bytes are not one canonical record of that shape.
    pub fn record<T>(
        bytes: &'a [u8],
        fields: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let mut outer = Self(bytes);
        let value = outer.list(fields)?;
        outer.end()?;
        Ok(value)
    }

    /// Reads one field.
    ///
    /// # Errors
    /// When the next bytes are not one.
    pub fn item<T: Decodable>(&mut self) -> Result<T, CodecError> {
        Ok(T::decode(&mut self.0)?)
    }

    /// Reads a byte string in place.
    ///
    /// # Errors
    /// When the next bytes are none.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        Ok(Header::decode_bytes(&mut self.0, false)?)
    }

    /// Reads a field that is itself a list, all of it.
    ///
    /// # Errors
    /// When the next bytes are no list, or the list has more or other fields.
    pub fn list<T>(
        &mut self,
        fields: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        let mut inner = Self(Header::decode_bytes(&mut self.0, true)?);
        let value = fields(&mut inner)?;
        inner.end()?;
        Ok(value)
    }

    /// Reads a list of at most `max` entries.
    ///
    /// # Errors
    /// When the next bytes are no such list.
    pub fn each<T>(
        &mut self,
        max: usize,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        self.list(|list| {
            let mut items = Vec::new();
            while !list.0.is_empty() {
                if items.len() >= max {
                    return Err(CodecError(alloy_rlp::Error::ListLengthMismatch {
                        expected: max,
                        got: max.saturating_add(1),
                    }));
                }
                items.push(read(list)?);
            }
            Ok(items)
        })
    }

    /// Reads a list of no entry or one.
    ///
    /// # Errors
    /// When the next bytes are no such list.
    pub fn option<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        Ok(self.each(1, read)?.pop())
    }

    /// Reads an L1 reference.
    ///
    /// # Errors
    /// When the next fields are not one.
    pub fn l1(&mut self) -> Result<L1Ref, CodecError> {
        Ok(L1Ref { height: self.height()?, hash: self.item()? })
    }

    /// Reads an L1 height.
    ///
    /// # Errors
    /// When the next field is not one.
    pub fn height(&mut self) -> Result<L1Height, CodecError> {
        Ok(L1Height(self.item()?))
    }

    /// Reads a transaction id, internal byte order.
    ///
    /// # Errors
    /// When the next field is not one.
    pub fn txid(&mut self) -> Result<Txid, CodecError> {
        let bytes: B256 = self.item()?;
        Ok(Txid::from_byte_array(bytes.0))
    }

    /// Reads an outpoint.
    ///
    /// # Errors
    /// When the next fields are not one.
    pub fn outpoint(&mut self) -> Result<OutPoint, CodecError> {
        Ok(OutPoint { txid: self.txid()?, vout: self.item()? })
    }

    /// Reads a script.
    ///
    /// # Errors
    /// When the next field is no byte string.
    pub fn script(&mut self) -> Result<ScriptBuf, CodecError> {
        let bytes: Bytes = self.item()?;
        Ok(ScriptBuf::from_bytes(bytes.to_vec()))
    }

    fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError(alloy_rlp::Error::UnexpectedLength)) }
    }
}

/// The transaction id in internal byte order.
pub fn txid_bytes(txid: Txid) -> B256 {
    B256::new(txid.to_byte_array())
}
