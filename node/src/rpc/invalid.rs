//! JSON that is no request, like `{}`: "invalid request" as JSON-RPC 2.0 has it, where the server would say that
//! it cannot parse it.

use jsonrpsee::{
    core::{BoxError, http_helpers::read_body},
    server::{HttpBody, HttpRequest, HttpResponse},
};
use serde::de::IgnoredAny;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tower::Service;

/// Longer bodies are left to the server: what is no request is short.
const LONGEST: u32 = 1_024;
const ANSWER: &str =
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}"#;

const UNREADABLE: &str =
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#;

fn answer(body: &'static str) -> Result<HttpResponse, BoxError> {
    let mut response = HttpResponse::new(HttpBody::from(body));
    let json = "application/json; charset=utf-8".parse()?;
    response.headers_mut().insert("content-type", json);
    Ok(response)
}

/// Answers what is valid JSON and neither a request nor a batch.
#[derive(Clone, Debug)]
pub(super) struct InvalidRequests<S>(pub(super) S);

/// Whether a body is JSON, no batch, and without what makes a request.
fn is_no_request(body: &[u8]) -> bool {
    let has = |name: &[u8]| body.windows(name.len()).any(|part| part == name);
    if has(b"\"method\"") || has(b"\"id\"") || body.trim_ascii_start().starts_with(b"[") {
        return false;
    }
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// Whether the request's body is to be looked at.
fn is_short_post(request: &HttpRequest) -> bool {
    let length = request.headers().get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u32>().ok());
    request.method() == "POST" && length.is_some_and(|length| length <= LONGEST)
}

impl<S> Service<HttpRequest> for InvalidRequests<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        if !is_short_post(&request) {
            return Box::pin(self.0.call(request));
        }
        // The one that is ready answers; its clone is for the next request.
        let clone = self.0.clone();
        let mut inner = std::mem::replace(&mut self.0, clone);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok((body, _)) = read_body(&parts.headers, body, LONGEST).await else {
                // Neither an object nor a list, or the connection broke.
                return answer(UNREADABLE);
            };
            if is_no_request(&body) {
                return answer(ANSWER);
            }
            inner.call(HttpRequest::from_parts(parts, HttpBody::from(body))).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_without_what_makes_a_request_is_no_request() {
        for body in ["{}", "1", "null", "\"x\"", " { \"jsonrpc\": \"2.0\" } "] {
            assert!(is_no_request(body.as_bytes()), "{body}");
        }
        for body in
            ["{", "", "[]", " [{}]", "{\"id\":1}", "{\"method\":\"eth_chainId\"}", "{} trailing"]
        {
            assert!(!is_no_request(body.as_bytes()), "{body}");
        }
    }
}
