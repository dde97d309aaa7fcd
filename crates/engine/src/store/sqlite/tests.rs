//! The format on disk does not change in silence: these are the bytes of format 4.
//! Whoever has to change a value here makes another format, with a migration.

use std::time::Duration;

use super::{
    FORMAT, Table,
    schema::SCHEMA,
    sum::{self, sum_of, values},
};
use crate::{
    event::Seq,
    queue::{Overrides, Rate},
    store::{
        Exit, Output, OutputStream,
        journal::{NewTaskRow, TaskRow},
        record::{LabelsRecord, OutputRecord, PackRecord, QueueRecord, TaskRecord},
    },
    task::{Data, Due, NewTask, RetryPolicy, TaskBody, Timestamp},
};

const CHANGED: &str = "the format on disk has changed: it needs another number and a migration";

#[test]
fn the_tables_are_those_of_the_format() {
    assert_eq!(FORMAT, 4, "{CHANGED}");
    assert_eq!(crc32c::crc32c(SCHEMA.as_bytes()), SCHEMA_SUM, "{CHANGED}");
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")
        .unwrap();
    let names: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(names, Table::ALL.map(Table::name), "every table has its checksums");
    for table in Table::ALL {
        let columns: Vec<(String, usize)> = connection
            .prepare(&format!("SELECT name, pk FROM pragma_table_info('{}')", table.name()))
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(columns[0], ("sum".to_owned(), 0), "{table:?}");
        assert_eq!(columns.len(), 1 + table.columns(), "{table:?}");
        for (at, (name, key)) in columns.iter().enumerate().skip(1) {
            let expected = if at <= table.key_columns() { at } else { 0 };
            assert_eq!(*key, expected, "{table:?}.{name}");
        }
    }
}

#[test]
fn the_checksums_are_those_of_the_format() {
    let none: Option<u64> = None;
    let long = "x".repeat(300);
    let sums = [
        sum_of(Table::Slot, &values![1_u32, 2_u64, 3_u32, -4_i64]),
        sum_of(Table::Tally, &values!["a", 1_i64, 2_u64, u64::MAX]),
        sum_of(Table::Request, &values!["key", 7_u64, [1_u8; 16].as_slice()]),
        sum_of(Table::Event, &values![1_u64, 2_u64, 3_u64, [9_u8; 1000].as_slice()]),
        sum_of(Table::Output, &values![1_u64, 2_u32, [0_u8; 0].as_slice()]),
        sum_of(Table::Queue, &values![long.as_str(), true, [0_u8; 400].as_slice()]),
        sum_of(Table::Ended, &values![1_u64, false, none, [0_u8; 1].as_slice()]),
        sum_of(Table::Pack, &values![65_u64, -1_i64, [3_u8; 5].as_slice()]),
        sum_of(Table::Unpacked, &values![65_u64, 6_i64]),
    ];
    assert_eq!(sums, SUMS, "{CHANGED}");
}

#[test]
fn no_two_rows_that_differ_have_one_checksum() {
    let empty: &[u8] = &[];
    let sums = [
        sum_of(Table::Output, &values![1_u64, 2_u32, empty]),
        sum_of(Table::Output, &values![2_u64, 1_u32, empty]),
        sum_of(Table::Output, &values![1_u64, 2_u32, [0_u8].as_slice()]),
        sum_of(Table::Output, &values![1_u64, 2_u32, [0_u8, 0].as_slice()]),
        sum_of(Table::Queue, &values!["ab", 1_u64, [b'c'].as_slice()]),
        sum_of(Table::Queue, &values!["a", 1_u64, [b'b', b'c'].as_slice()]),
        sum_of(Table::Meta, &values!["ab", empty]),
        sum_of(Table::Meta, &values!["", [b'a', b'b'].as_slice()]),
    ];
    let unique: std::collections::HashSet<i64> = sums.into_iter().collect();
    assert_eq!(unique.len(), sums.len());
}

#[test]
fn a_row_can_be_checked_without_its_large_column() {
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    let mut insert = connection.prepare(&Table::Event.insert("INSERT")).unwrap();
    let large = vec![5_u8; 70_000];
    let values = values![1_u64, 9_u64, 3_u64, large.as_slice()];
    sum::write(&mut insert, Table::Event, &values).unwrap();
    let check = || {
        let head = "SELECT sum, first, last, uptime FROM event";
        let head =
            connection.query_row(head, [], |row| sum::check_head(row, 0, Table::Event)).is_ok();
        let whole = connection
            .query_row("SELECT * FROM event", [], |row| sum::check(row, 0, Table::Event))
            .is_ok();
        (head, whole)
    };
    assert_eq!(check(), (true, true));
    connection.execute_batch("UPDATE event SET data = zeroblob(70000)").unwrap();
    assert_eq!(check(), (true, false));
    connection.execute_batch("UPDATE event SET last = 8").unwrap();
    assert_eq!(check(), (false, false));
}

#[test]
fn the_records_are_those_of_the_format() {
    let task = NewTask {
        kind: "k".into(),
        queue: "q".into(),
        body: TaskBody { timeout: Duration::from_secs(1), ..Data::Json("{}".into()).into() },
        priority: -3,
        due: Due::Now,
        retry: RetryPolicy {
            max_attempts: 4,
            initial_backoff: Duration::from_millis(5),
            max_backoff: Duration::from_secs(6),
        },
        labels: [("a".to_owned(), "b".to_owned())].into(),
        request_id: None,
    };
    let all = Overrides {
        max_tasks: Some(1),
        max_bytes: Some(2),
        max_running: Some(Some(3)),
        rate: Some(Some(Rate { per_second: 0.5, burst: 5 })),
        weight: Some(6),
        max_attempts: Some(7),
        initial_backoff: Some(Duration::from_micros(8)),
        max_backoff: Some(Duration::from_micros(9)),
        attempt_timeout: Some(Duration::from_micros(10)),
    };
    let stream = |bytes: &'static [u8], dropped| OutputStream { bytes: bytes.into(), dropped };
    let output = |exit| Output { stdout: stream(b"o", 1), stderr: stream(b"e", 2), exit };
    let bytes = Data::Bytes(vec![0, 255].into());
    let row = TaskRow {
        number: 70,
        seq: Seq(9),
        created: Timestamp(1),
        queue: "q".into(),
        kind: "k".into(),
        request_id: None,
        labels: Some([1].into()),
        record: Vec::new(),
    };
    let mut pack = PackRecord::default();
    let mut new = NewTaskRow {
        task: row,
        priority: -3,
        due: Timestamp(5),
        interval: Some(Duration::from_micros(6)),
        bytes: 7,
        max_attempts: 4,
    };
    pack.push(65, &new);
    (new.task.number, new.task.labels, new.interval) = (71, None, None);
    pack.push(65, &new);
    let heads = PackRecord::heads(65, &pack.to_bytes()).expect("it is whole");
    assert_eq!(heads.iter().map(|head| head.number).collect::<Vec<_>>(), [70, 71]);
    let records = [
        TaskRecord::of(&task).to_bytes(),
        TaskRecord::of(&NewTask {
            body: TaskBody { payload: bytes, ..task.body.clone() },
            ..task.clone()
        })
        .to_bytes(),
        LabelsRecord::to_bytes(&task.labels).unwrap(),
        QueueRecord::to_bytes(&all),
        OutputRecord::to_bytes(&output(Some(Exit::Code(3)))),
        OutputRecord::to_bytes(&output(Some(Exit::Signal(9)))),
        super::numbers::pack(&[1_000, 1_001, 999]),
        pack.to_bytes(),
    ];
    let written = records
        .map(|record| record.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")));
    assert_eq!(written, RECORDS, "{CHANGED}");
}

const SCHEMA_SUM: u32 = 1_749_977_477;

const SUMS: [i64; 9] = [
    2_142_482_837,
    -1_915_936_097,
    1_685_767_623,
    6_392_207_103_139_552_364,
    -2_169_578_583_281_054_987,
    854_214_285,
    -825_924_659,
    2_896_480_210_045_942_950,
    -433_876_754,
];

const RECORDS: [&str; 8] = [
    "0a027b7d180520c0843d280430882738809bee02",
    "120200ff180520c0843d280430882738809bee02",
    "6a060a0161120162",
    "08011002180321000000000000e03f28053006380740084809500a",
    "0a016f10011a016520022803",
    "0a016f10011a016520023009",
    "d00f0203",
    "0a01710a016b121008051801200528053006380740044801120c080618012005280538074004",
];
