//! DEFLATE (RFC 1951) with a limit that holds while inflating.

use alloc::vec::Vec;
use miniz_oxide::{
    deflate::compress_to_vec,
    inflate::{
        TINFLStatus,
        core::{
            DecompressorOxide, decompress, inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        },
    },
};

/// Level 9 of miniz: what goes to Bitcoin is made rarely and its size is what costs.
const LEVEL: u8 = 9;

/// Why bytes do not inflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateFault {
    /// They are not one DEFLATE stream, or something follows it.
    #[error("not one deflate stream")]
    Stream,
    /// They inflate to more than the limit.
    #[error("inflates to more than the limit")]
    TooLarge,
}

/// One DEFLATE stream of these bytes. Others may inflate to the same.
pub fn deflate(raw: &[u8]) -> Vec<u8> {
    compress_to_vec(raw, LEVEL)
}

/// Inflates one whole DEFLATE stream into at most `max` bytes.
///
/// # Errors
/// Why it does not inflate.
pub fn inflate(input: &[u8], max: usize) -> Result<Vec<u8>, InflateFault> {
    let mut machine = alloc::boxed::Box::<DecompressorOxide>::default();
    let mut output = alloc::vec![0; max.min(input.len().saturating_mul(4).max(1_024))];
    let (mut read, mut written) = (0usize, 0usize);
    loop {
        let rest = input.get(read..).unwrap_or_default();
        let (status, consumed, produced) = decompress(
            &mut machine,
            rest,
            &mut output,
            written,
            TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
        );
        read = read.saturating_add(consumed);
        written = written.saturating_add(produced);
        match status {
            TINFLStatus::Done if read == input.len() => {
                output.truncate(written);
                return Ok(output);
            }
            TINFLStatus::HasMoreOutput if output.len() < max => {
                output.resize(max.min(output.len().saturating_mul(2).max(1)), 0);
            }
            TINFLStatus::HasMoreOutput => return Err(InflateFault::TooLarge),
            _ => return Err(InflateFault::Stream),
        }
    }
}
