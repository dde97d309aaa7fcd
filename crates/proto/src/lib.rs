//! The messages and the clients of the wire, the settings of a queue by name, and the two
//! forms of a JSON value.
//!
//! [`v1`] and [`health`] are generated from `proto/`, whose comments are the reference of
//! the API; they are committed, so that nobody who depends on this crate needs a compiler
//! of definitions. `tests/generated.rs` checks that they are what the definitions make, and
//! writes them anew.

pub mod queue_settings;
pub mod values;

/// `taskyard.v1`: messages, [`v1::task_service_client::TaskServiceClient`] and
/// [`v1::admin_service_client::AdminServiceClient`].
#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated code; the proto files carry the documentation"
)]
pub mod v1 {
    include!("generated/taskyard.v1.rs");
}

/// `grpc.health.v1`: messages and [`health::health_client::HealthClient`].
#[allow(
    missing_docs,
    clippy::pedantic,
    reason = "generated code; the proto files carry the documentation"
)]
pub mod health {
    include!("generated/grpc.health.v1.rs");
}

/// All definitions as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
