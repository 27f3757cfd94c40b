//! Attacks of a client on a server with frames that are wrong by themselves, or where they stand.

mod hostile;
mod support;

use std::path::Path;

use doorbell::Message as _;
use doorbell_testkit::by_hand::{Frame, HandClient, flags, kind};
use hostile::{
    Attack,
    account::{of_going_on, of_the_end},
    attack, suffer, suffer_in_threads,
};
use support::messages::{Add, Double, Stuck, StuckStream, StuckUpload};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[STATES, HEADERS, METADATA]);
}

#[test]
fn frame_in_a_state_where_it_does_not_belong_costs_the_connection() {
    suffer(STATES, &[]);
}

#[test]
fn frame_that_is_malformed_costs_the_connection() {
    suffer(HEADERS, &[]);
    suffer_in_threads(HEADERS);
    suffer(METADATA, &[]);
}

/// The call of slot 0 that is opened first.
const FIRST: u64 = 1 << 32;

fn call(id: u64, message: u32) -> Frame {
    Frame::new(kind::CALL, id, message)
}

/// What opens a call.
type Begin = fn(&mut HandClient);

/// A call of each kind, as it is under way when the frame comes.
const UNDER_WAY: [(&str, Begin); 6] = [
    ("none", |_| {}),
    ("unary", |client| {
        client.send(&call(FIRST, Stuck::TYPE.get()))
    }),
    ("stream", |client| {
        client.send(&call(FIRST, StuckStream::TYPE.get()).flags(flags::STREAMING))
    }),
    ("upload", |client| {
        client.send(&call(FIRST, StuckUpload::TYPE.get()).flags(flags::UPLOAD))
    }),
    ("both", |client| {
        client.send(&call(FIRST, Double::TYPE.get()).flags(flags::UPLOAD | flags::STREAMING))
    }),
    ("over", |client| {
        client.send(&call(FIRST, Add::TYPE.get()).body([1, 2]));
        while client.wait_for_frame().kind != kind::RESPONSE {}
    }),
];

/// A frame of that kind that is in order by itself.
fn of_kind(kind: u8) -> Frame {
    let frame = Frame::new(kind, FIRST, 0);
    match kind {
        kind::CALL => call(FIRST, Add::TYPE.get()).body([1, 2]),
        kind::RESPONSE => Frame { value: 7, ..frame },
        kind::ERROR => Frame { value: 13, ..frame }.body([0; 4]),
        kind::DATA => frame.body([5]),
        kind::CREDIT => Frame { value: 1, ..frame },
        kind::NOTIFY => Frame::new(kind, 0, 0xDEAD),
        kind::GOAWAY => Frame::new(kind, 0, 0),
        _ => frame,
    }
}

/// For kinds 1 to 11, whether the connection goes on. Those of loans are in `hostile_loans`.
fn matrix(path: &Path) -> String {
    let of_state = |(name, begin): (&str, Begin)| {
        let fates = (1..=11).map(|kind| {
            let mut client = HandClient::connect(path);
            begin(&mut client);
            client.send(&of_kind(kind));
            client.send(&Frame::new(kind::PING, 9, 0));
            loop {
                match client.read() {
                    Some(frame) if frame.kind == kind::PONG && frame.id == 9 => return 'o',
                    Some(frame) if frame.kind == kind::GOAWAY && frame.value == 1 => return 'x',
                    _ => std::thread::yield_now(),
                }
            }
        });
        format!("{name} {}", fates.collect::<String>())
    };
    UNDER_WAY.map(of_state).join(", ")
}

const STATES: &[Attack] = &[
    attack(
        "every kind in every state",
        "none oxxxxxxoooo, unary xxxxxoxoooo, stream xxxxxoooooo, upload xxxoooxoooo, both xxxoooooooo, over xxxoooooooo",
        matrix,
    ),
    attack(
        "every kind that there is not",
        "239 of 239 were told",
        |path| {
            let told = (17..=255).filter(|kind| {
                let account = of_the_end(path, |client| client.send(&Frame::new(*kind, 0, 0)));
                account == format!("told: frame kind {kind} is unknown")
            });
            format!("{} of 239 were told", told.count())
        },
    ),
    attack(
        "what only a server says",
        "told: QUIET does not travel to a server",
        |path| of_the_end(path, |client| client.send(&Frame::new(kind::QUIET, 0, 0))),
    ),
];

const HEADERS: &[Attack] = &[
    attack(
        "every flag on every kind that has it not",
        "all were told",
        |path| {
            let allowed = [
                (kind::PING, flags::BODY_CRC),
                (kind::CANCEL, flags::BODY_CRC),
                (kind::CREDIT, flags::BODY_CRC),
                (kind::END, flags::BODY_CRC),
                (kind::GOAWAY, flags::BODY_CRC),
                (
                    kind::NOTIFY,
                    flags::BODY_CRC | flags::PACKED | flags::LOANED,
                ),
                (
                    kind::DATA,
                    flags::BODY_CRC | flags::PACKED | flags::LOANED | flags::MORE | flags::CONTINUE,
                ),
            ];
            for (kind, allowed) in allowed {
                for flag in (0..8)
                    .map(|bit| 1 << bit)
                    .filter(|flag| allowed & flag == 0)
                {
                    let account =
                        of_the_end(path, |client| client.send(&of_kind(kind).flags(flag)));
                    assert!(
                        account.contains("are not allowed on"),
                        "{flag:#x} on {kind}: {account}"
                    );
                }
            }
            "all were told".to_owned()
        },
    ),
    attack(
        "a wrong checksum of the header",
        "told: checksum is",
        |path| {
            of_the_end(path, |client| {
                let mut record = Frame::new(kind::PING, 1, 0).bytes();
                record[23] ^= 0x80;
                client.send_record(&record);
            })
        },
    ),
    attack(
        "a wrong checksum of the body",
        "told: checksum is",
        |path| {
            of_the_end(path, |client| {
                let mut record = call(FIRST, 7).flags(flags::BODY_CRC).body([1; 100]).bytes();
                record[100] ^= 1;
                client.send_record(&record);
            })
        },
    ),
    attack(
        "a cancel with a body",
        "told: a body of 1 bytes is not allowed",
        |path| {
            of_the_end(path, |client| {
                client.send(&Frame::new(kind::CANCEL, FIRST, 0).body([0]))
            })
        },
    ),
    attack("a credit of 0", "told: value 0 is not allowed", |path| {
        of_the_end(path, |client| {
            client.send(&Frame::new(kind::CREDIT, FIRST, 0))
        })
    }),
    attack(
        "a notification with an id",
        "told: id 0x100000000",
        |path| {
            of_the_end(path, |client| {
                client.send(&Frame::new(kind::NOTIFY, FIRST, 5))
            })
        },
    ),
    attack(
        "going away for a reason that nobody knows",
        "told: value 99 is not allowed",
        |path| of_the_end(path, |client| client.send(&Frame::new(kind::GOAWAY, 0, 99))),
    ),
    attack(
        "going away with a text that is none",
        "told: text of",
        |path| {
            of_the_end(path, |client| {
                client.send(&Frame::new(kind::GOAWAY, 0, 0).body([0xFF; 10]))
            })
        },
    ),
    attack(
        "packed messages that are longer than the frame",
        "told: the packed body",
        |path| of_the_end(path, |client| client.send(&packed(&[u32::MAX, 0]))),
    ),
    attack(
        "packed messages with a rest",
        "told: the packed body",
        |path| {
            of_the_end(path, |client| {
                let mut frame = packed(&[0, 0]);
                frame.body.push(1);
                client.send(&frame);
            })
        },
    ),
    attack(
        "a thousand packed messages of nothing",
        "served: ",
        |path| {
            of_going_on(path, |client| {
                (0..100).for_each(|_| client.send(&packed(&[0; 1000])));
                "100 times".to_owned()
            })
        },
    ),
];

/// Notifications of nothing with these lengths.
fn packed(lengths: &[u32]) -> Frame {
    let body: Vec<u8> = lengths
        .iter()
        .flat_map(|length| length.to_le_bytes())
        .collect();
    Frame::new(kind::NOTIFY, 0, 0xDEAD)
        .flags(flags::PACKED)
        .body(body)
}

/// A notification with these metadata.
fn with_metadata(path: &Path, block: &[u8]) -> String {
    let mut block = block.to_vec();
    block.resize(block.len().next_multiple_of(8), 0);
    let metadata_bytes = block.len() as u16;
    of_the_end(path, |client| {
        let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD).body(block);
        client.send(&Frame {
            metadata_bytes,
            ..frame
        });
        client.socket.stop_talking(); // what is in order ends so
    })
}

/// So many entries of one byte each.
fn entries(count: u16) -> Vec<u8> {
    let mut block = count.to_le_bytes().to_vec();
    (0..count).for_each(|_| block.extend([1, 1, 0, b'a', b'v']));
    block
}

const METADATA: &[Attack] = &[
    attack("64 entries", "thrown out", |path| {
        with_metadata(path, &entries(64))
    }),
    attack("65 entries", "65 entries, at most", |path| {
        with_metadata(path, &entries(65))
    }),
    attack(
        "65,535 entries in 8 bytes",
        "65535 entries, at most",
        |path| with_metadata(path, &[0xFF, 0xFF]),
    ),
    attack("a key of 0 bytes", "key of 0 bytes", |path| {
        with_metadata(path, &[1, 0, 0, 0, 0])
    }),
    attack(
        "a key beyond the block",
        "block ends inside an entry",
        |path| with_metadata(path, &[1, 0, 255, 0, 0, b'a']),
    ),
    attack(
        "a value beyond the block",
        "block ends inside an entry",
        |path| with_metadata(path, &[1, 0, 1, 0xFF, 0xFF, b'a']),
    ),
    attack("a key that is none", "key of 1 bytes", |path| {
        with_metadata(path, &[1, 0, 1, 0, 0, b'A'])
    }),
    attack("a rest that is not zero", "are not padding", |path| {
        with_metadata(path, &[1, 0, 1, 0, 0, b'a', 9])
    }),
    attack("more metadata than body", "told: ", |path| {
        of_the_end(path, |client| {
            let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD).body([0; 8]);
            client.send(&Frame {
                metadata_bytes: 65_528,
                ..frame
            });
        })
    }),
];
