//! Peers written from `docs/wire-format.md`, `docs/handshake.md` and `docs/memory-map.md` alone.
//!
//! They share no code with the library: own checksum, own layout, own system calls. Memory is read and written through its
//! descriptor, which is the same memory as a mapping of it, so that nothing here is `unsafe` and nothing can crash the enemy before
//! the victim.

mod client;
mod memory;
mod server;
mod socket;
mod wire;

pub use client::HandClient;
pub use memory::Memory;
pub use server::{HandServer, Handed};
pub use socket::{Answer, HandSocket};
pub use wire::{Frame, HandHello, HandWelcome, checksum, control, flags, kind};
