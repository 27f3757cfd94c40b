//! The client's side of the handshake.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use doorbell_proto::{
    connection::Role,
    handshake::{Features, Hello, Message, RefuseReason, Refused, VERSIONS, Welcome},
};
use doorbell_shm::{
    AdoptError, Layout, adopt,
    memory::adopt_in_two,
    sys::{
        self, ControlStream, Doorbell, OwnedHandle, PeerIdentity, RegionError, RegionHandle, Woken,
    },
};

use super::{Link, Terms, Wishes, bells_with, doorbell_kind, features_with, process_of};
use crate::{deadline::after, error::ConnectError};

/// Connects to the server at `path`. Blocks, for at most `timeout`.
pub(crate) fn dial(
    path: &Path,
    name: &str,
    wishes: Wishes,
    trusted: &[u32],
    timeout: Duration,
) -> Result<Link, ConnectError> {
    let dial = Dial {
        path,
        timeout,
        deadline: after(timeout),
    };
    doorbell_shm::failpoint!("dial.before");
    let control =
        ControlStream::connect(path, Some(dial.deadline)).map_err(|error| dial.system(error))?;
    doorbell_shm::failpoint!("dial.connected");
    let identity = control.peer().map_err(|error| dial.system(error))?;
    dial.check_owner(&identity, trusted)?;
    let hello = hello(name, wishes, &identity);
    dial.send(&control, &Message::Hello(hello.clone()).encode())?;
    doorbell_shm::failpoint!("dial.hello.sent");
    let (welcome, handles) = dial.receive(&control)?;
    doorbell_shm::failpoint!("dial.welcome.read");
    welcome
        .check(&hello)
        .map_err(|error| handshake(error.to_string()))?;
    dial.assemble(control, identity, &hello, &welcome, handles)
}

struct Dial<'a> {
    path: &'a Path,
    timeout: Duration,
    deadline: Instant,
}

impl Dial<'_> {
    /// A socket that somebody else put there is no server of ours.
    fn check_owner(&self, identity: &PeerIdentity, trusted: &[u32]) -> Result<(), ConnectError> {
        let uid = identity.uid;
        if identity.is_same_user() || uid == 0 || trusted.contains(&uid) {
            return Ok(());
        }
        Err(ConnectError::Stranger {
            path: self.path.to_owned(),
            uid,
        })
    }

    fn send(&self, control: &ControlStream, mut bytes: &[u8]) -> Result<(), ConnectError> {
        while !bytes.is_empty() {
            match control.send(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.within_deadline(control.wait_writable(Some(self.deadline)))?;
                }
                // It may have refused us without reading what we say: its reason can still be read.
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(self.system(error)),
            }
        }
        Ok(())
    }

    fn receive(
        &self,
        control: &ControlStream,
    ) -> Result<(Welcome, Vec<OwnedHandle>), ConnectError> {
        let mut bytes = Vec::new();
        let mut handles = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            match control.receive_with_handles(&mut buffer, MOST_HANDLES - handles.len()) {
                Ok((0, _)) => return Err(self.no_answer(&bytes)),
                Ok((count, more)) => {
                    bytes.extend_from_slice(&buffer[..count]);
                    handles.extend(more);
                    if let Some(answer) = self.decode(&bytes)? {
                        return Ok((answer, handles));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.within_deadline(control.wait_readable(Some(self.deadline)))?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(handshake(error.to_string()));
                }
                Err(error) if is_closed(&error) => return Err(self.no_answer(&bytes)),
                Err(error) => return Err(self.system(error)),
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Option<Welcome>, ConnectError> {
        match Message::decode(bytes).map_err(|error| handshake(error.to_string()))? {
            None => Ok(None),
            Some((Message::Welcome(welcome), length)) if length == bytes.len() => Ok(Some(welcome)),
            Some((Message::Welcome(_), _)) => Err(handshake("bytes follow its answer")),
            Some((Message::Refused(refused), _)) => Err(refusal(refused)),
            Some((Message::Hello(_), _)) => Err(handshake("it answered with a client's message")),
        }
    }

    fn assemble(
        &self,
        control: ControlStream,
        identity: PeerIdentity,
        hello: &Hello,
        welcome: &Welcome,
        mut handles: Vec<OwnedHandle>,
    ) -> Result<Link, ConnectError> {
        let count = handles.len();
        let in_two = welcome.features.contains(Features::GIVE_BACK);
        let expected = if in_two { MOST_HANDLES } else { HANDLES };
        let pages = in_two.then(|| handles.pop()).flatten();
        let Ok([server, client, peer_bell, bell]) = <[OwnedHandle; HANDLES]>::try_from(handles)
        else {
            return Err(handshake(format!(
                "{count} descriptors came with its answer, not {expected}"
            )));
        };
        let layout = |capacity| {
            Layout::new(capacity, welcome.max_calls).map_err(|error| handshake(error.to_string()))
        };
        let [server, client] = [server, client].map(RegionHandle::from_handle);
        let server_layout = layout(welcome.server_ring_capacity_bytes)?;
        let client_layout = layout(welcome.client_ring_capacity_bytes)?;
        let adopted = match pages.map(RegionHandle::from_handle) {
            Some(pages) => adopt_in_two(server, pages, client, server_layout, client_layout),
            None => adopt(server, client, server_layout, client_layout),
        };
        let (own, peer) = adopted.map_err(|error| self.not_adopted(error))?;
        let kind = doorbell_kind(welcome.bell);
        let doorbell =
            |handle| Doorbell::from_handle(handle, kind).map_err(|error| self.not_taken(error));
        let (peer_bell, bell) = (doorbell(peer_bell)?, doorbell(bell)?);
        let process = process_of(&control).map_err(|error| self.no_process(error))?;
        doorbell_shm::failpoint!("dial.assembled");
        Ok(Link {
            role: Role::Client,
            own,
            peer,
            bell,
            peer_bell,
            process,
            control,
            identity,
            terms: Terms::new(Role::Client, hello, welcome),
        })
    }

    /// Tells what the server did wrong from what our own system refuses.
    fn not_adopted(&self, error: AdoptError) -> ConnectError {
        match error {
            AdoptError::Map(source)
            | AdoptError::Server {
                source: RegionError::Io(source),
            }
            | AdoptError::Client {
                source: RegionError::Io(source),
            } => self.out_of_resources(source),
            error => handshake(with_causes(&error)),
        }
    }

    fn not_taken(&self, error: std::io::Error) -> ConnectError {
        if error.kind() == std::io::ErrorKind::InvalidData {
            return handshake(error.to_string());
        }
        self.out_of_resources(error)
    }

    /// Tells a server that has ended meanwhile, and that the next one may replace, from what our own system refuses.
    fn no_process(&self, source: std::io::Error) -> ConnectError {
        let is_ours = source.kind() == std::io::ErrorKind::OutOfMemory;
        if is_ours || sys::is_out_of_descriptors(&source) {
            return self.system(source);
        }
        ConnectError::NotListening {
            path: self.path.to_owned(),
            source,
        }
    }

    fn out_of_resources(&self, source: std::io::Error) -> ConnectError {
        ConnectError::System {
            path: self.path.to_owned(),
            source,
        }
    }

    fn within_deadline(&self, waited: std::io::Result<Woken>) -> Result<(), ConnectError> {
        match waited {
            Ok(Woken::Notified) => Ok(()),
            Ok(Woken::Deadline) => Err(self.timed_out()),
            Err(error) => Err(self.system(error)),
        }
    }

    fn timed_out(&self) -> ConnectError {
        ConnectError::TimedOut {
            path: self.path.to_owned(),
            after: self.timeout,
        }
    }

    /// The other side has closed the socket. Before the first byte of an answer that is what a server does that ends while we wait
    /// to be accepted; the next one will answer.
    fn no_answer(&self, bytes: &[u8]) -> ConnectError {
        if !bytes.is_empty() {
            return handshake("it closed the connection in the middle of its answer");
        }
        let text = "the connection was closed before an answer";
        ConnectError::NotListening {
            path: self.path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::ConnectionReset, text),
        }
    }

    fn system(&self, source: std::io::Error) -> ConnectError {
        let path = self.path.to_owned();
        match source.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                ConnectError::NotListening { path, source }
            }
            std::io::ErrorKind::PermissionDenied => ConnectError::PermissionDenied { path, source },
            std::io::ErrorKind::TimedOut => self.timed_out(),
            _ if sys::is_out_of_descriptors(&source) => {
                let text = format!("{source}; raise the limit of this process on open files");
                let source = std::io::Error::new(source.kind(), text);
                ConnectError::System { path, source }
            }
            _ => ConnectError::System { path, source },
        }
    }
}

fn hello(name: &str, wishes: Wishes, server: &PeerIdentity) -> Hello {
    Hello {
        versions: VERSIONS,
        features: features_with(server),
        ring_capacity_bytes: wishes.ring_capacity_bytes,
        receive_window_bytes: wishes.receive_window_bytes,
        max_message_bytes: wishes.max_message_bytes,
        bells: bells_with(server),
        name: name.to_owned(),
    }
}

fn refusal(refused: Refused) -> ConnectError {
    let Refused {
        reason,
        versions,
        mut text,
    } = refused;
    if reason == RefuseReason::Version {
        text = format!("{text}, the server {versions}; update the older of the two");
    }
    ConnectError::Refused { reason, text }
}

fn is_closed(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
    )
}

fn handshake(text: impl Into<String>) -> ConnectError {
    ConnectError::Handshake { text: text.into() }
}

/// An error in words, with what is behind it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Descriptors that ride with a welcome: two memories, the bell that we ring, the bell that we listen on.
pub(super) const HANDLES: usize = 4;

/// With a ring in two memories.
pub(super) const MOST_HANDLES: usize = HANDLES + 1;
