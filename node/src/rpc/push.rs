//! Subscriptions need a connection that the server can write to: over plain HTTP they are refused with the
//! code and message of go-ethereum. Within a batch one would be answered apart from the others, so it is refused too.

use jsonrpsee::{
    server::{
        HttpRequest, MethodResponse,
        middleware::rpc::{
            Batch, BatchEntry, BatchEntryErr, Notification, ResponseFuture, RpcServiceT,
        },
    },
    types::{
        ErrorObjectOwned, Request,
        error::{INVALID_REQUEST_CODE, METHOD_NOT_FOUND_CODE},
    },
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

/// Why a request of a batch cannot be carried out there.
fn refused_in_batch(request: &Request<'_>) -> Option<ErrorObjectOwned> {
    if is_refused(request) {
        return Some(refusal());
    }
    let subscribes = matches!(request.method_name(), "eth_subscribe" | "kedge_subscribe");
    let reason = "a subscription cannot be part of a batch; send it as a request of its own";
    subscribes.then(|| ErrorObjectOwned::owned(INVALID_REQUEST_CODE, reason, None::<()>))
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
            let Ok(BatchEntry::Call(request)) = entry else { continue };
            if let Some(refusal) = refused_in_batch(request) {
                *entry = Err(BatchEntryErr::new(request.id.clone(), refusal));
            }
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
