//! What the clients of a server were told, and when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use taskyard::proto::v1::{Event, TaskState};

use crate::power::trace::Marker;

/// Something that a client was told.
#[derive(Clone, Debug)]
pub enum Note {
    /// It has begun to ask for this task; what comes of it is not known.
    Asked { request_id: String },
    /// The task is there.
    Acknowledged { request_id: String, task_id: String },
    /// The task is not there, and will not be.
    Refused { request_id: String },
    /// This has happened.
    Seen(Box<Event>),
    /// The task has ended so.
    Ended { task_id: String, state: TaskState },
}

/// All notes, in order, each with its mark in the trace.
#[derive(Debug)]
pub struct Ledger {
    notes: Mutex<Vec<Note>>,
    marker: Marker,
}

impl Ledger {
    pub fn new(marker: Marker) -> Self {
        Self { notes: Mutex::default(), marker }
    }

    pub fn note(&self, note: Note) {
        let mut notes = self.notes.lock().expect("nobody panics with it");
        notes.push(note);
        // Within the lock: the marks are in the order of the notes.
        self.marker.mark(notes.len() - 1);
    }

    pub fn notes(&self) -> Vec<Note> {
        self.notes.lock().expect("nobody panics with it").clone()
    }
}

/// What was known at some moment.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub asked: BTreeSet<String>,
    /// By `request_id`.
    pub acknowledged: BTreeMap<String, String>,
    pub refused: BTreeSet<String>,
    /// By number.
    pub seen: BTreeMap<u64, Event>,
    /// By task.
    pub ended: BTreeMap<String, TaskState>,
}

impl Known {
    pub fn learn(&mut self, note: &Note) {
        match note.clone() {
            Note::Asked { request_id } => drop(self.asked.insert(request_id)),
            Note::Acknowledged { request_id, task_id } => {
                drop(self.acknowledged.insert(request_id, task_id));
            }
            Note::Refused { request_id } => drop(self.refused.insert(request_id)),
            Note::Seen(event) => drop(self.seen.insert(event.seq, *event)),
            Note::Ended { task_id, state } => drop(self.ended.insert(task_id, state)),
        }
    }
}
