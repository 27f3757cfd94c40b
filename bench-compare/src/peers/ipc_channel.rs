//! ipc-channel: channels between processes, over Unix sockets.
//!
//! Channels of bytes, one each way, so that no serializer stands between; large messages are divided by the library itself.

use std::fs;

use anyhow::Context as _;
use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};

use super::not_measured;
use crate::clock::{Counter, closed_loop};
use crate::part::{Part, Work, say_ready};
use crate::payload::{self, Sequence, Turn};
use crate::sample::Figures;

/// The server's ends: requests come out of the first and answers go into the second.
type Ends = (IpcBytesReceiver, IpcBytesSender);

/// Serves until the process is ended.
///
/// # Errors
///
/// If the channel cannot be made.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let (server, name) = IpcOneShotServer::<Ends>::new()?;
    fs::write(part.directory.join(NAME_FILE), &name)?;
    say_ready()?;
    let (_receiver, (requests, answers)) = server.accept()?;
    if part.work == Work::OneWay {
        for number in 0_u64.. {
            answers.send(&payload::message(part.size_bytes, number))?;
        }
    }
    loop {
        answers.send(&requests.recv()?)?;
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    let name = fs::read_to_string(part.directory.join(NAME_FILE))?;
    let (requests, their_requests) = bytes_channel()?;
    let (their_answers, answers) = bytes_channel()?;
    IpcSender::<Ends>::connect(name)
        .context("cannot connect")?
        .send((their_requests, their_answers))?;
    match part.work {
        Work::RoundTrip => {
            let mut turn = Turn::new(|number| payload::message(part.size_bytes, number));
            closed_loop(part.limit, || {
                let request = turn.next();
                requests.send(request)?;
                payload::check(&answers.recv()?, request)
            })
        }
        Work::OneWay => {
            let (mut counter, mut sequence) = (Counter::start(part.limit), Sequence::default());
            while counter.add(1) {
                sequence.handle(&answers.recv()?);
            }
            sequence.finish()?;
            Ok(counter.finish())
        }
        _ => not_measured(part),
    }
}

const NAME_FILE: &str = "one-shot-server";
