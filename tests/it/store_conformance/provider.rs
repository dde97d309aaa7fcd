//! Where stores come from.

use std::{fs, sync::Arc};

use taskyard::{
    admission::Admission,
    config::{Durability, Retention},
    events::Hub,
    store::{Recovered, Settings, Store, open},
};
use tempfile::TempDir;

/// A store that serves.
pub struct Opened {
    pub store: Arc<Store>,
    pub hub: Hub,
    pub recovered: Recovered,
}

/// Makes stores of one sort.
pub trait Provider {
    /// What the data of a store is in, be it open or not.
    type Home;

    /// A home with nothing in it.
    fn home(&self) -> Self::Home;

    /// Opens the store in `home`: a new one if there is none yet.
    async fn open(
        &self,
        home: &Self::Home,
        admission: Arc<Admission>,
        max_crashes: u32,
        retention: Retention,
    ) -> Opened;

    /// What `home` would hold if the process that serves it ended this moment
    /// without a word.
    fn crashed(&self, home: &Self::Home) -> Self::Home;
}

/// [`taskyard::store::Store`] in a directory.
pub struct Sqlite(pub Durability);

impl Provider for Sqlite {
    type Home = TempDir;

    fn home(&self) -> TempDir {
        tempfile::tempdir().expect("a directory")
    }

    async fn open(
        &self,
        home: &TempDir,
        admission: Arc<Admission>,
        max_crashes: u32,
        retention: Retention,
    ) -> Opened {
        let data_dir = home.path().to_owned();
        let clock = taskyard::store::WallClock::default();
        let settings = Settings {
            data_dir,
            durability: self.0,
            max_crashes,
            disk_reserve: 0,
            retention,
            clock,
            max_log: 512 << 20,
            accept_loss: false,
        };
        let (store, hub, recovered) = open(&settings, admission).await.expect("the store opens");
        Opened { store, hub, recovered }
    }

    /// The files as they are: copied until nobody wrote them meanwhile, since two
    /// that do not fit together are no crash but a broken disk.
    fn crashed(&self, home: &TempDir) -> TempDir {
        let names = ["taskyard.db", "taskyard.db-wal"];
        let versions = || {
            names.map(|name| {
                let found = home.path().join(name).metadata().expect("a file");
                (found.len(), found.modified().expect("a time"))
            })
        };
        loop {
            let (copy, before) = (self.home(), versions());
            for name in names {
                fs::copy(home.path().join(name), copy.path().join(name)).expect("a copy");
            }
            if versions() == before {
                return copy;
            }
        }
    }
}
