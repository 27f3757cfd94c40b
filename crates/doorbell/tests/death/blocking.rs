//! Calls of every kind from a thread.

use doorbell::{
    CallError, LoanError, NotifyError,
    blocking::{Client, ItemStream},
};

use super::{
    asking::{same, too_late},
    messages::{
        Answer, Borrow, Collect, Echo, ITEMS, Later, Mirror, Repeat, Sealed, Shape, TOO_SHORT, Tell,
    },
};

/// Makes one call.
pub(crate) fn ask(client: &Client, shape: Shape, message: Sealed) -> Answer {
    ask_for(client, shape, message).unwrap_or_else(Answer::Failed)
}

fn ask_for(client: &Client, shape: Shape, message: Sealed) -> Result<Answer, CallError> {
    let (id, length) = (message.id, message.len());
    match shape {
        Shape::Small | Shape::Large => Ok(same(&client.call(Echo(message)).wait()?, id, length)),
        Shape::Later => Ok(same(&client.call(Later(message)).wait()?, id, length)),
        Shape::Stream => all(client.stream(Repeat(message)).open()?, id, length),
        Shape::Upload => {
            let mut upload = client.upload(Collect(Sealed::new(id, 10))).open()?;
            for _ in 0..ITEMS {
                if upload.send(message.clone()).is_err() {
                    break; // the reply says why
                }
            }
            let bytes = upload.finish()?;
            Ok(if bytes == ITEMS * length as u64 {
                Answer::Whole
            } else {
                Answer::Torn
            })
        }
        Shape::Both => {
            let (mut out, items) = client.bidi(Mirror(Sealed::new(id, 10))).open()?;
            for _ in 0..ITEMS {
                if out.send(message.clone()).is_err() {
                    break;
                }
            }
            out.finish();
            all(items, id, length)
        }
        Shape::Tell => match client.notify(Tell(message)) {
            Ok(()) | Err(NotifyError::Full { .. }) => Ok(Answer::GivenUp),
            Err(NotifyError::Call(error)) => Err(error),
            Err(_) => Ok(Answer::Torn),
        },
        Shape::GiveUp => {
            drop(client.call(Later(message)).send()?);
            Ok(Answer::GivenUp)
        }
        Shape::Lend => {
            let bytes = message.to_bytes();
            let mut loan = match client.loan(bytes.len(), doorbell_testkit::PATIENCE) {
                Ok(loan) => loan,
                Err(LoanError::NotConnected(error)) => return Err(error),
                Err(_) => return Ok(Answer::GivenUp), // there is no room
            };
            loan.copy_from_slice(&bytes);
            let reply = client.call(Borrow(loan.into())).wait()?;
            Ok(same(&Sealed::of_bytes(&reply.to_bytes()), id, length))
        }
        Shape::Expire => {
            let opened = client.bidi(Mirror(message)).timeout(TOO_SHORT).open();
            too_late(
                opened.and_then(|(_out, mut items)| {
                    items.next().map_or(Ok(()), |item| item.map(drop))
                }),
            )
        }
    }
}

fn all(items: ItemStream<Sealed>, id: u64, length: usize) -> Result<Answer, CallError> {
    let mut count = 0;
    for item in items {
        if !matches!(same(&item?, id, length), Answer::Whole) {
            return Ok(Answer::Torn);
        }
        count += 1;
    }
    Ok(if count == ITEMS {
        Answer::Whole
    } else {
        Answer::Torn
    })
}
