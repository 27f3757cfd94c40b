//! A directory of a test's own, with the path of a server's socket in it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Makes an empty directory.
    ///
    /// # Panics
    ///
    /// If there is no room for it.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Lets other users enter the directory; they cannot write to it.
    ///
    /// # Panics
    ///
    /// If it is not ours any more.
    pub fn open_to_others(&self) {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.directory(), mode).expect("our own directory");
    }

    /// Returns the path for the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("server.sock")
    }

    /// Returns the path for the server's socket as a name that a server or client takes.
    pub fn name(&self) -> String {
        self.socket().display().to_string()
    }
}
