//! Calls that take long, apart from those that do not.

use super::error::RpcError;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// A bounded number of places for calls that execute whole blocks, search many of them or prove state. A
/// call that finds no place free waits for one, holding no thread, so that such calls delay one another
/// and nothing else.
#[derive(Clone, Debug)]
pub struct HeavyPool {
    places: Arc<Semaphore>,
}

impl HeavyPool {
    /// A pool for `size` calls at a time, one at least.
    pub fn new(size: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// How many calls could begin at once.
    pub fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Runs `call` on a thread of its own as soon as there is a place.
    ///
    /// # Errors
    /// What `call` fails with.
    pub async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
    ) -> Result<T, RpcError> {
        let closed = |error: tokio::sync::AcquireError| RpcError::Internal(error.into());
        let place = self.places.clone().acquire_owned().await.map_err(closed)?;
        let done = tokio::task::spawn_blocking(move || {
            // Kept to the end even if nobody waits for the answer any more.
            let _place = place;
            call()
        });
        done.await.map_err(|error| RpcError::Internal(error.into()))?
    }
}

/// As many places as the machine has cores.
impl Default for HeavyPool {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, usize::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_call_beyond_the_size_waits_until_a_place_is_free() {
        let pool = HeavyPool::new(1);
        let (release, wait) = mpsc::channel();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || Ok(wait.recv().is_ok())).await }
        });
        while pool.free() > 0 {
            tokio::task::yield_now().await;
        }
        let second = pool.run(|| Ok(2));
        tokio::pin!(second);
        tokio::select! {
            biased;
            // Nobody gives the place back before this is sent, so the second cannot begin.
            _ = &mut second => panic!("it has no place"),
            () = std::future::ready(()) => {}
        }
        release.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
        assert!(first.await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn a_call_that_panics_gives_its_place_back_and_answers_an_error() {
        let pool = HeavyPool::new(1);
        let failed = pool.run(|| -> Result<(), RpcError> { panic!("as a bug would") }).await;
        assert!(matches!(failed, Err(RpcError::Internal(_))));
        assert_eq!(pool.run(|| Ok(1)).await.unwrap(), 1);
    }
}
