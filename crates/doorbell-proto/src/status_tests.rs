//! Statuses on the wire.

use super::*;

fn error_frame(body: &[u8]) -> Result<Status, FrameError> {
    let header = FrameHeader {
        length: u32::try_from(body.len()).unwrap(),
        ..FrameHeader::new(FrameKind::Error, 1, 13)
    };
    Status::from_frame(&header, body)
}

#[test]
fn code_survives_its_number() {
    for number in 0..=16 {
        assert_eq!(Code::from_u32(number).map(Code::as_u32), Some(number));
    }
    assert_eq!(Code::from_u32(17), None);
    assert_eq!(Code::FailedPrecondition.to_string(), "FAILED_PRECONDITION");
}

#[test]
fn each_constructor_gives_its_own_code() {
    let statuses = [
        Status::cancelled(""),
        Status::unknown(""),
        Status::invalid_argument(""),
        Status::deadline_exceeded(""),
        Status::not_found(""),
        Status::already_exists(""),
        Status::permission_denied(""),
        Status::resource_exhausted(""),
        Status::failed_precondition(""),
        Status::aborted(""),
        Status::out_of_range(""),
        Status::unimplemented(""),
        Status::internal(""),
        Status::unavailable(""),
        Status::data_loss(""),
        Status::unauthenticated(""),
    ];
    for (status, number) in statuses.iter().zip(1..) {
        assert_eq!(status.code().as_u32(), number);
        assert_eq!(status.to_string(), status.code().name());
    }
}

#[test]
fn status_survives_the_codec() {
    let mut metadata = Metadata::new();
    metadata.insert("retry-after", b"3").unwrap();
    let status = Status::unavailable("später")
        .with_details([1, 2, 3])
        .with_metadata(metadata)
        .not_executed();
    let (header, body) = status.to_frame(9, 1000);
    assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    assert_eq!((header.id, header.value), (9, 14));
    assert_eq!(Status::from_frame(&header, &body), Ok(status.clone()));
    assert_eq!(
        (status.to_string(), status.was_executed()),
        ("UNAVAILABLE: später".to_owned(), false)
    );
}

#[test]
fn status_that_does_not_fit_loses_details_then_metadata_then_text() {
    let mut metadata = Metadata::new();
    metadata.insert("k", &[0; 100]).unwrap();
    let status = Status::internal("0123456789")
        .with_details([0; 50])
        .with_metadata(metadata.clone());
    let sizes = |max_body_bytes| {
        let (header, body) = status.to_frame(1, max_body_bytes);
        assert!(body.len() <= max_body_bytes);
        let found = Status::from_frame(&header, &body).unwrap();
        (
            found.message().len(),
            found.metadata().is_some(),
            found.details().len(),
        )
    };
    let all = 4 + 10 + metadata.encoded_bytes() + 50;
    assert_eq!(sizes(all), (10, true, 50));
    assert_eq!(sizes(all - 1), (10, true, 0));
    assert_eq!(sizes(64), (10, false, 50));
    assert_eq!(sizes(10), (6, false, 0));
}

#[test]
fn text_beyond_the_limit_is_cut_when_written_and_rejected_when_read() {
    let (header, body) = Status::internal("é".repeat(4000)).to_frame(1, 100_000);
    assert_eq!(
        Status::from_frame(&header, &body).unwrap().message().len(),
        4096
    );
    let mut body = 4097u32.to_le_bytes().to_vec();
    body.resize(4 + 4097, b'x');
    assert_eq!(
        error_frame(&body),
        Err(FrameError::Text {
            kind: FrameKind::Error,
            text_bytes: 4097
        })
    );
}

#[test]
fn text_longer_than_the_body_or_not_utf_8_is_rejected() {
    assert_eq!(
        error_frame(b"\x02\0\0\0x"),
        Err(FrameError::Text {
            kind: FrameKind::Error,
            text_bytes: 2
        })
    );
    assert_eq!(
        error_frame(b"\x01\0\0\0\xFF"),
        Err(FrameError::Text {
            kind: FrameKind::Error,
            text_bytes: 1
        })
    );
    assert_eq!(
        error_frame(b"\x01\0\0"),
        Err(FrameError::Length {
            kind: FrameKind::Error,
            length: 3
        })
    );
}

#[test]
fn ok_is_written_as_unknown() {
    let (header, _) = Status::new(Code::Ok, "").to_frame(1, 100);
    assert_eq!(header.value, Code::Unknown.as_u32());
}
