//! Derive macros of Doorbell.
#![forbid(unsafe_code)]
