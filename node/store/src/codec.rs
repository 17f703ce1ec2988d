//! The encoding of rows: fixed-width big-endian numbers, lengths as `u32`, no tags. Only this node
//! reads it, so it is compact and strict: the whole input is consumed or the row is damaged.

use crate::error::Result;
use crate::read::corrupt;
use crate::table::Table;
use alloy_primitives::{Address, B256, Bytes};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Txid};
use kedge_genesis::{L1Height, L1Ref, L2Number, Sats};

/// A value with a row encoding.
pub(crate) trait Codec: Sized {
    /// Appends the encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes a value off the front of `input`.
    fn take(input: &mut &[u8]) -> Option<Self>;
}

/// The encoding of `value`.
pub(crate) fn encode<T: Codec>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// Decodes the row `value` of `table` at `key`.
pub(crate) fn decode<T: Codec>(table: Table, key: &[u8], mut value: &[u8]) -> Result<T> {
    match T::take(&mut value) {
        Some(row) if value.is_empty() => Ok(row),
        _ => Err(corrupt(table, key)),
    }
}

/// Takes `count` bytes off the front of `input`.
pub(crate) fn split<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(head)
}

macro_rules! number_codec {
    ($($type:ty),*) => {$(
        impl Codec for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                split(input, size_of::<$type>())?.try_into().ok().map(<$type>::from_be_bytes)
            }
        }
    )*};
}
number_codec!(u16, u32, u64);

impl Codec for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        split(input, 1)?.first().copied()
    }
}

impl Codec for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        match u8::take(input)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

macro_rules! bytes_codec {
    ($($type:ty, $count:literal, $to:expr, $from:expr;)*) => {$(
        impl Codec for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let to: fn(&$type) -> [u8; $count] = $to;
                out.extend_from_slice(&to(self));
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                let from: fn([u8; $count]) -> $type = $from;
                split(input, $count)?.try_into().ok().map(from)
            }
        }
    )*};
}
bytes_codec! {
    [u8; 64], 64, |it| *it, |it| it;
    B256, 32, |it| it.0, B256::new;
    Address, 20, |it| it.0.0, Address::new;
    Txid, 32, |it| it.to_byte_array(), Txid::from_byte_array;
    BlockHash, 32, |it| it.to_byte_array(), BlockHash::from_byte_array;
}

macro_rules! newtype_codec {
    ($($type:ident $inner:ty),*) => {$(
        impl Codec for $type {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                <$inner>::take(input).map($type)
            }
        }
    )*};
}
newtype_codec!(L1Height u32, L2Number u64, Sats u64);

impl Codec for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        let count = u32::take(input)?;
        split(input, count as usize).map(<[u8]>::to_vec)
    }
}

impl Codec for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Vec::take(input).map(Self::from)
    }
}

impl Codec for ScriptBuf {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Vec::take(input).map(Self::from_bytes)
    }
}

impl Codec for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Vec::take(input)?).ok()
    }
}

/// Appends bytes with their number before them.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    // A RocksDB value is below 4 GiB, so a longer row could not be stored at all.
    u32::try_from(length).expect("rows are below 4 GiB").put(out);
}

impl<T: Codec> Codec for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        if bool::take(input)? { T::take(input).map(Some) } else { Some(None) }
    }
}

macro_rules! list_codec {
    ($($type:ty),* $(,)?) => {$(
        impl Codec for Vec<$type> {
            fn put(&self, out: &mut Vec<u8>) {
                put_length(self.len(), out);
                self.iter().for_each(|item| item.put(out));
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                (0..u32::take(input)?).map(|_| <$type>::take(input)).collect()
            }
        }
    )*};
}
list_codec!(u32, B256, Address, Txid, Bytes);

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some((A::take(input)?, B::take(input)?))
    }
}

/// Declares row structs together with their encoding: the fields in order.
macro_rules! rows {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $crate::codec::Codec for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::codec::Codec::put(&self.$field, out);)*
            }
            fn take(input: &mut &[u8]) -> Option<Self> {
                $(let $field = <$type as $crate::codec::Codec>::take(input)?;)*
                Some(Self { $($field),* })
            }
        }
    )*};
}
pub(crate) use rows;

impl Codec for L1Ref {
    fn put(&self, out: &mut Vec<u8>) {
        self.height.put(out);
        self.hash.put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(Self { height: L1Height::take(input)?, hash: B256::take(input)? })
    }
}

impl Codec for OutPoint {
    fn put(&self, out: &mut Vec<u8>) {
        self.txid.put(out);
        self.vout.put(out);
    }
    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(Self { txid: Txid::take(input)?, vout: u32::take(input)? })
    }
}
