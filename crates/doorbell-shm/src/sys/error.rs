//! Errors that mean the same on every system.

use std::io;
use std::path::PathBuf;

/// Why memory handed over by a peer is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The handle is not anonymous shared memory.
    #[error("handle is not anonymous shared memory: {found}")]
    NotMemory {
        /// What it is instead.
        found: &'static str,
    },
    /// The region could still change under us.
    #[error("region lacks seals: has {present:#x}, needs {needed:#x}")]
    Unsealed {
        /// Seals that the region carries, as the system numbers them.
        present: u32,
        /// Seals that it must carry.
        needed: u32,
    },
    /// The region that we are to write can no longer be written.
    #[error("region is sealed against our writing: has {present:#x}")]
    NotWritable {
        /// Seals that the region carries, as the system numbers them.
        present: u32,
    },
    /// The region is larger or smaller than agreed.
    #[error("region has {actual_bytes} bytes, agreed were {expected_bytes}")]
    WrongSize {
        /// Size agreed in the handshake.
        expected_bytes: usize,
        /// Size found.
        actual_bytes: u64,
    },
    /// The system refused to answer.
    #[error("cannot examine region")]
    Io(#[from] io::Error),
}

/// Why a [`Listener`](super::Listener) could not be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// A living server listens there. It is left alone.
    #[error("a server is already listening at {}", .path.display())]
    AlreadyRunning {
        /// Address that was tried.
        path: PathBuf,
    },
    /// Something that no server left behind is in the way. It is left alone.
    #[error("{} exists and is not a socket", .path.display())]
    NotASocket {
        /// Address that was tried.
        path: PathBuf,
    },
    /// The address does not fit the system's limit.
    #[error("socket path has {length_bytes} bytes, at most {max_bytes} fit: {}", .path.display())]
    PathTooLong {
        /// Address that was tried.
        path: PathBuf,
        /// Its length.
        length_bytes: usize,
        /// Longest that the system takes.
        max_bytes: usize,
    },
    /// We may not create or inspect the address.
    #[error("no permission to listen at {}", .path.display())]
    PermissionDenied {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
    /// The directory to hold the address does not exist.
    #[error("no directory to hold {}", .path.display())]
    NoDirectory {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
    /// Another process keeps the directory locked. Servers hold that lock for the length of a few system calls.
    #[error("directory of {} stays locked by another process", .path.display())]
    Locked {
        /// Address that was tried.
        path: PathBuf,
    },
    /// The system refused for another reason.
    #[error("cannot listen at {}", .path.display())]
    Io {
        /// Address that was tried.
        path: PathBuf,
        /// Reason given by the operating system.
        source: io::Error,
    },
}

impl BindError {
    /// Returns `true` if the same attempt can succeed later without any change by the caller.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::AlreadyRunning { .. } | Self::Locked { .. } => true,
            Self::NotASocket { .. }
            | Self::PathTooLong { .. }
            | Self::PermissionDenied { .. }
            | Self::NoDirectory { .. }
            | Self::Io { .. } => false,
        }
    }
}
