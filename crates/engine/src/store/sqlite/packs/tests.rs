use std::time::Duration;

use super::{super::SqliteJournal, *};
use crate::{
    event::Seq,
    store::{
        Durability,
        journal::{FinishRow, Journal as _, LiveRow, NewTaskRow, TaskRow},
        sqlite::{self, Location},
    },
    task::{Lifecycle, State, Timestamp},
};

fn connection() -> Connection {
    let location = Location::Memory(format!("packs-{:x}", rand::random::<u64>()));
    let trust = sqlite::Trust::SameBoot;
    let circumstances = sqlite::Circumstances { trust, had_store: false, accept_loss: false };
    sqlite::open_writer(&location, Durability::Memory, circumstances).expect("it opens")
}

fn new(number: u64) -> NewTaskRow {
    NewTaskRow {
        task: TaskRow {
            number,
            seq: Seq(number),
            created: Timestamp(1),
            queue: "queue".into(),
            kind: "kind".into(),
            request_id: None,
            labels: None,
            record: Vec::new(),
        },
        priority: 0,
        due: Timestamp(1),
        interval: Some(Duration::ZERO),
        bytes: 1,
        max_attempts: 1,
    }
}

fn live(number: u64) -> LiveRow {
    LiveRow {
        number,
        queue: "queue".into(),
        kind: "kind".into(),
        priority: 0,
        due: Timestamp(2),
        interval: Some(Duration::ZERO),
        bytes: 1,
        max_attempts: 1,
        life: Lifecycle::submitted(false),
        execution: None,
        failure: None,
        labels: None,
    }
}

fn finish(number: u64) -> FinishRow {
    FinishRow {
        number,
        life: Lifecycle { state: State::Succeeded, ..Lifecycle::submitted(false) },
        finished: Timestamp(3),
        due: Timestamp(1),
        bytes: 1,
        ended: 1,
        execution: None,
        result: None,
        failure: None,
    }
}

fn commit(journal: &mut SqliteJournal<'_>, change: impl FnOnce(&mut WriteSet)) {
    let mut set = WriteSet::default();
    change(&mut set);
    journal.commit(&set, Timestamp(1)).expect("it is taken");
}

/// Packs of all sizes, of whose tasks some live with a row of their own and some have ended;
/// and which live.
fn filled(journal: &mut SqliteJournal<'_>) -> Vec<u64> {
    let mut next = 1;
    for tasks in [1, 3, 64, 65, 130, 1, 1, 63, 200, 2].into_iter().cycle().take(40) {
        commit(journal, |set| set.tasks.extend((next..next + tasks).map(new)));
        next += tasks;
    }
    let (mut kept, all) = (Vec::new(), 1..next);
    for numbers in [all.clone().step_by(2), all.clone().step_by(3)] {
        commit(journal, |set| {
            for number in numbers {
                match number % 7 {
                    0 => drop(set.live.insert(number, Some(live(number)))),
                    1 | 2 => {
                        set.live.insert(number, None);
                        set.finished.insert(number, Some(finish(number)));
                    }
                    _ => {}
                }
            }
        });
    }
    kept.extend(all.filter(|number| {
        let touched = number % 2 == 1 || number % 3 == 1;
        !(touched && [1, 2].contains(&(number % 7)))
    }));
    kept
}

#[test]
fn what_lives_is_read_whole_in_order_and_from_anywhere() {
    let connection = connection();
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    let lives = filled(&mut journal);
    let last = *lives.last().expect("some live");
    for mut journal in [journal, SqliteJournal::new(&connection, None).expect("it is read")] {
        for most in [1, 63, 64, 65, 10_000] {
            let (mut beyond, mut read) = (0, Vec::new());
            loop {
                let tasks = journal.live_tasks(beyond, most).expect("they are read");
                let Some(task) = tasks.last() else { break };
                beyond = task.number;
                read.extend(tasks.into_iter().map(|task| task.number));
            }
            assert_eq!(read, lives, "{most} at a time");
        }
    }
    let read = |above, below, newest_first| {
        let mut numbers =
            crate::store::reader::LiveNumbers::new(&connection, (above, below), newest_first);
        std::iter::from_fn(move || numbers.next().expect("they are read")).collect::<Vec<_>>()
    };
    for above in (0..last).step_by(37) {
        for below in [above + 1, above + 2, above + 64, above + 65, last + 1, u64::from(u32::MAX)] {
            let mut expected: Vec<u64> = lives.clone();
            expected.retain(|number| *number > above && *number < below);
            assert_eq!(read(above, below, false), expected, "{above}..{below}");
            expected.reverse();
            assert_eq!(read(above, below, true), expected, "{above}..{below}, newest first");
        }
    }
}

#[test]
fn a_pack_goes_when_its_last_task_has_left() {
    let connection = connection();
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    let rows = |table: &str| -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        connection.query_row(&sql, [], |row| row.get(0)).expect("it is read")
    };
    commit(&mut journal, |set| set.tasks.extend((1..=64).map(new)));
    assert_eq!((rows("pack"), rows("unpacked"), rows("live")), (1, 0, 0));
    let end = |set: &mut WriteSet, number| {
        set.live.insert(number, None);
        set.finished.insert(number, Some(finish(number)));
    };
    commit(&mut journal, |set| (2..=64).for_each(|number| end(set, number)));
    assert_eq!((rows("pack"), rows("unpacked")), (1, 1));
    commit(&mut journal, |set| end(set, 1));
    assert_eq!((rows("pack"), rows("unpacked"), rows("finish")), (0, 0, 64));
}

#[test]
fn a_task_that_has_a_row_of_its_own_has_left_its_pack() {
    let connection = connection();
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    commit(&mut journal, |set| set.tasks.extend((1..=4).map(new)));
    commit(&mut journal, |set| {
        set.live.insert(2, Some(live(2)));
        set.live.insert(3, None);
        set.finished.insert(3, Some(finish(3)));
    });
    drop(journal);
    let gone = connection.execute("DELETE FROM unpacked", []).expect("it goes");
    assert_eq!(gone, 1);
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    let tasks = journal.live_tasks(0, 10).expect("they are read");
    let due: Vec<_> = tasks.iter().map(|task| (task.number, task.due.0)).collect();
    assert_eq!(due, [(1, 1), (2, 2), (4, 1)]);
    // It is put right with the next change.
    commit(&mut journal, |set| drop(set.live.insert(4, Some(live(4)))));
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    assert_eq!(journal.live_tasks(0, 10).expect("they are read").len(), 3);
    let left: i64 =
        connection.query_row("SELECT tasks FROM unpacked", [], |row| row.get(0)).expect("one row");
    assert_eq!(left, 0b1110);
}

#[test]
fn beside_a_damaged_pack_nothing_is_told_twice() {
    let connection = connection();
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    for first in [1, 11, 21] {
        commit(&mut journal, |set| set.tasks.extend((first..first + 10).map(new)));
    }
    commit(&mut journal, |set| drop(set.live.insert(15, Some(live(15)))));
    connection.execute("UPDATE pack SET tasks = tasks + 1 WHERE first = 11", []).expect("damaged");
    for newest_first in [false, true] {
        let mut numbers =
            crate::store::reader::LiveNumbers::new(&connection, (0, 1_000), newest_first);
        let mut read: Vec<u64> =
            std::iter::from_fn(|| numbers.next().expect("they are read")).collect();
        if newest_first {
            read.reverse();
        }
        assert_eq!(read, (1..=30).collect::<Vec<_>>());
    }
}

/// As a defect of whoever writes would leave it: no checksum tells.
#[test]
fn a_pack_that_has_other_tasks_than_it_says_is_found_by_a_start_and_by_verify() {
    let connection = connection();
    let mut journal = SqliteJournal::new(&connection, None).expect("it is read");
    commit(&mut journal, |set| set.tasks.extend((1..=3).map(new)));
    let data: Vec<u8> =
        connection.query_row("SELECT data FROM pack", [], |row| row.get(0)).expect("one row");
    connection.execute("DELETE FROM pack", []).expect("it goes");
    let mut insert = connection.prepare(&Table::Pack.insert("INSERT")).expect("prepared");
    let two = 0b011_i64;
    write(&mut insert, Table::Pack, &values![1_u64, two, data.as_slice()]).expect("written");

    let wrong = "row 1 of table pack is damaged: it has other tasks than it says";
    let refused = journal.live_tasks(0, 10).expect_err("it is damaged").to_string();
    assert!(refused.contains(wrong), "{refused}");
    let mut found = sqlite::Findings::default();
    sqlite::look_through(&connection, sqlite::FORMAT, &mut found).expect("it is looked through");
    assert!(found.problems.iter().any(|problem| problem == wrong), "{found:?}");
}
