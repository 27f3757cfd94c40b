//! The parts of the `doorbell` command that are also useful as a library: the editor demo, and the numbers that decide what it does.
#![forbid(unsafe_code)]

pub mod demo;
pub mod random;
