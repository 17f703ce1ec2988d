//! Subscriptions need a connection that the server can write to: over plain HTTP they are refused with the
//! code and message of go-ethereum.

use jsonrpsee::{
    server::{
        HttpRequest, MethodResponse,
        middleware::rpc::{
            Batch, BatchEntry, BatchEntryErr, Notification, ResponseFuture, RpcServiceT,
        },
    },
    types::{ErrorObjectOwned, Request, error::METHOD_NOT_FOUND_CODE},
};
use std::future::Future;

/// Marks a request that no WebSocket connection follows.
#[derive(Clone, Copy, Debug)]
struct PlainHttp;

/// Marks requests that do not ask for a WebSocket connection, for [`PushOnly`].
pub(super) fn mark_plain_http(mut request: HttpRequest) -> HttpRequest {
    if !request.headers().contains_key("upgrade") {
        request.extensions_mut().insert(PlainHttp);
    }
    request
}

/// Answers subscriptions that were asked for over plain HTTP.
#[derive(Clone, Debug)]
pub(super) struct PushOnly<S>(pub(super) S);

/// Whether the request is for a subscription that cannot be.
fn is_refused(request: &Request<'_>) -> bool {
    matches!(
        request.method_name(),
        "eth_subscribe" | "eth_unsubscribe" | "kedge_subscribe" | "kedge_unsubscribe"
    ) && request.extensions().get::<PlainHttp>().is_some()
}

fn refusal() -> ErrorObjectOwned {
    let reason = "notifications not supported over HTTP; connect by WebSocket to the same port";
    ErrorObjectOwned::owned(METHOD_NOT_FOUND_CODE, reason, None::<()>)
}

impl<S> RpcServiceT for PushOnly<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse>,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(
        &self,
        request: Request<'a>,
    ) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        if is_refused(&request) {
            let Request { id, extensions, .. } = request;
            let answer = MethodResponse::error(id, refusal()).with_extensions(extensions);
            ResponseFuture::ready(answer)
        } else {
            ResponseFuture::future(self.0.call(request))
        }
    }

    fn batch<'a>(
        &self,
        mut requests: Batch<'a>,
    ) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        for entry in requests.iter_mut() {
            let id = match entry {
                Ok(BatchEntry::Call(request)) if is_refused(request) => request.id.clone(),
                _ => continue,
            };
            *entry = Err(BatchEntryErr::new(id, refusal()));
        }
        self.0.batch(requests)
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.0.notification(notification)
    }
}
