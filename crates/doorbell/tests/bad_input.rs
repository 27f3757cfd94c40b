//! What users do wrong: each gets an error of its own type that says what to do, and a witness on the same server notices nothing.

mod support;

use doorbell::{
    CallError, Client, Code, ConnectError, ItemError, NameError, Outcome, RefuseReason, blocking,
};
use doorbell_testkit::{Child, Place};
use support::{Host, SHORT, in_time, messages::*, server_has_seen};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    support::roles::run();
}

/// Runs a test with a server and a client that has nothing to do with it, and must not be disturbed.
async fn with_witness(settings: &[(&str, &str)], test: impl AsyncFnOnce(&Host)) {
    let host = Host::start("server", settings);
    in_time(async {
        let witness = host.client().await;
        let gate = witness.call(Gate).send().await.unwrap();
        test(&host).await;
        assert_eq!(
            witness.call(Who).await.unwrap(),
            host.child.id(),
            "the same server answers"
        );
        witness.call(Open).await.unwrap();
        assert_eq!(
            gate.await.unwrap(),
            1,
            "the call that was under way all the time is answered"
        );
    })
    .await;
}

fn assert_says(error: &impl std::fmt::Display, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_is_none_is_refused_with_the_rule() {
    with_witness(&[], async |_| {
        for name in ["", "two words", ".hidden", "engine\0"] {
            let error = Client::connect(name).await.unwrap_err();
            assert!(
                matches!(error, ConnectError::Name(NameError::Invalid { .. })),
                "{error:?}"
            );
            assert!(!error.is_retryable());
            assert_says(
                &error,
                &[
                    "is not a service name",
                    "use 1 to 64 of",
                    "or a path with a slash in it",
                ],
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_that_nobody_listens_to_says_where_and_what_to_do() {
    with_witness(&[], async |host| {
        let absent = host
            .place
            .directory()
            .join("nobody.sock")
            .display()
            .to_string();
        let of_tasks = Client::connect(&absent).await.unwrap_err();
        let of_threads = blocking::Client::connect(&absent).unwrap_err();
        for error in [of_tasks, of_threads] {
            assert!(
                matches!(error, ConnectError::NotListening { .. }),
                "{error:?}"
            );
            assert!(error.is_retryable());
            assert_says(
                &error,
                &[
                    &absent,
                    "no server is listening",
                    "start it, or check the name",
                ],
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_without_permission_is_told_so() {
    use std::os::unix::fs::PermissionsExt;
    let executable = std::env::current_exe().unwrap();
    let mut trial = std::process::Command::new("setpriv");
    trial.args(OTHER_USER).arg(&executable).arg("--list");
    if !trial.output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no other user can run {}", executable.display());
        return;
    }
    with_witness(&[], async |host| {
        let connect = || {
            let mut command = std::process::Command::new("setpriv");
            command.args(OTHER_USER);
            let child = Child::start_through(
                command,
                "child_process",
                "connect",
                &[("path", &host.name())],
            );
            child.hear("RESULT")
        };
        let closed = connect();
        assert!(closed.starts_with("PermissionDenied"), "{closed}");
        assert_says(
            &closed,
            &[
                "permission denied for",
                &host.name(),
                "a server admits its own user only",
            ],
        );

        // Even with every door open, another user is not let in.
        for path in [host.place.directory().to_owned(), host.place.socket()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let opened = connect();
        let told = ["runs as user", "admits its own user only"];
        assert!(told.iter().any(|words| opened.contains(words)), "{opened}");
        assert!(!opened.starts_with("connected"));
    })
    .await;
}

const OTHER_USER: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_server_says_so() {
    with_witness(&[("max_connections", "1")], async |host| {
        let error = Client::connect(host.name()).await.unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Refused {
                    reason: RefuseReason::Full,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.is_retryable());
        assert_says(
            &error,
            &[
                "the server refused the connection",
                "its 1 connections",
                "limit(Connections, ..)",
            ],
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_over_the_limit_is_not_sent_and_says_what_to_raise() {
    with_witness(&[("max_message_bytes", "100000")], async |host| {
        let client = host.client().await;
        let error = client.call(Echo(pattern(100_001))).await.unwrap_err();
        assert!(
            matches!(
                error,
                CallError::TooLarge {
                    bytes: 100_001,
                    limit: 100_000
                }
            ),
            "{error:?}"
        );
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::ResourceExhausted, Outcome::NotExecuted)
        );
        assert!(!error.is_retryable());
        assert_says(
            &error,
            &["100001", "100000", "raise `max_message_bytes`", "stream"],
        );
        assert_eq!(
            client.call(Echo(pattern(100_000))).await.unwrap().0.len(),
            100_000,
            "the limit itself is allowed"
        );

        let mut upload = client.upload(StuckUpload).await.unwrap();
        let error = upload.send(vec![0; 200_000]).await.unwrap_err();
        assert!(
            matches!(error, ItemError::TooLarge { limit: 100_000, .. }),
            "{error:?}"
        );
        assert_says(&error, &["200003", "100000"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_over_the_clients_limit_fails_the_call_alone() {
    with_witness(&[], async |host| {
        let client = Client::builder(host.name())
            .max_message_bytes(50_000)
            .connect()
            .await
            .unwrap();
        let error = client.call(Echo(pattern(60_000))).await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::ResourceExhausted, Outcome::Application),
            "{error:?}"
        );
        assert_says(&error, &["the reply cannot be sent", "60000", "50000"]);
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_message_type_is_unimplemented_and_says_which() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        let error = client.call(Unheard).await.unwrap_err();
        assert!(matches!(error, CallError::Status(_)), "{error:?}");
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Unimplemented, Outcome::NotExecuted)
        );
        assert!(!error.is_retryable());
        assert_says(&error, &["no handler for message type 57005 is registered"]);

        let error = client
            .stream(Add(1, 2))
            .await
            .unwrap()
            .next()
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Unimplemented, Outcome::NotExecuted),
            "{error:?}"
        );
        assert_says(&error, &["registered as Unary", "called as ServerStream"]);

        client.notify(Unheard).unwrap(); // nobody is there to be told
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_that_cannot_be_read_is_invalid_and_no_handler_sees_it() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        for bytes in [vec![], vec![0xFF; 20], vec![1; 100_000]] {
            let error = client.call(NoAdd(bytes)).await.unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (Code::InvalidArgument, Outcome::NotExecuted),
                "{error:?}"
            );
            assert_says(&error, &["the payload is not a valid message"]);
        }
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reply_that_cannot_be_read_fails_the_call_alone() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        let error = client.call(TypeOfAnother).await.unwrap_err();
        assert!(matches!(error, CallError::Decode(_)), "{error:?}");
        assert_eq!(
            (error.code(), error.outcome()),
            (Code::Internal, Outcome::Application)
        );
        assert_says(&error, &["the reply cannot be read"]);
        assert_eq!(client.call(Add(1, 2)).await.unwrap(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_panics_fails_its_call_alone() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        let pending = client.call(Stuck).send().await.unwrap();
        for _ in 0..3 {
            let error = client.call(Panic).await.unwrap_err();
            assert_eq!(
                (error.code(), error.outcome()),
                (Code::Internal, Outcome::Application),
                "{error:?}"
            );
            assert_says(&error, &["the handler panicked"]);
        }
        assert_eq!(
            client.call(Add(1, 2)).await.unwrap(),
            3,
            "the connection goes on"
        );
        drop(pending);
        server_has_seen(
            &client,
            Seen {
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handler_that_never_answers_costs_its_caller_the_deadline() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        let error = client.call(Stuck).timeout(SHORT).await.unwrap_err();
        assert!(matches!(error, CallError::DeadlineExceeded), "{error:?}");
        assert_says(&error, &["the deadline passed"]);
        server_has_seen(
            &client,
            Seen {
                started: 2,
                dropped: 1,
                ..Seen::default()
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_breaks_the_rules_is_not_sent() {
    with_witness(&[], async |host| {
        let client = host.client().await;
        for (key, value) in [("Upper", vec![]), ("", vec![]), ("large", vec![0; 20_000])] {
            let error = client
                .call(Describe)
                .metadata(key, value)
                .await
                .unwrap_err();
            assert!(matches!(error, CallError::Encode(_)), "{error:?}");
            assert_eq!(error.outcome(), Outcome::NotExecuted);
        }
        assert_eq!(client.call(Describe).await.unwrap(), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_that_is_no_socket_of_a_server_is_left_alone() {
    let place = Place::new();
    std::fs::write(place.socket(), "precious").unwrap();
    let error = support::service::awaiting(&place.name())
        .bind()
        .await
        .err()
        .expect("a file is in the way");
    assert_says(&error, &[&place.name(), "is not a socket"]);
    assert_eq!(std::fs::read_to_string(place.socket()).unwrap(), "precious");
    let error = Client::connect(place.name()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotListening { .. }),
        "{error:?}"
    );
}
