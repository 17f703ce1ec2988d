//! What is answered before the server sees it: requests whose answer is [at hand](AtHand), and JSON that is no
//! request, like `{}`: "invalid request" as JSON-RPC 2.0 has it, where the server would say that it cannot
//! parse it.

use super::at_hand::AtHand;
use jsonrpsee::{
    core::{BoxError, http_helpers::read_body},
    server::{HttpBody, HttpRequest, HttpResponse, http::content_type_is_json},
    types::Request,
};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::de::IgnoredAny;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower::Service;

/// Longer bodies are left to the server: what is no request, and what is answered at once, is short.
pub(super) const LONGEST: u32 = 8 * 1_024;
const ANSWER: &str =
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}"#;

const UNREADABLE: &str =
    r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#;

fn answer(body: HttpBody) -> HttpResponse {
    let mut response = HttpResponse::new(body);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Answers what is at hand, and what is valid JSON and neither a request nor a batch.
#[derive(Clone, Debug)]
pub(super) struct Front<S> {
    pub(super) inner: S,
    pub(super) at_hand: Arc<AtHand>,
    /// Longest body that is looked at, bytes.
    pub(super) longest: u32,
}

/// Whether a body is JSON, no batch, and without what makes a request.
fn is_no_request(body: &[u8]) -> bool {
    let has = |name: &[u8]| body.windows(name.len()).any(|part| part == name);
    if has(b"\"method\"") || has(b"\"id\"") || body.trim_ascii_start().starts_with(b"[") {
        return false;
    }
    serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// Whether the request's body is to be looked at.
fn is_short_post(request: &HttpRequest, longest: u32) -> bool {
    let length = request.headers().get("content-length");
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u32>().ok());
    request.method() == "POST" && length.is_some_and(|length| length <= longest)
}

impl<S> Service<HttpRequest> for Front<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let longest = self.longest;
        if !is_short_post(&request, longest) {
            return Box::pin(self.inner.call(request));
        }
        // The one that is ready answers; its clone is for the next request.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let at_hand = self.at_hand.clone();
        Box::pin(async move {
            let is_json = content_type_is_json(&request);
            let (parts, body) = request.into_parts();
            let Ok((body, _)) = read_body(&parts.headers, body, longest).await else {
                // Neither an object nor a list, or the connection broke.
                return Ok(answer(HttpBody::from(UNREADABLE)));
            };
            match serde_json::from_slice::<Request<'_>>(&body) {
                Ok(request) if is_json => {
                    let response = match at_hand.response(&request) {
                        Some(response) => Some(response),
                        None => at_hand.admitted(&request).await,
                    };
                    if let Some(response) = response {
                        return Ok(answer(HttpBody::from(response)));
                    }
                }
                Ok(_) => {}
                Err(_) if is_no_request(&body) => return Ok(answer(HttpBody::from(ANSWER))),
                Err(_) => {}
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
