//! Frames, handshake and the connection machine of Doorbell: bytes in, bytes out.
//!
//! This crate knows what the bytes between two Doorbell processes mean and nothing about how they travel. It has no socket, clock,
//! thread or `unsafe`; the caller hands in private copies of what arrived and the current [`Time`], and takes out what is to be
//! sent. The bytes are specified in `docs/wire-format.md` and `docs/handshake.md`; tests read the vectors in those pages.
//!
//! # Trust
//!
//! Everything that comes from the peer is checked before it is used, and every table, queue and buffer has a limit in [`limits`]
//! or in [`connection::Config`]. A peer that breaks a rule costs the connection (an error with a name), never a panic and never
//! memory beyond those limits.
//!
//! # Parts
//!
//! - [`frame`], [`metadata`], [`status`]: one frame, bytes to values and back.
//! - [`handshake`]: the messages on the control socket before the first frame.
//! - [`connection`]: one machine for both roles; calls, credit, deadlines, cancellation, reassembly.
#![forbid(unsafe_code)]

pub mod connection;
pub mod crc;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod metadata;
pub mod status;
pub mod time;

pub use connection::{
    Config, Connection, ControlFrame, Destination, Event, Expired, ItemError, LoanViolation,
    Payload, ProtocolError, Role, StartError,
};
pub use frame::{
    BlockId, Body, CallId, CallKind, Descriptor, Flags, FrameError, FrameHeader, FrameKind,
    GoAwayReason, HEADER_BYTES, MessageType, Prefix,
};
pub use metadata::{Metadata, MetadataError, MetadataRef};
pub use status::{Code, Status};
pub use time::Time;
