//! Values in rkyv's form that are lent between two processes: in requests, replies and items, read in place and from copies.

use doorbell::{
    Client, Context, DecodeError, ItemSender, ItemStream, Loan, Loaned, LoanedArchive, Message,
    Payload, Server, Status, blocking,
};
use doorbell_proto::frame::{BlockId, CallId, Descriptor, Flags, FrameHeader, FrameKind};
use doorbell_shm::{memory::adopt_own_segment, sys::RegionHandle};
use doorbell_testkit::{
    Child, PATIENCE, Place, RawControl, eventually, role, say, setting, wait_for_parent,
};
use rkyv::{Archive, Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
struct Table {
    name: String,
    /// What needs the largest alignment that there is in an archive.
    sums: Vec<u128>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
struct Row {
    key: u32,
    note: Option<String>,
}

fn table(rows: usize) -> Table {
    let row = |key: u32| Row {
        key,
        note: key
            .is_multiple_of(3)
            .then(|| format!("a note that is stored apart from row {key}")),
    };
    Table {
        name: format!("a table of {rows} rows"),
        sums: (0..rows as u128).map(|row| row << 65 | row).collect(),
        rows: (0..rows as u32).map(row).collect(),
    }
}

/// Answered with the table itself, its keys one higher.
#[derive(Payload, Message)]
#[payload(loaned)]
#[message(type = 1, reply = LoanedArchive<Table>)]
struct Raise(LoanedArchive<Table>);

/// A stream of tables, each with as many rows as its number.
#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 2, reply = LoanedArchive<Table>)]
struct Produce(u32);

/// Answered with the number of rows in all items.
#[derive(serde::Serialize, serde::Deserialize, Message)]
#[message(type = 3, reply = u64, item = LoanedArchive<Table>)]
struct Consume;

/// Read while somebody writes it; answered with what was read before and after.
#[derive(Payload, Message)]
#[payload(loaned)]
#[message(type = 4, reply = (u32, u32))]
struct Watch(LoanedArchive<u32>);

/// Bytes that are taken for a table; answered with what its reader says.
#[derive(Payload, Message)]
#[payload(loaned)]
#[message(type = 5, reply = Vec<String>)]
struct Wrong(Loaned);

/// The bytes where they are. Both processes run this program, which leaves alone what it has lent.
fn in_place<T>(archive: &LoanedArchive<T>) -> &[u8] {
    // SAFETY: every archive here has been received. The process at the other end is this program, which writes a loan before it sends it
    // and never after.
    unsafe { archive.as_slice() }
}

/// Reads a table in each of the ways there are, which must agree.
fn read(archive: &LoanedArchive<Table>) -> Result<Table, DecodeError> {
    let value = archive.to_value()?;
    let archived = LoanedArchive::<Table>::access(in_place(archive))?;
    assert_eq!(archived.name, value.name);
    assert!(archived.sums.iter().zip(&value.sums).all(|(a, b)| a == b));
    assert_eq!(archived.rows.len(), value.rows.len());
    assert_eq!(
        archive.with(|archived| archived.rows.len())?,
        value.rows.len()
    );
    assert_eq!(archive.is_in_place(), setting("in_place") == "yes");
    Ok(value)
}

fn invalid(error: DecodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn refused(error: doorbell::EncodeError) -> Status {
    Status::internal(error.to_string())
}

fn raised(mut table: Table) -> Table {
    table.rows.iter_mut().for_each(|row| row.key += 1);
    table
}

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        None => {}
        Some("tasks") => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
            .block_on(serve()),
        Some("threads") => serve_with_threads(),
        Some(role) => panic!("no role {role}"),
    }
}

async fn write(context: &Context, table: &Table) -> Result<LoanedArchive<Table>, Status> {
    let size = LoanedArchive::size_bytes(table).map_err(refused)?;
    LoanedArchive::new(context.loan(size).await?, table).map_err(refused)
}

fn write_blocking(context: &Context, table: &Table) -> Result<LoanedArchive<Table>, Status> {
    let size = LoanedArchive::size_bytes(table).map_err(refused)?;
    LoanedArchive::new(context.try_loan(size)?, table).map_err(refused)
}

async fn serve() {
    let _server = Server::builder(setting("path"))
        .max_loan_bytes(setting("max_loan_bytes").parse().unwrap())
        .on(|context: Context, Raise(archive): Raise| async move {
            write(&context, &raised(read(&archive).map_err(invalid)?)).await
        })
        .on_stream(
            |context: Context, produce: Produce, mut out: ItemSender<LoanedArchive<Table>>| async move {
                for rows in 0..produce.0 {
                    out.send(write(&context, &table(rows as usize)).await?).await?;
                }
                Ok::<_, Status>(())
            },
        )
        .on_upload(
            |_: Context, _: Consume, mut items: ItemStream<LoanedArchive<Table>>| async move {
                let mut rows = 0;
                while let Some(item) = items.next().await {
                    let read = read(&item?).map_err(invalid)?;
                    assert_eq!(read, table(read.rows.len()));
                    rows += read.rows.len() as u64;
                }
                Ok::<_, Status>(rows)
            },
        )
        .bind()
        .await
        .unwrap();
    say("READY");
    while tokio::task::spawn_blocking(wait_for_parent)
        .await
        .unwrap()
        .is_some()
    {}
}

fn serve_with_threads() {
    let (tell, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let _server = blocking::Server::builder(setting("path"))
        .max_loan_bytes(setting("max_loan_bytes").parse().unwrap())
        .on(|context: Context, Raise(archive): Raise| {
            write_blocking(&context, &raised(read(&archive).map_err(invalid)?))
        })
        .on_stream(
            |context: Context,
             produce: Produce,
             mut out: blocking::ItemSender<LoanedArchive<Table>>| {
                for rows in 0..produce.0 {
                    out.send(write_blocking(&context, &table(rows as usize))?)?;
                }
                Ok::<_, Status>(())
            },
        )
        .on(move |_: Context, Watch(archive): Watch| {
            assert!(archive.is_in_place());
            let both = archive.with(|number| {
                let before = number.to_native();
                say("READING");
                told.lock().unwrap().recv().unwrap();
                (before, number.to_native())
            });
            both.map_err(invalid)
        })
        .on(|_: Context, Wrong(loaned): Wrong| {
            let archive = LoanedArchive::<Table>::from(loaned);
            let errors = [
                archive.to_value().map(drop),
                archive.with(|_| ()),
                LoanedArchive::<Table>::access(in_place(&archive)).map(drop),
            ];
            Ok::<_, Status>(
                errors
                    .into_iter()
                    .map(|error| error.unwrap_err().to_string())
                    .collect::<Vec<_>>(),
            )
        })
        .bind()
        .unwrap();
    say("READY");
    while wait_for_parent().is_some() {
        tell.send(()).unwrap();
    }
}

struct Host {
    place: Place,
    child: Child,
}

impl Host {
    fn start(role: &str, max_loan_bytes: &str, in_place: &str) -> Self {
        let place = Place::new();
        let path = place.name();
        let settings = [
            ("path", path.as_str()),
            ("max_loan_bytes", max_loan_bytes),
            ("in_place", in_place),
        ];
        let child = Child::start("child_process", role, &settings);
        child.hear("READY");
        Self { place, child }
    }

    fn lending(role: &str) -> Self {
        Self::start(role, ENOUGH, "yes")
    }

    fn blocking_client(&self) -> blocking::Client {
        blocking::Client::connect(self.place.name()).unwrap()
    }

    async fn client(&self) -> Client {
        Client::connect(self.place.name()).await.unwrap()
    }
}

const ENOUGH: &str = "67108864";
const ROWS: [usize; 4] = [0, 1, 100, 20_000];

async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, test)
        .await
        .expect("the test hangs")
}

fn archived(loan: Loan, table: &Table) -> LoanedArchive<Table> {
    LoanedArchive::new(loan, table).unwrap()
}

fn lend_blocking(client: &blocking::Client, table: &Table) -> LoanedArchive<Table> {
    let size = LoanedArchive::size_bytes(table).unwrap();
    archived(client.loan(size, PATIENCE).unwrap(), table)
}

async fn lend(client: &Client, table: &Table) -> LoanedArchive<Table> {
    let size = LoanedArchive::size_bytes(table).unwrap();
    archived(client.loan(size).await.unwrap(), table)
}

#[test]
fn values_are_lent_both_ways_between_threads() {
    for kind in ["tasks", "threads"] {
        let host = Host::lending(kind);
        let client = host.blocking_client();
        for rows in ROWS {
            let request = lend_blocking(&client, &table(rows));
            let reply = client.call(Raise(request)).wait().unwrap();
            assert!(reply.is_in_place());
            assert_eq!(
                LoanedArchive::<Table>::access(in_place(&reply))
                    .unwrap()
                    .name,
                table(rows).name
            );
            assert_eq!(reply.to_value().unwrap(), raised(table(rows)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_lent_both_ways_and_in_streams_between_tasks() {
    let host = Host::lending("tasks");
    in_time(async {
        let client = host.client().await;
        for rows in ROWS {
            let request = lend(&client, &table(rows)).await;
            let reply = client.call(Raise(request)).await.unwrap();
            assert!(reply.is_in_place());
            assert_eq!(reply.to_value().unwrap(), raised(table(rows)));
        }
        let mut upload = client.upload(Consume).await.unwrap();
        for rows in ROWS {
            upload
                .send(lend(&client, &table(rows)).await)
                .await
                .unwrap();
        }
        let sum: usize = ROWS.iter().sum();
        assert_eq!(upload.finish().await.unwrap(), sum as u64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_read_in_place() {
    for kind in ["tasks", "threads"] {
        let host = Host::lending(kind);
        in_time(async {
            let client = host.client().await;
            let mut items = client.stream(Produce(100)).await.unwrap();
            for rows in 0..100 {
                let item = items.next().await.unwrap().unwrap();
                assert!(item.is_in_place());
                let archived = LoanedArchive::<Table>::access(in_place(&item)).unwrap();
                assert_eq!(archived.rows.len(), rows);
                assert!(
                    archived
                        .rows
                        .iter()
                        .zip(0..)
                        .all(|(row, key)| row.key == key)
                );
                assert_eq!(item.to_value().unwrap(), table(rows));
            }
            assert!(items.next().await.is_none());
        })
        .await;
    }
}

#[test]
fn without_agreement_values_are_copied_and_read_in_the_same_ways() {
    let host = Host::start("threads", "0", "no");
    let client = host.blocking_client();
    for rows in ROWS {
        let request = lend_blocking(&client, &table(rows));
        let reply = client.call(Raise(request)).wait().unwrap();
        assert!(!reply.is_in_place());
        let archived = LoanedArchive::<Table>::access(in_place(&reply)).unwrap();
        assert_eq!(archived.rows.len(), rows);
        assert_eq!(reply.to_value().unwrap(), raised(table(rows)));
    }
}

#[test]
fn loan_that_is_larger_is_cut_and_one_that_is_smaller_is_refused() {
    let host = Host::lending("threads");
    let client = host.blocking_client();
    let size = LoanedArchive::size_bytes(&table(10)).unwrap();
    let loan = client.loan(size + 1000, PATIENCE).unwrap();
    let request = archived(loan, &table(10));
    assert_eq!(request.len(), size);
    let reply = client.call(Raise(request)).wait().unwrap();
    assert_eq!(reply.to_value().unwrap(), raised(table(10)));
    let loan = client.loan(size - 1, PATIENCE).unwrap();
    let error = LoanedArchive::new(loan, &table(10)).unwrap_err();
    let expected = format!("its archive has {size} bytes, and the loan {}", size - 1);
    assert!(error.to_string().ends_with(&expected), "{error}");
}

#[test]
fn what_is_no_archive_is_refused_in_place_and_from_copies() {
    let host = Host::lending("threads");
    let client = host.blocking_client();
    let whole = client
        .loan(LoanedArchive::size_bytes(&table(10)).unwrap(), PATIENCE)
        .unwrap();
    let whole = archived(whole, &table(10)).copy_to_vec();
    let mut wild = whole.clone();
    let end = wild.len();
    wild[end - 4..].fill(0xFF); // the number of rows
    for wrong in [&[][..], &whole[..1], &whole[..end - 1], &wild] {
        let mut loan = client.loan(wrong.len(), PATIENCE).unwrap();
        loan.copy_from_slice(wrong);
        let errors = client.call(Wrong(loan.into())).wait().unwrap();
        assert_eq!(errors.len(), 3);
        let invalid = |error: &String| error.starts_with("the payload is not a valid message: ");
        assert!(errors.iter().all(invalid), "{errors:?}");
    }
}

/// A client made by hand keeps writing what it has lent.
#[test]
fn copy_that_was_validated_does_not_change_when_the_peer_writes() {
    const PAGES: u32 = 64;
    let mut host = Host::lending("threads");
    let mut client = RawControl::connect(&host.place.socket()).finish();
    client.send(FrameHeader::new(FrameKind::WantSegment, 0, 1), &[]);
    let (_, handle) = client.receive_control();
    let handle = RegionHandle::from_handle(handle);
    let mut segment = adopt_own_segment(&handle, PAGES * 4096).unwrap();
    let mut block = segment.allocate(4).unwrap();
    block.as_uninit().write_copy_of_slice(&7_u32.to_le_bytes());
    let loan = Descriptor {
        block: BlockId::new(1, block.offset()),
        length: 4,
    };
    let body = loan.encode();
    let header = FrameHeader {
        length: body.len() as u32,
        flags: Flags::LOANED,
        ..FrameHeader::new(FrameKind::Call, CallId::new(0, 1).raw(), 4)
    };
    client.send(header, &body);
    host.child.hear("READING");
    block.as_uninit().write_copy_of_slice(&8_u32.to_le_bytes());
    host.child.tell("it is another number now");
    let mut reply = None;
    eventually("the server answers", || {
        let frame = client.read();
        let answers = |(header, _): &(FrameHeader, _)| header.kind == FrameKind::Response;
        reply = frame.filter(answers).map(|(_, body)| body);
        reply.is_some()
    });
    assert_eq!(reply.unwrap(), [7, 7], "what was validated has changed");
}
