//! The generated messages and clients of the wire.
//!
//! Owns nothing: `build.rs` makes all of it from `proto/`. The comments there
//! are the reference of the API.
#![allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated code; the proto files carry the documentation"
)]

/// `taskyard.v1`: messages and [`v1::task_service_client::TaskServiceClient`].
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/messages/taskyard.v1.rs"));
}

/// `grpc.health.v1`: messages and [`health::health_client::HealthClient`].
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/messages/grpc.health.v1.rs"));
}

/// All definitions as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/taskyard_descriptor.bin"));
