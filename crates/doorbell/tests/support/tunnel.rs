//! The other end of a byte stream, for both kinds of server.

use std::io::{self, Read, Write};

use doorbell::{
    ByteStream, Context, ItemSender, ItemStream, Raw, Status,
    blocking::{self, ServerBuilder},
    server::Builder,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    messages::{Through, Tunnel, WELCOME},
    service::Shared,
};

pub(crate) fn awaiting(builder: Builder, shared: &Shared) -> Builder {
    let shared = shared.clone();
    builder.on_bidi(
        move |_: Context, Tunnel(through), items: ItemStream<Raw>, out: ItemSender<Raw>| {
            let (shared, unfinished) = (shared.clone(), shared.begin());
            async move {
                let stream = ByteStream::new(out, items);
                let answered = answer(through, stream, &shared).await;
                if answered.is_ok() {
                    unfinished.finish();
                }
                answered
            }
        },
    )
}

async fn answer(through: Through, stream: ByteStream, shared: &Shared) -> Result<(), Status> {
    let done = match through {
        Through::Echo => echo(stream).await,
        Through::Greet => greet(stream, shared).await,
        Through::Pour => pour(stream, shared).await,
        Through::Ignore => {
            let _kept = stream;
            std::future::pending().await
        }
        Through::Refuse => return Err(refusal()),
    };
    done.map_err(|error| Status::internal(error.to_string()))
}

async fn echo(stream: ByteStream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn greet(mut stream: ByteStream, shared: &Shared) -> io::Result<()> {
    stream.write_all(WELCOME).await?;
    stream.shutdown().await?;
    let mut buffer = [0; 10_000];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            shared.opened().await;
            shared.count(|seen| seen.read_to_end += 1);
            return Ok(());
        }
        shared.count(|seen| seen.piped += count as u64);
    }
}

async fn pour(mut stream: ByteStream, shared: &Shared) -> io::Result<()> {
    let zeros = [0; 100_000];
    loop {
        let count = stream.write(&zeros).await?;
        shared.count(|seen| seen.piped += count as u64);
    }
}

pub(crate) fn of_threads(builder: ServerBuilder, shared: &Shared) -> ServerBuilder {
    let shared = shared.clone();
    builder.on_bidi(
        move |context: Context,
              Tunnel(through),
              items: blocking::ItemStream<Raw>,
              out: blocking::ItemSender<Raw>| {
            let stream = blocking::ByteStream::new(out, items);
            answer_of_thread(&context, through, stream, &shared)
        },
    )
}

fn answer_of_thread(
    context: &Context,
    through: Through,
    mut stream: blocking::ByteStream,
    shared: &Shared,
) -> Result<(), Status> {
    let done = match through {
        Through::Echo => {
            let (mut reader, mut writer) = stream.into_split();
            io::copy(&mut reader, &mut writer).and_then(|_| writer.shutdown())
        }
        Through::Greet => greet_of_thread(stream, shared),
        Through::Pour => loop {
            match stream.write(&[0; 100_000]) {
                Ok(count) => shared.count(|seen| seen.piped += count as u64),
                Err(error) => {
                    shared.count(|seen| seen.cut_short += 1);
                    break Err(error);
                }
            }
        },
        Through::Ignore => {
            while !context.is_cancelled() {
                std::thread::yield_now();
            }
            return Err(match context.deadline() {
                Some(_) => Status::deadline_exceeded("nobody waits any more"),
                None => Status::cancelled("nobody waits any more"),
            });
        }
        Through::Refuse => return Err(refusal()),
    };
    done.map_err(|error| Status::internal(error.to_string()))
}

fn greet_of_thread(mut stream: blocking::ByteStream, shared: &Shared) -> io::Result<()> {
    stream.write_all(WELCOME)?;
    stream.shutdown()?;
    let mut buffer = [0; 10_000];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => {
                shared.count(|seen| seen.read_to_end += 1);
                return Ok(());
            }
            Ok(count) => shared.count(|seen| seen.piped += count as u64),
            Err(error) => {
                shared.count(|seen| seen.cut_short += 1);
                return Err(error);
            }
        }
    }
}

fn refusal() -> Status {
    Status::not_found("there is nothing at the other end")
}
