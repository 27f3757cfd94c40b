//! Operating-system services, under one set of names.
//!
//! This layer makes system calls and gives them no meaning: it knows nothing of rings, frames or calls. Only it
//! mentions an operating system; everything above compiles unchanged on each. Each system supplies:
//!
//! - [`RegionHandle`], [`create_region`], [`seal_size`], [`seal_writable_by_us_only`], [`check_region`]: anonymous
//!   memory that can be handed to a peer, cannot change its size, and of which nothing is left when the last process
//!   dies; a region written by us cannot be written by whoever else holds the handle;
//! - [`Mapping`]: such memory in our address space. It is never dereferenced here; only `memory` does that;
//! - [`futex_wait`], [`futex_wait_any`], [`futex_wake`]: a thread sleeps on a word of a mapping, in spite of the
//!   mapping being read-only, and is woken from another process;
//! - [`Doorbell`]: wakes one sleeper in another process; a notify with nobody waiting is remembered;
//! - [`Poller`]: one thread waits for many doorbells, listeners, control streams and processes ([`Source`]);
//! - [`Listener`], [`ControlStream`]: the one name that exists, and the byte stream behind it that carries the
//!   handshake with its handles and then shows the peer's death;
//! - [`PeerIdentity`], [`ProcessHandle`]: who the peer is, and a way to see it exit that no other process can fake;
//! - [`runtime_directory`], [`cpu_count`], [`pin_current_thread`], [`unpin_current_thread`], [`raise_descriptor_limit`], [`is_out_of_descriptors`],
//!   [`current_process_id`]: facts about the host and this process;
//! - [`thread_sleeps`]: how often the calling thread has slept;
//! - [`OwnedHandle`], [`BorrowedHandle`]: what travels over a [`ControlStream`];
//! - with the feature `tokio`, `AsyncDoorbell` and `AsyncPeer`: the same doorbell and death for tasks.
//!
//! # Rules each system keeps
//!
//! A call on an object that the peer also holds never sleeps, except the calls named `wait`, which sleep until an
//! event or the caller's deadline and never wake up in between to look around. Every loop that a peer could prolong
//! has a bound. No handle is inherited by a child process. An interrupted wait is resumed, not reported.
//! "Not now" is a value or [`WouldBlock`](std::io::ErrorKind::WouldBlock); any other error means that the object is
//! of no further use.
//!
//! # Trust
//!
//! Whatever arrives from a peer is checked before it is used: a region by [`check_region`], a doorbell by
//! [`Doorbell::from_handle`], the number of handles by [`ControlStream::receive_with_handles`].

mod error;
mod types;

#[cfg(target_os = "linux")]
#[path = "linux/mod.rs"]
mod imp;

#[cfg(not(target_os = "linux"))]
compile_error!("doorbell supports Linux; macOS and Windows are to follow");

pub use error::{BindError, RegionError};
#[cfg(doorbell_faults)]
pub use imp::faults;
#[cfg(doorbell_failpoints)]
pub(crate) use imp::kill_this_process;
#[cfg(feature = "tokio")]
pub use imp::{AsyncDoorbell, AsyncPeer};
pub use imp::{
    BorrowedHandle, ControlStream, Doorbell, Listener, Mapping, OwnedHandle, PeerIdentity, Poller,
    ProcessHandle, RegionHandle, Source, check_region, cpu_count, create_empty_region,
    create_region, current_process_id, futex_wait, futex_wait_any, futex_wake, heap_bytes_in_use,
    is_out_of_descriptors, page_bytes, pin_current_thread, raise_descriptor_limit,
    runtime_directory, seal_size, seal_writable_by_us_only, thread_sleeps, trim_heap,
    unpin_current_thread,
};
pub use types::{DoorbellKind, Event, Mode, PeerAccess, SocketAccess, ThreadSleeps, Wait, Woken};

// A system whose signatures drift stops compiling here.
mod signatures;
