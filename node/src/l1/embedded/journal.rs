//! An append-only file of records: each a length, four bytes of checksum and the bytes. A record that
//! a crash cut short at the end was never acknowledged and is dropped.

use crate::l1::L1Error;
use bitcoin::hashes::{Hash, sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The largest record: no Bitcoin block is longer than 4 MB.
const MAX_RECORD: usize = 8 << 20;
const HEADER: usize = 8;

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Journal {
    /// Opens or creates the file and answers its records.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Vec<u8>>), L1Error> {
        let io = |source| L1Error::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let mut records = Vec::new();
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match read_record(rest) {
                Ok(Some(record)) => {
                    at += HEADER + record.len();
                    records.push(record.to_vec());
                }
                Ok(None) => break,
                Err(reason) => {
                    return Err(L1Error::Damaged {
                        path,
                        offset: at as u64,
                        reason: reason.into(),
                    });
                }
            }
        }
        let len = at as u64;
        file.set_len(len).map_err(io)?;
        file.seek(SeekFrom::Start(len)).map_err(io)?;
        Ok((Self { path, file, len }, records))
    }

    /// Adds a record. It survives the end of the process, however it ends, once this returns.
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), L1Error> {
        let framed = frame(record);
        if let Err(source) = self.file.write_all(&framed) {
            let path = self.path.clone();
            let _ = self.file.set_len(self.len);
            let _ = self.file.seek(SeekFrom::Start(self.len));
            return Err(L1Error::Io { path, source });
        }
        self.len += framed.len() as u64;
        Ok(())
    }

    /// Waits until the records are on the disk itself, for the sake of power failures.
    pub(super) fn sync(&self) -> Result<(), L1Error> {
        self.file.sync_data().map_err(|source| L1Error::Io { path: self.path.clone(), source })
    }

    /// Replaces all records by these, in one step.
    pub(super) fn rewrite(
        &mut self,
        records: impl Iterator<Item = Vec<u8>>,
    ) -> Result<(), L1Error> {
        let path = self.path.clone();
        let io = |source| L1Error::Io { path: path.clone(), source };
        let fresh = temporary(&path);
        let mut file = File::create(&fresh).map_err(io)?;
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&frame(&record));
        }
        file.write_all(&bytes).map_err(io)?;
        file.sync_data().map_err(io)?;
        std::fs::rename(&fresh, &path).map_err(io)?;
        self.file = file;
        self.len = bytes.len() as u64;
        Ok(())
    }

    /// Length of the file in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn checksum(record: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = sha256::Hash::hash(record).to_byte_array();
    [a, b, c, d]
}

fn frame(record: &[u8]) -> Vec<u8> {
    let len = u32::try_from(record.len()).expect("a record is below 8 MiB");
    let mut framed = Vec::with_capacity(HEADER + record.len());
    framed.extend_from_slice(&len.to_le_bytes());
    framed.extend_from_slice(&checksum(record));
    framed.extend_from_slice(record);
    framed
}

/// The first record, none when it is cut short, an error when its bytes have changed.
fn read_record(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [a, b, c, d, check @ ..] = *header;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > MAX_RECORD {
        return Err("a record longer than any block");
    }
    let Some(record) = rest.get(..len) else { return Ok(None) };
    if checksum(record) == check {
        Ok(Some(record))
    } else if rest.len() == len {
        Ok(None)
    } else {
        Err("a checksum that does not match")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_a_torn_tail_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, records) = Journal::open(path.clone()).unwrap();
        assert!(records.is_empty());
        journal.append(b"one").unwrap();
        journal.append(b"").unwrap();
        journal.append(&[7; 1000]).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = Journal::open(path.clone()).unwrap();
            assert!(records.len() < 3, "cut at {cut}");
            journal.append(b"next").unwrap();
            let (_, again) = Journal::open(path.clone()).unwrap();
            assert_eq!(again.len(), records.len() + 1);
        }
    }

    #[test]
    fn changed_bytes_before_the_end_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(path.clone()).unwrap();
        journal.append(b"one").unwrap();
        journal.append(b"two").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(Journal::open(path), Err(L1Error::Damaged { offset: 0, .. })));
    }

    #[test]
    fn rewriting_keeps_only_the_given_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(path.clone()).unwrap();
        journal.append(b"one").unwrap();
        journal.rewrite([b"two".to_vec()].into_iter()).unwrap();
        journal.append(b"three").unwrap();
        let (_, records) = Journal::open(path).unwrap();
        assert_eq!(records, [b"two".to_vec(), b"three".to_vec()]);
    }
}
