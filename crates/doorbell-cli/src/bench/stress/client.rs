//! A client that does what it is told and looks at every byte that comes back.

use anyhow::{Context as _, ensure};
use doorbell::{Client, Code, ConnectError, LoanError, Raw};
use futures_util::future::try_join;

use super::mix::{Kind, Work};
use crate::bench::options::Waiting;
use crate::bench::subject::loans::Mirror;
use crate::echo::{Echo, Pour, Take, Talk};

/// A connection, and how to make another one.
pub(crate) struct Worker {
    name: String,
    waiting: Waiting,
    client: Client,
}

/// What a piece of work has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Worker {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If there is no server.
    pub(crate) async fn connect(name: &str, waiting: Waiting) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            waiting,
            client: connect(name, waiting).await?,
        })
    }

    /// Does one piece of work.
    ///
    /// # Errors
    ///
    /// If a call fails or something else comes back than was sent.
    pub(crate) async fn work(&mut self, work: &Work) -> anyhow::Result<Moved> {
        match work.kind {
            Kind::Small | Kind::Medium | Kind::Large | Kind::Huge => self.call(&work.body).await?,
            Kind::Lent => self.lend(&work.body).await?,
            Kind::FromServer => self.take_stream(work).await?,
            Kind::FromClient => self.send_stream(work).await?,
            Kind::BothWays => self.both_ways(work).await?,
            Kind::Burst => self.burst(work).await?,
            Kind::Churn => {
                self.client.close();
                self.client = connect(&self.name, self.waiting)
                    .await
                    .context("cannot connect anew")?;
                self.call(&work.body).await?;
            }
        }
        Ok(Moved {
            messages: work.count as u64,
            bytes: (work.count * work.body.0.len()) as u64,
        })
    }

    async fn call(&self, body: &Raw) -> anyhow::Result<()> {
        let reply = self.client.call(Echo(body.clone())).await?;
        same(&reply, body)
    }

    /// As [`call`](Self::call), in a loan; where there is no room for one, with a copy.
    async fn lend(&self, body: &Raw) -> anyhow::Result<()> {
        let mut loan = match self.client.loan(body.0.len()).await {
            Err(LoanError::NoRoom { .. }) => return self.call(body).await,
            loan => loan?,
        };
        loan.copy_from_slice(&body.0);
        match self.client.call(Mirror::from(loan)).await {
            Ok(reply) => same(&Raw(reply.to_bytes()), body),
            Err(error) if error.code() == Code::ResourceExhausted => self.call(body).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn burst(&self, work: &Work) -> anyhow::Result<()> {
        let mut under_way = Vec::with_capacity(work.count);
        for _ in 0..work.count {
            under_way.push(self.client.call(Echo(work.body.clone())).send().await?);
        }
        for reply in under_way {
            same(&reply.await?, &work.body)?;
        }
        Ok(())
    }

    async fn take_stream(&self, work: &Work) -> anyhow::Result<()> {
        let mut items = self.client.stream(Pour(work.body.clone())).await?;
        for _ in 0..work.count {
            let item = items.next().await.context("the stream ended too early")??;
            same(&item, &work.body)?;
        }
        Ok(()) // the stream has no end: dropping it cancels it
    }

    async fn send_stream(&self, work: &Work) -> anyhow::Result<()> {
        let mut stream = self.client.upload(Take(work.body.clone())).await?;
        for _ in 0..work.count {
            stream.send(work.body.clone()).await?;
        }
        let counted = stream.finish().await?;
        ensure!(
            counted == work.count as u64,
            "the server has counted {counted} items of {}",
            work.count
        );
        Ok(())
    }

    async fn both_ways(&self, work: &Work) -> anyhow::Result<()> {
        let (mut sender, mut items) = self.client.bidi(Talk(work.body.clone())).await?;
        let send = async {
            for _ in 0..work.count {
                sender.send(work.body.clone()).await?;
            }
            sender.finish();
            anyhow::Ok(())
        };
        let receive = async {
            let mut count = 0;
            while let Some(item) = items.next().await {
                same(&item?, &work.body)?;
                count += 1;
            }
            ensure!(
                count == work.count,
                "{count} items came back of {}",
                work.count
            );
            Ok(())
        };
        try_join(send, receive).await?;
        Ok(())
    }
}

async fn connect(name: &str, waiting: Waiting) -> Result<Client, ConnectError> {
    Client::builder(name).spin(waiting.spin()).connect().await
}

fn same(came_back: &Raw, sent: &Raw) -> anyhow::Result<()> {
    ensure!(
        came_back.0 == sent.0,
        "{} bytes came back that are not the {} that were sent",
        came_back.0.len(),
        sent.0.len()
    );
    Ok(())
}
