//! Calls of every kind from a task.

use doorbell::{CallError, Client, ItemStream, LoanError, NotifyError};

use super::messages::{
    Answer, Borrow, Collect, Echo, ITEMS, Later, Mirror, Repeat, Sealed, Shape, TOO_SHORT, Tell,
};

/// Makes one call.
pub(crate) async fn ask(client: &Client, shape: Shape, message: Sealed) -> Answer {
    match ask_for(client, shape, message).await {
        Ok(answer) => answer,
        Err(error) => Answer::Failed(error),
    }
}

async fn ask_for(client: &Client, shape: Shape, message: Sealed) -> Result<Answer, CallError> {
    let (id, length) = (message.id, message.len());
    match shape {
        Shape::Small | Shape::Large => Ok(same(&client.call(Echo(message)).await?, id, length)),
        Shape::Later => Ok(same(&client.call(Later(message)).await?, id, length)),
        Shape::Stream => {
            let items = client.stream(Repeat(message)).await?;
            all(items, id, length).await
        }
        Shape::Upload => {
            let mut upload = client.upload(Collect(Sealed::new(id, 10))).await?;
            for _ in 0..ITEMS {
                if upload.send(message.clone()).await.is_err() {
                    break; // the reply says why
                }
            }
            let bytes = upload.finish().await?;
            Ok(if bytes == ITEMS * length as u64 {
                Answer::Whole
            } else {
                Answer::Torn
            })
        }
        Shape::Both => {
            let (mut out, items) = client.bidi(Mirror(Sealed::new(id, 10))).await?;
            for _ in 0..ITEMS {
                if out.send(message.clone()).await.is_err() {
                    break;
                }
            }
            out.finish();
            all(items, id, length).await
        }
        Shape::Tell => match client.notify(Tell(message)) {
            Ok(()) | Err(NotifyError::Full { .. }) => Ok(Answer::GivenUp),
            Err(NotifyError::Call(error)) => Err(error),
            Err(_) => Ok(Answer::Torn),
        },
        Shape::GiveUp => {
            drop(client.call(Later(message)).send().await?);
            Ok(Answer::GivenUp)
        }
        Shape::Lend => {
            let bytes = message.to_bytes();
            let mut loan = match client.loan(bytes.len()).await {
                Ok(loan) => loan,
                Err(LoanError::NotConnected(error)) => return Err(error),
                Err(_) => return Ok(Answer::GivenUp), // there is no room
            };
            loan.copy_from_slice(&bytes);
            let reply = client.call(Borrow(loan.into())).await?;
            Ok(same(&Sealed::of_bytes(&reply.to_bytes()), id, length))
        }
        Shape::Expire => {
            let opened = client.bidi(Mirror(message)).timeout(TOO_SHORT).await;
            let late = match opened {
                Ok((_out, mut items)) => items.next().await.map_or(Ok(()), |item| item.map(drop)),
                Err(error) => Err(error),
            };
            too_late(late)
        }
    }
}

async fn all(mut items: ItemStream<Sealed>, id: u64, length: usize) -> Result<Answer, CallError> {
    let mut count = 0;
    while let Some(item) = items.next().await {
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

/// What is expected of a call that takes longer than it may.
pub(crate) fn too_late(ended: Result<(), CallError>) -> Result<Answer, CallError> {
    match ended {
        Ok(()) => Ok(Answer::Torn),
        Err(CallError::DeadlineExceeded | CallError::DeadlineBeforeSend) => Ok(Answer::GivenUp),
        Err(error) => Err(error),
    }
}

pub(crate) fn same(reply: &Sealed, id: u64, length: usize) -> Answer {
    if reply.is_whole() && reply.id == id && reply.len() == length {
        Answer::Whole
    } else {
        Answer::Torn
    }
}
