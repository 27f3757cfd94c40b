//! A region, read and written through its descriptor.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

/// A region of shared memory, with its words by name.
#[derive(Debug)]
pub struct Memory(File);

#[allow(missing_docs, reason = "named as in the specification")]
impl Memory {
    pub const TAIL: u64 = 128;
    pub const HEAD: u64 = 132;
    pub const SLEEP: u64 = 256;
    pub const NOTIFIED: u64 = 260;
    pub const RING: u64 = 1024;
}

impl Memory {
    /// Takes a descriptor.
    pub fn new(handle: OwnedFd) -> Self {
        Self(handle.into())
    }

    /// Reads a word.
    ///
    /// # Panics
    ///
    /// If the memory ends before it.
    pub fn load(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a word.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn store(&self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Reads bytes.
    ///
    /// # Panics
    ///
    /// If the memory ends before.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        self.0.read_exact_at(bytes, offset).expect("it is so long");
    }

    /// Writes bytes.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.try_write(offset, bytes).expect("it is writable");
    }

    /// Tries to write bytes.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    /// Tries to change the size.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_resize(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    /// Tries to throw away what is in its first page.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_punch(&self) -> io::Result<()> {
        self.try_punch_bytes(4096)
    }

    /// Tries to throw away what is in its first bytes.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_punch_bytes(&self, bytes: u64) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.0, flags, 0, bytes)?)
    }

    /// Tries to open the same memory once more, for writing.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_reopen(&self) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(file))
    }

    /// Opens a second descriptor of it.
    ///
    /// # Panics
    ///
    /// If there is none left.
    pub fn duplicate(&self) -> Self {
        Self(self.0.try_clone().expect("a descriptor"))
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Memory> for OwnedFd {
    fn from(memory: Memory) -> Self {
        memory.0.into()
    }
}
