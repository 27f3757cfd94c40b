//! Attacks of a client on a server through shared memory.

mod hostile;
mod support;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use doorbell::Message as _;
use doorbell_testkit::by_hand::{Frame, HandClient, HandHello, Memory, flags, kind};
use doorbell_testkit::eventually;
use hostile::{
    Attack,
    account::{of_going_on, of_the_end},
    attack, suffer, suffer_in_threads,
};
use support::messages::{Add, Echo, Gate, Open};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[POSITIONS, RECORDS, CHANGES, WORDS, REGIONS]);
}

#[test]
fn position_that_cannot_be_costs_the_connection() {
    suffer(POSITIONS, &[]);
}

#[test]
fn record_that_cannot_be_costs_the_connection() {
    suffer(RECORDS, &[]);
    suffer_in_threads(RECORDS);
}

#[test]
fn memory_that_changes_while_it_is_read_holds_nobody_up() {
    suffer(CHANGES, &[]);
    suffer(WORDS, &[]);
}

#[test]
fn memory_of_the_server_cannot_be_changed() {
    suffer(REGIONS, &[]);
}

/// Says that so much has been written.
fn publish(client: &mut HandClient, tail: u32) {
    client.tail = tail;
    client.publish();
}

const POSITIONS: &[Attack] = &[
    attack(
        "a tail beyond the ring",
        "told: the peer moved its tail from 24",
        |path| of_the_end(path, |client| publish(client, client.capacity() + 32)),
    ),
    attack(
        "a tail half around",
        "told: the peer moved its tail",
        |path| of_the_end(path, |client| publish(client, 1 << 31)),
    ),
    attack(
        "a tail of 2^32 - 8",
        "told: the peer moved its tail back from 24 to 4294967288",
        |path| of_the_end(path, |client| publish(client, u32::MAX - 7)),
    ),
    attack(
        "a tail that goes back",
        "told: the peer moved its tail back from 24 to 0",
        |path| of_the_end(path, |client| publish(client, 0)),
    ),
    attack(
        "a tail between two records",
        "not a multiple of 8",
        |path| of_the_end(path, |client| publish(client, 24 + 5)),
    ),
    attack("a head that was never written to", "thrown out", |path| {
        of_the_end(path, |client| {
            client.ours.store(Memory::HEAD, 4096);
            client.send(&Frame::new(kind::PING, 1, 0)); // the pong makes the server look for room
            make_it_look(client);
        })
    }),
    // Seen when the server next goes to sleep, although nobody needs room.
    attack("a head that goes back", "thrown out", |path| {
        of_the_end(path, |client| {
            // It looks at our words after it has announced its sleep: at the second one it has seen our head of 24.
            for _ in 0..2 {
                let word = client.wait_until_asleep();
                client.ring();
                eventually("the server sleeps again", || {
                    client.wait_until_asleep() != word
                });
            }
            client.ours.store(Memory::HEAD, 0);
            client.ring();
        })
    }),
    // The worker is asleep, and this client does nothing more that would wake it.
    attack(
        "a head that only a task finds impossible",
        "thrown out",
        |path| {
            let hello = HandHello {
                ring_capacity_bytes: 4096,
                ..HandHello::proper()
            };
            let mut client = HandClient::connect_with(path, &hello);
            for slot in 0..200 {
                client.send(&Frame::new(kind::CALL, 1 << 32 | slot, Gate::TYPE.get()));
            }
            let mut is_open = false; // since this was done to the same server before
            client.ping_and(|frame| is_open |= frame.kind == kind::RESPONSE);
            client.wait_until_asleep();
            let mut other = HandClient::connect(path);
            other.ping(); // the worker has left us by now
            client.ours.store(Memory::HEAD, 4096);
            other.send(&Frame::new(kind::CALL, 1 << 32, Open::TYPE.get()));
            assert_eq!(other.wait_for_frame().kind, kind::RESPONSE);
            if is_open {
                client.ring(); // no task has anything to say
            }
            client.wait_for_end().unwrap_or("thrown out".to_owned())
        },
    ),
    attack("a tail that flips as fast as it can", "told: ", |path| {
        let account = of_the_end(path, |client| {
            let end = Instant::now() + Duration::from_secs(10);
            while !client.is_over() && Instant::now() < end {
                for tail in [24, u32::MAX, 48, 1 << 20, 3, 0x8000_0000] {
                    client.ours.store(Memory::TAIL, tail);
                }
                client.ring();
            }
        });
        // A tail that cannot be; or one that can, and what lies before it is no padding.
        assert!(
            account.starts_with("told: the peer") || account.starts_with("told: a padding record"),
            "{account}"
        );
        account
    }),
    attack("around the ring many times", "served: 2560", |path| {
        let hello = HandHello {
            ring_capacity_bytes: 4096,
            ..HandHello::proper()
        };
        let mut client = HandClient::connect_with(path, &hello);
        let mut pongs = 0;
        for number in 0..2_560 / 2 {
            client.send(&Frame::new(kind::PING, number, 0));
            pongs += u32::from(client.wait_for_frame().kind == kind::PONG);
            client.send(&Frame::new(kind::PING, number, 0).flags(flags::BODY_CRC));
            pongs += u32::from(client.wait_for_frame().kind == kind::PONG);
        }
        format!("served: {pongs} pongs")
    }),
];

/// Has the server write more than its ring has room for, as it believes, so that it has to look at our head.
fn make_it_look(client: &mut HandClient) {
    for number in 0..client.welcome.server_ring_capacity_bytes / 24 {
        while !client.put(&Frame::new(kind::PING, number.into(), 0).bytes()) {
            client.publish();
            if client.is_over() {
                return;
            }
        }
    }
    client.publish();
}

/// Publishes bytes as a record, so many of them.
fn record(client: &mut HandClient, bytes: &[u8], published: u32) {
    let place = client.tail & (client.capacity() - 1);
    client.ours.write(Memory::RING + u64::from(place), bytes);
    publish(client, client.tail.wrapping_add(published));
}

fn claims(length: u32) -> Vec<u8> {
    Frame::new(kind::NOTIFY, 0, 0xDEAD).bytes_that_claim(length)
}

/// A padding record.
fn padding(length: u32) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

const RECORDS: &[Attack] = &[
    attack(
        "eight bytes of a header",
        "told: a record needs 24 bytes, 8 are published",
        |path| of_the_end(path, |client| record(client, &claims(0), 8)),
    ),
    attack(
        "a body that is not published",
        "told: a record needs",
        |path| of_the_end(path, |client| record(client, &claims(1000), 24)),
    ),
    attack(
        "a body of the maximum and one more",
        "told: a record has a body of",
        |path| {
            of_the_end(path, |client| {
                let most = client.capacity() / 4 - 24;
                record(client, &claims(most + 1), 128 << 10);
            })
        },
    ),
    attack(
        "a body of 2^31 bytes",
        "told: a record has a body of 2147483648",
        |path| of_the_end(path, |client| record(client, &claims(1 << 31), 64)),
    ),
    attack(
        "a body of 2^32 - 1 bytes",
        "told: a record has a body of 4294967295",
        |path| of_the_end(path, |client| record(client, &claims(u32::MAX), 64)),
    ),
    attack(
        "a body beyond the end of the ring",
        "told: a record needs",
        |path| {
            of_the_end(path, |client| {
                let nearly = client.capacity() - 64;
                while client.tail < nearly {
                    client.send(&Frame::new(kind::PONG, 0, 0));
                }
                record(client, &claims(1000), 64 + 1000);
            })
        },
    ),
    attack(
        "padding in the middle of the ring",
        "told: a padding record of",
        |path| of_the_end(path, |client| record(client, &padding(8), 32)),
    ),
    attack(
        "padding of 2^32 - 1 bytes",
        "told: a padding record of",
        |path| of_the_end(path, |client| record(client, &padding(u32::MAX), 64)),
    ),
    attack(
        "padding that carries something",
        "told: a padding record of",
        |path| {
            of_the_end(path, |client| {
                let to_end = client.capacity() - client.tail;
                let mut bytes = padding(to_end - 24);
                bytes[12] = 1;
                record(client, &bytes, to_end);
            })
        },
    ),
    // Not forbidden, and bounded like everything else that is read.
    attack("padding without end", "served: 100000 laps", |path| {
        of_going_on(path, |client| {
            let to_end = client.capacity() - client.tail;
            record(client, &padding(to_end - 24), to_end);
            let lap = client.capacity();
            for _ in 0..100_000 {
                record(client, &padding(lap - 24), 0);
                client.tail = client.theirs.load(Memory::HEAD).wrapping_add(lap) & !(lap - 1);
                client.publish();
            }
            eventually("the server has read it all", || client.room() == lap);
            "100000 laps".to_owned()
        })
    }),
    attack("nothing but zeros", "told: ", |path| {
        of_the_end(path, |client| record(client, &[0; 4096], 4096))
    }),
    attack("nothing but ones", "told: ", |path| {
        of_the_end(path, |client| record(client, &[0xFF; 4096], 4096))
    }),
];

/// Does something to the memory in a thread of its own, as fast as it can, while the client works.
fn meanwhile<T>(
    client: &mut HandClient,
    change: impl Fn(&Memory, u32) + Sync,
    work: impl FnOnce(&mut HandClient) -> T,
) -> T {
    let memory = client.ours.duplicate();
    meanwhile_in(&memory, client, change, work)
}

/// As [`meanwhile`], with another memory that changes.
fn meanwhile_in<T>(
    memory: &Memory,
    client: &mut HandClient,
    change: impl Fn(&Memory, u32) + Sync,
    work: impl FnOnce(&mut HandClient) -> T,
) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..u32::MAX)
                .take_while(|_| !over.load(Ordering::Relaxed))
                .for_each(|number| change(memory, number));
        });
        let _over = RaiseAtEnd(&over);
        work(client)
    })
}

/// Ends the thread beside the work however that ends: a scope waits for its threads also when it panics.
struct RaiseAtEnd<'a>(&'a AtomicBool);

impl Drop for RaiseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a frame many times. Returns `false` if the server has had enough of it.
fn same_place(client: &mut HandClient, frame: &Frame) -> bool {
    let record = frame.bytes();
    for _ in 0..2000 {
        if client.is_over() {
            return false;
        }
        while !client.put(&record) {
            client.publish();
            if client.is_over() {
                return false;
            }
        }
        client.publish();
    }
    true
}

/// Sends a frame until the server has had enough of it. How often it reads the very bytes that change is a matter of luck, so after a
/// while a length stays wrong.
fn until_thrown_out(client: &mut HandClient, frame: &Frame) {
    let until = Instant::now() + Duration::from_secs(3);
    while same_place(client, frame) {
        if until < Instant::now() {
            return record(client, &claims(1 << 31), 64);
        }
    }
}

const CHANGES: &[Attack] = &[
    attack(
        "a payload that changes while it is copied",
        "served: all were taken",
        |path| {
            let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD).body(vec![7; 16_000]);
            of_going_on(path, |client| {
                let scribble = |memory: &Memory, number: u32| {
                    memory.store(
                        Memory::RING + 24 + 24 + 8 * u64::from(number % 1000),
                        number,
                    )
                };
                let taken = meanwhile(client, scribble, |client| same_place(client, &frame));
                format!("all were taken: {taken}")
            })
        },
    ),
    attack(
        "a payload with a checksum that changes while it is copied",
        "told: ",
        |path| {
            let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD)
                .flags(flags::BODY_CRC)
                .body(vec![7; 4000]);
            of_the_end(path, |client| {
                let scribble = |memory: &Memory, number: u32| {
                    let place = number.wrapping_mul(2_654_435_761) % 65_000 * 4;
                    memory.store(Memory::RING + u64::from(place), number);
                };
                meanwhile(client, scribble, |client| until_thrown_out(client, &frame));
            })
        },
    ),
    attack("a length that changes while it is read", "told: ", |path| {
        let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD).body(vec![7; 232]); // 256 bytes with its header: each lap lies like the last
        of_the_end(path, |client| {
            let start = client.tail;
            let flip = move |memory: &Memory, number: u32| {
                let place = start + number % 1000 * 256;
                memory.store(
                    Memory::RING + u64::from(place),
                    if number.is_multiple_of(2) {
                        u32::MAX
                    } else {
                        232
                    },
                );
            };
            meanwhile(client, flip, |client| until_thrown_out(client, &frame));
        })
    }),
    // It goes back to zeros, our head among them, and a server that sees that first cannot tell us any more.
    attack(
        "memory that is thrown away under the server",
        "ended: t",
        |path| {
            let frame = Frame::new(kind::NOTIFY, 0, 0xDEAD).body(vec![7; 232]);
            let account = of_the_end(path, |client| {
                let punch = |memory: &Memory, _| memory.try_punch().expect("it is ours");
                meanwhile(client, punch, |client| until_thrown_out(client, &frame));
            });
            format!("ended: {account}")
        },
    ),
    // Nothing was ever written to it but zeros, so that nothing is wrong with it.
    attack(
        "empty memory that is thrown away under the server",
        "served: rung",
        |path| {
            of_going_on(path, |client| {
                let punch = |memory: &Memory, _| memory.try_punch().expect("it is ours");
                meanwhile(client, punch, |client| {
                    let until = Instant::now() + Duration::from_millis(20);
                    while Instant::now() < until {
                        client.ring();
                    }
                });
                "rung".to_owned()
            })
        },
    ),
    attack(
        "a loan that is thrown away while it is read",
        "served: 200 calls",
        |path| {
            let hello = HandHello {
                features: 1 | HandHello::LOANS,
                ..HandHello::proper()
            };
            let mut client = HandClient::connect_with(path, &hello);
            let (number, segment) = client.segment(LENT / 4096);
            let punch =
                |memory: &Memory, _| memory.try_punch_bytes(LENT.into()).expect("it is ours");
            meanwhile_in(&segment, &mut client, punch, |client| {
                for generation in 1..=200 {
                    lend_whole(client, number, generation);
                }
            });
            client.ping();
            "served: 200 calls".to_owned()
        },
    ),
    // Between programs of one user all of that ring but its first page can be given back, by either side.
    attack(
        "the server's ring that is thrown away while it writes",
        "served: 500 answers",
        |path| {
            let hello = HandHello {
                features: 1 | HandHello::GIVE_BACK,
                ..HandHello::proper()
            };
            let mut client = HandClient::connect_with(path, &hello);
            let pages = client.pages.as_ref().expect("of the same user").duplicate();
            let bytes = client.welcome.server_ring_capacity_bytes.into();
            let punch = |memory: &Memory, _| memory.try_punch_bytes(bytes).expect("it is shared");
            meanwhile_in(&pages, &mut client, punch, |client| {
                for generation in 1..=500_u64 {
                    let call = Frame::new(kind::CALL, generation << 32, Echo::TYPE.get());
                    let before = client.theirs.load(Memory::TAIL);
                    client.send(&call.body(vec![7; 16_000]));
                    eventually("an answer", || {
                        client.theirs.load(Memory::TAIL).wrapping_sub(before) > 16_000
                    });
                    client.skip_everything();
                }
            });
            assert!(!client.is_over());
            "served: 500 answers".to_owned()
        },
    ),
];

/// Lends a whole block in a call, and waits until it is answered and the block given back.
fn lend_whole(client: &mut HandClient, segment: u32, generation: u64) {
    let descriptor = [segment, 0, LENT].map(u32::to_le_bytes).concat();
    let call = Frame::new(kind::CALL, generation << 32, Echo::TYPE.get());
    client.send(&call.flags(flags::LOANED).body(descriptor));
    let (mut is_answered, mut is_back) = (false, false);
    while !(is_answered && is_back) {
        let frame = client.wait_for_frame();
        is_back |= frame.kind == kind::RELEASE;
        is_answered |= frame.kind == kind::RESPONSE && frame.flags & flags::MORE == 0;
    }
}

/// Bytes that are lent.
const LENT: u32 = 64 << 10;

/// Pings while a word changes as fast as it can. Bells are rung by hand, so that nothing depends on the word.
fn pings_meanwhile(path: &Path, change: impl Fn(&Memory, u32) + Sync) -> String {
    of_going_on(path, |client| {
        let count = meanwhile(client, change, |client| {
            (0..500).for_each(|_| client.ping());
            500
        });
        format!("{count} pings")
    })
}

const WORDS: &[Attack] = &[
    attack("a sleep word that flips", "served: 500", |path| {
        pings_meanwhile(path, |memory, number| memory.store(Memory::SLEEP, number))
    }),
    attack("always asleep on the doorbell", "served: 500", |path| {
        pings_meanwhile(path, |memory, number| {
            memory.store(Memory::SLEEP, number << 3 | 2)
        })
    }),
    attack(
        "always asleep on a futex, and for room",
        "served: 500",
        |path| {
            pings_meanwhile(path, |memory, number| {
                memory.store(Memory::SLEEP, number << 3 | 5)
            })
        },
    ),
    attack("asleep on nothing that exists", "served: 500", |path| {
        pings_meanwhile(path, |memory, number| {
            memory.store(Memory::SLEEP, number << 3 | 7)
        })
    }),
    attack("never asleep", "served: 500", |path| {
        pings_meanwhile(path, |memory, _| memory.store(Memory::SLEEP, 0))
    }),
    attack(
        "sleeps of the server that nobody notified",
        "served: 500",
        |path| {
            pings_meanwhile(path, |memory, number| {
                memory.store(Memory::NOTIFIED, number)
            })
        },
    ),
    attack("a head that follows nothing", "", |path| {
        of_the_end(path, |client| {
            let ring =
                |memory: &Memory, number: u32| memory.store(Memory::HEAD, number.wrapping_mul(8));
            meanwhile(client, ring, |client| {
                same_place(client, &Frame::new(kind::PING, 1, 0))
            });
            client.socket.stop_talking();
        })
    }),
    attack("cancels everything all the time", "served: 500", |path| {
        pings_meanwhile(path, |memory, number| {
            let words = Memory::RING + (256 << 10);
            memory.store(words + u64::from(number % 1024) * 4, number / 1024);
        })
    }),
];

const REGIONS: &[Attack] = &[
    attack(
        "writes to the server's memory in every way",
        "nothing of 12 was possible",
        |path| {
            let client = HandClient::connect(path);
            let mut possible = Vec::new();
            for (name, memory) in [
                ("S", client.theirs.duplicate()),
                (
                    "S again",
                    client
                        .theirs
                        .try_reopen()
                        .unwrap_or(client.theirs.duplicate()),
                ),
            ] {
                let attempts = [
                    ("write", memory.try_write(0, b"x")),
                    ("write its tail", memory.try_write(Memory::TAIL, &[0; 4])),
                    ("punch", memory.try_punch()),
                    ("shrink", memory.try_resize(0)),
                    ("grow", memory.try_resize(1 << 30)),
                ];
                possible.extend(
                    attempts
                        .into_iter()
                        .filter(|(_, result)| result.is_ok())
                        .map(|(what, _)| format!("{what} {name}")),
                );
            }
            // Our own may be filled with anything, and must not get smaller under the server.
            let ours = [
                ("shrink", client.ours.try_resize(0)),
                ("grow", client.ours.try_resize(1 << 30)),
            ];
            possible.extend(
                ours.into_iter()
                    .filter(|(_, result)| result.is_ok())
                    .map(|(what, _)| format!("{what} C")),
            );
            if possible.is_empty() {
                "nothing of 12 was possible".to_owned()
            } else {
                format!("{possible:?}")
            }
        },
    ),
    attack(
        "a ring that can be given back, resized and spoiled",
        "served: nothing of 4 was possible",
        |path| {
            let hello = HandHello {
                features: HandHello::GIVE_BACK,
                ..HandHello::proper()
            };
            let mut client = HandClient::connect_with(path, &hello);
            let pages = client.pages.take().expect("it was agreed on");
            let possible = [
                pages.try_resize(0),
                pages.try_resize(1 << 30),
                client.theirs.try_write(Memory::TAIL, &[0; 4]),
                client.theirs.try_resize(0),
            ];
            let count = possible.iter().filter(|result| result.is_ok()).count();
            assert_eq!(count, 0, "{possible:?}");
            let spoil = |_: &Memory, number: u32| {
                pages.write(4096 + u64::from(number % 60_000) * 4, &number.to_le_bytes());
                pages.try_punch().expect("that is what it is for");
            };
            // So many answers lie on more than a page.
            let answers: u64 = 300;
            meanwhile(&mut client, spoil, |client| {
                (0..100).for_each(|_| client.ping());
                for slot in 0..answers {
                    let call = Frame::new(kind::CALL, 1 << 32 | slot, Add::TYPE.get());
                    assert!(client.put(&call.body([1, 2]).bytes()));
                }
                client.publish();
                eventually("the calls are answered", || {
                    u64::from(client.theirs.load(Memory::TAIL)) > 24 * answers
                });
            });
            "served: nothing of 4 was possible".to_owned()
        },
    ),
];
