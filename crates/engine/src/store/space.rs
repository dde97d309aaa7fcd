//! Room on the disk.
//!
//! Owns how much is free where the data directory is, and between which two amounts new
//! tasks are kept out. Must not know what is written, or who asks.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::fs::statvfs;

use crate::admission::{Admission, Hold};

/// How often it is looked at while groups are written.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is looked at while nothing else happens: others fill disks, too.
const LOOK_IDLE: Duration = Duration::from_secs(1);

/// What callers are told to wait. Somebody has to make room, or tasks have to be trimmed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Keeps new tasks out while less than a reserve is free, so that what is there already
/// can go on.
#[derive(Debug)]
pub struct Space {
    directory: PathBuf,
    /// Bytes.
    reserve: u64,
    looked: Option<Instant>,
    low: bool,
    /// It could not be found out; told once.
    unknown: bool,
}

impl Space {
    /// Looks after the file system of `directory`. A `reserve` of no bytes is none.
    pub fn new(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve, looked: None, low: false, unknown: false }
    }

    /// When it wants to be looked at, if nothing happens before.
    pub fn until_look(&self, now: Instant) -> Option<Duration> {
        let looked = self.looked.filter(|_| self.reserve > 0)?;
        Some((looked + LOOK_IDLE).saturating_duration_since(now))
    }

    /// Looks, unless it did a moment ago, and holds new tasks back or lets them in again.
    pub fn look(&mut self, now: Instant, admission: &Admission) {
        let recently = self.looked.is_some_and(|looked| now < looked + LOOK_EVERY);
        if self.reserve == 0 || recently {
            return;
        }
        self.looked = Some(now);
        match statvfs(&self.directory) {
            Ok(found) => {
                self.unknown = false;
                self.judge(found.f_bavail.saturating_mul(found.f_frsize), admission);
            }
            Err(error) if !self.unknown => {
                self.unknown = true;
                tracing::warn!(%error, "cannot find out how much of the disk is free");
            }
            Err(_) => {}
        }
    }

    fn judge(&mut self, free: u64, admission: &Admission) {
        let (reserve, enough) = (self.reserve, enough(self.reserve));
        if !self.low && free < reserve {
            self.low = true;
            admission.hold(Hold::DiskLow { reserve }, RETRY_AFTER);
            tracing::warn!(
                free,
                disk_reserve = reserve,
                "the disk is nearly full: no new task is taken until {enough} bytes are free"
            );
        } else if self.low && free >= enough {
            self.low = false;
            admission.release(Hold::DiskLow { reserve });
            tracing::info!(free, "the disk has room: new tasks are taken again");
        }
    }
}

/// What must be free before new tasks are taken again: an eighth more than the reserve, so
/// that it does not open and close with each of them.
fn enough(reserve: u64) -> u64 {
    reserve.saturating_add(reserve / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::{Limits, Refused},
        queue::QueueConfig,
    };

    fn gate() -> Admission {
        let room_timeout = Duration::ZERO;
        Admission::new(Limits { queue_config: QueueConfig::default(), queues: 10, room_timeout })
    }

    fn is_open(gate: &Admission) -> bool {
        match gate.try_admit("default", 1) {
            Ok(_) => true,
            Err(Refused::Held { hold: Hold::DiskLow { reserve: 800 }, .. }) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn between_the_two_amounts_it_stays_as_it_is() {
        let gate = gate();
        let mut space = Space::new(PathBuf::new(), 800);
        for (free, open) in
            [(800, true), (799, false), (800, false), (899, false), (900, true), (801, true)]
        {
            space.judge(free, &gate);
            assert_eq!(is_open(&gate), open, "{free} bytes are free");
        }
    }

    #[test]
    fn what_cannot_be_found_out_keeps_nobody_out() {
        let gate = gate();
        let mut space = Space::new("/no/such/directory".into(), u64::MAX);
        space.look(Instant::now(), &gate);
        assert!(is_open(&gate));
    }

    #[test]
    fn without_a_reserve_nobody_looks() {
        let gate = gate();
        let mut space = Space::new("/".into(), 0);
        let now = Instant::now();
        space.look(now, &gate);
        assert!(is_open(&gate));
        assert_eq!(space.until_look(now), None);
    }
}
