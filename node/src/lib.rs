//! The Kedge node.
