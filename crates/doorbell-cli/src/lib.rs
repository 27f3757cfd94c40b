//! The parts of the `doorbell` command that are also useful as a library: the editor demo.
#![forbid(unsafe_code)]

pub mod demo;
