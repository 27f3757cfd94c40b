//! What a server can lie about in its handshake.

use std::{fs::File, os::fd::OwnedFd, time::Duration};

use doorbell_testkit::by_hand::{HandHello, HandServer, Handed, Memory, control};

use super::trap::{Trap, change, trap};

/// All of it.
pub(crate) const LIES: &[&[Trap]] = &[WORDS, FIELDS, MEMORY, BELLS];

const WORDS: &[Trap] = &[
    trap("says nothing", "TimedOut", "no connection to", |server| {
        server.accept().wait_for_end()
    }),
    trap(
        "leaves at once",
        "NotListening",
        "no server is listening",
        |server| drop(server.accept()),
    ),
    trap(
        "one byte per 100 ms",
        "TimedOut",
        "no connection to",
        |server| {
            let handed = server.greet();
            for byte in handed.welcome.bytes() {
                if !handed.socket.send(&[byte]) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100)); // the attack is to be slow
            }
        },
    ),
    trap(
        "half a welcome",
        "Handshake",
        "in the middle of its answer",
        |server| {
            let handed = server.greet();
            handed.socket.send(&handed.welcome.bytes()[..30]);
        },
    ),
    trap("another protocol", "Handshake", "magic", |server| {
        let handed = server.greet();
        handed.socket.send(b"HTTP/1.1 200 OK\r\n\r\n");
    }),
    trap(
        "a length of 2^32 - 1",
        "Handshake",
        "4294967295 bytes",
        |server| {
            server.greet().socket.send(b"DRBLCTL1\xFF\xFF\xFF\xFF");
        },
    ),
    trap(
        "a client's message",
        "Handshake",
        "a client's message",
        |server| {
            let hello = HandHello::proper();
            server.greet().socket.send(&hello.bytes());
        },
    ),
    trap("a message of kind 77", "Handshake", "77", |server| {
        server.greet().socket.send(&control(77, &[0; 10]));
    }),
    trap("trailing bytes", "Handshake", "bytes follow", |server| {
        let handed = server.greet();
        let bytes = [handed.welcome.bytes(), vec![0]].concat();
        handed.socket.send(&bytes);
    }),
    trap(
        "a refusal for a reason that nobody knows",
        "Refused",
        "unknown reason 999: no",
        |server| {
            let fields = [&999_u16.to_le_bytes()[..], &[1, 0, 1, 0, 2, 0], b"no"].concat();
            server.greet().socket.send(&control(3, &fields));
        },
    ),
    trap(
        "a refusal whose text is too long",
        "Handshake",
        "text",
        |server| {
            let fields = [
                &[1, 0, 1, 0, 1, 0][..],
                &513_u16.to_le_bytes(),
                &[b'x'; 513],
            ]
            .concat();
            server.greet().socket.send(&control(3, &fields));
        },
    ),
];

const FIELDS: &[Trap] = &[
    trap("version 0", "Handshake", "version", |server| {
        change(server, |handed| handed.welcome.version = 0)
    }),
    trap("version 2", "Handshake", "version", |server| {
        change(server, |handed| handed.welcome.version = 2)
    }),
    trap(
        "features that nobody asked for",
        "Handshake",
        "features",
        |server| change(server, |handed| handed.welcome.features = u64::MAX),
    ),
    trap(
        "a ring of 0",
        "Handshake",
        "server_ring_capacity_bytes 0,",
        |server| {
            change(server, |handed| {
                handed.welcome.server_ring_capacity_bytes = 0
            })
        },
    ),
    trap(
        "a ring of 5000",
        "Handshake",
        "client_ring_capacity_bytes 5000",
        |server| {
            change(server, |handed| {
                handed.welcome.client_ring_capacity_bytes = 5000
            })
        },
    ),
    trap(
        "a ring of 2^31",
        "Handshake",
        "server_ring_capacity_bytes 2147483648",
        |server| {
            change(server, |handed| {
                handed.welcome.server_ring_capacity_bytes = 1 << 31
            })
        },
    ),
    trap(
        "a ring of 2^30 that is not there",
        "Handshake",
        "bytes",
        |server| {
            change(server, |handed| {
                handed.welcome.server_ring_capacity_bytes = 1 << 30
            })
        },
    ),
    trap("0 calls", "Handshake", "max_calls 0", |server| {
        change(server, |handed| handed.welcome.max_calls = 0)
    }),
    trap(
        "2^32 - 1 calls",
        "Handshake",
        "max_calls 4294967295",
        |server| change(server, |handed| handed.welcome.max_calls = u32::MAX),
    ),
    trap(
        "a window of 2^31",
        "Handshake",
        "receive_window_bytes 2147483648",
        |server| {
            change(server, |handed| {
                handed.welcome.receive_window_bytes = 1 << 31
            })
        },
    ),
    trap(
        "messages of 0 bytes",
        "Handshake",
        "max_message_bytes 0",
        |server| change(server, |handed| handed.welcome.max_message_bytes = 0),
    ),
    trap(
        "chunks of 0 bytes",
        "Handshake",
        "max_chunk_bytes 0",
        |server| change(server, |handed| handed.welcome.max_chunk_bytes = 0),
    ),
    trap(
        "chunks as large as the ring",
        "Handshake",
        "max_chunk_bytes 65536",
        |server| change(server, |handed| handed.welcome.max_chunk_bytes = 64 << 10),
    ),
    trap(
        "a doorbell of kind 0",
        "Handshake",
        "field bell has value 0",
        |server| change(server, |handed| handed.welcome.bell = 0),
    ),
    trap(
        "a doorbell of kind 3",
        "Handshake",
        "field bell has value 3",
        |server| change(server, |handed| handed.welcome.bell = 3),
    ),
];

/// Hands out something else as one of the two regions.
fn instead(server: &HandServer, index: usize, what: impl FnOnce(&Handed) -> OwnedFd) {
    change(server, |handed| handed.handles[index] = what(handed));
}

/// Hands out a ring in two memories.
fn second_memory(server: &HandServer, memory: impl FnOnce(u64) -> OwnedFd) {
    change(server, |handed| {
        handed.welcome.features |= HandHello::GIVE_BACK;
        handed.handles.push(memory(bytes(handed)));
    });
}

fn bytes(handed: &Handed) -> u64 {
    Handed::region_bytes(&handed.welcome)
}

const MEMORY: &[Trap] = &[
    trap(
        "no descriptors",
        "Handshake",
        "0 descriptors came",
        |server| {
            let handed = server.greet();
            handed.socket.send(&handed.welcome.bytes());
            handed.socket.wait_for_end();
        },
    ),
    trap(
        "three descriptors",
        "Handshake",
        "3 descriptors came",
        |server| change(server, |handed| drop(handed.handles.pop())),
    ),
    trap(
        "five descriptors",
        "Handshake",
        "5 descriptors came",
        |server| {
            change(server, |handed| handed.handles.push(Handed::bell(1)));
        },
    ),
    trap(
        "a ring in two memories, and one of them",
        "Handshake",
        "4 descriptors came with its answer, not 5",
        |server| {
            change(server, |handed| {
                handed.welcome.features |= HandHello::GIVE_BACK
            })
        },
    ),
    trap(
        "a ring whose second memory has no seals",
        "Handshake",
        "seal",
        |server| second_memory(server, |bytes| Handed::memory(bytes, Handed::no_seals())),
    ),
    trap(
        "a ring whose second memory is one page too small",
        "Handshake",
        "bytes",
        |server| {
            second_memory(server, |bytes| {
                Handed::memory(bytes - 4096, Handed::seals())
            })
        },
    ),
    trap(
        "a ring whose second memory is a bell",
        "Handshake",
        "not anonymous shared memory",
        |server| second_memory(server, |_| Handed::bell(1)),
    ),
    trap(
        "253 descriptors",
        "Handshake",
        "more handles than",
        |server| {
            change(server, |handed| {
                while handed.handles.len() < 253 {
                    let copy = handed.handles[0].try_clone().unwrap();
                    handed.handles.push(copy);
                }
            });
        },
    ),
    trap("memory without seals", "Handshake", "seal", |server| {
        instead(server, 0, |handed| {
            Handed::memory(bytes(handed), Handed::no_seals())
        })
    }),
    trap(
        "memory that the server can write elsewhere",
        "Handshake",
        "seal",
        |server| {
            instead(server, 0, |handed| {
                Handed::memory(bytes(handed), Handed::seals())
            })
        },
    ),
    trap(
        "memory for us without seals",
        "Handshake",
        "seal",
        |server| {
            instead(server, 1, |handed| {
                Handed::memory(bytes(handed), Handed::no_seals())
            })
        },
    ),
    trap(
        "memory for us that cannot be written",
        "Handshake",
        "sealed against our writing",
        |server| {
            instead(server, 1, |handed| {
                Handed::memory(bytes(handed), Handed::all_seals())
            })
        },
    ),
    trap(
        "memory that is one page too small",
        "Handshake",
        "bytes",
        |server| {
            instead(server, 0, |handed| {
                Handed::memory(bytes(handed) - 4096, Handed::all_seals())
            })
        },
    ),
    trap(
        "memory that is one page too large",
        "Handshake",
        "bytes",
        |server| {
            instead(server, 1, |handed| {
                Handed::memory(bytes(handed) + 4096, Handed::seals())
            })
        },
    ),
    trap("memory of 0 bytes", "Handshake", "bytes", |server| {
        instead(server, 0, |_| Handed::memory(0, Handed::all_seals()))
    }),
    trap(
        "memory with another magic number",
        "Handshake",
        "no region of version 1",
        |server| {
            instead(server, 0, |handed| {
                Handed::memory_with(b"DRBLRGN2", bytes(handed), Handed::all_seals())
            })
        },
    ),
    trap(
        "the same memory twice",
        "Handshake",
        "sealed against our writing",
        |server| instead(server, 1, |handed| handed.handles[0].try_clone().unwrap()),
    ),
    trap(
        "/dev/null",
        "Handshake",
        "not anonymous shared memory",
        |server| instead(server, 0, |_| File::open("/dev/null").unwrap().into()),
    ),
    trap(
        "/dev/zero to write to",
        "Handshake",
        "not anonymous shared memory",
        |server| {
            instead(server, 1, |_| {
                File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/zero")
                    .unwrap()
                    .into()
            })
        },
    ),
    trap(
        "a directory",
        "Handshake",
        "not anonymous shared memory",
        |server| instead(server, 0, |_| File::open("/").unwrap().into()),
    ),
    trap(
        "a file on a mounted tmpfs",
        "Handshake",
        "lacks seals",
        |server| instead(server, 0, |handed| in_directory("/dev/shm", bytes(handed))),
    ),
    trap("a file on disk", "Handshake", "a file on disk", |server| {
        instead(server, 0, |handed| in_directory("/var/tmp", bytes(handed)))
    }),
    trap(
        "a socket as memory",
        "Handshake",
        "not anonymous shared memory",
        |server| instead(server, 0, |_| Handed::bell(2)),
    ),
    trap(
        "an event counter as memory",
        "Handshake",
        "not anonymous shared memory",
        |server| instead(server, 0, |_| Handed::bell(1)),
    ),
    trap(
        "everything in the wrong order",
        "Handshake",
        "not anonymous shared memory",
        |server| change(server, |handed| handed.handles.reverse()),
    ),
];

/// Makes a file without a name.
fn in_directory(directory: &str, bytes: u64) -> OwnedFd {
    let file = tempfile::tempfile_in(directory).unwrap();
    file.set_len(bytes).unwrap();
    let memory = Memory::new(file.into());
    memory.write(0, b"DRBLRGN1");
    memory.into()
}

const BELLS: &[Trap] = &[
    trap("/dev/null to ring", "Handshake", "doorbell is", |server| {
        instead(server, 2, |_| {
            File::options()
                .write(true)
                .open("/dev/null")
                .unwrap()
                .into()
        })
    }),
    trap(
        "an event queue to ring, which has no type either",
        "Handshake",
        "doorbell is not",
        |server| instead(server, 2, |handed| Handed::event_queue(handed.welcome.bell)),
    ),
    trap("memory to ring", "Handshake", "doorbell is", |server| {
        instead(server, 2, |handed| handed.handles[0].try_clone().unwrap())
    }),
    trap(
        "the other kind of bell to ring",
        "Handshake",
        "doorbell is",
        |server| instead(server, 2, |handed| Handed::bell(3 - handed.welcome.bell)),
    ),
    trap(
        "the other kind of bell to listen on",
        "Handshake",
        "doorbell is",
        |server| instead(server, 3, |handed| Handed::bell(3 - handed.welcome.bell)),
    ),
    trap(
        "a pipe to listen on",
        "Handshake",
        "doorbell is",
        |server| instead(server, 3, |_| std::io::pipe().unwrap().0.into()),
    ),
    trap("a bell that blocks", "Handshake", "doorbell is", |server| {
        instead(server, 2, |handed| {
            Handed::blocking_bell(handed.welcome.bell)
        })
    }),
];
