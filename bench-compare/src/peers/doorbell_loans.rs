//! Doorbell with loans: neither side copies; both write a number at both ends of theirs and look at those of the other.

use std::time::Duration;

use anyhow::ensure;
use doorbell::blocking::{Client, ServerBuilder};
use doorbell::{Context, Loan, Loaned, Message, Payload, Status};

use crate::clock::closed_loop;
use crate::part::Part;
use crate::sample::Figures;

/// Asks for a loan of the same size with the same ends.
#[derive(Payload, Message)]
#[payload(loaned)]
#[message(type = 31, reply = Loaned)]
struct Lend(Loaned);

/// Adds the handler.
pub(super) fn with_handler(builder: ServerBuilder) -> ServerBuilder {
    builder.on(|context: Context, request: Lend| {
        let reply = context.wait_loan(request.0.len())?;
        Ok::<_, Status>(stamped(reply, ends(&request.0)))
    })
}

/// Measures calls one after the other.
///
/// # Errors
///
/// If the server fails, answers something else than was sent, or copies it.
pub(super) fn round_trips(client: &Client, part: &Part) -> anyhow::Result<Figures> {
    let mut number = 0;
    closed_loop(part.limit, || {
        number += 1;
        let loan = client.loan(part.size_bytes, PATIENCE)?;
        let request = stamped(loan, (number, number));
        let reply = client.call(Lend(request)).wait()?;
        ensure!(reply.is_in_place(), "the answer has been copied");
        ensure!(
            reply.len() == part.size_bytes && ends(&reply) == (number, number),
            "the echo is not what was sent"
        );
        Ok(())
    })
}

fn stamped(mut loan: Loan, (first, last): (u64, u64)) -> Loaned {
    loan.write_at(0, &first.to_le_bytes());
    loan.write_at(loan.len() - NUMBER_BYTES, &last.to_le_bytes());
    loan.into()
}

fn ends(loaned: &Loaned) -> (u64, u64) {
    let number = |at| {
        let mut bytes = [0; NUMBER_BYTES];
        loaned.copy_to_slice(at, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    (number(0), number(loaned.len() - NUMBER_BYTES))
}

const NUMBER_BYTES: usize = size_of::<u64>();

/// How long there may be no room for a loan.
const PATIENCE: Duration = Duration::from_secs(5);
