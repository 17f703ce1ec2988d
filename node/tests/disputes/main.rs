//! Proposers, challengers' proofs and signers on a Bitcoin whose blocks the test makes: who continues what, who
//! gets which bond, and what the node says of it. Steps are taken by hand, so each test is the same every time.

mod proposer;
mod rpc;
mod signer;
mod world;
