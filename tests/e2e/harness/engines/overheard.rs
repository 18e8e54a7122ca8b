//! What a stranger reads who may subscribe to everything on a broker.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::task::JoinHandle;

use crate::harness::spawn;

/// All that was published since, as it was; ends when dropped.
#[derive(Debug)]
pub(crate) struct Overheard {
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

/// A subscription to everything.
pub(super) trait Overhears: Send + 'static {
    /// The next message.
    fn next(&mut self) -> impl Future<Output = Result<Vec<u8>>> + Send;
}

impl Overheard {
    pub(super) fn by(mut stranger: impl Overhears) -> Self {
        let messages = Arc::<Mutex<Vec<_>>>::default();
        let heard = Arc::clone(&messages);
        let task = spawn(async move {
            // An error: the broker has ended.
            while let Ok(message) = stranger.next().await {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(message);
            }
        });
        Self { messages, task }
    }

    /// What was published so far.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let messages = self.messages.lock();
        messages.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Overheard {
    fn drop(&mut self) {
        self.task.abort();
    }
}
