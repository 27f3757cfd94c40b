//! Linux 5.16 or newer. Newer calls are used where the kernel has them; `docs/platform.md` lists them.

#[cfg(feature = "tokio")]
mod awaitable;
mod call;
mod deadline;
mod doorbell;
#[cfg(doorbell_faults)]
pub mod faults;
mod futex;
mod host;
mod listener;
mod peer;
mod poller;
mod regions;
mod socket_options;
mod stream;

#[cfg(feature = "tokio")]
pub use awaitable::{AsyncDoorbell, AsyncPeer};
use call::{Call, call};
pub use doorbell::Doorbell;
pub use futex::{futex_wait, futex_wait_any, futex_wake};
#[cfg(doorbell_failpoints)]
pub(crate) use host::kill_this_process;
pub use host::{
    cpu_count, current_process_id, heap_bytes_in_use, is_out_of_descriptors, pin_current_thread,
    raise_descriptor_limit, runtime_directory, thread_sleeps, trim_heap, unpin_current_thread,
};
pub use listener::Listener;
pub use peer::{PeerIdentity, ProcessHandle};
pub use poller::{Poller, Source};
pub use regions::{
    Mapping, RegionHandle, check_region, create_empty_region, create_region, page_bytes, seal_size,
    seal_writable_by_us_only,
};
pub use stream::ControlStream;

/// A handle that we own and close: a file descriptor.
pub type OwnedHandle = std::os::fd::OwnedFd;

/// A handle that somebody else keeps open: a file descriptor.
pub type BorrowedHandle<'a> = std::os::fd::BorrowedFd<'a>;

/// Returns a second handle of the same object.
fn duplicate(handle: &OwnedHandle) -> std::io::Result<OwnedHandle> {
    let above_the_standard_streams = 3;
    let duplicated = call(Call::Dup, || {
        rustix::io::fcntl_dupfd_cloexec(handle, above_the_standard_streams)
    });
    Ok(duplicated?)
}
