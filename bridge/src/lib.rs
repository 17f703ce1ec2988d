//! Everything that Bitcoin sees of Kedge, and derivation: Bitcoin block in, L2 payloads out.
#![no_std]
