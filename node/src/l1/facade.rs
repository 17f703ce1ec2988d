//! The embedded chain as other processes see it: an HTTP server with the part of Bitcoin Core's
//! JSON-RPC that followers, wallets and `bitcoin-cli` use. Results, error codes and HTTP statuses are
//! Bitcoin Core's. Any credentials do: the coins are worth nothing.

mod methods;

use super::Embedded;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The longest request body, bytes: a block of 4 MB in hex, and room.
const MAX_BODY: usize = 16 << 20;

/// Bitcoin Core's error codes.
mod code {
    pub(super) const MISC: i64 = -1;
    pub(super) const TYPE: i64 = -3;
    pub(super) const NOT_FOUND: i64 = -5;
    pub(super) const INVALID_PARAMETER: i64 = -8;
    pub(super) const DECODE: i64 = -22;
    pub(super) const VERIFY: i64 = -25;
    pub(super) const ALREADY_CONFIRMED: i64 = -27;
    pub(super) const INVALID_REQUEST: i64 = -32600;
    pub(super) const METHOD_NOT_FOUND: i64 = -32601;
    pub(super) const INTERNAL: i64 = -32603;
    pub(super) const PARSE: i64 = -32700;
}

/// An error to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    code: i64,
    message: String,
}

impl Failure {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    const fn status(&self) -> StatusCode {
        match self.code {
            code::INVALID_REQUEST => StatusCode::BAD_REQUEST,
            code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Serves `chain` on `listener` until `stop`.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    chain: Arc<Embedded>,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(chain)).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The server as a service, to be served elsewhere.
pub fn router(chain: Arc<Embedded>) -> Router {
    Router::new()
        .route("/", post(handle).fallback(only_post))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(chain)
}

async fn only_post() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "JSONRPC server handles only POST requests").into_response()
}

async fn handle(State(chain): State<Arc<Embedded>>, body: Bytes) -> Response {
    // Mining and reading from disk block; a thread of its own keeps the runtime free.
    let work = tokio::task::spawn_blocking(move || answer(&chain, &body));
    match work.await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn answer(chain: &Embedded, body: &[u8]) -> Response {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(requests)) => {
            let answers: Vec<Value> =
                requests.iter().filter_map(|request| one(chain, request).1).collect();
            respond(StatusCode::OK, Some(Value::Array(answers)))
        }
        Ok(request @ Value::Object(_)) => {
            let (status, answer) = one(chain, &request);
            respond(status, answer)
        }
        Ok(_) => failed(&Failure::new(code::PARSE, "Top-level object parse error")),
        Err(_) => failed(&Failure::new(code::PARSE, "Parse error")),
    }
}

fn failed(failure: &Failure) -> Response {
    respond(failure.status(), Some(reply(false, &Value::Null, Err(failure.clone()))))
}

fn respond(status: StatusCode, answer: Option<Value>) -> Response {
    match answer {
        Some(answer) => {
            let json = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, json)], format!("{answer}\n")).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// The answer to one request; none to a notification.
fn one(chain: &Embedded, request: &Value) -> (StatusCode, Option<Value>) {
    let Value::Object(fields) = request else {
        let failure = Failure::new(code::INVALID_REQUEST, "Invalid Request object");
        return (failure.status(), Some(reply(false, &Value::Null, Err(failure))));
    };
    let v2 = fields.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let id = fields.get("id").cloned().unwrap_or_default();
    let result = call(chain, fields);
    let status = match &result {
        Err(failure) if !v2 => failure.status(),
        _ => StatusCode::OK,
    };
    if v2 && !fields.contains_key("id") {
        return (StatusCode::NO_CONTENT, None);
    }
    (status, Some(reply(v2, &id, result)))
}

/// Version 2.0 has a result or an error; older ones have both, one of them null.
fn reply(v2: bool, id: &Value, result: Result<Value, Failure>) -> Value {
    let error = |failure: Failure| json!({ "code": failure.code, "message": failure.message });
    match (v2, result) {
        (true, Ok(result)) => json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        (true, Err(failure)) => json!({ "jsonrpc": "2.0", "error": error(failure), "id": id }),
        (false, Ok(result)) => json!({ "result": result, "error": null, "id": id }),
        (false, Err(failure)) => json!({ "result": null, "error": error(failure), "id": id }),
    }
}

fn call(chain: &Embedded, fields: &Map<String, Value>) -> Result<Value, Failure> {
    let invalid = |message: &str| Failure::new(code::INVALID_REQUEST, message);
    let method = match fields.get("method") {
        Some(Value::String(method)) => method,
        Some(_) => return Err(invalid("Method must be a string")),
        None => return Err(invalid("Missing method")),
    };
    let params = match fields.get("params") {
        None | Some(Value::Null) => Params::Positional(&[]),
        Some(Value::Array(params)) => Params::Positional(params),
        Some(Value::Object(params)) => Params::Named(params),
        Some(_) => return Err(invalid("Params must be an array or object")),
    };
    methods::dispatch(chain, method, &params)
}

/// A call's arguments, by position or by name.
enum Params<'a> {
    Positional(&'a [Value]),
    Named(&'a Map<String, Value>),
}

impl Params<'_> {
    /// An argument, none when it is absent or null.
    fn get(&self, position: usize, name: &str) -> Option<&Value> {
        let value = match self {
            Self::Positional(values) => values.get(position),
            Self::Named(values) => values.get(name).or_else(|| {
                // `bitcoin-cli -named` sends what has no name as `args`.
                values.get("args").and_then(Value::as_array).and_then(|args| args.get(position))
            }),
        };
        value.filter(|value| !value.is_null())
    }

    fn needed(&self, position: usize, name: &str) -> Result<&Value, Failure> {
        let missing =
            || Failure::new(code::MISC, format!("{name} (argument {}) is missing", position + 1));
        self.get(position, name).ok_or_else(missing)
    }

    fn string(&self, position: usize, name: &str) -> Result<&str, Failure> {
        let value = self.needed(position, name)?;
        value.as_str().ok_or_else(|| wrong_type(position, name, "string", value))
    }

    fn integer(&self, position: usize, name: &str) -> Result<i64, Failure> {
        let value = self.needed(position, name)?;
        value.as_i64().ok_or_else(|| wrong_type(position, name, "number", value))
    }

    fn boolean(&self, position: usize, name: &str, default: bool) -> Result<bool, Failure> {
        match self.get(position, name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong_type(position, name, "bool", value)),
        }
    }
}

fn wrong_type(position: usize, name: &str, expected: &str, found: &Value) -> Failure {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let position = position + 1;
    let message = format!(
        "Wrong type passed:\n{{\n    \"Position {position} ({name})\": \"JSON value of type {found} is not of expected type {expected}\"\n}}"
    );
    Failure::new(code::TYPE, message)
}
