//! The editor demo.
pub mod engine;
pub mod link;
pub mod protocol;
pub mod random;
pub mod socket;
mod wire;
