//! Makes the server traits without `protoc`: protox parses, tonic-prost-build generates.
//!
//! The messages and the clients are those of `taskyard-proto`, which has them as code. The
//! traits here speak the same messages but for three. For `WatchEventsResponse` the server
//! answers with `EncodedWatchEventsResponse`, which is joined from events that were encoded
//! once, when they were committed; for `SubmitStreamResponse` with
//! `EncodedSubmitStreamResponse`, which is written without the generated messages. And it
//! reads `SubmitBatchRequest` as `BoundedSubmitBatchRequest`, which keeps no more requests
//! than a batch may have. Its codec is one of its own, for which arguments that nest too deep
//! are a mistake in one field, not an unreadable message.

const PROTOS: [&str; 3] = [
    "taskyard/v1/task_service.proto",
    "taskyard/v1/admin_service.proto",
    "grpc/health/v1/health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .extern_path(".taskyard.v1", "::taskyard_proto::v1")
        .extern_path(".grpc.health.v1", "::taskyard_proto::health")
        .extern_path(".taskyard.v1.WatchEventsResponse", "crate::grpc::EncodedWatchEventsResponse")
        .extern_path(
            ".taskyard.v1.SubmitStreamResponse",
            "crate::grpc::EncodedSubmitStreamResponse",
        )
        .extern_path(".taskyard.v1.SubmitBatchRequest", "crate::grpc::BoundedSubmitBatchRequest")
        .codec_path("crate::grpc::Codec")
        .compile_fds(protox::compile(PROTOS, ["proto"])?)?;
    Ok(())
}
