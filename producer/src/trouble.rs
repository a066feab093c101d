//! What keeps events from Kafka: said once, and once more when it is over.

use std::sync::{Mutex, PoisonError};

use crate::error::CheckError;

/// The trouble that Kafka is in, or that we are in with it.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<Option<CheckError>>);

impl Trouble {
    /// Notes a trouble, and logs it if it is another than the last. What only a person can mend
    /// is not covered up by brokers that do not answer.
    pub(crate) fn meet(&self, why: CheckError) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = match &*known {
            None => true,
            Some(known) if why.is_misconfigured() => *known != why,
            Some(_) => false,
        };
        if !is_news {
            return;
        }
        if why.is_misconfigured() {
            tracing::error!("events do not reach kafka until this is mended: {why}");
        } else {
            tracing::warn!("events do not reach kafka: {why}");
        }
        *known = Some(why);
    }

    /// Kafka has taken an event.
    pub(crate) fn over(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.take().is_some() {
            tracing::info!("events reach kafka again");
        }
    }

    /// The trouble, if only a person can mend it.
    pub(crate) fn refusal(&self) -> Option<CheckError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(CheckError::is_misconfigured)
    }
}
