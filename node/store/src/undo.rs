//! Undo records: what restores the rows that a block changed.
//!
//! One entry for each row, in the order of tables and keys. A key is told by how many bytes it has in common
//! with the one before it, and the rest.

use crate::codec::{Codec, put_bytes};
use crate::table::Table;
use std::collections::BTreeMap;

/// A row as it was before a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// There was none.
    Absent,
    /// It stands in the history, as what was before that block.
    InHistory,
    /// This.
    Value(Vec<u8>),
}

/// Rows of one table by key.
pub(crate) type Rows = BTreeMap<Vec<u8>, Before>;

/// The kind of entry stands above the table's number.
const KIND: u32 = 6;

pub(crate) fn encode<'r>(tables: impl Iterator<Item = (Table, &'r Rows)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last: &[u8] = &[];
    for (table, rows) in tables {
        for (key, before) in rows {
            let kind: u8 = match before {
                Before::Absent => 0,
                Before::InHistory => 1,
                Before::Value(_) => 2,
            };
            out.push(table.number() | kind << KIND);
            let same = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            let shared = u8::try_from(same).unwrap_or(u8::MAX);
            out.push(shared);
            put_bytes(key.get(usize::from(shared)..).unwrap_or_default(), &mut out);
            if let Before::Value(value) = before {
                put_bytes(value, &mut out);
            }
            last = key;
        }
    }
    out
}

/// The rows of a record; none where it is damaged.
pub(crate) fn decode(mut record: &[u8]) -> Option<Vec<(Table, Vec<u8>, Before)>> {
    let mut rows: Vec<(Table, Vec<u8>, Before)> = Vec::new();
    while !record.is_empty() {
        let tag = u8::take(&mut record)?;
        let table = Table::from_number(tag & ((1 << KIND) - 1))?;
        let shared = usize::from(u8::take(&mut record)?);
        let last = rows.last().map(|(_, key, _)| key.as_slice()).unwrap_or_default();
        let key = [last.get(..shared)?, &Vec::take(&mut record)?].concat();
        let before = match tag >> KIND {
            0 => Before::Absent,
            1 => Before::InHistory,
            2 => Before::Value(Vec::take(&mut record)?),
            _ => return None,
        };
        rows.push((table, key, before));
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_damaged_ones_are_none() {
        let long = vec![7; 300];
        let accounts = Rows::from([
            (vec![], Before::Absent),
            (vec![1, 2, 3], Before::InHistory),
            (vec![1, 2, 4], Before::Value(vec![9; 5])),
        ]);
        let deposits = Rows::from([
            (long.clone(), Before::Value(vec![])),
            ([&*long, &[1]].concat(), Before::Absent),
        ]);
        let tables = [(Table::Accounts, &accounts), (Table::Deposits, &deposits)];
        let record = encode(tables.into_iter());
        let rows = tables.iter().flat_map(|(table, rows)| {
            rows.iter().map(|(key, before)| (*table, key.clone(), before.clone()))
        });
        let rows: Vec<_> = rows.collect();
        assert_eq!(decode(&record), Some(rows));
        // The last key goes without the bytes that it has in common with the one before.
        assert!(record.len() < 400);
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&record[..record.len() - 1]), None);
        assert_eq!(decode(&[Table::Accounts.number(), 1, 0, 0, 0, 0]), None, "nothing to share");
        assert_eq!(
            decode(&[62, 0, 0, 0, 0, 0]),
            Some(vec![(Table::Bonds, vec![], Before::Absent)])
        );
        assert_eq!(decode(&[15, 0, 0, 0, 0, 0]), None, "no such table");
        assert_eq!(decode(&[3 << KIND | 23, 0, 0, 0, 0, 0]), None, "no such kind");
    }
}
