//! What a process uses, as Linux tells it; elsewhere it is not known.

use std::{fs, time::Duration};

/// Of Linux's clock that processor time is told by.
const TICKS_PER_SECOND: u32 = 100;

/// Processor time so far.
#[derive(Clone, Copy)]
pub struct Usage {
    pub server: Duration,
    pub client: Duration,
}

impl Usage {
    /// Of this process, and of the server's.
    pub fn now(server: u32) -> Option<Self> {
        Some(Self { server: time_of(&server.to_string())?, client: time_of("self")? })
    }
}

/// User and system time: the 14th and 15th fields of proc(5)'s `stat`.
fn time_of(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may have spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(Duration::from_secs(1) * (ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Bytes of memory that it has.
pub fn memory_of(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
