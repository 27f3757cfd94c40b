//! Many Unix sockets with tokio on one thread, at their best, as in [`super::socket`].

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use interprocess::local_socket::ListenerOptions;
use interprocess::local_socket::prelude::*;
use interprocess::local_socket::traits::tokio::{Listener as _, Stream as _};
use tokio::io::AsyncWriteExt;
use tokio::task::LocalSet;

use super::Role;
use super::socket::{FrameReader, Frames, Socket, append_frame, current_thread_runtime, name_of};
use crate::bench::case::{Setting, explain_connection};
use crate::bench::clock::{Counter, closed_loop};
use crate::bench::crowd::{Crowd, Member};
use crate::bench::load;
use crate::bench::peer;
use crate::bench::process_cost::Memory;
use crate::bench::sample::Sample;

/// Times round trips on all connections of this process at once, each with its window full.
///
/// # Errors
///
/// If the second process fails.
pub(crate) fn from_one_process(setting: &Setting) -> anyhow::Result<Sample> {
    let peer = setting.start_peer(peer::Role::Reference(Role::SocketCrowd))?;
    setting.pin_client()?;
    let runtime = current_thread_runtime()?;
    let tasks = LocalSet::new();
    let (crowd, _connected) = tasks.block_on(&runtime, async {
        let mut sockets = Vec::with_capacity(setting.connections);
        for number in 1..=setting.connections {
            let stream = interprocess::local_socket::tokio::Stream::connect(name_of(peer.path())?);
            let explain = || explain_connection(number, setting.connections);
            sockets.push(Socket::new(stream.await.with_context(explain)?));
        }
        let crowd = Crowd::start(setting.limit);
        let calls = sockets
            .into_iter()
            .map(|socket| tokio::task::spawn_local(calls(socket, crowd.join(), *setting)));
        let mut connected = Vec::with_capacity(setting.connections);
        for calls in calls.collect::<Vec<_>>() {
            connected.push(calls.await??);
        }
        anyhow::Ok((crowd, connected))
    })?;
    Ok(Sample {
        server_bytes: Memory::of_process(peer.id())
            .ok()
            .map(|memory| memory.all()),
        ..crowd.finish(setting.size_bytes)
    })
}

/// Times round trips of a process for each connection.
///
/// # Errors
///
/// If a process fails.
pub(crate) fn from_processes(setting: &Setting) -> anyhow::Result<Sample> {
    let peer = setting.start_peer(peer::Role::Reference(Role::SocketCrowd))?;
    let (sample, _connected) = load::measure(peer.path(), load::Server::Socket, setting)?;
    Ok(Sample {
        server_bytes: Memory::of_process(peer.id())
            .ok()
            .map(|memory| memory.all()),
        ..sample
    })
}

/// Calls until the time is over, and gives the connection back: what it costs the server is looked at while it is there.
async fn calls(mut socket: Socket, mut member: Member, setting: Setting) -> anyhow::Result<Socket> {
    let mut requests = Frames::of(setting.size_bytes, setting.window);
    let mut reader = FrameReader::new(setting.size_bytes);
    let mut started = VecDeque::with_capacity(setting.window);
    let mut free = setting.window;
    loop {
        let now = member.now();
        started.extend(std::iter::repeat_n(now, free));
        socket.writer.write_all(requests.fill(free)).await?;
        free = reader.read(&mut socket.reader).await?;
        for start in started.drain(..free) {
            if !member.ended(start) {
                return Ok(socket);
            }
        }
    }
}

/// Serves every connection: sends every frame back.
pub(super) fn serve(path: &Path) -> anyhow::Result<impl FnOnce() -> anyhow::Result<()> + use<>> {
    let runtime = Arc::new(current_thread_runtime()?);
    let listener = {
        let _guard = runtime.enter();
        ListenerOptions::new()
            .name(name_of(path)?)
            .create_tokio()
            .context("cannot bind the socket")?
    };
    Ok(move || {
        LocalSet::new().block_on(&runtime, async {
            loop {
                let stream = listener.accept().await?;
                // That a client is gone is no failure of the server.
                tokio::task::spawn_local(echo(Socket::new(stream)));
            }
        })
    })
}

async fn echo(mut socket: Socket) -> anyhow::Result<()> {
    let mut answers = Vec::new();
    let mut reader = FrameReader::new(0);
    while reader
        .read_each(&mut socket.reader, |frame| {
            append_frame(&mut answers, frame)
        })
        .await?
    {
        socket.writer.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}

/// A connection of a process that has nothing else to do.
pub(crate) struct BlockingSocket(interprocess::local_socket::Stream);

impl BlockingSocket {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        let stream = interprocess::local_socket::Stream::connect(name_of(path)?);
        Ok(Self(stream.context("cannot connect")?))
    }

    /// Writes a window full of requests, reads as many answers, and so on.
    ///
    /// # Errors
    ///
    /// If the server fails.
    pub(crate) fn calls(&mut self, setting: &Setting) -> anyhow::Result<Sample> {
        let mut requests = Frames::of(setting.size_bytes, setting.window);
        let mut answer = Vec::new();
        let mut round = || {
            let request = requests.fill(setting.window);
            answer.resize(request.len(), 0);
            self.0.write_all(request)?;
            self.0.read_exact(&mut answer)?;
            ensure!(answer == request, "the echo is not what was sent");
            Ok(())
        };
        if setting.window == 1 {
            return closed_loop(setting.limit, setting.size_bytes, round);
        }
        let mut counter = Counter::start(setting.limit);
        loop {
            round()?;
            if !counter.add(setting.window as u64) {
                return Ok(counter.finish(setting.size_bytes));
            }
        }
    }
}
