//! What the vectors need of RocksDB's format (write-ahead logs, and table files with Snappy blocks), so that
//! the crate's tests do not link a database.

use std::path::Path;

fn varint(data: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = data.split_first().unwrap();
        *data = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn take<'a>(data: &mut &'a [u8], length: u64) -> &'a [u8] {
    let (head, rest) = data.split_at(length as usize);
    *data = rest;
    head
}

/// The values that a write-ahead log puts.
fn log_values(log: &[u8], values: &mut Vec<Vec<u8>>) {
    let mut record = Vec::new();
    for block in log.chunks(32_768) {
        let mut block = block;
        while block.len() >= 7 {
            let length = u16::from_le_bytes([block[4], block[5]]);
            let kind = block[6];
            if kind == 0 {
                break;
            }
            take(&mut block, 7);
            record.extend_from_slice(take(&mut block, length.into()));
            // Full records and last parts end a write batch; first and middle parts do not.
            if kind == 1 || kind == 4 {
                let batch = std::mem::take(&mut record);
                let count = u32::from_le_bytes(batch[8..12].try_into().unwrap());
                let mut rest = &batch[12..];
                for _ in 0..count {
                    assert_eq!(take(&mut rest, 1), [1], "only puts");
                    let length = varint(&mut rest);
                    take(&mut rest, length);
                    let length = varint(&mut rest);
                    values.push(take(&mut rest, length).to_vec());
                }
            }
        }
    }
}

fn snappy(mut data: &[u8]) -> Vec<u8> {
    let length = varint(&mut data);
    let mut out: Vec<u8> = Vec::new();
    while !data.is_empty() {
        let tag = take(&mut data, 1)[0];
        let (count, distance) = match tag & 3 {
            0 => {
                let mut count = u64::from(tag >> 2);
                if count >= 60 {
                    let mut bytes = [0; 8];
                    let size = count - 59;
                    bytes[..size as usize].copy_from_slice(take(&mut data, size));
                    count = u64::from_le_bytes(bytes);
                }
                out.extend_from_slice(take(&mut data, count + 1));
                continue;
            }
            1 => {
                let low = take(&mut data, 1)[0];
                (4 + (tag >> 2 & 7), usize::from(tag >> 5) << 8 | usize::from(low))
            }
            2 => {
                let bytes = take(&mut data, 2).try_into().unwrap();
                (1 + (tag >> 2), usize::from(u16::from_le_bytes(bytes)))
            }
            _ => {
                let bytes = take(&mut data, 4).try_into().unwrap();
                (1 + (tag >> 2), u32::from_le_bytes(bytes) as usize)
            }
        };
        for _ in 0..count {
            out.push(out[out.len() - distance]);
        }
    }
    assert_eq!(out.len() as u64, length);
    out
}

/// The block at `offset` of a table file, whose type byte follows it.
fn table_block(file: &[u8], offset: u64, size: u64) -> Vec<u8> {
    let (start, end) = (offset as usize, (offset + size) as usize);
    match file[end] {
        0 => file[start..end].to_vec(),
        1 => snappy(&file[start..end]),
        other => panic!("compression {other}"),
    }
}

/// The entries of a block without its restart points.
fn entries(block: &[u8]) -> &[u8] {
    let (rest, count) = block.split_at(block.len() - 4);
    // The highest bit says which index the block has.
    let count = u32::from_le_bytes(count.try_into().unwrap()) & 0x7fff_ffff;
    &rest[..rest.len() - 4 * count as usize]
}

/// Where the index of a table file is, offset and size (format 6): the block before the footer says so,
/// and the footer says how long that block is.
fn index_handle(file: &[u8]) -> (u64, u64) {
    let (body, footer) = file.split_at(file.len() - 53);
    let size = u32::from_le_bytes(footer[13..17].try_into().unwrap()).into();
    let meta = table_block(file, body.len() as u64 - 5 - size, size);
    let mut rest = entries(&meta);
    let mut key = Vec::new();
    loop {
        let shared = varint(&mut rest);
        let unshared = varint(&mut rest);
        let length = varint(&mut rest);
        key.truncate(shared as usize);
        key.extend_from_slice(take(&mut rest, unshared));
        let mut value = take(&mut rest, length);
        if key == b"rocksdb.index" {
            return (varint(&mut value), varint(&mut value));
        }
    }
}

/// The values of a table file.
fn table_values(file: &[u8], values: &mut Vec<Vec<u8>>) {
    let (offset, size) = index_handle(file);
    let index = table_block(file, offset, size);
    let mut rest = entries(&index);
    let (mut offset, mut size) = (0, 0);
    while !rest.is_empty() {
        let shared = varint(&mut rest);
        let unshared = varint(&mut rest);
        take(&mut rest, unshared);
        if shared == 0 {
            offset = varint(&mut rest);
            size = varint(&mut rest);
        } else {
            // Blocks follow each other, with a trailer of five bytes; sizes are zigzag differences.
            offset += size + 5;
            let delta = varint(&mut rest);
            size = size.wrapping_add_signed((delta >> 1) as i64 ^ -((delta & 1) as i64));
        }
        let block = table_block(file, offset, size);
        let mut rest = entries(&block);
        while !rest.is_empty() {
            varint(&mut rest);
            let unshared = varint(&mut rest);
            let length = varint(&mut rest);
            take(&mut rest, unshared);
            values.push(take(&mut rest, length).to_vec());
        }
    }
}

pub(crate) fn values(folder: &Path) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("log") => log_values(&std::fs::read(&path).unwrap(), &mut values),
            Some("sst") => table_values(&std::fs::read(&path).unwrap(), &mut values),
            _ => {}
        }
    }
    values
}
