//! `grpc.reflection`, in both of its versions: what a generic client needs to call the rest.
//!
//! The ready-made service ends its stream at the first symbol that it does not know, which
//! makes a client's whole session fail; here such a question has an answer of its own, as
//! the protocol asks for. Must not know the services that it describes.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use super::status;
use crate::task::cut;

/// What a client may ask, in whichever version.
enum Question<'a> {
    File(&'a str),
    Symbol(&'a str),
    Extension(&'a str),
    ExtensionsOf(&'a str),
    Services,
    Nothing,
}

/// What it is told, in whichever version.
enum Answer {
    /// A file, as it was encoded.
    File(Bytes),
    /// The numbers of a message's extensions: there are none.
    NoExtensions,
    Services(Vec<String>),
    /// There is no such thing.
    Error(Code, String),
}

/// All that is described.
#[derive(Debug, Default)]
struct Index {
    files: BTreeMap<String, Bytes>,
    /// By their full names; each with its file.
    symbols: BTreeMap<String, Bytes>,
    messages: Vec<String>,
    services: Vec<String>,
}

impl Index {
    fn of(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut index = Self::default();
        for set in sets {
            for file in FileDescriptorSet::decode(*set)?.file {
                index.add(&file);
            }
        }
        index.services.sort();
        Ok(index)
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let bytes = Bytes::from(file.encode_to_vec());
        // Two sets may have a file in common.
        if self.files.insert(file.name().to_owned(), bytes.clone()).is_some() {
            return;
        }
        let scope = file.package();
        for message in &file.message_type {
            self.add_message(scope, message, &bytes);
        }
        for of_enum in &file.enum_type {
            self.add_enum(scope, of_enum, &bytes);
        }
        for service in &file.service {
            let name = self.add_symbol(scope, service.name(), &bytes);
            for method in &service.method {
                self.add_symbol(&name, method.name(), &bytes);
            }
            self.services.push(name);
        }
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, file: &Bytes) {
        let name = self.add_symbol(scope, message.name(), file);
        for nested in &message.nested_type {
            self.add_message(&name, nested, file);
        }
        for nested in &message.enum_type {
            self.add_enum(&name, nested, file);
        }
        for field in &message.field {
            self.add_symbol(&name, field.name(), file);
        }
        for oneof in &message.oneof_decl {
            self.add_symbol(&name, oneof.name(), file);
        }
        self.messages.push(name);
    }

    /// The values of an enum are named beside it, as in C++; clients look for them within
    /// it, too.
    fn add_enum(&mut self, scope: &str, of_enum: &EnumDescriptorProto, file: &Bytes) {
        let name = self.add_symbol(scope, of_enum.name(), file);
        for value in &of_enum.value {
            self.add_symbol(scope, value.name(), file);
            self.add_symbol(&name, value.name(), file);
        }
    }

    fn add_symbol(&mut self, scope: &str, name: &str, file: &Bytes) -> String {
        let name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.symbols.insert(name.clone(), file.clone());
        name
    }

    fn answer(&self, question: &Question<'_>) -> Answer {
        let unknown = |what: &str, name: &str| {
            Answer::Error(Code::NotFound, format!("there is no {what} {:?}", cut(name, 200)))
        };
        match *question {
            Question::File(name) => self
                .files
                .get(name)
                .map_or_else(|| unknown("file", name), |file| Answer::File(file.clone())),
            Question::Symbol(name) => self
                .symbols
                .get(name)
                .map_or_else(|| unknown("symbol", name), |file| Answer::File(file.clone())),
            Question::Extension(of) => unknown("extension of", of),
            Question::ExtensionsOf(name) if self.messages.iter().any(|known| known == name) => {
                Answer::NoExtensions
            }
            Question::ExtensionsOf(name) => unknown("message", name),
            Question::Services => Answer::Services(self.services.clone()),
            Question::Nothing => {
                Answer::Error(Code::InvalidArgument, "the request asks nothing".into())
            }
        }
    }
}

/// The service, in both versions.
#[derive(Clone, Debug)]
pub struct Reflection {
    index: Arc<Index>,
    closing: CancellationToken,
}

impl Reflection {
    /// A service that describes these sets of files. Its streams end when `closing` fires.
    ///
    /// # Errors
    /// If a set cannot be read.
    pub fn new(sets: &[&[u8]], closing: CancellationToken) -> Result<Self, prost::DecodeError> {
        Ok(Self { index: Arc::new(Index::of(sets)?), closing })
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers each request as it comes; what cannot be read ends the stream.
fn answers<Q: Send + 'static, A: Send + 'static>(
    requests: Streaming<Q>,
    closing: CancellationToken,
    answer: impl Fn(Q) -> A + Send + 'static,
) -> Answers<A> {
    let answers = requests.map(move |request| match request {
        Ok(request) => Ok(answer(request)),
        Err(status) => Err(status::repaired(&status, "").unwrap_or(status)),
    });
    let closed = closing.clone();
    let end = stream::iter([()]).filter_map(move |()| {
        let is_closed = closed.is_cancelled();
        async move { is_closed.then(|| Err(status::draining())) }
    });
    Box::pin(answers.take_until(closing.cancelled_owned()).chain(end))
}

macro_rules! serve {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse,
                ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
                ServiceResponse, server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
                server_reflection_server::ServerReflection,
            };

            use super::{
                Answer, Answers, Index, Question, Reflection, Request, Response, Status, Streaming,
                answers,
            };

            fn respond(
                index: &Index,
                request: ServerReflectionRequest,
            ) -> ServerReflectionResponse {
                let question = match &request.message_request {
                    Some(MessageRequest::FileByFilename(name)) => Question::File(name),
                    Some(MessageRequest::FileContainingSymbol(name)) => Question::Symbol(name),
                    Some(MessageRequest::FileContainingExtension(extension)) => {
                        Question::Extension(&extension.containing_type)
                    }
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                        Question::ExtensionsOf(name)
                    }
                    Some(MessageRequest::ListServices(_)) => Question::Services,
                    None => Question::Nothing,
                };
                let response = match index.answer(&question) {
                    Answer::File(file) => {
                        let file_descriptor_proto = vec![file.to_vec()];
                        MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                            file_descriptor_proto,
                        })
                    }
                    Answer::NoExtensions => {
                        let base_type_name = match &question {
                            Question::ExtensionsOf(name) => (*name).to_owned(),
                            _ => String::new(),
                        };
                        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                            base_type_name,
                            extension_number: Vec::new(),
                        })
                    }
                    Answer::Services(names) => {
                        let service = names.into_iter().map(|name| ServiceResponse { name });
                        MessageResponse::ListServicesResponse(ListServiceResponse {
                            service: service.collect(),
                        })
                    }
                    Answer::Error(code, error_message) => {
                        MessageResponse::ErrorResponse(ErrorResponse {
                            error_code: code.into(),
                            error_message,
                        })
                    }
                };
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(response),
                }
            }

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let index = self.index.clone();
                    let answer = move |request| respond(&index, request);
                    let requests = request.into_inner();
                    Ok(Response::new(answers(requests, self.closing.clone(), answer)))
                }
            }
        }
    };
}

serve!(v1);
serve!(v1alpha);
