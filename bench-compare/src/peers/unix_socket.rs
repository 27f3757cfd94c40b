//! A Unix socket with blocking reads and writes: the plainest of all, and the cheapest client where each is a process of its own.
//!
//! Frames have a length prefix and leave with one write.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use anyhow::{Context as _, ensure};

use super::not_measured;
use crate::clock::closed_loop;
use crate::part::{Part, Work, say_ready_and_stay};
use crate::payload::{self, Turn};
use crate::sample::Figures;

/// Serves until the process is ended, with a thread for each connection.
///
/// # Errors
///
/// If the socket cannot be bound.
pub(super) fn serve(part: &Part) -> anyhow::Result<()> {
    part.pin()?;
    let listener = UnixListener::bind(part.socket()).context("cannot bind the socket")?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away ends its connection.
            thread::spawn(move || echo(stream));
        }
    });
    say_ready_and_stay()
}

fn echo(mut stream: UnixStream) -> std::io::Result<()> {
    let mut frame = Vec::new();
    loop {
        read_frame(&mut stream, &mut frame)?;
        stream.write_all(&frame)?;
    }
}

/// Measures as a client.
///
/// # Errors
///
/// If the server fails or answers something else than was sent.
pub(super) fn measure(part: &Part) -> anyhow::Result<Figures> {
    part.pin()?;
    match part.work {
        Work::RoundTrip => closed_loop(part.limit, caller(part)?),
        _ => not_measured(part),
    }
}

/// Connects and returns what makes one round trip.
///
/// # Errors
///
/// If there is no server.
pub(super) fn caller(part: &Part) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<>> {
    let mut stream = UnixStream::connect(part.socket()).context("cannot connect")?;
    let size_bytes = part.size_bytes;
    let mut requests = Turn::new(|number| frame(&payload::message(size_bytes, number)));
    let mut answer = Vec::new();
    Ok(move || {
        let request = requests.next();
        stream.write_all(request)?;
        read_frame(&mut stream, &mut answer)?;
        ensure!(answer.len() == request.len(), "the echo has another length");
        payload::check(&answer[PREFIX_BYTES..], &request[PREFIX_BYTES..])
    })
}

/// Reads one frame with its prefix.
fn read_frame(stream: &mut UnixStream, frame: &mut Vec<u8>) -> std::io::Result<()> {
    // Mostly the whole frame comes with the first read.
    frame.resize(frame.len().max(FIRST_READ_BYTES), 0);
    let mut filled = 0;
    let total = loop {
        let read = stream.read(&mut frame[filled..])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(prefix) = frame[..filled].first_chunk() {
            break PREFIX_BYTES + u32::from_le_bytes(*prefix) as usize;
        }
    };
    frame.resize(total, 0);
    if filled < total {
        stream.read_exact(&mut frame[filled..])?;
    }
    Ok(())
}

/// Returns `payload` behind its length.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

const PREFIX_BYTES: usize = 4;
const FIRST_READ_BYTES: usize = 4096;
