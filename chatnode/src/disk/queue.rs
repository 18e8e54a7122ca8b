//! A bounded queue into threads: whoever puts something in never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why something was not taken in. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As much waits as may.
    Full,
    /// Nobody takes anything out any more.
    Closed,
}

/// What a thread that waits for something gets.
#[derive(Debug)]
pub(super) enum Popped<T> {
    /// The first that waited.
    Item(T),
    /// Nothing came in time.
    Nothing,
    /// Nothing waits, and nothing will come.
    Closed,
}

/// A queue of at most so many.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    len_max: usize,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    /// An empty one.
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
            len_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing in here is left half done by a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something in; never waits.
    pub(super) fn push(&self, item: T) -> Result<(), Refused> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() >= self.len_max {
            return Err(Refused::Full);
        }
        inner.waiting.push_back(item);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes the first out; waits for it so long, or for ever.
    pub(super) fn pop(&self, wait: Option<Duration>) -> Popped<T> {
        let empty = |inner: &mut Inner<T>| inner.waiting.is_empty() && !inner.closed;
        let inner = self.lock();
        let mut inner = match wait {
            Some(wait) => {
                let waited = self.changed.wait_timeout_while(inner, wait, empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.changed.wait_while(inner, empty);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        match inner.waiting.pop_front() {
            Some(item) => Popped::Item(item),
            None if inner.closed => Popped::Closed,
            None => Popped::Nothing,
        }
    }

    /// Takes nothing more in; what waits is still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Takes nothing more in, and drops what waits.
    pub(super) fn abandon(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let dropped = std::mem::take(&mut inner.waiting);
        self.changed.notify_all();
        drop(inner);
        // Outside the lock: what is dropped may wake others.
        drop(dropped);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}
