//! ZeroMQ over its `ipc` transport, by libzmq, which is built from source.
//!
//! Round trips use a pair of dealers, which is REQ and REP without the empty frame between them; pipelined calls the same with a
//! window; one way, PUSH and PULL with a queue of 100,000. libzmq has one I/O thread on each side, its default; more do not help
//! one connection. It batches by itself.

use std::collections::VecDeque;

use anyhow::{Context as _, ensure};
use zmq::{Message, Socket, SocketType};

use super::not_measured;
use crate::clock::{Counter, closed_loop};
use crate::part::{Part, Work, say_ready};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// Serves until the process is ended.
///
/// # Errors
///
/// If the socket cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let context = zmq::Context::new();
    if part.work == Work::OneWay {
        let socket = socket(&context, zmq::PUSH)?;
        socket.bind(&address(part)?)?;
        say_ready()?;
        for number in 0_u64.. {
            socket.send(payload::message(part.size_bytes, number), 0)?;
        }
    }
    let socket = socket(&context, zmq::DEALER)?;
    socket.bind(&address(part)?)?;
    say_ready()?;
    loop {
        // The message itself goes back: its bytes are not copied.
        socket.send(socket.recv_msg(0)?, 0)?;
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    let context = zmq::Context::new();
    let kind = match part.work {
        Work::OneWay => zmq::PULL,
        _ => zmq::DEALER,
    };
    let socket = socket(&context, kind)?;
    socket.connect(&address(part)?).context("cannot connect")?;
    let mut requests = Turn::new(|number| payload::message(part.size_bytes, number));
    let mut answer = Message::new();
    match part.work {
        Work::RoundTrip => closed_loop(part.limit, || {
            let request = requests.next();
            socket.send(request, 0)?;
            socket.recv(&mut answer, 0)?;
            payload::check(&answer, request)
        }),
        Work::Pipelined { window } => {
            let mut under_way = VecDeque::with_capacity(window);
            let mut counter = Counter::start(part.limit);
            loop {
                while under_way.len() < window {
                    let request = requests.next();
                    socket.send(request, 0)?;
                    under_way.push_back(payload::ends(request));
                }
                socket.recv(&mut answer, 0)?;
                ensure!(
                    under_way.pop_front() == Some(payload::ends(&answer)),
                    "the echo is not what was sent"
                );
                if !counter.add(1) {
                    return Ok(counter.finish());
                }
            }
        }
        Work::OneWay => {
            let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
            while counter.add(1) {
                socket.recv(&mut answer, 0)?;
                sequence.handle(&answer);
            }
            sequence.finish()?;
            Ok(counter.finish())
        }
        _ => not_measured(part),
    }
}

fn socket(context: &zmq::Context, kind: SocketType) -> anyhow::Result<Socket> {
    let socket = context.socket(kind)?;
    socket.set_linger(0)?;
    socket.set_sndhwm(QUEUED_MESSAGES)?;
    socket.set_rcvhwm(QUEUED_MESSAGES)?;
    Ok(socket)
}

fn address(part: &Part) -> anyhow::Result<String> {
    Ok(format!("ipc://{}", part.socket_name()?))
}

/// Messages that wait on each side at most.
const QUEUED_MESSAGES: i32 = 100_000;
