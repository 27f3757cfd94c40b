//! What a connection may take beside its own limits: a share of what all connections of a user, or of a server, have together.
//!
//! The machine does not know of other connections. It asks an [`Allowance`] before it takes something that is worth counting, which is
//! rare: some calls at a time, a divided message, a stream. What it holds is given back at the latest when the connection ends.

use std::fmt;

/// What is counted over many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// Calls in flight. Taken some at a time.
    Calls,
    /// Bytes of divided messages under assembly, at their announced size.
    AssemblyBytes,
    /// Bytes of items that one side may have sent and the other has not taken: a window for each direction of a stream.
    StreamBytes,
}

/// Answers for all connections together. Called while the connection is locked, so it must not wait.
pub trait Allowance: fmt::Debug + Send {
    /// Takes up to a few calls at once; how many, at least one.
    ///
    /// # Errors
    ///
    /// Why there is not even one, for the caller of the call.
    fn take_calls(&self) -> Result<u32, String>;

    /// Takes that many bytes of a share.
    ///
    /// # Errors
    ///
    /// Why not, for the caller of the call.
    fn take(&self, share: Share, bytes: u64) -> Result<(), String>;

    /// Gives back some of what was taken.
    fn give_back(&self, share: Share, amount: u64);

    /// Looks at the size of the metadata of a request or notification, if it has any.
    ///
    /// # Errors
    ///
    /// Why it is too large, for the caller of the call.
    fn check_metadata(&self, bytes: u64) -> Result<(), String>;
}

/// What one connection holds of its allowance; given back when dropped.
#[derive(Debug)]
pub(super) struct Purse {
    allowance: Option<Box<dyn Allowance>>,
    /// Calls that may be open; all there can be if nobody counts them.
    calls: usize,
    /// Calls that are kept in hand, so that the allowance is not asked at every call.
    spare_calls: usize,
    assembly_bytes: u64,
    stream_bytes: u64,
}

impl Purse {
    /// Returns the purse of a connection whose calls and bytes are counted nowhere else.
    pub(super) const fn unlimited() -> Self {
        Self {
            allowance: None,
            calls: usize::MAX,
            spare_calls: usize::MAX,
            assembly_bytes: 0,
            stream_bytes: 0,
        }
    }

    pub(super) fn new(allowance: Box<dyn Allowance>) -> Self {
        Self {
            allowance: Some(allowance),
            calls: 0,
            spare_calls: 0,
            ..Self::unlimited()
        }
    }

    /// Returns `true` if one more call can be open without asking for more.
    #[inline]
    pub(super) fn has_room(&self, open: usize) -> bool {
        open < self.calls
    }

    /// Makes sure that one more call can be open.
    #[inline]
    pub(super) fn make_room(&mut self, open: usize) -> Result<(), String> {
        if self.has_room(open) {
            return Ok(());
        }
        self.take_calls()
    }

    #[cold]
    fn take_calls(&mut self) -> Result<(), String> {
        if let Some(allowance) = &self.allowance {
            let taken = usize::try_from(allowance.take_calls()?).unwrap_or(usize::MAX);
            self.calls = self.calls.saturating_add(taken);
            // An allowance that gives one at a time has few, and others wait for it.
            self.spare_calls = taken.saturating_sub(1).saturating_mul(2);
        }
        Ok(())
    }

    /// Gives calls back if many more are held than are open.
    #[inline]
    pub(super) fn trim(&mut self, open: usize) {
        if self.calls > open.saturating_add(self.spare_calls) {
            self.keep_calls(open);
        }
    }

    /// Gives back all calls but the open ones.
    #[cold]
    pub(super) fn keep_calls(&mut self, open: usize) {
        if let Some(allowance) = &self.allowance
            && open < self.calls
        {
            let unused = self.calls.saturating_sub(open);
            allowance.give_back(Share::Calls, u64::try_from(unused).unwrap_or(u64::MAX));
            self.calls = open;
        }
    }

    pub(super) fn take(&mut self, share: Share, bytes: u64) -> Result<(), String> {
        if let Some(allowance) = &self.allowance {
            allowance.take(share, bytes)?;
            let held = self.held(share);
            *held = held.saturating_add(bytes);
        }
        Ok(())
    }

    pub(super) fn give_back(&mut self, share: Share, bytes: u64) {
        let held = self.held(share);
        let bytes = bytes.min(*held);
        *held = held.saturating_sub(bytes);
        if let Some(allowance) = self.allowance.as_ref().filter(|_| bytes > 0) {
            allowance.give_back(share, bytes);
        }
    }

    pub(super) fn check_metadata(&self, bytes: u64) -> Result<(), String> {
        let allowance = self.allowance.as_ref();
        allowance.map_or(Ok(()), |allowance| allowance.check_metadata(bytes))
    }

    fn held(&mut self, share: Share) -> &mut u64 {
        if share == Share::StreamBytes {
            &mut self.stream_bytes
        } else {
            &mut self.assembly_bytes // calls are counted apart
        }
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.keep_calls(0);
        self.give_back(Share::AssemblyBytes, self.assembly_bytes);
        self.give_back(Share::StreamBytes, self.stream_bytes);
    }
}
