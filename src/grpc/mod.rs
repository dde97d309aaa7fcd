//! The wire.
//!
//! Owns everything that speaks gRPC: the services, the conversion between
//! messages and the domain, statuses, the watch streams, health, and the
//! connections below them. An RPC is convert, call, convert. Must not know SQL,
//! or the channels of the pool.

mod acks;
mod admin;
mod body_timeout;
mod bulk;
mod calls;
mod codec;
mod connection_slots;
mod connections;
mod convert;
mod deadline;
mod health;
mod http2;
mod large;
mod middleware;
mod reflection;
mod request;
mod response;
mod service;
mod shares;
mod socket;
mod status;
mod submit;
mod watch;

pub use acks::EncodedSubmitStreamResponse;
pub use admin::Admin;
pub use codec::Codec;
pub use connection_slots::{Limits as ConnectionLimits, OPERATOR_CONNECTIONS};
pub use connections::{Connections, Settings as ConnectionSettings};
pub use convert::Rules;
pub use health::Health;
pub use middleware::Middleware;
pub use request::BoundedSubmitBatchRequest;
pub use response::EncodedWatchEventsResponse;
pub use service::{Service, ShutdownTokens};
pub use shares::Budgets;
pub use submit::Submitter;
pub use watch::{Feed, Limits as WatchLimits, Sources, WatchSettings, Watchers};

use tonic::service::Routes;
use tonic_reflection::{
    pb,
    server::{v1::ServerReflectionServer, v1alpha},
};

use self::reflection::Reflection;
use crate::proto;

/// The generated server traits.
#[allow(missing_docs, clippy::pedantic, reason = "generated code")]
pub(crate) mod stubs {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/taskyard.v1.rs"));
    }
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
}

/// All services on one port: tasks, administration, health, and reflection in both versions.
///
/// # Errors
/// If the embedded descriptors cannot be read, which no build ships.
pub fn routes(
    service: Service,
    admin: Admin,
    health: Health,
    shutdown: &ShutdownTokens,
    max_message: usize,
) -> Result<Middleware<Routes>, prost::DecodeError> {
    let described = [
        proto::FILE_DESCRIPTOR_SET,
        // So that generic clients can show the details of errors.
        tonic_types::pb::FILE_DESCRIPTOR_SET,
        pb::v1::FILE_DESCRIPTOR_SET,
        pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let reflection = Reflection::new(&described, shutdown.closing.clone())?;
    let tasks = stubs::v1::task_service_server::TaskServiceServer::new(service)
        .max_decoding_message_size(max_message)
        .max_encoding_message_size(usize::MAX);
    let admin = stubs::v1::admin_service_server::AdminServiceServer::new(admin)
        .max_decoding_message_size(max_message)
        .max_encoding_message_size(usize::MAX);
    let health = stubs::health::health_server::HealthServer::new(health);
    let routes = Routes::new(tasks)
        .add_service(admin)
        .add_service(health)
        .add_service(ServerReflectionServer::new(reflection.clone()))
        .add_service(v1alpha::ServerReflectionServer::new(reflection));
    Ok(Middleware::new(routes.prepare()))
}
