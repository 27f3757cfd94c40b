//! The editor's connection to the engine, over either transport.

pub(crate) mod doorbell;

use std::{path::Path, sync::atomic::Ordering::Relaxed, time::Duration};

use ::doorbell::{Client, ItemSender, ItemStream, Message, NotifyError, Payload, Upload};

use super::socket;

/// What carries the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// Shared memory.
    Doorbell,
    /// The baseline: a Unix socket of tokio.
    Socket,
}

impl Transport {
    /// Name for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Doorbell => "Doorbell",
            Self::Socket => "tokio Unix socket",
        }
    }
}

/// How a request that failed has ended. There is no fourth way: a request without an ending is a defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The engine ran it and said no.
    Refused,
    /// The engine has not seen it.
    NotExecuted,
    /// The engine may have run it.
    Unknown,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Whether it may have run.
    pub(crate) ending: Ending,
    /// Reason, for people.
    pub(crate) text: String,
}

/// What one side of a connection has cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    /// Messages in both directions.
    pub(crate) messages: u64,
    /// Times this side slept and was woken.
    pub(crate) wake_ups: u64,
    /// System calls for sending, receiving, sleeping and waking.
    pub(crate) system_calls: u64,
}

impl std::ops::AddAssign for Costs {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.wake_ups += other.wake_ups;
        self.system_calls += other.system_calls;
    }
}

/// A connection to the engine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Over shared memory.
    Doorbell(Client),
    /// Over the baseline's socket.
    Socket(socket::Client),
}

impl Link {
    /// Connects to the engine that serves `path`.
    ///
    /// # Errors
    ///
    /// The reason in words.
    pub(crate) async fn connect(transport: Transport, path: &Path) -> anyhow::Result<Self> {
        match transport {
            Transport::Doorbell => Ok(Self::Doorbell(doorbell::connect(path).await?)),
            Transport::Socket => Ok(Self::Socket(socket::Client::connect(path).await?)),
        }
    }

    /// Sends a request and waits for the reply, at most for `limit`.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with a definite [`Ending`].
    pub(crate) async fn call<M: Message + Sync>(
        &self,
        message: M,
        limit: Duration,
    ) -> Result<M::Reply, Failure> {
        match self {
            Self::Doorbell(client) => Ok(client.call(message).timeout(limit).await?),
            Self::Socket(client) => {
                match tokio::time::timeout(limit, client.call(&message)).await {
                    Ok(reply) => reply,
                    Err(_) => Err(Failure {
                        ending: Ending::Unknown,
                        text: "the deadline passed".to_owned(),
                    }),
                }
            }
        }
    }

    /// Sends a request that is answered by a stream.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) async fn stream<M: Message>(&self, message: M) -> Result<Items<M::Reply>, Failure> {
        match self {
            Self::Doorbell(client) => Ok(Items::Doorbell(client.stream(message).await?)),
            Self::Socket(client) => client.stream(&message).map(Items::Socket),
        }
    }

    /// Sends a request and opens streams in both directions.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) async fn bidi<M: Upload>(
        &self,
        message: M,
    ) -> Result<(Sender<M::Item>, Items<M::Reply>), Failure> {
        match self {
            Self::Doorbell(client) => {
                let (sender, items) = client.bidi(message).await?;
                Ok((Sender::Doorbell(sender), Items::Doorbell(items)))
            }
            Self::Socket(client) => client
                .bidi(&message)
                .map(|(sender, items)| (Sender::Socket(sender), Items::Socket(items))),
        }
    }

    /// Sends a message that nothing answers; waits while the engine does not keep up.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) async fn notify<M: Message + Clone + Sync>(
        &self,
        message: &M,
    ) -> Result<(), Failure> {
        match self {
            Self::Doorbell(client) => loop {
                match client.notify(message.clone()) {
                    Ok(()) => return Ok(()),
                    Err(NotifyError::Full { .. }) => client.writable().await?,
                    Err(NotifyError::Call(error)) => return Err(error.into()),
                    Err(error) => {
                        return Err(Failure {
                            ending: Ending::NotExecuted,
                            text: error.to_string(),
                        });
                    }
                }
            },
            Self::Socket(client) => client.notify(message).await,
        }
    }

    /// Returns what the connection has cost this process.
    pub(crate) fn costs(&self) -> Costs {
        match self {
            Self::Doorbell(client) => doorbell::costs(client),
            Self::Socket(client) => {
                let meter = client.meter();
                let sleeps = meter.sleeps.load(Relaxed);
                Costs {
                    messages: meter.frames.load(Relaxed),
                    wake_ups: sleeps,
                    system_calls: meter.transfers.load(Relaxed) + sleeps,
                }
            }
        }
    }
}

/// Items from the engine. Dropped before its end, the stream is cancelled.
#[derive(Debug)]
pub(crate) enum Items<T> {
    /// Over shared memory.
    Doorbell(ItemStream<T>),
    /// Over the baseline's socket.
    Socket(socket::Items<T>),
}

impl<T: Payload> Items<T> {
    /// Returns the next item, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Failure>> {
        match self {
            Self::Doorbell(items) => Some(items.next().await?.map_err(Failure::from)),
            Self::Socket(items) => items.next().await,
        }
    }
}

/// Items to the engine.
#[derive(Debug)]
pub(crate) enum Sender<T> {
    /// Over shared memory.
    Doorbell(ItemSender<T>),
    /// Over the baseline's socket.
    Socket(socket::Sender<T>),
}

impl<T: Payload + Sync> Sender<T> {
    /// Sends an item; waits while the engine does not keep up.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the stream has ended.
    pub(crate) async fn send(&mut self, item: T) -> Result<(), Failure> {
        match self {
            Self::Doorbell(sender) => Ok(sender.send(item).await?),
            Self::Socket(sender) => sender.send(&item).await,
        }
    }

    /// Ends this direction.
    pub(crate) fn finish(self) {
        match self {
            Self::Doorbell(sender) => sender.finish(),
            Self::Socket(sender) => sender.finish(),
        }
    }
}
