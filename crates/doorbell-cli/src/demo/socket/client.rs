//! The editor's end of the baseline.

use std::{
    collections::HashMap,
    io,
    marker::PhantomData,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use doorbell::{Incoming, Message, Payload, Upload};
use interprocess::local_socket::{tokio::Stream, traits::tokio::Stream as _};
use tokio::{
    io::{AsyncRead, BufReader},
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    Meter, Metered, STREAM_WINDOW,
    frame::{self, Frame, Kind},
    name_of,
    outbox::{Closed, Outbox},
    tag_of,
};
use crate::demo::link::{Ending, Failure};

/// Size of the read buffer.
const READ_BUFFER_BYTES: usize = 64 << 10;

type Answer = Result<Vec<u8>, Failure>;

/// Both directions of a stream.
pub(crate) type Ends<M> = (Sender<<M as Upload>::Item>, Items<<M as Message>::Reply>);

/// A connection to the engine. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    outbox: Arc<Outbox>,
    waiting: Arc<Waiting>,
    next_id: AtomicU32,
    meter: Arc<Meter>,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Client {
    /// Connects to the engine at `path`.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        let stream = Stream::connect(name_of(path)?).await?;
        let meter = Arc::new(Meter::default());
        let metered = |half| Metered {
            half,
            meter: Arc::clone(&meter),
        };
        // Not through `&Stream`: that asks the kernel once more before each sleep.
        #[allow(deprecated)]
        let (read_half, write_half) = stream.split();
        let outbox = Arc::new(Outbox::new(Arc::clone(&meter)));
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, metered(read_half));
        let write_half = Metered {
            half: write_half,
            meter: Arc::clone(&meter),
        };
        let tasks = [
            tokio::spawn(read_all(
                reader,
                Arc::clone(&waiting),
                Arc::clone(&outbox),
                Arc::clone(&meter),
            ))
            .abort_handle(),
            tokio::spawn({
                let outbox = Arc::clone(&outbox);
                async move { outbox.write_to(write_half).await }
            })
            .abort_handle(),
        ];
        Ok(Self(Arc::new(Connection {
            outbox,
            waiting,
            next_id: AtomicU32::new(1),
            meter,
            tasks,
        })))
    }

    /// Sends a request and waits for its reply. Dropped, it cancels the request.
    ///
    /// # Errors
    ///
    /// A [`Failure`] that tells whether the engine may have seen the request.
    pub(crate) async fn call<M: Message>(&self, message: &M) -> Result<M::Reply, Failure> {
        let (sender, receiver) = oneshot::channel();
        let request = self.register(Entry::Call(sender))?;
        self.send(Kind::Call, request.id, tag_of(M::TYPE), message)?;
        let body = receiver.await.map_err(|_| disconnected())??;
        decode(body)
    }

    /// Sends a request and returns the stream of its items. Dropped, the stream is cancelled.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn stream<M: Message>(&self, message: &M) -> Result<Items<M::Reply>, Failure> {
        self.open(message, None)
    }

    /// As [`stream`](Self::stream), with items in the other direction too.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn bidi<M: Upload>(&self, message: &M) -> Result<Ends<M>, Failure> {
        let credit = Arc::new(Semaphore::new(STREAM_WINDOW));
        let items = self.open(message, Some(Arc::clone(&credit)))?;
        let (connection, id) = (Arc::clone(&self.0), items.request.id);
        Ok((
            Sender {
                connection,
                id,
                credit,
                item: PhantomData,
            },
            items,
        ))
    }

    /// Sends a message that nothing answers; waits while too much is queued.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) async fn notify<M: Message>(&self, message: &M) -> Result<(), Failure> {
        self.0
            .outbox
            .writable()
            .await
            .map_err(|Closed| not_connected())?;
        self.send(Kind::Notify, 0, tag_of(M::TYPE), message)
    }

    /// Returns what this side has asked of the kernel.
    pub(crate) fn meter(&self) -> &Meter {
        &self.0.meter
    }

    fn open<M: Message>(
        &self,
        message: &M,
        credit: Option<Arc<Semaphore>>,
    ) -> Result<Items<M::Reply>, Failure> {
        let (sender, receiver) = mpsc::unbounded_channel(); // bounded by the credit that we give
        let request = self.register(Entry::Stream(sender, credit))?;
        self.send(Kind::Stream, request.id, tag_of(M::TYPE), message)?;
        Ok(Items {
            request,
            receiver,
            unreturned: 0,
            item: PhantomData,
        })
    }

    fn register(&self, entry: Entry) -> Result<Request, Failure> {
        let id = self.0.next_id.fetch_add(1, Relaxed);
        self.0
            .waiting
            .lock()
            .as_mut()
            .ok_or_else(not_connected)?
            .insert(id, entry);
        Ok(Request {
            connection: Arc::clone(&self.0),
            id,
        })
    }

    fn send(&self, kind: Kind, id: u32, tag: u16, payload: &impl Payload) -> Result<(), Failure> {
        self.0
            .outbox
            .push_payload(kind, id, tag, payload)
            .map_err(|Closed| not_connected())
    }
}

/// A request that has not been answered. Dropped, it is cancelled.
#[derive(Debug)]
struct Request {
    connection: Arc<Connection>,
    id: u32,
}

impl Drop for Request {
    fn drop(&mut self) {
        let unanswered = self
            .connection
            .waiting
            .lock()
            .as_mut()
            .and_then(|waiting| waiting.remove(&self.id));
        if unanswered.is_some() {
            let _ = self.connection.outbox.push(Kind::Cancel, self.id, 0); // closed: nobody is left to cancel
        }
    }
}

/// Items from the engine.
#[derive(Debug)]
pub(crate) struct Items<T> {
    request: Request,
    receiver: mpsc::UnboundedReceiver<Answer>,
    unreturned: u16,
    item: PhantomData<fn() -> T>,
}

impl<T: Payload> Items<T> {
    /// Returns the next item, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<T, Failure>> {
        let body = self.receiver.recv().await?;
        self.unreturned += 1;
        if usize::from(self.unreturned) >= STREAM_WINDOW / 2 {
            let _ =
                self.request
                    .connection
                    .outbox
                    .push(Kind::Credit, self.request.id, self.unreturned);
            self.unreturned = 0;
        }
        Some(body.and_then(decode))
    }
}

/// Items to the engine.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    connection: Arc<Connection>,
    id: u32,
    credit: Arc<Semaphore>,
    item: PhantomData<fn(T)>,
}

impl<T: Payload> Sender<T> {
    /// Sends an item; waits while the engine does not keep up.
    ///
    /// # Errors
    ///
    /// A [`Failure`] if the stream has ended.
    pub(crate) async fn send(&mut self, item: &T) -> Result<(), Failure> {
        self.credit
            .acquire()
            .await
            .map_err(|_| disconnected())?
            .forget();
        self.connection
            .outbox
            .push_payload(Kind::Item, self.id, 0, item)
            .map_err(|Closed| disconnected())
    }

    /// Ends this direction of the stream.
    pub(crate) fn finish(self) {
        let _ = self.connection.outbox.push(Kind::End, self.id, 0); // closed: it has ended anyway
    }
}

/// Who waits for answers; `None` once the connection has ended.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u32, Entry>>>);

#[derive(Debug)]
enum Entry {
    Call(oneshot::Sender<Answer>),
    Stream(mpsc::UnboundedSender<Answer>, Option<Arc<Semaphore>>),
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frame to whom it belongs. One that belongs to nobody was under way when its request was cancelled.
    fn deliver(&self, frame: Frame) {
        let mut waiting = self.lock();
        let Some(waiting) = waiting.as_mut() else {
            return;
        };
        let ending = match frame.kind {
            Kind::Reply => Some(Ok(frame.body)),
            Kind::Error => Some(Err(refused(
                String::from_utf8_lossy(&frame.body).into_owned(),
            ))),
            Kind::End => None,
            Kind::Item | Kind::Credit => {
                if let Some(entry) = waiting.get(&frame.id) {
                    entry.handle(frame);
                }
                return;
            }
            Kind::Call | Kind::Stream | Kind::Notify | Kind::Cancel => return, // only an engine gets these
        };
        if let Some(entry) = waiting.remove(&frame.id) {
            entry.end(ending);
        }
    }

    fn fail_all(&self) {
        for (_, entry) in self.lock().take().unwrap_or_default() {
            entry.end(Some(Err(disconnected())));
        }
    }
}

impl Entry {
    fn handle(&self, frame: Frame) {
        match (self, frame.kind) {
            (Self::Stream(items, _), Kind::Item) => drop(items.send(Ok(frame.body))), // fails if it is just being dropped
            (Self::Stream(_, Some(credit)), _) => credit.add_permits(usize::from(frame.tag)),
            _ => {}
        }
    }

    fn end(self, last: Option<Answer>) {
        match (self, last) {
            (Self::Call(reply), Some(last)) => drop(reply.send(last)),
            (Self::Call(reply), None) => drop(reply),
            (Self::Stream(items, credit), last) => {
                credit.iter().for_each(|credit| credit.close());
                last.into_iter().for_each(|last| drop(items.send(last)));
            }
        }
    }
}

async fn read_all(
    mut reader: impl AsyncRead + Unpin,
    waiting: Arc<Waiting>,
    outbox: Arc<Outbox>,
    meter: Arc<Meter>,
) {
    while let Ok(frame) = frame::read(&mut reader).await {
        meter.frames.fetch_add(1, Relaxed);
        waiting.deliver(frame);
    }
    outbox.close();
    waiting.fail_all();
}

fn decode<T: Payload>(body: Vec<u8>) -> Result<T, Failure> {
    T::decode(Incoming::Owned(body)).map_err(|error| refused(error.to_string()))
}

fn refused(text: String) -> Failure {
    Failure {
        ending: Ending::Refused,
        text,
    }
}

fn disconnected() -> Failure {
    Failure {
        ending: Ending::Unknown,
        text: "the connection ended".to_owned(),
    }
}

fn not_connected() -> Failure {
    Failure {
        ending: Ending::NotExecuted,
        text: "not connected".to_owned(),
    }
}
