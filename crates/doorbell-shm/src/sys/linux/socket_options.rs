//! Socket options that rustix does not offer, or not for every answer the kernel gives.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::from_ref;

use rustix::io::Errno;

use super::call::{Call, call};

/// Returns process, user and group of the peer of `socket` as of `connect` (or `socketpair`).
///
/// The process is 0 when it lives in a pid namespace that we cannot see into. (The type that rustix returns cannot
/// express that.)
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(u32, u32, u32)> {
    let mut credentials = [0; 3];
    get(socket, libc::SO_PEERCRED, &mut credentials)?;
    let [pid, uid, gid] = credentials.map(i32::cast_unsigned);
    Ok((pid, uid, gid))
}

/// Returns a pidfd of the peer of `socket`, pinned at `connect`. Since Linux 6.5; `ENOPROTOOPT` before.
pub(super) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd = [-1];
    get(socket, libc::SO_PEERPIDFD, &mut fd)?;
    let [fd] = fd;
    // SAFETY: The call has succeeded, so the kernel has just installed this descriptor (close-on-exec) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the kernel to turn away descriptors sent to `socket`, or to a stream that it accepts.
///
/// Since Linux 6.16. Before, descriptors that arrive are closed when the message is read, so failing is no loss.
pub(super) fn refuse_handles(socket: BorrowedFd<'_>) {
    let _ = set(socket, SO_PASSRIGHTS, 0);
}

fn get<const N: usize>(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    value: &mut [i32; N],
) -> io::Result<()> {
    let expected_bytes = size_of_val(value) as libc::socklen_t;
    let mut actual_bytes = expected_bytes;
    call(Call::Getsockopt, || {
        // SAFETY: `value` is writable for `actual_bytes` bytes, the kernel writes no more than that, and every pattern of
        // bits is an `i32`. `actual_bytes` is ours for the call.
        checked(unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                value.as_mut_ptr().cast(),
                &mut actual_bytes,
            )
        })
    })?;
    if actual_bytes != expected_bytes {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(())
}

fn set(socket: BorrowedFd<'_>, option: libc::c_int, value: i32) -> io::Result<()> {
    Ok(call(Call::Setsockopt, || {
        // SAFETY: The kernel reads the four bytes of `value` and keeps no pointer to them.
        checked(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                from_ref(&value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        })
    })?)
}

/// Takes the error of a call that has just returned from where libc leaves it.
fn checked(result: libc::c_int) -> rustix::io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Number of `asm-generic/socket.h`; libc does not have it for most architectures yet.
const SO_PASSRIGHTS: libc::c_int = 83;
