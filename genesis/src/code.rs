//! Runtime code of the predeployed contracts, compiled from `contracts/` by `contracts/build.mjs` and
//! committed under `artifacts/`. Decoded when this crate is compiled.

use alloy_primitives::hex;

/// Decodes an artifact's hexadecimal digits.
macro_rules! code {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        pub const $name: &[u8] = &{
            const DIGITS: &[u8] = include_bytes!(concat!("../artifacts/", $file, ".hex"));
            let code = hex::const_decode_to_array::<{ DIGITS.len() / 2 }>(DIGITS);
            assert!(code.is_ok(), "artifact is not hexadecimal");
            match code {
                Ok(code) => code,
                Err(_) => [0; DIGITS.len() / 2],
            }
        };
    };
}

code!(
    /// `contracts/BitcoinBridge.sol`.
    BITCOIN_BRIDGE, "BitcoinBridge"
);
code!(
    /// `contracts/BitcoinHeaders.sol`.
    BITCOIN_HEADERS, "BitcoinHeaders"
);
code!(
    /// `contracts/FeeVault.sol`.
    FEE_VAULT, "FeeVault"
);
code!(
    /// `contracts/GasPriceOracle.sol`.
    GAS_PRICE_ORACLE, "GasPriceOracle"
);
code!(
    /// `contracts/L1Block.sol`.
    L1_BLOCK, "L1Block"
);
code!(
    /// `contracts/L2ToL1MessagePasser.sol`.
    L2_TO_L1_MESSAGE_PASSER, "L2ToL1MessagePasser"
);
code!(
    /// `contracts/Multicall3.sol`.
    MULTICALL3, "Multicall3"
);

/// The deterministic deployment proxy: `CREATE2`s the init code behind the 32-byte salt in its call
/// data and returns the address. The code that stands at its address on every chain.
pub const DETERMINISTIC_DEPLOYER: &[u8] = &hex!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234"
    "f58015156039578182fd5b8082525050506014600cf3"
);
