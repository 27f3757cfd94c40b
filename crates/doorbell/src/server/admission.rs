//! Who is let in: asked of a policy before a client is given anything.

use std::{io, path::PathBuf, sync::Arc};

use doorbell_shm::sys::{ControlStream, PeerIdentity, ProcessHandle};

use crate::{link::process_of, panics::contain};

/// A process that asks to be let in, as the operating system knows it.
///
/// User and group are certain: the kernel noted them when the process connected. The process is certain if it
/// [is pinned](Self::is_pinned). Its program is a hint, because a process can start another program and keep its connection, or hand the
/// connection to another process; it keeps mistakes apart, not attackers.
#[derive(Debug)]
pub struct Peer {
    identity: PeerIdentity,
    process: Option<ProcessHandle>,
}

/// What a policy says to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may connect.
    Admit,
    /// It may not, for this reason, which it is told: at most 512 bytes.
    Refuse(String),
}

impl Peer {
    fn of(control: &ControlStream, identity: PeerIdentity) -> io::Result<Self> {
        let process = process_of(control)?;
        Ok(Self { identity, process })
    }

    /// Returns the effective user when the process connected.
    pub fn uid(&self) -> u32 {
        self.identity.uid
    }

    /// Returns the effective group when the process connected. Supplementary groups are not known.
    pub fn gid(&self) -> u32 {
        self.identity.gid
    }

    /// Returns the number of the process, 0 if it is in a namespace that we cannot see into. See [`is_pinned`](Self::is_pinned).
    pub fn pid(&self) -> u32 {
        self.identity.pid
    }

    /// Returns `true` if it runs as the user that this process runs as.
    pub fn is_same_user(&self) -> bool {
        self.identity.is_same_user()
    }

    /// Returns `true` if the kernel says which process has connected, whatever has become of its number (since Linux 6.5). Otherwise the
    /// process has been looked up by its number, which another process may have by now, or has ended.
    pub fn is_pinned(&self) -> bool {
        self.process.as_ref().is_some_and(ProcessHandle::is_certain)
    }

    /// Returns the path of the program that the process runs now; `None` if it has ended or we may not know, which is the rule for
    /// processes of another user unless we are root.
    ///
    /// The path is one of the process's own file system: in a container it can be anything. It ends in " (deleted)" if the file is gone.
    pub fn executable(&self) -> Option<PathBuf> {
        self.identity.executable_of(self.process.as_ref()?)
    }
}

impl From<bool> for Admission {
    fn from(admit: bool) -> Self {
        if admit {
            Self::Admit
        } else {
            Self::Refuse("its policy does not admit you".to_owned())
        }
    }
}

/// The policy of a server; by default its own user alone is let in.
#[derive(Clone, Default)]
pub(crate) struct Policy(Option<Arc<Admit>>);

type Admit = dyn Fn(&Peer) -> Admission + Send + Sync;

impl Policy {
    pub(crate) fn new<A: Into<Admission>>(
        admit: impl Fn(&Peer) -> A + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(move |peer| admit(peer).into())))
    }

    /// Asks about whoever is at the other end of `control`. A policy that panics lets nobody in.
    ///
    /// # Errors
    ///
    /// There is no descriptor for the process that it would be asked about.
    pub(super) fn ask(
        &self,
        control: &ControlStream,
        identity: PeerIdentity,
    ) -> io::Result<Admission> {
        let Some(admit) = &self.0 else {
            return Ok(own_user_only(identity));
        };
        let peer = Peer::of(control, identity)?;
        let said = contain(|| admit(&peer)).unwrap_or_else(|| {
            tracing::error!(?peer, "the policy panicked; the client is refused");
            Admission::Refuse("its policy failed".to_owned())
        });
        Ok(said)
    }
}

fn own_user_only(identity: PeerIdentity) -> Admission {
    if identity.is_same_user() {
        return Admission::Admit;
    }
    Admission::Refuse(format!(
        "this server admits its own user only, not user {}; see `admit` of its builder",
        identity.uid
    ))
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "given"
        } else {
            "own user only"
        })
    }
}
