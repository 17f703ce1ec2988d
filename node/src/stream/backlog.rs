//! What a source sent and nobody has looked at yet, within bounds.

use jsonrpsee::core::client::{ReceivedMessage, TransportReceiverT};
use std::{future::poll_fn, pin::pin, sync::Arc};
use tokio::sync::watch;

/// Bytes of messages that may wait when another one is read.
const MAX_BYTES: usize = 4 << 20;

/// Bytes that were read from a connection since nothing of it waited. While there are too many, nothing more is
/// read, so the source has to wait: with the largest message ([`super::MAX_MESSAGE`]) on top, 16 MiB wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog(Arc<watch::Sender<usize>>);

impl Backlog {
    /// Waits for what `next` gives. While it gives nothing, nothing waits.
    pub(super) async fn look<T>(&self, next: impl Future<Output = T>) -> T {
        let mut next = pin!(next);
        poll_fn(|context| {
            let polled = next.as_mut().poll(context);
            if polled.is_pending() {
                self.0.send_replace(0);
            }
            polled
        })
        .await
    }

    async fn has_room(&self) {
        // The sender is here, so this ends when there is room and not before.
        let _ = self.0.subscribe().wait_for(|bytes| *bytes < MAX_BYTES).await;
    }
}

/// The receiving end of a connection, within the bounds of its backlog.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    pub(super) inner: R,
    pub(super) backlog: Backlog,
}

impl<R: TransportReceiverT + Send> TransportReceiverT for Bounded<R> {
    type Error = R::Error;

    async fn receive(&mut self) -> Result<ReceivedMessage, R::Error> {
        self.backlog.has_room().await;
        let message = self.inner.receive().await?;
        let bytes = match &message {
            ReceivedMessage::Text(text) => text.len(),
            ReceivedMessage::Bytes(bytes) => bytes.len(),
            ReceivedMessage::Pong => 0,
        };
        self.backlog.0.send_modify(|waiting| *waiting = waiting.saturating_add(bytes));
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        convert::Infallible,
        future::{pending, ready},
    };

    /// A source that sends a mebibyte whenever it is read.
    struct Flood;

    impl TransportReceiverT for Flood {
        type Error = Infallible;

        async fn receive(&mut self) -> Result<ReceivedMessage, Infallible> {
            Ok(ReceivedMessage::Bytes(vec![0; 1 << 20]))
        }
    }

    /// How many messages are read until one has to wait.
    async fn read(flood: &mut Bounded<Flood>) -> usize {
        let mut count = 0;
        loop {
            tokio::select! {
                biased;
                _ = flood.receive() => count += 1,
                () = ready(()) => return count,
            }
        }
    }

    #[tokio::test]
    async fn a_source_is_read_up_to_a_bound_until_what_it_sent_was_looked_at() {
        let backlog = Backlog::default();
        let mut flood = Bounded { inner: Flood, backlog: backlog.clone() };
        assert_eq!(read(&mut flood).await, MAX_BYTES >> 20);
        assert_eq!(backlog.look(ready(7)).await, 7);
        assert_eq!(read(&mut flood).await, 0, "there may be more");
        tokio::select! {
            biased;
            () = backlog.look(pending()) => {}
            () = ready(()) => {}
        }
        assert_eq!(read(&mut flood).await, MAX_BYTES >> 20);
    }
}
