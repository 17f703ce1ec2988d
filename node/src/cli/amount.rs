//! Amounts on the command line: a decimal number with its unit, `0.5btc` or `25000sat`.

use kedge_genesis::Sats;

/// Satoshis in one bitcoin.
const SATS_PER_BTC: u64 = 100_000_000;
/// More can never exist.
const MAX_SATS: u64 = 21_000_000 * SATS_PER_BTC;

/// Parses an amount with its unit, `btc` or `sat`.
///
/// # Errors
/// A sentence for the person who typed it.
pub fn parse(text: &str) -> Result<Sats, String> {
    let lower = text.trim().to_ascii_lowercase();
    let sats = if let Some(number) = lower.strip_suffix("btc") {
        btc(number.trim())
    } else if let Some(number) = lower.strip_suffix("sats").or_else(|| lower.strip_suffix("sat")) {
        number.trim().parse().ok()
    } else {
        return Err("an amount needs its unit: 0.5btc or 25000sat".to_owned());
    };
    match sats {
        Some(0) => Err("the amount is zero".to_owned()),
        Some(sats) if sats <= MAX_SATS => Ok(Sats(sats)),
        Some(_) => Err("more than the 21,000,000 btc that can exist".to_owned()),
        None => Err(format!(
            "{text} is no amount: write 0.5btc (at most 8 decimals) or 25000sat (whole satoshis)"
        )),
    }
}

fn btc(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 8 {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<8}").parse().ok()?;
    whole.checked_mul(SATS_PER_BTC)?.checked_add(fraction)
}

/// Shows an amount in bitcoin with all eight decimals.
pub fn show_btc(sats: Sats) -> String {
    format!("{}.{:08} BTC", sats.0 / SATS_PER_BTC, sats.0 % SATS_PER_BTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, sats) in [
            ("0.5btc", 50_000_000),
            ("0.1 BTC", 10_000_000),
            ("1btc", 100_000_000),
            (".00000001btc", 1),
            ("25000sat", 25_000),
            ("7 sats", 7),
            ("21000000btc", MAX_SATS),
        ] {
            assert_eq!(parse(text), Ok(Sats(sats)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "1",
            "btc",
            ".btc",
            "-1btc",
            "1.5sat",
            "0sat",
            "0btc",
            "0.000000001btc",
            "1e3sat",
            "21000000.00000001btc",
            "99999999999999999999sat",
            "+1sat btc",
            "1,5btc",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bitcoin_is_shown_with_all_decimals() {
        assert_eq!(show_btc(Sats(150_000_001)), "1.50000001 BTC");
    }
}
