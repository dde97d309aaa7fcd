//! The preloaded library, and the rules by which it lets calls fail.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

const RULES: usize = 16;
const RULE: usize = 32;

/// What a rule is about.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Write = 1,
    Truncate,
    Sync,
    Read = 8,
}

/// Which file.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    Any = 0,
    Database,
    Log,
    /// The data directory itself: its names.
    Directory = 4,
}

/// How it fails.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A write of half of the bytes, which is told as that.
    Short = 0,
    Eio = 5,
    Enospc = 28,
}

/// Calls that fail: from the `from`-th matching one on, `times` of them.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub call: Call,
    pub role: Role,
    pub from: u32,
    pub times: u32,
    pub fault: Fault,
}

/// The rules for one process, or several in a row; changed while they run.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    pub fn make(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.expect("the file of rules is made");
        file.set_len((RULES * RULE) as u64).expect("it has room");
        Self(file)
    }

    /// From now on these rules alone.
    pub fn set(&self, rules: &[Rule]) {
        assert!(rules.len() <= RULES, "too many rules");
        self.0.write_all_at(&[0; RULES * RULE], 0).expect("the rules are written");
        for (number, rule) in rules.iter().enumerate() {
            let until = rule.from.saturating_add(rule.times.saturating_sub(1));
            let words = [rule.role as u32, rule.from, until, rule.fault as u32];
            let at = number * RULE;
            let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.0.write_all_at(&bytes, at as u64 + 4).expect("the rule is written");
            // Last: it counts from here.
            let call = (rule.call as u32).to_le_bytes();
            self.0.write_all_at(&call, at as u64).expect("the rule is written");
        }
    }

    /// From now on the disk does not give this page of the database, counted from 0.
    pub fn lose_page(&self, page: usize) {
        self.set(&[Rule {
            call: Call::Read,
            role: Role::Database,
            from: u32::MAX,
            times: 1,
            fault: Fault::Eio,
        }]);
        let page = u32::try_from(page + 1).expect("a small database").to_le_bytes();
        self.0.write_all_at(&page, 28).expect("the rule is written");
        // Last: every read of it fails from here on.
        self.0.write_all_at(&1_u32.to_le_bytes(), 8).expect("the rule is written");
    }

    /// How many calls a rule has affected.
    pub fn hits(&self, rule: usize) -> u32 {
        let mut word = [0; 4];
        self.0.read_exact_at(&mut word, (rule * RULE + 24) as u64).expect("the rules are there");
        u32::from_le_bytes(word)
    }
}

/// The library, built once for all tests of this program.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("interpose.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/power/interpose.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"])
            .args([path.as_path(), Path::new(source)])
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(built.expect("a C compiler, `cc`, is needed").success(), "{source} does not build");
        (directory, path)
    });
    path
}
