//! A client of HTTP whose connections end with their keys. A connection survives the key that was shown
//! on it, and one that is kept is used again and again: so at a change all are left, and made anew.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Client, ClientBuilder};

use super::{KeyRing, Keys, http_client};

/// A client of HTTP, in TLS with the keys of a mesh as they are now, or plain. Clones share their
/// connections.
#[derive(Clone)]
pub struct Http(Arc<Shared>);

struct Shared {
    keys: Option<KeyRing>,
    options: fn(ClientBuilder) -> ClientBuilder,
    now: Mutex<(Option<Arc<Keys>>, Client)>,
}

impl Http {
    /// A client with these options beside what [`http_client`] sets.
    ///
    /// # Errors
    /// The library makes none of it.
    pub fn new(
        keys: Option<&KeyRing>,
        options: fn(ClientBuilder) -> ClientBuilder,
    ) -> reqwest::Result<Self> {
        let held = keys.map(KeyRing::now);
        let client = options(http_client(keys)).build()?;
        Ok(Self(Arc::new(Shared {
            keys: keys.cloned(),
            options,
            now: Mutex::new((held, client)),
        })))
    }

    /// The client for one request. Who keeps it keeps its connections too.
    pub fn client(&self) -> Client {
        let Shared { keys, options, now } = &*self.0;
        let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(ring), Some(held)) = (keys, &now.0) {
            let keys = ring.now();
            if !Arc::ptr_eq(&keys, held)
                && let Ok(client) = options(http_client(Some(ring))).build()
            {
                *now = (Some(keys), client);
            }
        }
        now.1.clone()
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("keys", &self.0.keys)
            .finish_non_exhaustive()
    }
}
