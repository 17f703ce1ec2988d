//! A webhook that notes what it is sent.

use crate::challenger::Webhook;
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::Value;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::{net::TcpListener, sync::mpsc};

pub(super) struct Hook {
    pub(super) webhook: Webhook,
    /// What it took.
    pub(super) received: mpsc::UnboundedReceiver<Value>,
    /// Whether it takes nothing and answers with an error.
    pub(super) broken: Arc<AtomicBool>,
}

impl Hook {
    pub(super) async fn new() -> Self {
        type Shared = (Arc<AtomicBool>, mpsc::UnboundedSender<Value>);
        let take = |State((broken, sender)): State<Shared>, Json(body): Json<Value>| async move {
            if broken.load(Ordering::SeqCst) {
                return StatusCode::INTERNAL_SERVER_ERROR;
            }
            sender.send(body).unwrap();
            StatusCode::OK
        };
        let broken = Arc::new(AtomicBool::new(false));
        let (sender, received) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/hook", post(take)).with_state((broken.clone(), sender));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let webhook = Webhook::new(&format!("http://{address}/hook")).unwrap();
        Self { webhook, received, broken }
    }
}
