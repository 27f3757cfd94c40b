//! Attacks of a client on a server with calls: against the rules, with payloads that cannot be read, and more than anybody reads.

mod hostile;
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use doorbell::Message as _;
use doorbell_testkit::by_hand::{Frame, HandClient, flags, kind};
use hostile::{
    Attack,
    account::{of_going_on, of_the_end},
    attack, scaled, suffer, suffer_in_threads,
    victim::Tree,
};
use support::messages::{Add, Double, Echo, Look, Pour, Stuck, StuckStream, StuckUpload, WaitFor};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    hostile::child(&[CALLS, DIVIDED, PAYLOADS, MASSES]);
}

#[test]
fn call_that_breaks_the_rules_costs_the_connection() {
    suffer(CALLS, &[]);
    suffer(DIVIDED, &[]);
    suffer_in_threads(DIVIDED);
}

#[test]
fn payload_that_cannot_be_read_costs_its_call() {
    suffer(PAYLOADS, &[]);
}

#[test]
fn masses_that_are_never_read_cost_only_their_sender() {
    suffer(MASSES, &[]);
}

/// The call of slot 0 that is opened first.
const FIRST: u64 = 1 << 32;

fn call(id: u64, message: u32) -> Frame {
    Frame::new(kind::CALL, id, message)
}

const CALLS: &[Attack] = &[
    attack(
        "a slot that there is not",
        "told: CALL for slot 1024, but there are only 1024",
        |path| of_the_end(path, |client| client.send(&call(FIRST | 1024, 1))),
    ),
    attack(
        "a slot of 2^32 - 1",
        "told: CALL for slot 4294967295",
        |path| {
            of_the_end(path, |client| {
                client.send(&call(FIRST | u64::from(u32::MAX), 1))
            })
        },
    ),
    attack("generation 0", "told: call", |path| {
        of_the_end(path, |client| client.send(&call(0, 1)))
    }),
    attack("generation 2 first", "told: call", |path| {
        of_the_end(path, |client| client.send(&call(2 << 32, 1)))
    }),
    attack("one id twice", "told: call", |path| {
        of_the_end(path, |client| {
            client.send(&call(FIRST, Stuck::TYPE.get()));
            client.send(&call(FIRST, Stuck::TYPE.get()));
        })
    }),
    attack(
        "the next id before the end of this one",
        "told: call",
        |path| {
            of_the_end(path, |client| {
                client.send(&call(FIRST, Stuck::TYPE.get()));
                client.send(&call(2 << 32, Stuck::TYPE.get()));
            })
        },
    ),
    attack("one id again after its end", "told: call", |path| {
        of_the_end(path, |client| {
            client.send(&call(FIRST, Add::TYPE.get()).body([1, 2]));
            client.wait_for_frame();
            client.send(&call(FIRST, Add::TYPE.get()).body([1, 2]));
        })
    }),
    attack(
        "a cancel of a call that was never opened",
        "told: CANCEL for call",
        |path| {
            of_the_end(path, |client| {
                client.send(&Frame::new(kind::CANCEL, 7 << 32 | 5, 0))
            })
        },
    ),
    attack(
        "more credit than there is",
        "told: 2147483647 bytes of credit",
        |path| {
            of_the_end(path, |client| {
                client.send(&call(FIRST, StuckStream::TYPE.get()).flags(flags::STREAMING));
                client.send(&Frame::new(kind::CREDIT, FIRST, i32::MAX as u32));
                client.send(&Frame::new(kind::CREDIT, FIRST, i32::MAX as u32));
            })
        },
    ),
    attack(
        "credit of 2^32 - 1",
        "told: 4294967295 bytes of credit",
        |path| {
            of_the_end(path, |client| {
                client.send(&call(FIRST, StuckStream::TYPE.get()).flags(flags::STREAMING));
                client.send(&Frame::new(kind::CREDIT, FIRST, u32::MAX));
            })
        },
    ),
    attack("items without credit", "told: item of call", |path| {
        of_the_end(path, |client| {
            client.send(&call(FIRST, StuckUpload::TYPE.get()).flags(flags::UPLOAD));
            let item = Frame::new(kind::DATA, FIRST, 0).body(vec![0; 16_000]);
            // The window is 256 KiB, and nobody takes them.
            (0..20).for_each(|_| client.send(&item));
        })
    }),
    attack(
        "items after their end",
        "told: DATA is not allowed",
        |path| {
            of_the_end(path, |client| {
                client.send(&call(FIRST, StuckUpload::TYPE.get()).flags(flags::UPLOAD));
                client.send(&Frame::new(kind::END, FIRST, 0));
                client.send(&Frame::new(kind::DATA, FIRST, 0).body([1]));
            })
        },
    ),
    attack("no time left", "answered with status 4", |path| {
        answered(
            path,
            &call(FIRST, Stuck::TYPE.get())
                .flags(flags::DEADLINE)
                .body([0; 8]),
        )
    }),
    attack("more time than there will be", "served", |path| {
        of_going_on(path, |client| {
            client.send(
                &call(FIRST, Stuck::TYPE.get())
                    .flags(flags::DEADLINE)
                    .body([0xFF; 8]),
            );
            "a call for ever".to_owned()
        })
    }),
    attack(
        "a call as what it is not",
        "answered with status 12",
        |path| {
            answered(
                path,
                &call(FIRST, Add::TYPE.get()).flags(flags::UPLOAD | flags::STREAMING),
            )
        },
    ),
];

/// Sends a call and says how it ends; the connection must go on.
fn answered(path: &Path, call: &Frame) -> String {
    of_going_on(path, |client| {
        client.send(call);
        loop {
            let frame = client.wait_for_frame();
            match frame.kind {
                kind::ERROR => return format!("answered with status {}", frame.value),
                kind::RESPONSE => return "answered with a reply".to_owned(),
                _ => {}
            }
        }
    })
}

/// First frame of a divided call.
fn first(total: u64, message: u32) -> Frame {
    let body = [total.to_le_bytes().as_slice(), &[1; 8]].concat();
    call(FIRST, message).flags(flags::MORE).body(body)
}

fn rest(bytes: usize) -> Frame {
    call(FIRST, Echo::TYPE.get())
        .flags(flags::CONTINUE)
        .body(vec![1; bytes])
}

const DIVIDED: &[Attack] = &[
    attack(
        "a continuation of nothing",
        "told: CALL for call 0.1, which was never opened",
        |path| of_the_end(path, |client| client.send(&rest(8))),
    ),
    attack("more than was announced", "told: message of call", |path| {
        of_the_end(path, |client| {
            client.send(&first(20, Echo::TYPE.get()));
            client.send(&rest(100));
        })
    }),
    attack("less than was announced", "told: message of call", |path| {
        of_the_end(path, |client| {
            client.send(&first(20, Echo::TYPE.get()));
            client.send(&rest(4));
        })
    }),
    attack(
        "another type in the middle",
        "told: continuation has message type",
        |path| {
            of_the_end(path, |client| {
                client.send(&first(20, Echo::TYPE.get()));
                client.send(
                    &Frame {
                        value: 99,
                        ..rest(4)
                    }
                    .flags(flags::MORE),
                );
            })
        },
    ),
    attack(
        "2^64 - 1 bytes announced",
        "answered with status 8",
        |path| answered(path, &first(u64::MAX, Echo::TYPE.get())),
    ),
    // It would fit into what all of them may have together.
    attack(
        "64 MiB and one byte announced",
        "answered with status 8",
        |path| answered(path, &first((64 << 20) + 1, Echo::TYPE.get())),
    ),
    attack("a first frame with everything in it", "told: ", |path| {
        of_the_end(path, |client| client.send(&first(8, Echo::TYPE.get())))
    }),
    attack(
        "a thousand messages of 60 MiB, begun and left",
        "served: 996 of 1000",
        |path| {
            of_going_on(path, |client| {
                for slot in 0..1000 {
                    let mut frame = first(60 << 20, Echo::TYPE.get());
                    frame.id |= slot;
                    client.send(&frame);
                }
                // Four of them fit into 256 MiB.
                let mut refused = 0;
                while refused < 996 {
                    let frame = client.wait_for_frame();
                    assert_eq!((frame.kind, frame.value), (kind::ERROR, 8));
                    refused += 1;
                }
                client.ping_and(|frame| assert_ne!(frame.kind, kind::ERROR));
                format!("{refused} of 1000 were refused")
            })
        },
    ),
];

const PAYLOADS: &[Attack] = &[
    attack(
        "a value that is nested without end",
        "answered with status 3",
        |path| answered(path, &call(FIRST, Tree::TYPE.get()).body([1; 16_000])),
    ),
    attack("nothing", "answered with status 3", |path| {
        answered(path, &call(FIRST, Add::TYPE.get()))
    }),
    attack(
        "numbers that do not end",
        "answered with status 3",
        |path| answered(path, &call(FIRST, Add::TYPE.get()).body([0xFF; 1000])),
    ),
    attack("more than the message", "answered with status 3", |path| {
        answered(path, &call(FIRST, Add::TYPE.get()).body([1, 2, 3]))
    }),
    attack(
        "a checksum over nonsense",
        "answered with status 3",
        |path| {
            answered(
                path,
                &call(FIRST, WaitFor::TYPE.get())
                    .flags(flags::BODY_CRC)
                    .body([0x80; 64]),
            )
        },
    ),
    attack(
        "items that cannot be read",
        "answered with status",
        |path| {
            of_going_on(path, |client| {
                client
                    .send(&call(FIRST, Double::TYPE.get()).flags(flags::UPLOAD | flags::STREAMING));
                client.send(&Frame::new(kind::DATA, FIRST, 0).body([0xFF; 50]));
                let mut status = None;
                while status.is_none() {
                    let frame = client.wait_for_frame();
                    status = (frame.kind == kind::ERROR).then_some(frame.value);
                }
                format!("answered with status {status:?}")
            })
        },
    ),
];

const MASSES: &[Attack] = &[
    attack(
        "2^20 requests whose answers are never read",
        "the server stopped reading",
        |path| {
            let mut client = HandClient::connect(path);
            let frame = |number: u64| {
                call(
                    ((number / 1024 + 1) << 32) | (number % 1024),
                    Echo::TYPE.get(),
                )
                .body([7; 64])
                .bytes()
            };
            let (mut sent, mut last) = (0, Instant::now());
            while sent < 1 << 20 && last.elapsed() < Duration::from_millis(500) && !client.is_over()
            {
                if client.put(&frame(sent)) {
                    (sent, last) = (sent + 1, Instant::now());
                }
                client.publish();
            }
            assert!(sent < 1 << 20 && !client.is_over());
            format!("the server stopped reading after {sent}")
        },
    ),
    attack("notifications without end", "taken", |path| {
        of_going_on(path, |client| {
            let (record, count) = (
                Frame::new(kind::NOTIFY, 0, 0xDEAD).body([7; 40]).bytes(),
                scaled(200_000),
            );
            for _ in 0..count {
                while !client.put(&record) {
                    client.publish();
                }
            }
            client.publish();
            format!("{count} taken")
        })
    }),
    attack(
        "a stream without end, never read",
        "the server stopped sending",
        |path| {
            let mut client = HandClient::connect(path);
            let body = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0xE8, 0x07]; // 2^32 - 1 items of 1000 bytes
            client.send(
                &call(FIRST, Pour::TYPE.get())
                    .flags(flags::STREAMING)
                    .body(body),
            );
            let bytes = client.bytes_when_quiet(Duration::from_millis(300));
            assert!(bytes > 100_000 && bytes <= 300_000, "{bytes}");
            format!("the server stopped sending after {bytes} bytes")
        },
    ),
    attack("1024 streams that never end", "served: 1024", |path| {
        of_going_on(path, |client| {
            for slot in 0..1024 {
                client.send(
                    &call(FIRST | slot, Double::TYPE.get()).flags(flags::UPLOAD | flags::STREAMING),
                );
                client.send(&Frame::new(kind::DATA, FIRST | slot, 0).body([1]));
            }
            let mut items = 0;
            while items < 1024 {
                items += u32::from(client.wait_for_frame().kind == kind::DATA);
            }
            format!("{items} streams")
        })
    }),
    attack(
        "1024 calls that are never answered, cancelled and made again",
        "served: ",
        |path| {
            of_going_on(path, |client| {
                let mut cancelled = 0;
                for generation in 1..=3_u64 {
                    (0..1024).for_each(|slot| {
                        client.send(&call(generation << 32 | slot, Stuck::TYPE.get()))
                    });
                    (0..1024).for_each(|slot| {
                        client.send(&Frame::new(kind::CANCEL, generation << 32 | slot, 0))
                    });
                    for _ in 0..1024 {
                        cancelled += u32::from(client.wait_for_frame().value == 1);
                    }
                }
                assert_eq!(cancelled, 3 * 1024);
                format!("{cancelled} cancelled")
            })
        },
    ),
    attack(
        "looks and leaves with the answer under way",
        "left",
        |path| {
            for _ in 0..200 {
                let mut client = HandClient::connect(path);
                client.send(&call(FIRST, Look::TYPE.get()));
            }
            "left 200 times".to_owned()
        },
    ),
];
