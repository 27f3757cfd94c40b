//! Payloads that stay where they were written: both sides stamp sixteen bytes of a loan and look at those of the other side.

use std::time::Duration;

use anyhow::ensure;
use doorbell::{
    Client, Context, DecodeError, EncodeError, Incoming, Loan, Loaned, Message, MessageType,
    Payload, Status, blocking,
};

use super::{awaiting, blocking as threads};
use crate::bench::case::Setting;
use crate::bench::clock::{Laps, closed_loop};
use crate::bench::sample::Sample;

/// A loan that asks for another one.
pub(crate) struct Lent<const TYPE: u32>(Loaned);

/// Asks for a loan of the same size with the same stamp.
type Lend = Lent<22>;

/// Asks for a loan with the same bytes.
pub(crate) type Mirror = Lent<23>;

impl<const TYPE: u32> From<Loan> for Lent<TYPE> {
    fn from(loan: Loan) -> Self {
        Self(loan.into())
    }
}

impl<const TYPE: u32> Message for Lent<TYPE> {
    const TYPE: MessageType = MessageType::new(TYPE);
    type Reply = Loaned;
}

impl<const TYPE: u32> Payload for Lent<TYPE> {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.encode(out)
    }

    fn decode(bytes: Incoming<'_>) -> Result<Self, DecodeError> {
        Loaned::decode(bytes).map(Self)
    }

    fn decode_loaned(loaned: Loaned) -> Result<Self, DecodeError> {
        Ok(Self(loaned))
    }

    fn as_loaned(&self) -> Option<&Loaned> {
        Some(&self.0)
    }
}

/// Times calls by threads.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_of_threads(setting: &Setting) -> anyhow::Result<Sample> {
    threads::Session::start(setting)?.run(|client: &blocking::Client, setting| {
        let mut number = 0;
        closed_loop(setting.limit, setting.size_bytes, || {
            number += 1;
            let loan = client.loan(setting.size_bytes, PATIENCE)?;
            let reply = client.call(stamped(loan, number)).wait()?;
            check(&reply, number, setting)
        })
    })
}

/// Times calls by a task.
///
/// # Errors
///
/// If the server fails.
pub(crate) fn round_trips_of_tasks(setting: &Setting) -> anyhow::Result<Sample> {
    awaiting::Session::start(setting)?.run(|client: Client, setting| {
        Box::pin(async move {
            let mut number = 0;
            let mut laps = Laps::start(setting.limit);
            loop {
                laps.pause_task().await;
                number += 1;
                let loan = client.loan(setting.size_bytes).await?;
                let reply = client.call(stamped(loan, number)).await?;
                check(&reply, number, &setting)?;
                if !laps.end_lap() {
                    return Ok(laps.finish(setting.size_bytes));
                }
            }
        })
    })
}

/// The handler of a server of tasks.
pub(super) async fn answer(context: Context, request: Lend) -> Result<Loaned, Status> {
    let loan = context.loan(request.0.len()).await?;
    Ok(stamped(loan, stamp_of(&request.0)).0)
}

/// The handler of a server of threads.
pub(super) fn answer_blocking(context: Context, request: Lend) -> Result<Loaned, Status> {
    let loan = context.wait_loan(request.0.len())?;
    Ok(stamped(loan, stamp_of(&request.0)).0)
}

/// The handler that copies everything.
pub(super) async fn mirror(context: Context, request: Mirror) -> Result<Loaned, Status> {
    let mut loan = context.loan(request.0.len()).await?;
    loan.copy_from_slice(&request.0.copy_to_vec());
    Ok(loan.into())
}

fn stamped(mut loan: Loan, number: u64) -> Lend {
    let [low, high] = [number, !number].map(u64::to_le_bytes);
    loan.write_at(0, &low);
    loan.write_at(low.len(), &high);
    Lend::from(loan)
}

fn stamp_of(payload: &Loaned) -> u64 {
    let mut stamp = [0; 8];
    payload.copy_to_slice(0, &mut stamp);
    u64::from_le_bytes(stamp)
}

fn check(reply: &Loaned, number: u64, setting: &Setting) -> anyhow::Result<()> {
    ensure!(reply.is_in_place(), "the answer has been copied");
    ensure!(
        reply.len() == setting.size_bytes && stamp_of(reply) == number,
        "the answer is not what was asked for"
    );
    Ok(())
}

/// How long there may be no room for a loan.
const PATIENCE: Duration = Duration::from_secs(5);
