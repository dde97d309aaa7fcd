//! A disk, and what a power cut leaves of it.
//!
//! What was synced is there. Of what was not, each sector of 512 bytes is there or not, in
//! any state that it had since, whatever became of the others. Names, creations, removals
//! and renamings are there once their directory was synced; before, each is there or not.
//! Truncations of one file are kept in their order, and what is written after one is not
//! seen without it, as a file system's journal has it. Lengths may be any since the sync.
//!
//! After a sync that failed the kernel takes what it should have written for clean: it is
//! read as if it were there, and no later sync writes it, unless its page of 4 KiB is
//! written to again. On the disk each of its sectors may be in either state, for good.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use rand::{Rng as _, rngs::StdRng};

use crate::power::trace::Record;

const PAGE: usize = 4_096;
const SECTOR: usize = 512;

/// How much of what was not synced a cut leaves.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Nothing.
    Nothing,
    /// All of it: the order of a killed process.
    Everything,
    /// Each sector with this chance out of a hundred.
    Sectors(u32),
}

impl Cut {
    pub fn any(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2..4 => Self::Sectors(95),
            4..6 => Self::Sectors(5),
            _ => Self::Sectors(50),
        }
    }

    fn takes(self, random: &mut StdRng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Sectors(percent) => random.random_range(0..100) < percent,
        }
    }
}

/// A page as a write left it.
#[derive(Clone, Debug)]
struct Version {
    at: usize,
    bytes: Box<[u8]>,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// What programs read.
    cache: Vec<u8>,
    /// What is surely on the disk.
    disk: Vec<u8>,
    /// By page: what was written since the last sync that covers it.
    dirty: BTreeMap<usize, Vec<Version>>,
    /// By page: what may have reached the disk when a sync failed.
    doubtful: BTreeMap<usize, Vec<Version>>,
    /// Lengths since the last sync.
    lengths: Vec<(usize, Length)>,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    /// By writing past the end.
    Grown(usize),
    Truncated(usize),
}

#[derive(Clone, Debug)]
enum Entry {
    Made(PathBuf, usize),
    Removed(PathBuf),
    Renamed(PathBuf, PathBuf),
}

/// The files of one directory as a program left them, and as a disk may have them.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    now: usize,
    files: Vec<File>,
    /// Which of `files` an inode's number means at present.
    inodes: BTreeMap<u64, usize>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    entries: Vec<(usize, Entry)>,
    directory: Option<u64>,
    root: PathBuf,
    syncs: BTreeMap<u64, usize>,
}

impl Disk {
    /// A directory as it is, all of it synced.
    pub fn of(root: &Path) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let mut disk = Self { root: root.to_owned(), ..Self::default() };
        for entry in std::fs::read_dir(root).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file");
            let inode = path.metadata().expect("a file").ino();
            disk.inodes.insert(inode, disk.files.len());
            disk.synced_names.insert(path, disk.files.len());
            disk.files.push(File { cache: bytes.clone(), disk: bytes, ..File::default() });
        }
        disk.names.clone_from(&disk.synced_names);
        disk
    }

    /// What happened next.
    pub fn apply(&mut self, record: &Record) {
        self.now += 1;
        let now = self.now;
        match record {
            Record::Opened { file, path } if *path == self.root => self.directory = Some(*file),
            Record::Opened { file, path } => {
                let seen = self.inodes.contains_key(file) || !path.is_file();
                assert!(seen, "{} was opened, and its making was not seen", path.display());
            }
            Record::Created { file, path } => {
                let new = self.files.len();
                self.files.push(File::default());
                self.inodes.insert(*file, new);
                self.names.insert(path.clone(), new);
                self.entries.push((now, Entry::Made(path.clone(), new)));
            }
            Record::Written { file, offset, bytes } => {
                if let Some(file) = self.file(*file) {
                    file.write(now, *offset, bytes);
                }
            }
            Record::Truncated { file, length } => {
                if let Some(file) = self.file(*file) {
                    file.set_length(now, *length);
                }
            }
            Record::SyncBegun { sync } => drop(self.syncs.insert(*sync, now)),
            Record::SyncEnded { file, sync, failed } => {
                let begun = self.syncs.remove(sync).expect("it had begun");
                if self.directory == Some(*file) {
                    if !failed {
                        self.sync_names(begun);
                    }
                } else if let Some(file) = self.file(*file) {
                    file.sync(begun, *failed);
                }
            }
            Record::Removed { path } => {
                self.names.remove(path);
                self.entries.push((now, Entry::Removed(path.clone())));
            }
            Record::Renamed { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
                self.entries.push((now, Entry::Renamed(from.clone(), to.clone())));
            }
            Record::Mark(_) => {}
        }
    }

    fn file(&mut self, inode: u64) -> Option<&mut File> {
        self.inodes.get(&inode).map(|number| &mut self.files[*number])
    }

    fn sync_names(&mut self, begun: usize) {
        let (durable, rest) =
            std::mem::take(&mut self.entries).into_iter().partition(|(at, _)| *at < begun);
        self.entries = rest;
        let durable: Vec<(usize, Entry)> = durable;
        for (_, entry) in durable {
            change(&mut self.synced_names, &entry);
        }
    }

    /// Writes what a power cut at this moment may leave into an empty directory.
    pub fn cut(&self, cut: Cut, random: &mut StdRng, into: &Path) {
        let mut names = self.synced_names.clone();
        for (_, entry) in &self.entries {
            if cut.takes(random) {
                change(&mut names, entry);
            }
        }
        for (path, number) in names {
            let name = path.file_name().expect("a name");
            let bytes = if is_shared_memory(&path) {
                // Nobody syncs it; whatever is in it must not matter.
                (0..32_768).map(|_| random.random()).collect()
            } else {
                self.files[number].cut(cut, random)
            };
            std::fs::write(into.join(name), bytes).expect("the image is written");
        }
    }

    /// Compares what programs would read with what is really in the directory: the trace
    /// has missed nothing.
    pub fn check(&self) {
        for (path, number) in &self.names {
            if is_shared_memory(path) {
                continue;
            }
            let real = std::fs::read(path).expect("it is there, as the trace says");
            let traced = &self.files[*number].cache;
            assert_eq!(real.len(), traced.len(), "{}: its length", path.display());
            let differs = real.iter().zip(traced).position(|(real, traced)| real != traced);
            assert_eq!(differs, None, "{}: the trace has missed a write", path.display());
        }
        for entry in std::fs::read_dir(&self.root).expect("the directory") {
            let path = entry.expect("an entry").path();
            assert!(self.names.contains_key(&path), "{}: its making was missed", path.display());
        }
    }
}

fn is_shared_memory(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-shm")
}

fn change(names: &mut BTreeMap<PathBuf, usize>, entry: &Entry) {
    match entry {
        Entry::Made(path, file) => drop(names.insert(path.clone(), *file)),
        Entry::Removed(path) => drop(names.remove(path)),
        Entry::Renamed(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

impl File {
    fn write(&mut self, now: usize, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
            self.lengths.push((now, Length::Grown(end)));
        }
        self.cache[offset..end].copy_from_slice(bytes);
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let begin = page * PAGE;
            let mut content = vec![0; PAGE];
            let there = (self.cache.len() - begin).min(PAGE);
            content[..there].copy_from_slice(&self.cache[begin..begin + there]);
            let version = Version { at: now, bytes: content.into() };
            self.dirty.entry(page).or_default().push(version);
        }
    }

    fn set_length(&mut self, now: usize, length: usize) {
        self.cache.resize(length, 0);
        self.lengths.push((now, Length::Truncated(length)));
    }

    fn sync(&mut self, before: usize, failed: bool) {
        let size = self.size(before);
        let (durable, later) =
            std::mem::take(&mut self.lengths).into_iter().partition(|(at, _)| *at < before);
        self.lengths = later;
        let durable: Vec<(usize, Length)> = durable;
        for (at, length) in durable {
            if let Length::Truncated(length) = length {
                self.forget_beyond(at, length);
            }
        }
        self.disk.resize(size, 0);
        for (page, versions) in std::mem::take(&mut self.dirty) {
            let (mut covered, later): (Vec<_>, Vec<_>) =
                versions.into_iter().partition(|version| version.at < before);
            if !later.is_empty() {
                self.dirty.insert(page, later);
            }
            if failed {
                if !covered.is_empty() {
                    self.doubtful.entry(page).or_default().extend(covered);
                }
            } else if let Some(last) = covered.pop() {
                self.doubtful.remove(&page);
                let begin = page * PAGE;
                let end = size.min(begin + PAGE);
                if begin < end {
                    self.disk[begin..end].copy_from_slice(&last.bytes[..end - begin]);
                }
            }
        }
    }

    /// The length when everything before that moment has happened.
    fn size(&self, before: usize) -> usize {
        let happened = self.lengths.iter().take_while(|(at, _)| *at < before);
        happened.fold(self.disk.len(), |size, (_, length)| match length {
            Length::Grown(end) => size.max(*end),
            Length::Truncated(length) => *length,
        })
    }

    /// A truncation is on the disk: what was beyond it is gone.
    fn forget_beyond(&mut self, at: usize, length: usize) {
        self.disk.truncate(length);
        for pages in [&mut self.dirty, &mut self.doubtful] {
            for versions in pages.range_mut(length.div_ceil(PAGE)..).map(|(_, versions)| versions) {
                versions.retain(|version| version.at > at);
            }
            pages.retain(|_, versions| !versions.is_empty());
        }
    }

    /// What a power cut leaves of the content.
    fn cut(&self, cut: Cut, random: &mut StdRng) -> Vec<u8> {
        let mut file = self.clone();
        // Truncations up to some moment have happened, and what came after the next has not.
        let truncations: Vec<_> = self
            .lengths
            .iter()
            .filter_map(|(at, length)| match length {
                Length::Truncated(length) => Some((*at, *length)),
                Length::Grown(_) => None,
            })
            .collect();
        let happened = truncations.iter().take_while(|_| cut.takes(random)).count();
        for (at, length) in &truncations[..happened] {
            file.forget_beyond(*at, *length);
        }
        let next = truncations.get(happened).copied();
        let last = truncations[..happened].last().map_or(0, |(at, _)| *at);
        let sizes: Vec<_> = self
            .lengths
            .iter()
            .filter(|(at, _)| *at > last && next.is_none_or(|(next, _)| *at < next))
            .map(|(at, _)| self.size(at + 1))
            .collect();
        let mut size = if happened == 0 { self.disk.len() } else { truncations[happened - 1].1 };
        for grown in sizes {
            if cut.takes(random) {
                size = grown;
            }
        }
        file.disk.resize(size, 0);
        let sectors = size.div_ceil(SECTOR);
        for sector in 0..sectors {
            let (begin, page) = (sector * SECTOR, sector * SECTOR / PAGE);
            let doubtful = file.doubtful.get(&page).into_iter().flatten();
            let dirty = file.dirty.get(&page).into_iter().flatten();
            let seen = |version: &&Version| {
                next.is_none_or(|(at, length)| version.at < at || begin < length)
            };
            // A sector in doubt is settled by no cut, so a cut of everything may lack it.
            let mut content = None;
            for version in doubtful.filter(seen) {
                if random.random() {
                    content = Some(version);
                }
            }
            for version in dirty.filter(seen) {
                if cut.takes(random) {
                    content = Some(version);
                }
            }
            if let Some(version) = content {
                let end = size.min(begin + SECTOR);
                let within = begin % PAGE;
                file.disk[begin..end]
                    .copy_from_slice(&version.bytes[within..within + (end - begin)]);
            }
        }
        file.disk
    }
}
