//! The generated code is what the definitions in `proto/` make.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

const PROTOS: [&str; 3] = [
    "taskyard/v1/task_service.proto",
    "taskyard/v1/admin_service.proto",
    "grpc/health/v1/health.proto",
];

fn generate(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let descriptors = protox::compile(PROTOS, [definitions])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .bytes(".taskyard.v1")
        .btree_map(".taskyard.v1")
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).expect("the directory is there");
    entries
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| {
            let content = fs::read(&path).expect("it can be read");
            (path.file_name().expect("it has a name").into(), content)
        })
        .collect()
}

/// With `WRITE_GENERATED=1` it writes them instead.
#[test]
fn the_generated_code_is_that_of_the_definitions() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    if env::var_os("WRITE_GENERATED").is_some() {
        generate(&committed).expect("the definitions compile");
        return;
    }
    let fresh = tempfile::tempdir().expect("there is a temporary directory");
    generate(fresh.path()).expect("the definitions compile");
    let (committed, fresh) = (files(&committed), files(fresh.path()));
    assert!(committed.keys().eq(fresh.keys()), "{:?} {:?}", committed.keys(), fresh.keys());
    for (name, content) in fresh {
        assert!(
            committed[&name] == content,
            "{name:?} is out of date; write it with \
             WRITE_GENERATED=1 cargo test -p taskyard-proto --test generated"
        );
    }
}
