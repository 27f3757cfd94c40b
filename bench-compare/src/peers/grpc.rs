//! tonic, gRPC over HTTP/2, on a Unix socket.
//!
//! Settings: windows of 16 MiB and the largest frames, so that 1 MiB needs no round trip for credit, and no compression. The
//! message is a `prost` message by derive whose bytes are shared and not copied when it is decoded; codec and service are what
//! generated code would contain. Pipelined calls are tasks that share one channel, one for each call under way.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream::{self, Iter, Stream};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::not_measured;
use super::runtime::{all_at_once, run, runtime};
use crate::clock::{Caller, Counter, closed_loop_task};
use crate::part::{Part, Work, say_ready};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// The message of every call.
#[derive(Clone, PartialEq, prost::Message)]
struct Packet {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

/// Serves until the process is ended.
///
/// # Errors
///
/// If the socket cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let path = part.socket();
    runtime(part)?.block_on(async move {
        let listener = UnixListener::bind(path).context("cannot bind the socket")?;
        say_ready()?;
        Server::builder()
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .add_service(Echo)
            .serve_with_incoming(UnixListenerStream::new(listener))
            .await?;
        Ok(())
    })
}

/// Sends packets back, and pours out as many as the client takes.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "compare.Echo";
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_stream = request.uri().path() == POUR;
        Box::pin(async move {
            let codec = ProstCodec::<Packet, Packet>::default();
            let mut grpc = tonic::server::Grpc::new(codec)
                .max_decoding_message_size(usize::MAX)
                .max_encoding_message_size(usize::MAX);
            Ok(if is_stream {
                grpc.server_streaming(Echo, request).await
            } else {
                grpc.unary(Echo, request).await
            })
        })
    }
}

impl UnaryService<Packet> for Echo {
    type Response = Packet;
    type Future = std::future::Ready<Result<Response<Packet>, Status>>;

    fn call(&mut self, request: Request<Packet>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl ServerStreamingService<Packet> for Echo {
    type Response = Packet;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Packet>) -> Self::Future {
        let size_bytes = request.into_inner().body.len();
        let packets = (0_u64..).map(move |number| Ok(packet(size_bytes, number)));
        let packets: Iter<_> = stream::iter(packets);
        std::future::ready(Ok(Response::new(Box::pin(packets))))
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    run(&runtime(part)?, measure_task(part.clone()))
}

async fn measure_task(part: Part) -> anyhow::Result<Figures> {
    let endpoint = Endpoint::from_shared(format!("unix:{}", part.socket_name()?))?;
    let channel = endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .connect()
        .await
        .context("cannot connect")?;
    let calls = || Calls::new(channel.clone(), part.size_bytes);
    match part.work {
        Work::RoundTrip => closed_loop_task(part.limit, calls()).await,
        Work::Pipelined { window } => {
            let callers = (0..window).map(|_| calls()).collect();
            all_at_once(callers, part.limit).await
        }
        Work::OneWay => stream(calls(), &part).await,
        Work::Loaned | Work::Connections { .. } | Work::Processes { .. } | Work::Completion => {
            not_measured(&part)
        }
    }
}

/// Calls one after the other.
struct Calls {
    grpc: Grpc<Channel>,
    requests: Turn<Packet>,
}

impl Calls {
    fn new(channel: Channel, size_bytes: usize) -> Self {
        let grpc = Grpc::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self {
            grpc,
            requests: Turn::new(|number| packet(size_bytes, number)),
        }
    }
}

impl Caller for Calls {
    async fn call(&mut self) -> anyhow::Result<()> {
        self.grpc.ready().await?;
        let request = self.requests.next();
        let codec = ProstCodec::<Packet, Packet>::default();
        let path = PathAndQuery::from_static(ECHO);
        let reply = self
            .grpc
            .unary(Request::new(request.clone()), path, codec)
            .await?;
        payload::check(&reply.get_ref().body, &request.body)
    }
}

async fn stream(mut calls: Calls, part: &Part) -> anyhow::Result<Figures> {
    calls.grpc.ready().await?;
    let codec = ProstCodec::<Packet, Packet>::default();
    let path = PathAndQuery::from_static(POUR);
    let request = Request::new(packet(part.size_bytes, 0));
    let mut items = calls
        .grpc
        .server_streaming(request, path, codec)
        .await?
        .into_inner();
    let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
    while counter.add(1) {
        let item = items.message().await?.context("the stream has ended")?;
        sequence.handle(&item.body);
    }
    sequence.finish()?;
    Ok(counter.finish())
}

fn packet(size_bytes: usize, number: u64) -> Packet {
    Packet {
        body: payload::message(size_bytes, number).into(),
    }
}

const ECHO: &str = "/compare.Echo/Echo";
const POUR: &str = "/compare.Echo/Pour";

/// Bytes that may be under way without a word from the other side.
const WINDOW_BYTES: u32 = 16 << 20;

/// The largest frame that HTTP/2 has.
const FRAME_BYTES: u32 = (1 << 24) - 1;
