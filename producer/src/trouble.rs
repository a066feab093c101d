//! What keeps events from Kafka: said once, and once more when it is over.

use std::mem::discriminant;
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
        if !is_news(known.as_ref(), &why) {
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

/// Whether `why` has to be said after `known`.
fn is_news(known: Option<&CheckError>, why: &CheckError) -> bool {
    match known {
        None => true,
        // Not by its text: librdkafka adds how long it took and how often it was the same.
        Some(known) if why.is_misconfigured() => discriminant(known) != discriminant(why),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_in_other_words_is_no_news() {
        let refused = |after| CheckError::LoginRefused(format!("invalid password (after {after})"));
        let away = CheckError::Unreachable("timed out".to_owned());
        assert!(is_news(None, &away) && is_news(None, &refused("1ms")));
        assert!(!is_news(
            Some(&refused("1ms")),
            &refused("2ms, 1 suppressed")
        ));
        assert!(is_news(Some(&away), &refused("1ms")));
        assert!(!is_news(Some(&refused("1ms")), &away));
        assert!(is_news(
            Some(&refused("1ms")),
            &CheckError::NotAllowed("write".to_owned())
        ));
    }
}
