//! Helpers for the tests of Doorbell.
#![forbid(unsafe_code)]
