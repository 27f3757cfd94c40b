//! Anonymous memory: sealed memfds and their mappings.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, FileType, MemfdFlags, SealFlags, Stat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::call::{Call, call};
use super::{BorrowedHandle, OwnedHandle, duplicate};
use crate::sys::{PeerAccess, RegionError};

/// Anonymous memory that can be handed to a peer.
#[derive(Debug)]
pub struct RegionHandle(OwnedFd);

impl RegionHandle {
    /// Takes a handle that a peer sent, unexamined; see [`check_region`].
    pub fn from_handle(handle: OwnedHandle) -> Self {
        Self(handle)
    }

    /// Returns the handle, to be sent to the peer.
    pub fn as_handle(&self) -> BorrowedHandle<'_> {
        self.0.as_fd()
    }

    /// Returns a second handle of the same memory.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        duplicate(&self.0).map(Self)
    }
}

impl AsFd for RegionHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for RegionHandle {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Creates `bytes` of zeroed memory that no other process knows of and that is not yet sealed.
///
/// Only the first page is allocated here; the others are when they are first touched, so that memory follows use.
///
/// # Errors
///
/// `ENOMEM` or `ENOSPC` when there is no memory, `EMFILE` when there is no descriptor left.
pub fn create_region(bytes: usize) -> io::Result<RegionHandle> {
    let region = create_empty_region(bytes)?;
    let first_page = bytes.min(page_bytes()) as u64;
    call(Call::Fallocate, || {
        rustix::fs::fallocate(&region, FallocateFlags::empty(), 0, first_page)
    })?;
    Ok(region)
}

/// As [`create_region`], with no page allocated.
///
/// # Errors
///
/// `ENOMEM` when there is no memory, `EMFILE` when there is no descriptor left.
pub fn create_empty_region(bytes: usize) -> io::Result<RegionHandle> {
    let memory = create_memfd()?;
    let length = bytes as u64; // `usize` has at most 64 bits here
    call(Call::Ftruncate, || rustix::fs::ftruncate(&memory, length))?;
    Ok(RegionHandle(memory))
}

/// Returns the unit in which memory is mapped and given back, in bytes.
///
/// From the C library: rustix reads it from a page that is not there under valgrind, where clients of the tests run.
pub fn page_bytes() -> usize {
    // SAFETY: `sysconf` may be called at any time, from any thread, with any name.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).expect("every system has a page size")
}

fn create_memfd() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let create = |flags| call(Call::MemfdCreate, || rustix::fs::memfd_create(NAME, flags));
    match create(flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => Ok(create(flags)?), // before Linux 6.3
        created => Ok(created?),
    }
}

/// Fixes the size for good. Both sides can still map the region writable.
///
/// # Errors
///
/// `EPERM` when the region is already sealed.
pub fn seal_size(region: &RegionHandle) -> io::Result<()> {
    add_seals(region, SIZE_SEALS)
}

/// Fixes the size and forbids everybody to map the region writable from now on, or to write it in another way.
///
/// What is already mapped writable stays so: map first. A read-only descriptor would not do, because it can be
/// opened again for writing through `/proc`.
///
/// # Errors
///
/// `EPERM` when the region is already sealed.
pub fn seal_writable_by_us_only(region: &RegionHandle) -> io::Result<()> {
    add_seals(region, SIZE_SEALS | SealFlags::FUTURE_WRITE)
}

fn add_seals(region: &RegionHandle, seals: SealFlags) -> io::Result<()> {
    Ok(call(Call::AddSeals, || {
        rustix::fs::fcntl_add_seals(&region.0, seals)
    })?)
}

/// Checks that a region from a peer is what it should be, and that nobody can take that back.
///
/// After this, a mapping of `bytes` can be read to its end: the size cannot shrink.
///
/// # Errors
///
/// Says in which respect the region is wrong; do not map it.
pub fn check_region(
    region: &RegionHandle,
    bytes: usize,
    write: PeerAccess,
) -> Result<(), RegionError> {
    let stat = stat(region)?;
    check_is_memory(region, &stat)?;
    check_seals(region, write)?;
    // Only now is the size final.
    check_size(region, bytes)
}

fn check_is_memory(region: &RegionHandle, stat: &Stat) -> Result<(), RegionError> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(RegionError::NotMemory {
            found: "not a regular file",
        });
    }
    let file_system = call(Call::Fstatfs, || rustix::fs::fstatfs(&region.0));
    let file_system = file_system.map_err(io::Error::from)?;
    if file_system.f_type as u64 != TMPFS_MAGIC {
        return Err(RegionError::NotMemory {
            found: "a file on disk",
        });
    }
    Ok(())
}

fn check_seals(region: &RegionHandle, write: PeerAccess) -> Result<(), RegionError> {
    let present = call(Call::GetSeals, || rustix::fs::fcntl_get_seals(&region.0));
    let present = present.map_err(io::Error::from)?;
    let needed = match write {
        PeerAccess::WriterIsPeer => SIZE_SEALS | SealFlags::FUTURE_WRITE,
        PeerAccess::WriterIsUs => SIZE_SEALS,
    };
    // A file on a mounted tmpfs ends here: it answers, but carries no seal except the one that forbids more.
    if !present.contains(needed) {
        return Err(RegionError::Unsealed {
            present: present.bits(),
            needed: needed.bits(),
        });
    }
    let forbids_us = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
    if write == PeerAccess::WriterIsUs && present.intersects(forbids_us) {
        return Err(RegionError::NotWritable {
            present: present.bits(),
        });
    }
    Ok(())
}

fn check_size(region: &RegionHandle, bytes: usize) -> Result<(), RegionError> {
    let actual_bytes = size_bytes(region)?;
    if actual_bytes != bytes as u64 {
        return Err(RegionError::WrongSize {
            expected_bytes: bytes,
            actual_bytes,
        });
    }
    Ok(())
}

/// Checks that a region has so many bytes: beyond its end `mmap` succeeds and the access is a fault.
fn check_length(region: &RegionHandle, bytes: usize) -> io::Result<()> {
    let actual_bytes = size_bytes(region)?;
    if bytes as u64 <= actual_bytes {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("cannot map {bytes} bytes of a region of {actual_bytes}"),
    ))
}

fn size_bytes(region: &RegionHandle) -> io::Result<u64> {
    Ok(u64::try_from(stat(region)?.st_size).unwrap_or(0))
}

fn stat(region: &RegionHandle) -> io::Result<Stat> {
    Ok(call(Call::Fstat, || rustix::fs::fstat(&region.0))?)
}

/// A region in our address space, until dropped.
///
/// A child made by `fork` does not have it: nothing of ours may be used there.
#[derive(Debug)]
pub struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: A mapping belongs to the process and not to a thread, and this type only names an address range; it hands
// out the address and never reads or writes through it.
unsafe impl Send for Mapping {}

// SAFETY: As for `Send`: a shared `Mapping` gives access to two numbers that never change.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of `region` for reading and writing.
    ///
    /// # Errors
    ///
    /// `EPERM` when the region is sealed against writing, `InvalidInput` when it is shorter than `bytes`.
    pub fn map_read_write(region: &RegionHandle, bytes: usize) -> io::Result<Self> {
        Self::map(region, bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps the first `bytes` of `region` for reading. Writing through it is a fault.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the region is shorter than `bytes`.
    pub fn map_read_only(region: &RegionHandle, bytes: usize) -> io::Result<Self> {
        Self::map(region, bytes, ProtFlags::READ)
    }

    /// Returns the address of the first byte, aligned to a page.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Returns the number of bytes mapped.
    #[allow(clippy::len_without_is_empty)] // a mapping is never empty: the kernel refuses
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts the bytes of another region in the place of ours, from `offset` on, which is a multiple of [`page_bytes`], with the same access.
    ///
    /// # Errors
    ///
    /// As for the constructors. What is mapped there then is not known: drop it.
    pub(crate) fn replace(
        &mut self,
        offset: usize,
        region: &RegionHandle,
        is_writable: bool,
    ) -> io::Result<()> {
        check_length(region, self.len)?;
        let bytes = self.check_range(offset, self.len)?;
        let access = match is_writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        let address = self.ptr.as_ptr().wrapping_add(offset).cast();
        call(Call::Mmap, || {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: The range lies inside the one that `self` owns, as just checked, so that nothing else is unmapped. `self` is borrowed
            // mutably and has handed out addresses only, behind which shared memory may change anyway.
            unsafe { rustix::mm::mmap(address, bytes, access, flags, &region.0, offset as u64) }
        })?;
        self.keep_from_children()
    }

    /// Gives the memory between two offsets, both multiples of [`page_bytes`], back to the system, for everybody who has the region mapped: it
    /// reads as zeros until it is written again.
    ///
    /// # Errors
    ///
    /// `EPERM` when the region is sealed against writing.
    pub(crate) fn give_back(&self, from: usize, to: usize) -> io::Result<()> {
        let bytes = self.check_range(from, to)?;
        let address = self.ptr.as_ptr().wrapping_add(from).cast();
        Ok(call(Call::Madvise, || {
            // SAFETY: The range lies inside the mapping that `self` owns. Its bytes become zeros, as a peer could make them at any moment: nobody
            // holds a reference to them.
            unsafe { rustix::mm::madvise(address, bytes, Advice::LinuxRemove) }
        })?)
    }

    /// Returns the bytes between two offsets, if those lie inside and there are any.
    fn check_range(&self, from: usize, to: usize) -> io::Result<usize> {
        if from < to && to <= self.len {
            return Ok(to - from);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn map(region: &RegionHandle, bytes: usize, access: ProtFlags) -> io::Result<Self> {
        check_length(region, bytes)?;
        let address = call(Call::Mmap, || {
            let (anywhere, shared) = (ptr::null_mut(), MapFlags::SHARED);
            // SAFETY: With no address given the kernel chooses a range that nothing else uses, so no existing mapping
            // changes. `Mapping` keeps the range until `munmap`, and hands out no reference into it.
            unsafe { rustix::mm::mmap(anywhere, bytes, access, shared, &region.0, 0) }
        })?;
        let ptr = NonNull::new(address.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { ptr, len: bytes };
        mapping.keep_from_children()?;
        Ok(mapping)
    }

    fn keep_from_children(&self) -> io::Result<()> {
        let address = self.ptr.as_ptr().cast();
        Ok(call(Call::Madvise, || {
            // SAFETY: The range is exactly the mapping that `self` owns. This advice changes nothing in this process.
            unsafe { rustix::mm::madvise(address, self.len, Advice::LinuxDontFork) }
        })?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let address = self.ptr.as_ptr().cast();
        // SAFETY: The range is exactly the mapping that `self` owns, and `self` is going away. Whoever dereferences
        // the address (`memory`) keeps the `Mapping` alive meanwhile.
        let unmapped = unsafe { rustix::mm::munmap(address, self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of a range we own: {unmapped:?}");
    }
}

/// Shown in `/proc/PID/maps`, otherwise without meaning.
const NAME: &str = "doorbell";

const SIZE_SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// `TMPFS_MAGIC` of `linux/magic.h`: the file system behind memfds.
const TMPFS_MAGIC: u64 = 0x0102_1994;
