//! RPC and streaming between processes on one host.
#![forbid(unsafe_code)]
