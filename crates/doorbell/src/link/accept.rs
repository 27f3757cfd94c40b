//! The server's side of the handshake: it listens each time the socket has something, then answers; it never waits.

use std::{io, time::Instant};

use doorbell_proto::{
    connection::Role,
    handshake::{
        Features, Hello, Message, RefuseReason, Refused, ServerOffer, VERSIONS, Welcome, negotiate,
    },
};
use doorbell_shm::{
    Layout,
    memory::{create, create_in_two},
    sys::{self, ControlStream, Doorbell, PeerIdentity, RegionHandle},
};

use super::{Link, Terms, bells_with, doorbell_kind, features_with, process_of};

/// A connection whose handshake is not finished.
pub(crate) struct Greeting {
    pub(crate) control: ControlStream,
    pub(crate) identity: PeerIdentity,
    /// When the client must have said hello.
    pub(crate) deadline: Instant,
    bytes: Vec<u8>,
    hello: Option<Hello>,
}

impl Greeting {
    /// Begins with a connection that has just been accepted.
    pub(crate) fn new(control: ControlStream, identity: PeerIdentity, deadline: Instant) -> Self {
        doorbell_shm::failpoint!("accept.connected");
        Self {
            control,
            identity,
            deadline,
            bytes: Vec::new(),
            hello: None,
        }
    }

    /// Reads what is there, and returns whether the hello is complete. It may be asked again then, and finds out whether the client waits still.
    ///
    /// # Errors
    ///
    /// What is wrong with the client, which has been told if it could be.
    pub(crate) fn listen(&mut self) -> Result<bool, String> {
        let heard = self.read();
        heard.inspect_err(|text| self.refuse(RefuseReason::Malformed, text))
    }

    fn read(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 1024];
        loop {
            match self.control.receive(&mut buffer) {
                Ok(0) => {
                    return Err(
                        "the client closed the connection before it had an answer".to_owned()
                    );
                }
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(self.hello.is_some());
                }
                Err(error) => return Err(error.to_string()),
            }
            match Message::decode(&self.bytes).map_err(|error| error.to_string())? {
                None => {}
                Some((Message::Hello(hello), length)) if length == self.bytes.len() => {
                    self.hello = Some(hello);
                    return Ok(true);
                }
                Some((Message::Hello(_), _)) => {
                    return Err("bytes follow the client's hello".to_owned());
                }
                Some(_) => return Err("the client sent a server's message".to_owned()),
            }
        }
    }

    /// Answers a hello that is complete. `charge` is asked for so many bytes of memory before they are given, and what it says is returned
    /// with the connection.
    ///
    /// # Errors
    ///
    /// Why there is none; the client has been told if it could be.
    pub(crate) fn answer<C>(
        mut self,
        offer: &ServerOffer,
        charge: impl FnOnce(u64) -> Result<C, (RefuseReason, String)>,
    ) -> Result<(Link, C), String> {
        doorbell_shm::failpoint!("accept.hello.read");
        let Some(hello) = self.hello.take() else {
            return Err("the hello is not complete".to_owned());
        };
        let offer = ServerOffer {
            bells: bells_with(&self.identity),
            features: offer.features.common(features_with(&self.identity)),
            ..*offer
        };
        let welcome = negotiate(&hello, &offer).map_err(|refused| {
            let text = refused.to_string();
            self.say(&Message::Refused(refused).encode());
            text
        })?;
        let charged = region_bytes(&welcome)
            .map_err(|error| (RefuseReason::Resources, error.to_string()))
            .and_then(charge)
            .map_err(|(reason, text)| {
                self.refuse(reason, &text);
                text
            })?;
        match self.welcome(&hello, &welcome) {
            Ok(link) => Ok((link, charged)),
            Err((control, error)) => {
                let text = if sys::is_out_of_descriptors(&error) {
                    NO_DESCRIPTOR.to_owned()
                } else {
                    format!("the connection cannot be set up: {error}")
                };
                refuse(&control, RefuseReason::Resources, &text);
                Err(text)
            }
        }
    }

    fn welcome(self, hello: &Hello, welcome: &Welcome) -> Result<Link, (ControlStream, io::Error)> {
        // Before the welcome: after it nothing can be refused.
        let prepared =
            process_of(&self.control).and_then(|process| Ok((process, self.prepare(welcome)?)));
        match prepared {
            Ok((process, prepared)) => Ok(Link {
                role: Role::Server,
                own: prepared.own,
                peer: prepared.peer,
                bell: prepared.bell,
                peer_bell: prepared.peer_bell,
                process,
                control: self.control,
                identity: self.identity,
                terms: Terms::new(Role::Server, hello, welcome),
            }),
            Err(error) => Err((self.control, error)),
        }
    }

    /// Makes the memory and the doorbells, and sends the client its share.
    fn prepare(&self, welcome: &Welcome) -> io::Result<Prepared> {
        let [server, client] = layouts(welcome)?;
        let memory = match welcome.features.contains(Features::GIVE_BACK) {
            true => create_in_two(server, client)?,
            false => create(server, client)?,
        };
        let kind = doorbell_kind(welcome.bell);
        let (bell, rung_by_client) = Doorbell::pair(kind)?;
        let (heard_by_client, peer_bell) = Doorbell::pair(kind)?;
        let bytes = Message::Welcome(*welcome).encode();
        let mut handles = vec![
            memory.server_handle.as_handle(),
            memory.client_handle.as_handle(),
            rung_by_client.as_handle(),
            heard_by_client.as_handle(),
        ];
        handles.extend(memory.pages_handle.iter().map(RegionHandle::as_handle));
        // A socket that has carried nothing yet takes a message of this size whole.
        doorbell_shm::failpoint!("accept.welcome.before");
        let sent = self.control.send_with_handles(&bytes, &handles)?;
        doorbell_shm::failpoint!("accept.welcome.sent");
        if sent != bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the welcome did not fit into the socket",
            ));
        }
        Ok(Prepared {
            own: memory.own,
            peer: memory.peer,
            bell,
            peer_bell,
        })
    }

    /// Says no.
    pub(crate) fn refuse(&self, reason: RefuseReason, text: &str) {
        refuse(&self.control, reason, text);
    }

    fn say(&self, bytes: &[u8]) {
        let _ = self.control.send(bytes); // the client may be gone, which is as good
    }
}

/// Returns the layouts of the two regions.
fn layouts(welcome: &Welcome) -> io::Result<[Layout; 2]> {
    let layout = |capacity| Layout::new(capacity, welcome.max_calls).map_err(io::Error::other);
    Ok([
        layout(welcome.server_ring_capacity_bytes)?,
        layout(welcome.client_ring_capacity_bytes)?,
    ])
}

/// Returns how much memory the two regions take.
fn region_bytes(welcome: &Welcome) -> io::Result<u64> {
    let bytes = layouts(welcome)?.map(|layout| layout.region_bytes() as u64);
    Ok(bytes.iter().sum())
}

struct Prepared {
    own: doorbell_shm::OwnRegion,
    peer: doorbell_shm::PeerRegion,
    bell: Doorbell,
    peer_bell: Doorbell,
}

/// What a client is told when there is no descriptor for it.
pub(crate) const NO_DESCRIPTOR: &str =
    "the server has no descriptor left; raise its limit on open files";

/// Says no to a client that has just connected.
pub(crate) fn refuse(control: &ControlStream, reason: RefuseReason, text: &str) {
    let refused = Refused {
        reason,
        versions: VERSIONS,
        text: text.to_owned(),
    };
    let _ = control.send(&Message::Refused(refused).encode()); // the client may be gone, which is as good
}
