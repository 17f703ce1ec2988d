//! The step from one Bitcoin block to the next, assertions about it, and what settles them.
#![no_std]
