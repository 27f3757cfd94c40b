//! The engine's end of the baseline.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use doorbell::{Incoming, Message, Payload, Raw};
use interprocess::local_socket::{
    ListenerOptions,
    tokio::Stream,
    traits::tokio::{Listener as _, Stream as _},
};
use tokio::{
    io::BufReader,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Meter, Metered, STREAM_WINDOW,
    frame::{self, Frame, Kind},
    name_of,
    outbox::Outbox,
    tag_of,
};
use crate::demo::{
    engine::{Engine, Fault, Inlet, Outlet, Scope},
    protocol::{AwaitIdle, Complete, Describe, Diagnose, Edit, OpenDocument, OpenFile, Search},
};

/// Size of the read buffer.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// Serves the engine at `path` until `stop` is ready. Calls `on_ready` once clients can connect.
///
/// # Errors
///
/// What the operating system says about the socket.
pub(crate) async fn serve(
    engine: &'static Engine,
    path: &Path,
    on_ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = ListenerOptions::new()
        .name(name_of(path)?)
        .try_overwrite(true)
        .create_tokio()?;
    on_ready();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            stream = listener.accept() => connections.spawn(serve_connection(engine, stream?)),
        };
    }
}

async fn serve_connection(engine: &'static Engine, stream: Stream) {
    #[allow(deprecated)] // see the client
    let (read_half, write_half) = stream.split();
    let meter = Arc::new(Meter::default());
    let outbox = Arc::new(Outbox::new(Arc::clone(&meter)));
    let connection = Arc::new(Connection {
        engine,
        outbox: Arc::clone(&outbox),
        running: Mutex::default(),
    });
    let writer = tokio::spawn(async move {
        outbox
            .write_to(Metered {
                half: write_half,
                meter,
            })
            .await
    });
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, read_half);
    while let Ok(frame) = frame::read(&mut reader).await {
        connection.handle(frame);
    }
    connection.lock().values().for_each(Running::cancel);
    connection.outbox.close();
    let _ = writer.await; // it has no result, and a panic in it has been printed
}

struct Connection {
    engine: &'static Engine,
    outbox: Arc<Outbox>,
    running: Mutex<HashMap<u32, Running>>,
}

/// What the reader needs of a call or stream that runs.
#[derive(Clone)]
struct Running {
    token: CancellationToken,
    credit: Arc<Semaphore>,
    items: Option<mpsc::UnboundedSender<Vec<u8>>>, // bounded by the credit that we give
}

impl Running {
    fn cancel(&self) {
        self.token.cancel();
        self.credit.close();
    }
}

impl Connection {
    fn handle(self: &Arc<Self>, frame: Frame) {
        match frame.kind {
            Kind::Call => self.handle_call(frame),
            Kind::Stream => self.handle_stream(frame),
            Kind::Notify => {
                if let Ok(edit) = decode::<Edit>(frame.body) {
                    self.engine.edit(&edit);
                }
            }
            Kind::Cancel => self
                .lock()
                .get(&frame.id)
                .into_iter()
                .for_each(Running::cancel),
            Kind::Credit => {
                self.lock()
                    .get(&frame.id)
                    .into_iter()
                    .for_each(|it| it.credit.add_permits(usize::from(frame.tag)));
            }
            Kind::Item => {
                if let Some(items) = self
                    .lock()
                    .get(&frame.id)
                    .and_then(|running| running.items.as_ref())
                {
                    let _ = items.send(frame.body); // the handler is just ending
                }
            }
            Kind::End => self
                .lock()
                .get_mut(&frame.id)
                .into_iter()
                .for_each(|running| running.items = None),
            Kind::Reply | Kind::Error => {} // only a client gets these
        }
    }

    fn handle_call(self: &Arc<Self>, frame: Frame) {
        const OPEN_FILE: u16 = tag_of(OpenFile::TYPE);
        const OPEN_DOCUMENT: u16 = tag_of(OpenDocument::TYPE);
        const AWAIT_IDLE: u16 = tag_of(AwaitIdle::TYPE);
        const DESCRIBE: u16 = tag_of(Describe::TYPE);
        match frame.tag {
            OPEN_FILE => self.call(frame, |engine, request: OpenFile| async move {
                Ok(Raw::from(engine.open_file(request).await?))
            }),
            OPEN_DOCUMENT => {
                self.call(frame, |engine, request: OpenDocument| async move {
                    Ok(engine.open_document(request))
                });
            }
            AWAIT_IDLE => {
                self.call(frame, |engine, request: AwaitIdle| async move {
                    Ok(engine.await_idle(request).await)
                });
            }
            DESCRIBE => self.call(
                frame,
                |engine, _: Describe| async move { Ok(engine.describe()) },
            ),
            tag => self.fail(
                frame.id,
                &Fault::Invalid(format!("there is no call of type {tag}")),
            ),
        }
    }

    fn handle_stream(self: &Arc<Self>, frame: Frame) {
        const SEARCH: u16 = tag_of(Search::TYPE);
        const COMPLETE: u16 = tag_of(Complete::TYPE);
        const DIAGNOSE: u16 = tag_of(Diagnose::TYPE);
        match frame.tag {
            SEARCH => self.stream(frame, |engine, request: Search, mut ends| async move {
                engine.search(&ends.token, request, &mut ends.out).await
            }),
            COMPLETE => self.stream(frame, |engine, request: Complete, mut ends| async move {
                engine.complete(&ends.token, request, &mut ends.out).await
            }),
            DIAGNOSE => self.stream(frame, |engine, _: Diagnose, mut ends| async move {
                engine
                    .diagnose(&ends.token, &mut ends.items, &mut ends.out)
                    .await
            }),
            tag => self.fail(
                frame.id,
                &Fault::Invalid(format!("there is no stream of type {tag}")),
            ),
        }
    }

    fn call<M, F>(self: &Arc<Self>, frame: Frame, handler: impl FnOnce(&'static Engine, M) -> F)
    where
        M: Message,
        F: Future<Output = Result<M::Reply, Fault>> + Send + 'static,
    {
        let request = match decode(frame.body) {
            Ok(request) => request,
            Err(fault) => return self.fail(frame.id, &fault),
        };
        let token = self.start(frame.id, None).token;
        let (work, connection) = (handler(self.engine, request), Arc::clone(self));
        tokio::spawn(async move {
            let reply = token.run_until_cancelled(work).await;
            connection.lock().remove(&frame.id);
            match reply {
                Some(Ok(reply)) => drop(connection.outbox.push_payload(
                    Kind::Reply,
                    frame.id,
                    0,
                    &reply,
                )),
                Some(Err(fault)) => connection.fail(frame.id, &fault),
                None => {}
            }
        });
    }

    fn stream<M, F>(
        self: &Arc<Self>,
        frame: Frame,
        handler: impl FnOnce(&'static Engine, M, Ends) -> F,
    ) where
        M: Message,
        F: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let request = match decode(frame.body) {
            Ok(request) => request,
            Err(fault) => return self.fail(frame.id, &fault),
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let running = self.start(frame.id, Some(sender));
        let ends = Ends {
            token: running.token,
            out: Out {
                connection: Arc::clone(self),
                id: frame.id,
                credit: running.credit,
            },
            items: In {
                connection: Arc::clone(self),
                id: frame.id,
                receiver,
                unreturned: 0,
            },
        };
        let (work, connection) = (handler(self.engine, request, ends), Arc::clone(self));
        tokio::spawn(async move {
            let done = work.await;
            connection.lock().remove(&frame.id);
            match done {
                Ok(()) => drop(connection.outbox.push(Kind::End, frame.id, 0)),
                Err(Fault::Cancelled) => {}
                Err(fault) => connection.fail(frame.id, &fault),
            }
        });
    }

    fn start(&self, id: u32, items: Option<mpsc::UnboundedSender<Vec<u8>>>) -> Running {
        let running = Running {
            token: CancellationToken::new(),
            credit: Arc::new(Semaphore::new(STREAM_WINDOW)),
            items,
        };
        self.lock().insert(id, running.clone());
        Running {
            items: None,
            ..running
        }
    }

    fn fail(&self, id: u32, fault: &Fault) {
        let reason = Raw::from(fault.to_string());
        let _ = self.outbox.push_payload(Kind::Error, id, 0, &reason); // closed: nobody is left to tell
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the handler of a stream works with.
struct Ends {
    token: CancellationToken,
    out: Out,
    items: In,
}

impl Scope for CancellationToken {
    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        self.cancelled()
    }
}

struct Out {
    connection: Arc<Connection>,
    id: u32,
    credit: Arc<Semaphore>,
}

impl<T: Payload + Sync> Outlet<T> for Out {
    async fn send(&mut self, item: T) -> Result<(), Fault> {
        self.credit
            .acquire()
            .await
            .map_err(|_| Fault::Cancelled)?
            .forget();
        self.connection
            .outbox
            .push_payload(Kind::Item, self.id, 0, &item)
            .map_err(|_| Fault::Cancelled)
    }
}

struct In {
    connection: Arc<Connection>,
    id: u32,
    receiver: mpsc::UnboundedReceiver<Vec<u8>>,
    unreturned: u16,
}

impl<T: Payload> Inlet<T> for In {
    async fn next(&mut self) -> Result<Option<T>, Fault> {
        let Some(body) = self.receiver.recv().await else {
            return Ok(None);
        };
        self.unreturned += 1;
        if usize::from(self.unreturned) >= STREAM_WINDOW / 2 {
            let _ = self
                .connection
                .outbox
                .push(Kind::Credit, self.id, self.unreturned);
            self.unreturned = 0;
        }
        decode(body).map(Some)
    }
}

fn decode<T: Payload>(body: Vec<u8>) -> Result<T, Fault> {
    T::decode(Incoming::Owned(body)).map_err(|error| Fault::Invalid(error.to_string()))
}
