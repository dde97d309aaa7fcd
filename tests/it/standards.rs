//! The standard services: health and reflection, as any client uses them.

use taskyard::proto::{
    health::{
        HealthCheckRequest, HealthListRequest, health_check_response::ServingStatus,
        health_client::HealthClient,
    },
    v1::EventType,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};

use crate::support::{PATIENCE, TestServer, Watch, builtin, sleep, submit};

async fn channel(test_server: &TestServer) -> Channel {
    let url = format!("http://{}", test_server.server.local_addr());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

fn service(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_checked_listed_and_watched_through_a_drain() {
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, builtin()).await;
    let mut health = HealthClient::new(channel(&test_server).await);
    for name in ["", "taskyard.v1.TaskService", "taskyard.v1.AdminService"] {
        let status = health.check(service(name)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    let unknown = health.check(service("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let all = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert_eq!(all.len(), 3);
    let mut stranger = health.watch(service("nobody")).await.unwrap().into_inner();
    let status = stranger.message().await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::ServiceUnknown);

    let mut watch = health.watch(service("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // Something runs, so the drain does not end before it is seen.
    let mut client = test_server.client().await;
    let mut events = Watch::live(&mut client).await;
    let running = submit(&mut client, sleep("1h")).await;
    events.until(EventType::Started).await;
    let drain = tokio::spawn(test_server.drain());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = health.check(service("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::NotServing);
    let cancel = taskyard::proto::v1::CancelTaskRequest { task_id: running.task_id };
    client.cancel_task(cancel).await.expect("a drain can be shortened by a cancellation");
    let end = watch.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert!(stranger.message().await.is_err());
    drop((client, events, health));
    assert!(drain.await.unwrap().0.complete);
}

/// The services that a server lists, by one version of reflection.
macro_rules! listed_by {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        let answer = answers.into_inner().next().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}")
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_reflection_list_the_services() {
    let test_server = TestServer::start().await;
    let by_v1 = listed_by!(v1, channel(&test_server).await);
    let by_v1alpha = listed_by!(v1alpha, channel(&test_server).await);
    for name in ["grpc.health.v1.Health", "taskyard.v1.TaskService", "taskyard.v1.AdminService"] {
        for listed in [&by_v1, &by_v1alpha] {
            assert!(listed.iter().any(|known| known == name), "{name} is not in {listed:?}");
        }
    }
}

/// What a server answers to a question after another that it cannot answer, by one version
/// of reflection.
macro_rules! after_an_unknown_symbol {
    ($version:ident, $channel:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let ask = |question| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(question),
        };
        let questions = [
            MessageRequest::FileContainingSymbol("taskyard.v1.Nobody".into()),
            MessageRequest::FileByFilename("nobody.proto".into()),
            MessageRequest::AllExtensionNumbersOfType("taskyard.v1.Nobody".into()),
            MessageRequest::FileContainingSymbol("taskyard.v1.TaskService.Submit".into()),
            MessageRequest::AllExtensionNumbersOfType("taskyard.v1.Task".into()),
        ];
        let mut client = ServerReflectionClient::new($channel);
        let requests = tokio_stream::iter(questions.clone().map(ask));
        let answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.expect("it goes on")).collect().await;
        assert_eq!(answers.len(), questions.len());
        for (answer, question) in answers.iter().zip(&questions) {
            let asked = answer.original_request.as_ref().and_then(|of| of.message_request.as_ref());
            assert_eq!(asked, Some(question));
        }
        for answer in &answers[..3] {
            let Some(MessageResponse::ErrorResponse(error)) = &answer.message_response else {
                panic!("{answer:?}")
            };
            assert_eq!(error.error_code, i32::from(Code::NotFound));
        }
        let known = &answers[3].message_response;
        assert!(matches!(known, Some(MessageResponse::FileDescriptorResponse(_))), "{known:?}");
        let known = &answers[4].message_response;
        assert!(
            matches!(known, Some(MessageResponse::AllExtensionNumbersResponse(_))),
            "{known:?}"
        );
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_goes_on_after_a_question_that_it_cannot_answer() {
    let test_server = TestServer::start().await;
    after_an_unknown_symbol!(v1, channel(&test_server).await);
    after_an_unknown_symbol!(v1alpha, channel(&test_server).await);
}
