//! Compiles the protos without `protoc`: protox parses, tonic-prost-build generates.
//!
//! Two passes over the same definitions. The first makes the messages and the
//! clients, as anybody would use them. The second makes only the server traits,
//! on the same messages but for three. For `WatchEventsResponse` the server answers
//! with `EncodedWatchEventsResponse`, which is joined from events that were
//! encoded once, when they were committed; for `SubmitStreamResponse` with
//! `EncodedSubmitStreamResponse`, which is written without the generated messages.
//! And it reads `SubmitBatchRequest` as `BoundedSubmitBatchRequest`, which keeps no
//! more requests than a batch may have. Its codec is one of its own, for which
//! arguments that nest too deep are a mistake in one field, not an unreadable message.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 3] = [
    "taskyard/v1/task_service.proto",
    "taskyard/v1/admin_service.proto",
    "grpc/health/v1/health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    fs::write(out_dir.join("taskyard_descriptor.bin"), descriptors.encode_to_vec())?;

    let messages = out_dir.join("messages");
    fs::create_dir_all(&messages)?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .bytes(".taskyard.v1")
        .btree_map(".taskyard.v1")
        .out_dir(&messages)
        .compile_fds(descriptors.clone())?;

    let servers = out_dir.join("servers");
    fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .extern_path(".taskyard.v1", "crate::proto::v1")
        .extern_path(".grpc.health.v1", "crate::proto::health")
        .extern_path(".taskyard.v1.WatchEventsResponse", "crate::grpc::EncodedWatchEventsResponse")
        .extern_path(
            ".taskyard.v1.SubmitStreamResponse",
            "crate::grpc::EncodedSubmitStreamResponse",
        )
        .extern_path(".taskyard.v1.SubmitBatchRequest", "crate::grpc::BoundedSubmitBatchRequest")
        .codec_path("crate::grpc::Codec")
        .out_dir(&servers)
        .compile_fds(descriptors)?;
    Ok(())
}
