//! The columns of a batch: equal fields of all blocks and transactions next to each other, so that they
//! compress, with dictionaries for addresses and call data selectors.
//!
//! In this order, each preceded by its length as a varint (LEB128, shortest form):
//!
//! | column | content |
//! | --- | --- |
//! | times | per block: varint, seconds above the block before (the first above 0) |
//! | steps | per block: one bit, lowest bit first, unused bits zero |
//! | counts | per block: varint, its transactions |
//! | kinds | per transaction: its type byte; `0x80` = type 0 without chain id |
//! | parities | per transaction: one bit |
//! | chains, nonces, gas | varints; no chain id for kind `0x80` |
//! | prices, tips | varints: gas price or maximum fee; maximum priority fee of types 2 and 4 |
//! | targets | varint: 0 = create, else place in the address dictionary + 1 |
//! | values | length byte ≤ 32, then that many bytes, no leading zero |
//! | heads | varints: 0 or place in the selector dictionary + 1; length of the rest of the data |
//! | data | the rests of the data |
//! | access | types 1, 2, 4: varint count; per entry: address place, varint count, 32-byte keys |
//! | authorizations | type 4: varint count; per entry: chain id like a value, address place, varint nonce, parity byte, r, s |
//! | addresses, selectors | the dictionaries: 20 and 4 bytes each |
//! | signatures | per transaction: r, s, 32 bytes each |

use super::{Batch, BatchBlock, BatchFault, Budget, ITEM_CHARGE};
use crate::{forced::Decoded, read::Reader};
use alloc::{collections::BTreeMap, vec::Vec};
use alloy_consensus::{Signed, Transaction, TxEip1559, TxEip2930, TxEip7702, TxLegacy, Typed2718};
use alloy_eips::{
    eip2718::Encodable2718,
    eip2930::{AccessList, AccessListItem},
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use kedge_genesis::L2Number;

/// Kind of a type 0 transaction without an EIP-155 chain id.
const UNPROTECTED: u8 = 0x80;

/// Appends LEB128.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(reader: &mut Reader<'_>) -> Option<u128> {
    let mut value = 0u128;
    for shift in (0..u128::BITS).step_by(7) {
        let byte = reader.u8()?;
        let bits = u128::from(byte & 0x7f);
        // The last of 19 bytes has room for two bits.
        if bits.leading_zeros() < shift {
            return None;
        }
        value |= bits.checked_shl(shift)?;
        if byte & 0x80 == 0 {
            // Shortest form: no zero byte at the end.
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

fn number(reader: &mut Reader<'_>) -> Option<u64> {
    varint(reader)?.try_into().ok()
}

fn size(reader: &mut Reader<'_>) -> Option<usize> {
    varint(reader)?.try_into().ok()
}

fn put_column(out: &mut Vec<u8>, column: &[u8]) {
    put_varint(out, column.len() as u128);
    out.extend_from_slice(column);
}

fn column<'a>(reader: &mut Reader<'a>) -> Option<Reader<'a>> {
    let len = size(reader)?;
    reader.take(len).map(Reader::new)
}

fn put_word(out: &mut Vec<u8>, value: U256) {
    let bytes = value.to_be_bytes_trimmed_vec();
    out.push(bytes.len() as u8);
    out.extend_from_slice(&bytes);
}

fn word(reader: &mut Reader<'_>) -> Option<U256> {
    let len = usize::from(reader.u8()?);
    let bytes = reader.take(len)?;
    if len > 32 || bytes.first() == Some(&0) {
        return None;
    }
    U256::try_from_be_slice(bytes)
}

/// Bits, lowest of each byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.used % 8);
        }
        self.used = self.used.wrapping_add(1);
    }
}

/// The same, to read.
struct BitReader<'a> {
    bytes: Reader<'a>,
    byte: u8,
    left: u32,
}

impl<'a> BitReader<'a> {
    const fn new(bytes: Reader<'a>) -> Self {
        Self { bytes, byte: 0, left: 0 }
    }

    fn next(&mut self) -> Option<bool> {
        if self.left == 0 {
            (self.byte, self.left) = (self.bytes.u8()?, 8);
        }
        let bit = self.byte & 1 == 1;
        (self.byte, self.left) = (self.byte >> 1, self.left.saturating_sub(1));
        Some(bit)
    }

    const fn is_spent(&self) -> bool {
        self.bytes.is_empty() && self.byte == 0
    }
}

/// The columns of blocks, to write.
#[derive(Default)]
pub(super) struct BlockColumns {
    times: Vec<u8>,
    steps: Bits,
    counts: Vec<u8>,
}

impl BlockColumns {
    pub(super) fn push(&mut self, delta: u64, step: bool, count: u64) {
        put_varint(&mut self.times, delta.into());
        self.steps.push(step);
        put_varint(&mut self.counts, count.into());
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_column(out, &self.times);
        put_column(out, &self.steps.bytes);
        put_column(out, &self.counts);
    }
}

/// The columns of transactions, to write.
#[derive(Default)]
pub(super) struct Columns {
    kinds: Vec<u8>,
    parities: Bits,
    chains: Vec<u8>,
    nonces: Vec<u8>,
    gas: Vec<u8>,
    prices: Vec<u8>,
    tips: Vec<u8>,
    targets: Vec<u8>,
    values: Vec<u8>,
    heads: Vec<u8>,
    data: Vec<u8>,
    access: Vec<u8>,
    authorizations: Vec<u8>,
    addresses: Dictionary<20>,
    selectors: Dictionary<4>,
    signatures: Vec<u8>,
}

/// Distinct values in the order of their first use.
#[derive(Default)]
struct Dictionary<const N: usize> {
    places: BTreeMap<[u8; N], u64>,
    bytes: Vec<u8>,
}

impl<const N: usize> Dictionary<N> {
    fn place(&mut self, value: [u8; N]) -> u64 {
        let next = self.places.len() as u64;
        *self.places.entry(value).or_insert_with(|| {
            self.bytes.extend_from_slice(&value);
            next
        })
    }
}

impl Columns {
    /// Appends a transaction; none when it is of a type without columns.
    pub(super) fn push(&mut self, tx: &Decoded) -> Option<()> {
        if matches!(tx, Decoded::Eip4844(_)) {
            return None;
        }
        let kind = if tx.chain_id().is_none() { UNPROTECTED } else { tx.ty() };
        self.kinds.push(kind);
        if let Some(chain) = tx.chain_id() {
            put_varint(&mut self.chains, chain.into());
        }
        put_varint(&mut self.nonces, tx.nonce().into());
        put_varint(&mut self.gas, tx.gas_limit().into());
        put_varint(&mut self.prices, tx.max_fee_per_gas());
        if let Some(tip) = tx.max_priority_fee_per_gas() {
            put_varint(&mut self.tips, tip);
        }
        let target = match tx.kind() {
            TxKind::Create => 0,
            TxKind::Call(to) => self.addresses.place(to.0.0).saturating_add(1),
        };
        put_varint(&mut self.targets, target.into());
        put_word(&mut self.values, tx.value());
        let (selector, rest) = match tx.input().split_first_chunk::<4>() {
            Some((selector, rest)) => (self.selectors.place(*selector).saturating_add(1), rest),
            None => (0, tx.input().as_ref()),
        };
        put_varint(&mut self.heads, selector.into());
        put_varint(&mut self.heads, rest.len() as u128);
        self.data.extend_from_slice(rest);
        if let Some(list) = tx.access_list() {
            self.push_access(list);
        }
        if let Some(list) = tx.authorization_list() {
            self.push_authorizations(list);
        }
        let signature = tx.signature();
        self.parities.push(signature.v());
        self.signatures.extend_from_slice(&signature.r().to_be_bytes::<32>());
        self.signatures.extend_from_slice(&signature.s().to_be_bytes::<32>());
        Some(())
    }

    fn push_access(&mut self, list: &AccessList) {
        put_varint(&mut self.access, list.0.len() as u128);
        for item in &list.0 {
            put_varint(&mut self.access, self.addresses.place(item.address.0.0).into());
            put_varint(&mut self.access, item.storage_keys.len() as u128);
            self.access.extend(item.storage_keys.iter().flat_map(|key| key.0));
        }
    }

    fn push_authorizations(&mut self, list: &[SignedAuthorization]) {
        let out = &mut self.authorizations;
        put_varint(out, list.len() as u128);
        for item in list {
            put_word(out, item.chain_id);
            put_varint(out, self.addresses.place(item.address.0.0).into());
            put_varint(out, item.nonce.into());
            out.push(item.y_parity());
            out.extend_from_slice(&item.r().to_be_bytes::<32>());
            out.extend_from_slice(&item.s().to_be_bytes::<32>());
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for column in [
            &self.kinds,
            &self.parities.bytes,
            &self.chains,
            &self.nonces,
            &self.gas,
            &self.prices,
            &self.tips,
            &self.targets,
            &self.values,
            &self.heads,
            &self.data,
            &self.access,
            &self.authorizations,
            &self.addresses.bytes,
            &self.selectors.bytes,
            &self.signatures,
        ] {
            put_column(out, column);
        }
    }
}

/// The columns of transactions, to read.
struct TxReader<'a> {
    kinds: Reader<'a>,
    parities: BitReader<'a>,
    chains: Reader<'a>,
    nonces: Reader<'a>,
    gas: Reader<'a>,
    prices: Reader<'a>,
    tips: Reader<'a>,
    targets: Reader<'a>,
    values: Reader<'a>,
    heads: Reader<'a>,
    data: Reader<'a>,
    access: Reader<'a>,
    authorizations: Reader<'a>,
    addresses: &'a [[u8; 20]],
    selectors: &'a [[u8; 4]],
    signatures: Reader<'a>,
    /// Bytes that may still be decoded.
    budget: usize,
}

/// Reads the inflated body.
pub(super) fn read(raw: &[u8], limit: Budget) -> Result<Batch, BatchFault> {
    let mut reader = Reader::new(raw);
    let (first, last_origin, mut times, mut steps, mut counts) =
        read_head(&mut reader).ok_or(BatchFault::Columns)?;
    let mut txs = TxReader::new(&mut reader, limit.bytes).ok_or(BatchFault::Columns)?;
    if !reader.is_empty() {
        return Err(BatchFault::Columns);
    }
    let max_blocks = usize::try_from(limit.blocks).unwrap_or(usize::MAX);
    let mut blocks = Vec::new();
    let mut timestamp = 0u64;
    while !times.is_empty() {
        if blocks.len() >= max_blocks {
            return Err(BatchFault::TooManyBlocks);
        }
        txs.charge(ITEM_CHARGE)?;
        let delta = number(&mut times).ok_or(BatchFault::Columns)?;
        timestamp = timestamp.checked_add(delta).ok_or(BatchFault::Columns)?;
        let epoch_step = steps.next().ok_or(BatchFault::Columns)?;
        let count = number(&mut counts).ok_or(BatchFault::Columns)?;
        let transactions = (0..count).map(|_| txs.next()).collect::<Result<_, _>>()?;
        blocks.push(BatchBlock { timestamp, epoch_step, transactions });
    }
    if blocks.is_empty() {
        return Err(BatchFault::Empty);
    }
    if !steps.is_spent() || !counts.is_empty() || !txs.is_spent() {
        return Err(BatchFault::Columns);
    }
    Ok(Batch { first, last_origin, blocks })
}

type Head<'a> = (L2Number, [u8; 20], Reader<'a>, BitReader<'a>, Reader<'a>);

fn read_head<'a>(reader: &mut Reader<'a>) -> Option<Head<'a>> {
    let first = L2Number(number(reader)?);
    let last_origin = reader.array()?;
    let (times, steps, counts) = (column(reader)?, column(reader)?, column(reader)?);
    Some((first, last_origin, times, BitReader::new(steps), counts))
}

impl<'a> TxReader<'a> {
    fn new(reader: &mut Reader<'a>, budget: usize) -> Option<Self> {
        Some(Self {
            kinds: column(reader)?,
            parities: BitReader::new(column(reader)?),
            chains: column(reader)?,
            nonces: column(reader)?,
            gas: column(reader)?,
            prices: column(reader)?,
            tips: column(reader)?,
            targets: column(reader)?,
            values: column(reader)?,
            heads: column(reader)?,
            data: column(reader)?,
            access: column(reader)?,
            authorizations: column(reader)?,
            addresses: dictionary(reader)?,
            selectors: dictionary(reader)?,
            signatures: column(reader)?,
            budget,
        })
    }

    fn is_spent(&self) -> bool {
        self.parities.is_spent()
            && [
                &self.kinds,
                &self.chains,
                &self.nonces,
                &self.gas,
                &self.prices,
                &self.tips,
                &self.targets,
                &self.values,
                &self.heads,
                &self.data,
                &self.access,
                &self.authorizations,
                &self.signatures,
            ]
            .iter()
            .all(|column| column.is_empty())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), BatchFault> {
        self.budget = self.budget.checked_sub(bytes).ok_or(BatchFault::TooLarge)?;
        Ok(())
    }

    fn next(&mut self) -> Result<Bytes, BatchFault> {
        let tx = self.read().ok_or(BatchFault::Columns)?;
        self.charge(tx.encode_2718_len().saturating_add(ITEM_CHARGE))?;
        Ok(tx.encoded_2718().into())
    }

    fn read(&mut self) -> Option<Decoded> {
        let kind = self.kinds.u8()?;
        let chain = if kind == UNPROTECTED { None } else { Some(number(&mut self.chains)?) };
        let nonce = number(&mut self.nonces)?;
        let gas_limit = number(&mut self.gas)?;
        let price = varint(&mut self.prices)?;
        let to = match number(&mut self.targets)? {
            0 => TxKind::Create,
            place => TxKind::Call(self.address(place.checked_sub(1)?)?),
        };
        let value = word(&mut self.values)?;
        let input = self.input()?;
        let parity = self.parities.next()?;
        let [r, s] = self.signature()?;
        let signature = Signature::new(r, s, parity);
        Some(match (kind, chain) {
            (UNPROTECTED | 0, chain_id) => Decoded::Legacy(Signed::new_unhashed(
                TxLegacy { chain_id, nonce, gas_price: price, gas_limit, to, value, input },
                signature,
            )),
            (1, Some(chain_id)) => {
                let access_list = self.access_list()?;
                let gas_price = price;
                Decoded::Eip2930(Signed::new_unhashed(
                    TxEip2930 {
                        chain_id,
                        nonce,
                        gas_price,
                        gas_limit,
                        to,
                        value,
                        access_list,
                        input,
                    },
                    signature,
                ))
            }
            (2, Some(chain_id)) => Decoded::Eip1559(Signed::new_unhashed(
                TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: price,
                    max_priority_fee_per_gas: varint(&mut self.tips)?,
                    to,
                    value,
                    access_list: self.access_list()?,
                    input,
                },
                signature,
            )),
            (4, Some(chain_id)) => Decoded::Eip7702(Signed::new_unhashed(
                TxEip7702 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: price,
                    max_priority_fee_per_gas: varint(&mut self.tips)?,
                    to: to.into_to()?,
                    value,
                    access_list: self.access_list()?,
                    authorization_list: self.authorization_list()?,
                    input,
                },
                signature,
            )),
            _ => return None,
        })
    }

    fn address(&self, place: u64) -> Option<Address> {
        self.addresses.get(usize::try_from(place).ok()?).copied().map(Address::from)
    }

    fn signature(&mut self) -> Option<[U256; 2]> {
        let (r, s) = (self.signatures.array::<32>()?, self.signatures.array::<32>()?);
        Some([U256::from_be_bytes(r), U256::from_be_bytes(s)])
    }

    fn input(&mut self) -> Option<Bytes> {
        let mut input = Vec::new();
        if let Some(place) = size(&mut self.heads)?.checked_sub(1) {
            input.extend_from_slice(self.selectors.get(place)?);
        }
        let rest = size(&mut self.heads)?;
        input.extend_from_slice(self.data.take(rest)?);
        Some(input.into())
    }

    fn access_list(&mut self) -> Option<AccessList> {
        let mut items = Vec::new();
        for _ in 0..number(&mut self.access)? {
            let place = number(&mut self.access)?;
            let address = self.address(place)?;
            // One byte names 20, so the budget is asked before the transaction's size is known.
            if items.len().saturating_mul(Address::len_bytes()) > self.budget {
                return None;
            }
            let mut storage_keys = Vec::new();
            for _ in 0..number(&mut self.access)? {
                storage_keys.push(B256::new(self.access.array()?));
            }
            items.push(AccessListItem { address, storage_keys });
        }
        Some(AccessList(items))
    }

    fn authorization_list(&mut self) -> Option<Vec<SignedAuthorization>> {
        let mut items = Vec::new();
        for _ in 0..number(&mut self.authorizations)? {
            let chain_id = word(&mut self.authorizations)?;
            let place = number(&mut self.authorizations)?;
            let address = self.address(place)?;
            let nonce = number(&mut self.authorizations)?;
            let parity = self.authorizations.u8()?;
            let (r, s) = (self.authorizations.array::<32>()?, self.authorizations.array::<32>()?);
            items.push(SignedAuthorization::new_unchecked(
                Authorization { chain_id, address, nonce },
                parity,
                U256::from_be_bytes(r),
                U256::from_be_bytes(s),
            ));
        }
        Some(items)
    }
}

/// A dictionary column: whole entries only.
fn dictionary<'a, const N: usize>(reader: &mut Reader<'a>) -> Option<&'a [[u8; N]]> {
    let (entries, rest) = column(reader)?.rest().as_chunks::<N>();
    rest.is_empty().then_some(entries)
}
