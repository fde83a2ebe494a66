//! Questions to a running control plane, for the commands with `--server`.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::api::pb;
use crate::api::pb::live_client::LiveClient;

use super::Usage;

/// Where a server is asked unless another address is given.
pub(super) const SERVER_DEFAULT: &str = "http://127.0.0.1:18001";

/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long it may take to answer. The status of a large mesh takes a second.
const ANSWER: Duration = Duration::from_secs(60);

/// Time between two questions of one who watches. Each costs the server a pass over gateways and findings.
const PAUSE: Duration = Duration::from_secs(1);

/// Largest answer in bytes: a gateway has about one KiB in it, an object with findings about as much.
const ANSWER_BYTES: usize = 256 << 20;

/// There is no server to answer: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {server}: {reason}")]
pub(super) struct Unreachable {
    server: String,
    reason: String,
}

/// A server, and a runtime to ask it from.
#[derive(Debug)]
pub(super) struct Server {
    url: String,
    runtime: tokio::runtime::Runtime,
    client: LiveClient<Channel>,
}

impl Server {
    /// Connects to the admin port of a server.
    ///
    /// # Errors
    /// [`Usage`] for an address without meaning, [`Unreachable`].
    pub(super) fn connect(url: &str) -> anyhow::Result<Self> {
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let wrong = |why: &str| Usage(format!("`{url}` is no address of a server: {why}; write {SERVER_DEFAULT}"));
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| wrong(&error.to_string()))?;
        if endpoint.uri().scheme_str() != Some("http") || endpoint.uri().host().is_none_or(str::is_empty) {
            return Err(wrong("the admin port speaks plain HTTP").into());
        }
        let endpoint = endpoint.connect_timeout(CONNECT).timeout(ANSWER);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channel = runtime.block_on(endpoint.connect()).map_err(|error| Unreachable {
            server: url.clone(),
            reason: format!("{}; is `chancery serve` running, with this --admin-address?", innermost(&error)),
        })?;
        let client = LiveClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        Ok(Self { url, runtime, client })
    }

    /// The state of now.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), or what the server says.
    pub(super) fn status(&mut self) -> anyhow::Result<pb::StatusResponse> {
        let answer = self.runtime.block_on(self.client.status(pb::StatusRequest {}));
        self.answered(answer)
    }

    /// Waits before the next question.
    pub(super) fn pause(&self) {
        // The timer belongs to the runtime, so it is made inside.
        self.runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    }

    /// What becomes of a request, or became of an object.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Usage`] for a question that the server calls wrong.
    pub(super) fn explain(&mut self, question: pb::explain_request::Subject) -> anyhow::Result<pb::ExplainResponse> {
        let question = pb::ExplainRequest { subject: Some(question) };
        let answer = self.runtime.block_on(self.client.explain(question));
        self.answered(answer)
    }

    fn answered<T>(&self, answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
        let status = match answer {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let unreachable = |reason: String| Unreachable { server: self.url.clone(), reason };
        let words = status.message().to_owned();
        Err(match status.code() {
            Code::InvalidArgument | Code::NotFound => Usage(words).into(),
            Code::PermissionDenied | Code::Internal | Code::ResourceExhausted => {
                anyhow::anyhow!("{} says: {words}", self.url)
            }
            Code::Unimplemented => unreachable("it is not the admin port of Chancery".to_owned()).into(),
            _ => unreachable(words).into(),
        })
    }
}

/// The cause that says most: of a failed connection the system's words.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
