//! Known values, and the instructions against the table.

use super::{crc32c, crc32c_header, crc32c_record, table};

#[test]
fn known_values_of_rfc_3720() {
    assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(0, &[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(0, &[0xFF; 32]), 0x62A8_AB43);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c(0, &ascending), 0x46DD_794E);
    let descending: Vec<u8> = (0..32).rev().collect();
    assert_eq!(crc32c(0, &descending), 0x113F_DB5C);
    assert_eq!(crc32c(7, &[]), 7);
}

#[test]
fn instructions_agree_with_the_table_at_every_length_and_start() {
    let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * i / 7) as u8).collect();
    for start in 0..9 {
        for length in (0..800).chain([3071, 3072, 3073, 4096, 6144, 6500, 9900]) {
            let part = &bytes[start..start + length];
            let previous = length as u32;
            assert_eq!(
                crc32c(previous, part),
                !table::crc32c(!previous, part),
                "{start} {length}"
            );
        }
    }
}

#[test]
fn crc_of_a_whole_is_that_of_its_parts_in_turn() {
    let bytes: Vec<u8> = (0..5000_u32).map(|i| (i ^ (i >> 5)) as u8).collect();
    for cut in [0, 1, 7, 8, 20, 191, 192, 3072, 4999, 5000] {
        let (a, b) = bytes.split_at(cut);
        assert_eq!(crc32c(crc32c(0, a), b), crc32c(0, &bytes), "cut {cut}");
    }
}

#[test]
fn checksum_of_a_header_is_that_of_its_first_20_bytes_and_a_body_follows() {
    let bytes: [u8; 24] = std::array::from_fn(|index| (index * 37) as u8);
    let word =
        |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 * index + byte]));
    let header = [word(0), word(1), word(2)];
    assert_eq!(crc32c_header(&header), crc32c(0, &bytes[..20]));
    let body: Vec<u8> = (0..1000_u32).map(|i| (i * i / 3) as u8).collect();
    for length in (0..200).chain([1000]) {
        let record = [&bytes[..20], &body[..length]].concat();
        assert_eq!(
            crc32c_record(&header, &body[..length]),
            crc32c(0, &record),
            "{length}"
        );
    }
}
