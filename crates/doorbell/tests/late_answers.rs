//! Handlers that answer when their worker has long gone to sleep.

use std::time::Duration;

use doorbell::{Client, Context, ItemSender, Message, MessageType, Server, Status};
use doorbell_testkit::{Place, eventually, resident_bytes};
use serde::{Deserialize, Serialize};

/// So many bytes, later.
#[derive(Serialize, Deserialize)]
struct Give(u32);

impl Message for Give {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Vec<u8>;
}

/// So many items of as many bytes as that.
#[derive(Serialize, Deserialize)]
struct Pour(u32, u32);

impl Message for Pour {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = Vec<u8>;
}

/// Long enough that the worker, which comes for memory when its connection has been quiet for a second, is done with that.
const LATE: Duration = Duration::from_millis(2500);

/// The first page of each of two rings, and both sides are in this process.
const LIGHT_USE_BYTES: u64 = 2 * 8192;

async fn server(place: &Place) -> Server {
    Server::builder(place.name())
        .on(|_: Context, Give(length): Give| async move {
            tokio::time::sleep(LATE).await;
            Ok::<_, Status>(vec![1; length as usize])
        })
        .on_stream(
            |_: Context, Pour(count, length): Pour, mut out: ItemSender<Vec<u8>>| async move {
                tokio::time::sleep(LATE).await;
                for _ in 0..count {
                    out.send(vec![2; length as usize]).await?;
                }
                Ok::<_, Status>(())
            },
        )
        .bind()
        .await
        .unwrap()
}

/// The only test of this program: it looks at what the process holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_that_carried_a_late_answer_goes_back() {
    let place = Place::new();
    let _server = server(&place).await;
    let client = Client::connect(place.name()).await.unwrap();
    let is_light = || resident_bytes(std::process::id()) <= LIGHT_USE_BYTES;
    for length in [14_000, 100_000] {
        let reply = client.call(Give(length)).await.unwrap();
        assert_eq!(reply, vec![1; length as usize]);
        eventually("the ring is given back", is_light);
    }
    let mut items = client.stream(Pour(10, 5000)).await.unwrap();
    while let Some(item) = items.next().await {
        assert_eq!(item.unwrap(), vec![2; 5000]);
    }
    eventually("the ring of the stream is given back", is_light);
}
