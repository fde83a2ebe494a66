//! The gRPC service: questions in, answers out.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::document::{of_object, of_request, only_gateway};
use super::pb::explain_request::Subject;
use super::pb::live_server::{Live, LiveServer};
use super::{Sources, pb, state};
use crate::compile::explain;
use crate::model::{GatewayId, ObjectRef};

/// Largest question in bytes. A request has a path and headers, as a client sends them to a gateway.
const QUESTION_BYTES: usize = 256 << 10;

/// The service over some sources, ready to be mounted.
#[must_use]
pub fn server(sources: Sources) -> LiveServer<impl Live> {
    LiveServer::new(Service { sources }).max_decoding_message_size(QUESTION_BYTES)
}

#[derive(Debug)]
struct Service {
    sources: Sources,
}

/// Answers away from the threads that serve streams: an answer may read files.
async fn apart<T: Send + 'static>(
    answer: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<Response<T>, Status> {
    match tokio::task::spawn_blocking(answer).await {
        Ok(answer) => answer.map(Response::new),
        Err(_) => Err(Status::internal("no answer; this is a fault of Chancery, and its log says more")),
    }
}

fn compiled(sources: &Sources) -> Result<Arc<crate::compile::Compiled>, Status> {
    sources.compiled().map_err(Status::unavailable)
}

#[tonic::async_trait]
impl Live for Service {
    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let sources = self.sources.clone();
        apart(move || {
            let compiled = compiled(&sources)?;
            Ok(state::status(&sources, &compiled, jiff::Timestamp::now()))
        })
        .await
    }

    async fn explain(&self, question: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let sources = self.sources.clone();
        let subject = question.into_inner().subject;
        apart(move || match subject {
            Some(Subject::Request(request)) => explain_request(&sources, request),
            Some(Subject::Object(id)) => explain_object(&sources, &id),
            None => Err(Status::invalid_argument("the question names neither a request nor an object")),
        })
        .await
    }
}

fn explain_request(sources: &Sources, asked: pb::HttpRequest) -> Result<pb::ExplainResponse, Status> {
    let compiled = compiled(sources)?;
    let gateway = if asked.gateway.is_empty() {
        only_gateway(&compiled).map_err(Status::invalid_argument)?.clone()
    } else {
        asked.gateway.parse::<GatewayId>().map_err(Status::invalid_argument)?
    };
    let port = u16::try_from(asked.port)
        .map_err(|_| Status::invalid_argument(format!("{} is no port: ports end at 65535", asked.port)))?;
    let request = explain::Request {
        port: (port > 0).then_some(port),
        host: asked.host,
        server_name: asked.server_name,
        path: asked.path,
        method: asked.method,
        headers: asked.headers.into_iter().map(|header| (header.name, header.value)).collect(),
        client: asked.client,
    };
    let document = of_request(&compiled, &gateway, &request).map_err(Status::not_found)?;
    let holdings = document
        .listener
        .as_ref()
        .map(|listener| state::holdings_of_request(sources, &document.gateway, listener.port, &request.host))
        .unwrap_or_default();
    answer(&document, holdings)
}

fn explain_object(sources: &Sources, id: &str) -> Result<pb::ExplainResponse, Status> {
    let id: ObjectRef = id.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
    let compiled = compiled(sources)?;
    let document = of_object(&compiled, &id, &sources.places).map_err(Status::not_found)?;
    answer(&document, state::holdings_of_object(sources, &id))
}

fn answer(document: &impl serde::Serialize, holdings: Vec<pb::Holding>) -> Result<pb::ExplainResponse, Status> {
    let document = serde_json::to_string(document).map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    Ok(pb::ExplainResponse { document, holdings })
}
