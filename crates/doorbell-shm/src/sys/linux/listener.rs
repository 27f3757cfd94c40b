//! The one name that exists: a listening socket in a directory.
//!
//! A server that dies leaves its name behind, and the next one has to remove it without ever removing the name of a
//! living server. Whether somebody listens can be asked (`connect` is refused), but between the answer and the removal
//! another server may have taken the name; and a server between `bind` and `listen` also refuses. So the whole of
//! asking, removing, binding and listening happens under an exclusive lock. It is a lock on the *directory*, because
//! a lock file would be a second name.
//!
//! The lock is only ever asked for without waiting, a bounded number of times: anybody who may read the directory can
//! lock it, for as long as they like, and `bind` must not hang on them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};

use super::call::{Call, call};
use super::socket_options::refuse_handles;
use super::stream::{MAX_PATH_BYTES, socket_address, stream_socket};
use super::{ControlStream, OwnedHandle, duplicate};
use crate::sys::{BindError, SocketAccess};

/// A name at which clients connect. Dropping it removes the name.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    file: FileIdentity,
}

/// Tells whether a name still leads to the socket that we put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

/// What is to be found at a name that is taken.
enum Occupant {
    Nobody,
    DeadServer,
    LivingServer,
    NotASocket,
}

impl Listener {
    /// Listens at `path`, for this user only whatever the umask, and replaces what a dead server left behind.
    ///
    /// # Errors
    ///
    /// [`AlreadyRunning`](BindError::AlreadyRunning) if a living server is there; otherwise see [`BindError`].
    /// Nothing but the socket of a dead server is ever removed.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_for(path, SocketAccess::Owner)
    }

    /// As [`bind`](Self::bind), for others too. Nobody connects who may not enter the directory.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_for(path: &Path, access: SocketAccess) -> Result<Self, BindError> {
        let address = address_of(path)?;
        let explain = |error| explain(path, error);
        let lock = DirectoryLock::take(path, BIND_LOCK_TRIES)
            .map_err(explain)?
            .ok_or_else(|| BindError::Locked { path: path.into() })?;
        crate::failpoint!("bind.locked");
        let socket = new_socket().map_err(explain)?;
        bind_or_replace(&socket, path, &address)?;
        crate::failpoint!("bind.bound");
        let file = FileIdentity::of(path).map_err(explain)?;
        let listener = Self {
            socket,
            path: path.into(),
            file,
        };
        match open_to_others(path, access).and_then(|()| listen(&listener.socket)) {
            Ok(()) => {
                crate::failpoint!("bind.listening");
                Ok(listener)
            }
            Err(error) => {
                drop(lock); // the listener takes it when it is dropped, to remove the name
                Err(explain(error))
            }
        }
    }

    /// Returns the next connection, or `None` when nobody waits.
    ///
    /// # Errors
    ///
    /// `EMFILE` and its like when there are too many descriptors. The connection stays in the queue: close something
    /// before trying again.
    pub fn accept(&self) -> io::Result<Option<ControlStream>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = call(Call::Accept, || {
            rustix::net::accept_with(&self.socket, flags)
        });
        match accepted {
            Ok(socket) => Ok(Some(ControlStream::from_accepted(socket))),
            Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns a descriptor that is of no use but to be closed when one is needed.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn spare_handle(&self) -> io::Result<OwnedHandle> {
        duplicate(&self.socket)
    }

    /// Returns the path as it was given to [`bind`](Self::bind).
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn remove_name(&self) -> io::Result<()> {
        let lock = DirectoryLock::take(&self.path, DROP_LOCK_TRIES)?;
        // Without the lock the name stays. The next server finds it dead and replaces it.
        if lock.is_some() && FileIdentity::of(&self.path)? == self.file {
            unlink(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The socket is still open here, so its inode number cannot have been given to another file.
        let _ = self.remove_name();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl FileIdentity {
    fn of(path: &Path) -> io::Result<Self> {
        let stat = call(Call::Lstat, || rustix::fs::lstat(path))?;
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }
}

fn address_of(path: &Path) -> Result<SocketAddrUnix, BindError> {
    let length_bytes = path.as_os_str().len();
    if length_bytes > MAX_PATH_BYTES {
        return Err(BindError::PathTooLong {
            path: path.into(),
            length_bytes,
            max_bytes: MAX_PATH_BYTES,
        });
    }
    socket_address(path).map_err(|error| explain(path, error))
}

/// Makes the socket. Its mode becomes that of the name when it is bound.
fn new_socket() -> io::Result<OwnedFd> {
    let socket = unbound_socket()?;
    call(Call::Fchmod, || {
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
    })?;
    refuse_handles(socket.as_fd()); // streams that it accepts inherit this
    Ok(socket)
}

/// Gives the name the mode for `access`, which binding could not: it leaves out the bits of the umask.
///
/// Where others may write to the directory, the name may lead to something of theirs by now. So what it leads to is held, looked at,
/// and changed without asking the name again.
fn open_to_others(path: &Path, access: SocketAccess) -> io::Result<()> {
    let mode = match access {
        SocketAccess::Owner => return Ok(()),
        SocketAccess::Group => 0o660,
        SocketAccess::Everyone => 0o666,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = call(Call::Openat, || {
        rustix::fs::openat(CWD, path, flags, Mode::empty())
    })?;
    let stat = call(Call::Fstat, || rustix::fs::fstat(&held))?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    if !ours || FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(io::Error::other("somebody has replaced the socket"));
    }
    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
    Ok(call(Call::Chmod, || {
        rustix::fs::chmod(&held, Mode::from_raw_mode(mode))
    })?)
}

fn unbound_socket() -> io::Result<OwnedFd> {
    stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

fn bind_or_replace(
    socket: &OwnedFd,
    path: &Path,
    address: &SocketAddrUnix,
) -> Result<(), BindError> {
    let explain = |error| explain(path, error);
    let bind = || call(Call::Bind, || rustix::net::bind(socket, address));
    match bind() {
        Err(Errno::ADDRINUSE) => {}
        bound => return bound.map_err(|error| explain(error.into())),
    }
    match occupant(path, address).map_err(explain)? {
        Occupant::Nobody => {}
        Occupant::DeadServer => unlink(path).map_err(explain)?,
        Occupant::LivingServer => return Err(BindError::AlreadyRunning { path: path.into() }),
        Occupant::NotASocket => return Err(BindError::NotASocket { path: path.into() }),
    }
    bind().map_err(|error| explain(error.into()))
}

fn occupant(path: &Path, address: &SocketAddrUnix) -> io::Result<Occupant> {
    match call(Call::Lstat, || rustix::fs::lstat(path)) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {}
        Ok(_) => return Ok(Occupant::NotASocket),
        Err(Errno::NOENT) => return Ok(Occupant::Nobody),
        Err(error) => return Err(error.into()),
    }
    let probe = unbound_socket()?;
    match call(Call::Connect, || rustix::net::connect(&probe, address)) {
        Err(Errno::CONNREFUSED) => Ok(Occupant::DeadServer),
        Err(Errno::NOENT) => Ok(Occupant::Nobody),
        // A full backlog, or a socket of another type: somebody is there.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(Occupant::LivingServer),
        Err(error) => Err(error.into()),
    }
}

fn listen(socket: &OwnedFd) -> io::Result<()> {
    Ok(call(Call::Listen, || rustix::net::listen(socket, BACKLOG))?)
}

fn unlink(path: &Path) -> io::Result<()> {
    Ok(call(Call::Unlink, || rustix::fs::unlink(path))?)
}

fn explain(path: &Path, source: io::Error) -> BindError {
    let path = path.into();
    match source.kind() {
        io::ErrorKind::PermissionDenied => BindError::PermissionDenied { path, source },
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BindError::NoDirectory { path, source }
        }
        _ => BindError::Io { path, source },
    }
}

/// The exclusive lock on the directory of a name, until dropped.
struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// Takes the lock, or returns `None` if others have held it at each of `tries`.
    fn take(path: &Path, tries: u32) -> io::Result<Option<Self>> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = call(Call::Openat, || {
            rustix::fs::openat(CWD, directory, flags, Mode::empty())
        })?;
        for _ in 0..tries {
            let locked = call(Call::Flock, || {
                rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)
            });
            match locked {
                Ok(()) => return Ok(Some(Self(directory))),
                Err(Errno::WOULDBLOCK) => sleep(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing would not do if a thread has forked meanwhile: its child holds the same open file.
        let _ = call(Call::Flock, || {
            rustix::fs::flock(&self.0, FlockOperation::Unlock)
        });
    }
}

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn` (4096 unless changed).
const BACKLOG: i32 = 4096;

/// The lock is held for some ten system calls, so one pause is the rule when servers start together.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Two seconds.
const BIND_LOCK_TRIES: u32 = 400;

/// A tenth of a second: dropping must not take long, and a name that stays does no harm.
const DROP_LOCK_TRIES: u32 = 20;
