//! What derived code calls. Not part of the interface: it may change in any version.

pub use bytes::Bytes;

#[cfg(feature = "rkyv")]
pub mod rkyv {
    //! The codec of `#[payload(rkyv)]`.
    pub use crate::rkyv::{RkyvPayload, decode, encode};
}
