//! Archives of rkyv that lie about themselves, behind a checksum that fits: to a server in its requests, to a client in its replies.
//!
//! They are written by hand: positions are 32 bits, relative to where they stand, and the value itself is at the end.

mod hostile;
mod support;

use std::path::Path;

use doorbell::{CallError, Client, Context, Message, Payload, Status, blocking};
use doorbell_proto::frame::{CallId, Flags, FrameHeader, FrameKind};
use doorbell_testkit::{
    Child, PATIENCE, Place, RawClient, RawServer,
    by_hand::{Frame, HandClient, flags, kind},
    role, say,
};
use hostile::{Attack, Scene, account::of_going_on, attack, path, suffer};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("liar") => answer(),
        _ => hostile::child_with(&[ARCHIVES], |builder| builder.on(sum).on(depth)),
    }
}

#[test]
fn archive_that_lies_costs_its_call() {
    suffer(ARCHIVES, &[]);
}

/// Answered with the sum.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload, Message)]
#[payload(rkyv)]
#[message(type = 301, reply = u64)]
struct Numbers(Vec<u32>);

async fn sum(_: Context, numbers: Numbers) -> Result<u64, Status> {
    Ok(numbers.0.iter().copied().map(u64::from).sum())
}

/// A chain of boxes, which may be nested in each other. Answered with how deep they are.
#[derive(Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload, Message)]
#[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
#[payload(rkyv)]
#[message(type = 302, reply = u64)]
struct Chain {
    #[rkyv(omit_bounds)]
    next: Option<Box<Chain>>,
}

async fn depth(_: Context, mut chain: Chain) -> Result<u64, Status> {
    let mut depth = 0;
    while let Some(next) = chain.next {
        (chain, depth) = (*next, depth + 1);
    }
    Ok(depth)
}

/// Four numbers, 10 in all, and then this position and this length for them.
fn numbers(position: i32, length: u32) -> Vec<u8> {
    let items = [1_u32, 2, 3, 4].map(u32::to_le_bytes).concat();
    [&items[..], &position.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// A link: whether there is a next one, and where.
fn link(next: Option<i32>) -> [u8; 8] {
    let mut link = [0; 8];
    if let Some(position) = next {
        link[0] = 1;
        link[4..].copy_from_slice(&position.to_le_bytes());
    }
    link
}

/// So many boxes. The position stands 4 bytes into a link, the next link 8 before this one.
fn chain(depth: usize) -> Vec<u8> {
    let links = (0..depth).map(|_| link(Some(-12)));
    std::iter::once(link(None)).chain(links).flatten().collect()
}

/// Archives that are none, of both types.
fn lies_about_numbers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", vec![]),
        ("half of it", numbers(-16, 4)[..12].to_vec()),
        ("a position one off", numbers(-15, 4)),
        ("a position before the message", numbers(-4096, 4)),
        ("a position of -2^31", numbers(i32::MIN, 4)),
        ("a position of 2^31 - 1", numbers(i32::MAX, 4)),
        ("numbers that are their own vector", numbers(0, 2)),
        ("one number too many", numbers(-16, 5)),
        ("2^30 - 1 numbers", numbers(-16, u32::MAX / 4)),
        ("2^32 - 1 numbers", numbers(-16, u32::MAX)),
    ]
}

fn lies_about_a_chain() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a variant that there is not", vec![9, 0, 0, 0, 0, 0, 0, 0]),
        ("a link to itself", link(Some(-4)).to_vec()),
        (
            "two links to each other",
            [link(Some(4)), link(Some(-12))].concat(),
        ),
        ("a link beyond the end", link(Some(4)).to_vec()),
        ("129 boxes", chain(129)),
        ("2000 boxes", chain(2000)),
    ]
}

/// Sends these as requests of that type and says how they are answered; each must be by `INVALID_ARGUMENT`.
fn refused(path: &Path, message: u32, lies: &[(&str, Vec<u8>)]) -> String {
    of_going_on(path, |client| {
        for (slot, (what, archive)) in (0..).zip(lies) {
            let frame = request(client, slot, message, archive);
            let answer = (frame.kind, frame.value);
            assert_eq!(answer, (kind::ERROR, 3), "{what}");
        }
        format!("{} refused", lies.len())
    })
}

fn request(client: &mut HandClient, slot: u64, message: u32, archive: &[u8]) -> Frame {
    let frame = Frame::new(kind::CALL, 1 << 32 | slot, message).body(archive.to_vec());
    client.send(&frame.flags(flags::BODY_CRC));
    client.wait_for_frame()
}

const ARCHIVES: &[Attack] = &[
    // Else the others prove nothing.
    attack("archives in order", "served: 10 and 128 boxes", |path| {
        of_going_on(path, |client| {
            let sum = request(client, 0, Numbers::TYPE.get(), &numbers(-16, 4)).body;
            let depth = request(client, 1, Chain::TYPE.get(), &chain(128)).body;
            let depth = u64::from(depth[0]) & 0x7F | u64::from(depth[1]) << 7; // a varint of two bytes
            format!("{} and {depth} boxes", sum[0])
        })
    }),
    attack("numbers that are not there", "served: 10 refused", |path| {
        refused(path, Numbers::TYPE.get(), &lies_about_numbers())
    }),
    attack("chains without end", "served: 6 refused", |path| {
        refused(path, Chain::TYPE.get(), &lies_about_a_chain())
    }),
];

/// Answered with an archive.
#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 303, reply = Numbers)]
struct Ask;

/// Answered with a chain.
#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 304, reply = Chain)]
struct AskForChain;

/// In the enemy's process: answers each client that comes with the next lie, and the first two in order.
fn answer() {
    let listener = RawServer::listen(&path());
    say("READY");
    for (_, archive) in replies() {
        for _ in ["a task", "a thread"] {
            let mut server = RawServer::accept(&listener);
            server.wait_for_frame();
            let mut header = FrameHeader::new(
                FrameKind::Response,
                CallId::new(0, 1).raw(),
                Ask::TYPE.get(),
            );
            header.flags.insert(Flags::BODY_CRC);
            header.length = archive.len() as u32;
            server.push(&RawClient::seal(header, &archive), &archive);
            server.wait_for_end();
        }
    }
}

fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let in_order = [("in order", numbers(-16, 4)), ("in order", chain(128))];
    let lies = [lies_about_numbers(), lies_about_a_chain()].concat();
    in_order.into_iter().chain(lies).collect()
}

#[test]
fn archive_that_lies_in_a_reply_is_an_error_of_its_call() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scene = Scene::start(&[]);
    let place = Place::new();
    let settings = [("path", &*place.name())];
    let enemy = Child::start("child_process", "liar", &settings);
    enemy.hear("READY");
    let (numbers, mut refused) = (lies_about_numbers().len(), 0);
    for (index, (what, _)) in replies().into_iter().enumerate() {
        let of_chain = index == 1 || index >= 2 + numbers;
        let name = place.name();
        let of_task = runtime.block_on(async {
            let client = Client::connect(&name).await.unwrap();
            if of_chain {
                client.call(AskForChain).timeout(PATIENCE).await.map(drop)
            } else {
                client.call(Ask).timeout(PATIENCE).await.map(drop)
            }
        });
        let client = blocking::Client::connect(&name).unwrap();
        let of_thread = if of_chain {
            client.call(AskForChain).timeout(PATIENCE).wait().map(drop)
        } else {
            client.call(Ask).timeout(PATIENCE).wait().map(drop)
        };
        drop(client);
        for result in [of_task, of_thread] {
            match result {
                Ok(()) => assert!(index < 2, "{what}: it was read"),
                Err(CallError::Decode(_)) => refused += 1,
                Err(other) => panic!("{what}: {other:?}"),
            }
        }
    }
    assert_eq!(refused, 2 * (replies().len() - 2));
    scene.witness.goes_on("archives that lie");
    drop(enemy);
    scene.end();
}
