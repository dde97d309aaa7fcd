//! A traced run, played again: the disk and what was known at each moment of it.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use crate::power::{
    disk::{Cut, Disk},
    ledger::{Known, Ledger, Note},
    server::Traced,
    trace::{self, Record},
};

#[derive(Debug)]
pub struct History {
    disk: Disk,
    pub known: Known,
    records: Vec<Record>,
    notes: Vec<Note>,
    played: usize,
}

impl History {
    /// What was traced up to now, of a directory that was `disk` at the beginning, when
    /// clients knew what is `known`.
    pub fn new(disk: Disk, known: Known, traced: &Traced, ledger: &Ledger) -> Self {
        let records = trace::read(&traced.trace);
        Self { disk, known, records, notes: ledger.notes(), played: 0 }
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// When the clients were told something for the first time.
    pub fn first_mark(&self) -> usize {
        let first = self.records.iter().position(|record| matches!(record, Record::Mark(_)));
        first.expect("somebody was told something")
    }

    /// Moments from `from` on, in order: half of them anywhere, and half right before or
    /// after a sync, a truncation or a change of the directory.
    pub fn moments(&self, from: usize, count: usize, random: &mut StdRng) -> Vec<usize> {
        let turns: Vec<_> = (from..self.len())
            .filter(|at| !matches!(self.records[*at], Record::Written { .. } | Record::Mark(_)))
            .collect();
        let mut moments: Vec<_> = (0..count)
            .map(|number| {
                if number % 2 == 0 || turns.is_empty() {
                    random.random_range(from..=self.len())
                } else {
                    turns[random.random_range(0..turns.len())] + random.random_range(0..3)
                }
            })
            .map(|moment| moment.min(self.len()))
            .collect();
        moments.sort_unstable();
        moments
    }

    /// Goes on to that moment.
    pub fn play(&mut self, moment: usize) {
        assert!(moment >= self.played, "time goes one way");
        for record in &self.records[self.played..moment] {
            if let Record::Mark(note) = record {
                self.known.learn(&self.notes[*note]);
            }
            self.disk.apply(record);
        }
        self.played = moment;
    }

    /// What a power cut at that moment may leave, and which it is.
    pub fn cut(&mut self, moment: usize, cut: Cut, random: &mut StdRng) -> (TempDir, String) {
        self.play(moment);
        let image = tempfile::tempdir().expect("a directory");
        let seed = random.random();
        self.disk.cut(cut, &mut StdRng::seed_from_u64(seed), image.path());
        let context = format!("{cut:?} at {moment} of {} (seed {seed})", self.len());
        (image, context)
    }

    /// Goes on to the end, and looks whether the trace has missed anything.
    pub fn end(&mut self) {
        self.play(self.len());
        self.disk.check();
    }
}
