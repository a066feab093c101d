//! Nobody waits behind all that one key asked for.
//!
//! Each key has some turns of its own, fewer than its lane has, and waits for one of them first, in
//! the order it asked. Only with such a turn does a request wait for a place in the lane, so there
//! it finds at most these few of every other key before it. What is kept is kept for the keys that
//! read or wait now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use audit_schema::ProjectId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;

/// A project, and the name of a key in it.
type Key = (ProjectId, String);

/// The turns of all keys.
pub(super) struct KeyTurns {
    /// How many each has.
    each: usize,
    /// Those of the keys that read or wait, and how many requests do.
    asking: Mutex<HashMap<Key, (Arc<Semaphore>, usize)>>,
}

impl KeyTurns {
    pub(super) fn new(each: usize) -> Self {
        Self {
            each: each.min(Semaphore::MAX_PERMITS),
            asking: Mutex::default(),
        }
    }

    /// Waits until the caller's key may have one request more under way.
    pub(super) async fn turn(&self, caller: &Caller) -> Option<KeyTurn<'_>> {
        let key = (caller.reach.project.clone(), caller.key_name.clone());
        let (asking, own) = self.ask(key);
        let permit = own.acquire_owned().await.ok()?;
        Some(KeyTurn {
            _permit: permit,
            _asking: asking,
        })
    }

    fn ask(&self, key: Key) -> (Asking<'_>, Arc<Semaphore>) {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || (Arc::new(Semaphore::new(self.each)), 0);
        let (own, requests) = asking.entry(key.clone()).or_insert_with(new);
        *requests = requests.saturating_add(1);
        (Asking { of: self, key }, Arc::clone(own))
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> usize {
        self.asking.lock().unwrap().len()
    }
}

/// One of a key's turns.
pub(super) struct KeyTurn<'a> {
    _permit: OwnedSemaphorePermit,
    _asking: Asking<'a>,
}

/// A request that reads or waits; its key is forgotten with the last one.
struct Asking<'a> {
    of: &'a KeyTurns,
    key: Key,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let asking = self.of.asking.lock();
        let mut asking = asking.unwrap_or_else(PoisonError::into_inner);
        if let Some((_, requests)) = asking.get_mut(&self.key) {
            *requests = requests.saturating_sub(1);
            if *requests == 0 {
                asking.remove(&self.key);
            }
        }
    }
}
