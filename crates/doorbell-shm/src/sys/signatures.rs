//! The contract as the compiler sees it: a system whose signatures drift stops compiling here.

#![allow(dead_code, clippy::type_complexity)] // written for the compiler only

use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

use super::*;

type Deadline = Option<Instant>;

const _REGIONS: () = {
    let _: fn(usize) -> io::Result<RegionHandle> = create_region;
    let _: fn(usize) -> io::Result<RegionHandle> = create_empty_region;
    let _: fn() -> usize = page_bytes;
    let _: fn(&RegionHandle) -> io::Result<()> = seal_size;
    let _: fn(&RegionHandle) -> io::Result<()> = seal_writable_by_us_only;
    let _: fn(&RegionHandle, usize, PeerAccess) -> Result<(), RegionError> = check_region;
    let _: fn(OwnedHandle) -> RegionHandle = RegionHandle::from_handle;
    let _: fn(&RegionHandle) -> BorrowedHandle<'_> = RegionHandle::as_handle;
    let _: fn(&RegionHandle) -> io::Result<RegionHandle> = RegionHandle::try_clone;
    let _: fn(&RegionHandle, usize) -> io::Result<Mapping> = Mapping::map_read_write;
    let _: fn(&RegionHandle, usize) -> io::Result<Mapping> = Mapping::map_read_only;
    let _: fn(&Mapping) -> NonNull<u8> = Mapping::as_ptr;
    let _: fn(&Mapping) -> usize = Mapping::len;
    let _: fn(&mut Mapping, usize, &RegionHandle, bool) -> io::Result<()> = Mapping::replace;
    let _: fn(&Mapping, usize, usize) -> io::Result<()> = Mapping::give_back;
};

const _FUTEX: () = {
    let _: fn(&AtomicU32, u32, Deadline) -> io::Result<Woken> = futex_wait;
    let _: fn(&[(&AtomicU32, u32)], Deadline) -> io::Result<Woken> = futex_wait_any;
    let _: fn(&AtomicU32, u32) -> io::Result<u32> = futex_wake;
};

const _DOORBELL: () = {
    let _: fn(DoorbellKind) -> io::Result<(Doorbell, Doorbell)> = Doorbell::pair;
    let _: fn(OwnedHandle, DoorbellKind) -> io::Result<Doorbell> = Doorbell::from_handle;
    let _: fn(Doorbell) -> OwnedHandle = Doorbell::into_handle;
    let _: fn(&Doorbell) -> BorrowedHandle<'_> = Doorbell::as_handle;
    let _: fn(&Doorbell) -> DoorbellKind = Doorbell::kind;
    let _: fn(&Doorbell) -> io::Result<()> = Doorbell::notify;
    let _: fn(&Doorbell, Deadline) -> io::Result<Woken> = Doorbell::wait;
    let _: fn(&Doorbell) -> io::Result<()> = Doorbell::drain;
    let _: fn(&Doorbell) -> io::Result<bool> = Doorbell::make_room;
};

const _POLLER: () = {
    let _: fn() -> io::Result<Poller> = Poller::new;
    let _: fn(&Poller, &Doorbell, u64, Mode) -> io::Result<()> = Poller::add;
    let _: fn(&Poller, &Listener, u64, Mode) -> io::Result<()> = Poller::add;
    let _: fn(&Poller, &ControlStream, u64, Mode) -> io::Result<()> = Poller::add;
    let _: fn(&Poller, &Arc<ControlStream>, u64, Mode) -> io::Result<()> = Poller::add;
    let _: fn(&Poller, &ProcessHandle, u64, Mode) -> io::Result<()> = Poller::add;
    let _: fn(&Poller, &Doorbell) -> io::Result<()> = Poller::remove;
    let _: fn(&Poller, &mut Vec<Event>, Wait) -> io::Result<()> = Poller::wait;
    let _: fn(&Poller) -> io::Result<()> = Poller::wake;
};

const _CONTROL: () = {
    let _: fn(&Path) -> Result<Listener, BindError> = Listener::bind;
    let _: fn(&Path, SocketAccess) -> Result<Listener, BindError> = Listener::bind_for;
    let _: fn(&Listener) -> io::Result<Option<ControlStream>> = Listener::accept;
    let _: fn(&Listener) -> &Path = Listener::path;
    let _: fn(&Listener) -> io::Result<OwnedHandle> = Listener::spare_handle;
    let _: fn(&Path, Deadline) -> io::Result<ControlStream> = ControlStream::connect;
    let _: fn() -> io::Result<(ControlStream, ControlStream)> = ControlStream::pair;
    let _: fn(&ControlStream, &[u8]) -> io::Result<usize> = ControlStream::send;
    let _: fn(&ControlStream, &[u8], &[BorrowedHandle<'_>]) -> io::Result<usize> =
        ControlStream::send_with_handles;
    let _: fn(&ControlStream, &mut [u8]) -> io::Result<usize> = ControlStream::receive;
    let _: fn(&ControlStream, &mut [u8], usize) -> io::Result<(usize, Vec<OwnedHandle>)> =
        ControlStream::receive_with_handles;
    let _: fn(&ControlStream, Deadline) -> io::Result<Woken> = ControlStream::wait_readable;
    let _: fn(&ControlStream, Deadline) -> io::Result<Woken> = ControlStream::wait_writable;
    let _: fn(&ControlStream) -> io::Result<bool> = ControlStream::is_hung_up;
    let _: fn(&ControlStream) -> io::Result<PeerIdentity> = ControlStream::peer;
    let _: fn(&ControlStream) -> io::Result<ProcessHandle> = ControlStream::peer_process;
    let _: fn(&PeerIdentity) -> bool = PeerIdentity::is_same_user;
    let _: fn(&PeerIdentity) -> Option<PathBuf> = PeerIdentity::executable;
    let _: fn(&PeerIdentity, &ProcessHandle) -> Option<PathBuf> = PeerIdentity::executable_of;
    let _: fn(&ProcessHandle) -> bool = ProcessHandle::is_certain;
    let _: fn(&ProcessHandle) -> io::Result<bool> = ProcessHandle::has_exited;
    let _: fn(&ProcessHandle, Deadline) -> io::Result<Woken> = ProcessHandle::wait;
};

const _HOST: () = {
    let _: fn() -> io::Result<PathBuf> = runtime_directory;
    let _: fn() -> usize = cpu_count;
    let _: fn(usize) -> io::Result<()> = pin_current_thread;
    let _: fn() -> io::Result<()> = unpin_current_thread;
    let _: fn() -> ThreadSleeps = thread_sleeps;
    let _: fn() -> io::Result<u64> = raise_descriptor_limit;
    let _: fn(&io::Error) -> bool = is_out_of_descriptors;
    let _: fn() -> u32 = current_process_id;
    let _: fn() -> bool = trim_heap;
    let _: fn() -> Option<u64> = heap_bytes_in_use;
};

#[cfg(feature = "tokio")]
const _AWAITABLE: () = {
    use std::task::{Context, Poll};
    let _: fn(Doorbell) -> io::Result<AsyncDoorbell> = AsyncDoorbell::new;
    let _: fn(&AsyncDoorbell, &mut Context<'_>) -> Poll<io::Result<()>> =
        AsyncDoorbell::poll_notified;
    let _: fn(Arc<ControlStream>, Option<ProcessHandle>) -> io::Result<AsyncPeer> = AsyncPeer::new;
};

const _SHARED_BETWEEN_THREADS: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<RegionHandle>();
    shared::<Mapping>();
    shared::<Doorbell>();
    shared::<Poller>();
    shared::<Listener>();
    shared::<ControlStream>();
    shared::<ProcessHandle>();
};
