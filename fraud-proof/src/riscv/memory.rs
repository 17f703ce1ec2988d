//! Memory: pages of 4 KiB from [`SPACE_START`] to [`SPACE_END`], all zero until they are written, and
//! which of them changed since one last asked.

use super::layout::{SPACE_END, SPACE_START};
use alloc::{boxed::Box, vec, vec::Vec};
use core::ops::Range;

/// Bytes of a page, as a power of two.
pub const PAGE_BITS: u32 = 12;
/// Bytes of a page.
pub const PAGE_SIZE: u32 = 1 << PAGE_BITS;
/// Pages of the address space, mapped or not.
pub const PAGES: usize = (SPACE_END >> PAGE_BITS) as usize;
const WORDS: usize = PAGE_SIZE as usize / 4;

/// The content of a page: little-endian words.
pub type Page = [u32; WORDS];

/// In the tables: no page.
const NONE: u32 = u32::MAX;
/// The page that all pages never written share.
const ZERO: u32 = 0;

/// Why an access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The address is not a multiple of the size.
    Misaligned,
    /// The address is not mapped.
    Unmapped,
    /// A write to the program's code or constants.
    ReadOnly,
}

/// The memory of a machine.
#[derive(Clone, Debug)]
pub struct Memory {
    pages: Vec<Page>,
    /// Place in `pages` of what a read finds.
    readable: Box<[u32; PAGES]>,
    /// The same, for pages that are dirty already; all other writes take the slow path.
    writable: Box<[u32; PAGES]>,
    dirty: Vec<u32>,
    read_only: Range<u32>,
}

const fn page_of(address: u32) -> usize {
    (address >> PAGE_BITS) as usize
}

const fn word_of(address: u32) -> usize {
    (address as usize >> 2) & (WORDS - 1)
}

/// Shift of a byte or half in its word.
const fn shift_of(address: u32) -> u32 {
    (address & 3) << 3
}

fn table(value: u32) -> Box<[u32; PAGES]> {
    vec![value; PAGES].try_into().unwrap_or_else(|_| Box::new([value; PAGES]))
}

impl Memory {
    /// Empty memory.
    pub(super) fn new() -> Self {
        let mut readable = table(ZERO);
        readable.iter_mut().take(page_of(SPACE_START)).for_each(|entry| *entry = NONE);
        Self {
            pages: vec![[0; WORDS]],
            readable,
            writable: table(NONE),
            dirty: Vec::new(),
            read_only: 0..0,
        }
    }

    /// From here on, writes to these addresses are refused; the bounds are taken to whole pages.
    pub(super) fn protect(&mut self, addresses: Range<u32>) {
        let start = addresses.start >> PAGE_BITS;
        self.read_only = start..addresses.end.div_ceil(PAGE_SIZE);
        for page in self.read_only.clone() {
            if let Some(entry) = self.writable.get_mut(page as usize) {
                *entry = NONE;
            }
        }
    }

    /// Pages that were ever written: what this memory costs.
    pub fn len(&self) -> usize {
        self.pages.len().saturating_sub(1)
    }

    /// Whether no page was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A page's content by its number; none outside of the address space.
    pub fn page(&self, number: u32) -> Option<&Page> {
        self.pages.get(*self.readable.get(number as usize)? as usize)
    }

    /// The numbers of the pages written since the last call, each once, in no order.
    pub(super) fn take_dirty(&mut self) -> Vec<u32> {
        for page in &self.dirty {
            if let Some(entry) = self.writable.get_mut(*page as usize) {
                *entry = NONE;
            }
        }
        core::mem::take(&mut self.dirty)
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the place of a word is masked to a page")]
    fn read(&self, address: u32) -> Option<u32> {
        let place = *self.readable.get(page_of(address))?;
        Some(self.pages.get(place as usize)?[word_of(address)])
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "the place of a word is masked to a page")]
    fn slot(&mut self, address: u32) -> Result<&mut u32, Access> {
        let place = match self.writable.get(page_of(address)) {
            Some(place) if *place != NONE => *place,
            _ => self.open(address)?,
        };
        let page = self.pages.get_mut(place as usize).ok_or(Access::Unmapped)?;
        Ok(&mut page[word_of(address)])
    }

    /// Makes the page at `address` dirty, and its own if it is nobody's.
    #[cold]
    #[inline(never)]
    fn open(&mut self, address: u32) -> Result<u32, Access> {
        let number = address >> PAGE_BITS;
        if self.read_only.contains(&number) {
            return Err(Access::ReadOnly);
        }
        let readable = self.readable.get_mut(number as usize).ok_or(Access::Unmapped)?;
        let writable = self.writable.get_mut(number as usize).ok_or(Access::Unmapped)?;
        if *readable == NONE {
            return Err(Access::Unmapped);
        }
        if *readable == ZERO {
            // No more than PAGES of them.
            *readable = u32::try_from(self.pages.len()).map_err(|_| Access::Unmapped)?;
            self.pages.push([0; WORDS]);
        }
        *writable = *readable;
        self.dirty.push(number);
        Ok(*readable)
    }

    /// The byte at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub fn byte(&self, address: u32) -> Result<u8, Access> {
        let word = self.read(address).ok_or(Access::Unmapped)?;
        Ok((word >> shift_of(address)) as u8)
    }

    /// The half word at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub fn half(&self, address: u32) -> Result<u16, Access> {
        if address & 1 != 0 {
            return Err(Access::Misaligned);
        }
        let word = self.read(address).ok_or(Access::Unmapped)?;
        Ok((word >> shift_of(address)) as u16)
    }

    /// The word at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub fn word(&self, address: u32) -> Result<u32, Access> {
        if address & 3 != 0 {
            return Err(Access::Misaligned);
        }
        self.read(address).ok_or(Access::Unmapped)
    }

    /// Writes the byte at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub(super) fn set_byte(&mut self, address: u32, value: u8) -> Result<(), Access> {
        let slot = self.slot(address)?;
        *slot = *slot & !(0xff << shift_of(address)) | u32::from(value) << shift_of(address);
        Ok(())
    }

    /// Writes the half word at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub(super) fn set_half(&mut self, address: u32, value: u16) -> Result<(), Access> {
        if address & 1 != 0 {
            return Err(Access::Misaligned);
        }
        let slot = self.slot(address)?;
        *slot = *slot & !(0xffff << shift_of(address)) | u32::from(value) << shift_of(address);
        Ok(())
    }

    /// Writes the word at `address`.
    ///
    /// # Errors
    /// See [`Access`].
    #[inline(always)]
    pub(super) fn set_word(&mut self, address: u32, value: u32) -> Result<(), Access> {
        if address & 3 != 0 {
            return Err(Access::Misaligned);
        }
        *self.slot(address)? = value;
        Ok(())
    }

    /// Writes `bytes` from `address` on.
    ///
    /// # Errors
    /// See [`Access`]; what lies before the first refused byte is written.
    pub(super) fn write(&mut self, address: u32, bytes: &[u8]) -> Result<(), Access> {
        let mut at = address;
        let (words, rest) = bytes.as_chunks::<4>();
        if address & 3 == 0 {
            for word in words {
                self.set_word(at, u32::from_le_bytes(*word))?;
                at = at.checked_add(4).ok_or(Access::Unmapped)?;
            }
        }
        for byte in if address & 3 == 0 { rest } else { bytes } {
            self.set_byte(at, *byte)?;
            at = at.checked_add(1).ok_or(Access::Unmapped)?;
        }
        Ok(())
    }
}
