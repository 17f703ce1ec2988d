//! The header of a block, and the base fee of the next.

use crate::Header;

/// Base fee of the block after `parent` in wei per gas: EIP-1559 with the denominator and elasticity of
/// the parent's `extraData` (Holocene), where the larger of gas used and data footprint counts and the
/// minimum base fee applies (Jovian). None when the `extraData` is neither form.
pub fn next_base_fee(parent: &Header) -> Option<u64> {
    let (denominator, elasticity, minimum) = match parent.extra_data.len() {
        9 => {
            let (d, e) = op_alloy_consensus::decode_holocene_extra_data(&parent.extra_data).ok()?;
            (d, e, 0)
        }
        _ => op_alloy_consensus::decode_jovian_extra_data(&parent.extra_data).ok()?,
    };
    let used = if parent.extra_data.len() == 9 {
        parent.gas_used
    } else {
        parent.gas_used.max(parent.blob_gas_used.unwrap_or_default())
    };
    let base_fee = u128::from(parent.base_fee_per_gas?);
    let target = u128::from(parent.gas_limit).checked_div(u128::from(elasticity))?;
    let (used, denominator) = (u128::from(used), u128::from(denominator));
    let change =
        |delta: u128| base_fee.checked_mul(delta)?.checked_div(target)?.checked_div(denominator);
    let next = if used > target {
        base_fee.checked_add(change(used.checked_sub(target)?)?.max(1))?
    } else {
        base_fee.saturating_sub(change(target.checked_sub(used)?)?)
    };
    u64::try_from(next).ok().map(|next| next.max(minimum))
}
