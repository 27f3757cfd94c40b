//! Frames, handshake and the connection machine.
#![forbid(unsafe_code)]
