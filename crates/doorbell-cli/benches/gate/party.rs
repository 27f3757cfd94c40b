//! The two processes whose instructions are counted.

use std::{collections::VecDeque, hint::black_box, io::Read as _};

use anyhow::{Context as _, bail, ensure};
use doorbell::{
    Client, Context, Incoming, ItemSender, ItemStream, Loaned, Message, MessageType, Payload,
    Server, Spin, Status, Upload,
    blocking::{self, PendingReply},
};

/// Sixty-four bytes, encoded by hand: what is counted shall be Doorbell's.
#[derive(Clone)]
struct Block([u8; 64]);

impl Payload for Block {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), doorbell::EncodeError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, doorbell::DecodeError> {
        let bytes = bytes.as_slice().try_into();
        bytes.map(Self).map_err(doorbell::DecodeError::new)
    }
}

macro_rules! message {
    ($name:ident = $number:literal -> $reply:ty) => {
        struct $name(Block);

        impl Message for $name {
            const TYPE: MessageType = MessageType::new($number);
            type Reply = $reply;
        }

        impl Payload for $name {
            fn encode(&self, out: &mut Vec<u8>) -> Result<(), doorbell::EncodeError> {
                self.0.encode(out)
            }

            fn decode(bytes: Incoming<'_>) -> Result<Self, doorbell::DecodeError> {
                Block::decode(bytes).map(Self)
            }
        }
    };
}

message!(Echo = 1 -> Block);
message!(Pour = 2 -> Block);
message!(Drain = 4 -> Block);
message!(Tell = 5 -> ());

/// A megabyte that stays where it is.
struct Lend(Loaned);

impl Message for Lend {
    const TYPE: MessageType = MessageType::new(6);
    type Reply = Loaned;
}

impl Payload for Lend {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), doorbell::EncodeError> {
        self.0.encode(out)
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, doorbell::DecodeError> {
        Loaned::decode(bytes).map(Self)
    }

    fn decode_loaned(loaned: Loaned) -> Result<Self, doorbell::DecodeError> {
        Ok(Self(loaned))
    }

    fn as_loaned(&self) -> Option<&Loaned> {
        Some(&self.0)
    }
}

impl Upload for Drain {
    type Item = Block;
}

/// Serves until its standard input ends.
pub(crate) fn serve(path: &str) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        // It never sleeps while its slow client is under way: nobody has to wake it.
        let server = Server::builder(path)
            .spin(Spin::Always)
            .on(|_: Context, echo: Echo| async move { Ok::<_, Status>(echo.0) })
            .on(|context: Context, lend: Lend| async move {
                let mut loan = context.loan(LOAN_BYTES).await?;
                let mut stamp = [0; 16];
                lend.0.copy_to_slice(0, &mut stamp);
                loan.write_at(0, &stamp);
                Ok::<_, Status>(loan.into())
            })
            .on_notify(|_: Context, tell: Tell| {
                black_box(tell.0.0);
                std::future::ready(())
            })
            .on_stream(
                |_: Context, pour: Pour, mut out: ItemSender<Block>| async move {
                    for _ in 0_u64.. {
                        out.send(pour.0.clone()).await?;
                    }
                    Ok::<_, Status>(())
                },
            )
            .on_upload(
                |_: Context, drain: Drain, mut items: ItemStream<Block>| async move {
                    while let Some(item) = items.next().await {
                        black_box(item?.0);
                    }
                    Ok::<_, Status>(drain.0)
                },
            )
            .bind()
            .await
            .context("cannot start the server")?;
        println!("READY");
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        drop(server);
        Ok(())
    })
}

/// Sends or receives so many messages of a kind.
pub(crate) fn run_client(path: &str, kind: &str, count: &str) -> anyhow::Result<()> {
    let count: usize = count.parse()?;
    let block = || Block([7; 64]);
    if kind == "async unary call" {
        return runtime()?.block_on(async {
            let client = Client::builder(path).spin(Spin::Always).connect().await?;
            for _ in 0..count {
                black_box(client.call(Echo(block())).await?.0);
            }
            Ok(())
        });
    }
    let client = blocking::Client::builder(path)
        .spin(Spin::Always)
        .connect()?;
    // Until the server is awake. A call that would have to sleep fails, see the counting, and the next one connects again.
    ensure!(
        (0..WAKING_CALLS).any(|_| client.call(Echo(block())).wait().is_ok()),
        "the server does not answer in time"
    );
    match kind {
        "blocking unary call" => {
            for _ in 0..count {
                black_box(client.call(Echo(block())).wait()?.0);
            }
        }
        "loaned call" => {
            for _ in 0..count {
                let mut loan = client.loan(LOAN_BYTES, PATIENCE)?;
                loan.write_at(0, &[7; 16]);
                let reply = client.call(Lend(loan.into())).wait()?;
                let mut stamp = [0; 16];
                reply.copy_to_slice(0, &mut stamp);
                black_box(stamp);
            }
        }
        "pipelined call" => {
            let mut window = VecDeque::with_capacity(WINDOW);
            for _ in 0..count {
                if window.len() == WINDOW {
                    let oldest: PendingReply<Echo> = window.pop_front().expect("it is full");
                    black_box(oldest.wait()?.0);
                }
                window.push_back(client.call(Echo(block())).send()?);
            }
            for last in window {
                black_box(last.wait()?.0);
            }
        }
        "call among many" => {
            let calls = client.call_all((0..count).map(|_| Echo(block())));
            for reply in calls.window(WINDOW).open()? {
                black_box(reply?.0);
            }
        }
        "item received" => {
            let items = client.stream(Pour(block())).open()?;
            for item in items.take(count) {
                black_box(item?.0);
            }
        }
        "item sent" => {
            let mut upload = client.upload(Drain(block())).open()?;
            for _ in 0..count {
                upload.send(block())?;
            }
        }
        "notification" => {
            for _ in 0..count {
                client.notify(Tell(block()))?;
            }
        }
        kind => bail!("no such kind of message: {kind}"),
    }
    Ok(())
}

const LOAN_BYTES: usize = 1 << 20;
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
const WAKING_CALLS: usize = 100;
/// Calls under way at once.
const WINDOW: usize = 256;

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(runtime)
}
