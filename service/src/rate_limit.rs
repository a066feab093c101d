//! How many requests one key may make.
//!
//! A key may make `requests` at once; what it used comes back evenly, all of it within `per`
//! (GCRA). Every answer says what is left, as the IETF's draft of the `RateLimit` headers has it,
//! so that a client can slow down before it is refused. Keys are told apart by project and name.
//!
//! Each instance counts for itself: it has to ask nobody, and a key may make so many requests of
//! each of them. Memory is bounded by the keys that asked lately.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use audit_schema::ProjectId;
use axum::http::HeaderMap;
use axum::http::header::{HeaderName, HeaderValue};
use governor::Quota;
use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use serde::Deserialize;

use crate::ApiError;
use crate::config::Validate;
use crate::keys::Identity;

pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// After how many requests the keys that are idle are forgotten.
const FORGET_EVERY: u32 = 1_024;

/// Longest time a limit may be about.
const MAX_PER: Duration = Duration::from_secs(24 * 60 * 60);

/// How many requests a key may make in which time.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many, at once or one after the other.
    pub requests: u32,
    /// Within this time; whole seconds, because the headers have no others.
    #[serde(with = "humantime_serde")]
    pub per: Duration,
}

impl Validate for RateLimit {
    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.requests == 0 {
            let least = "rate_limit.requests must be at least 1; to have no limit, set a high one";
            complaints.push(least.to_owned());
        }
        if self.per.is_zero() || self.per > MAX_PER || self.per.subsec_nanos() != 0 {
            complaints.push("rate_limit.per must be whole seconds, from 1s to 24h".to_owned());
        }
        complaints
    }
}

type Key = (ProjectId, String);

type Counts =
    governor::RateLimiter<Key, HashMapStateStore<Key>, SinceStart, StateInformationMiddleware>;

/// Counts the requests of keys; all clones share the counts.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    limit: RateLimit,
    counts: Arc<Counts>,
    until_forgetting: Arc<AtomicU32>,
}

impl RateLimiter {
    /// Nobody has asked yet.
    pub fn new(limit: RateLimit) -> Self {
        // A limit that was validated has neither of the two that are mended here.
        let requests = NonZeroU32::new(limit.requests).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(limit.per / requests.get())
            .unwrap_or(Quota::per_second(requests))
            .allow_burst(requests);
        let clock = SinceStart(tokio::time::Instant::now());
        let counts = Counts::new(quota, HashMapStateStore::default(), clock);
        Self {
            limit,
            counts: Arc::new(counts),
            until_forgetting: Arc::new(AtomicU32::new(FORGET_EVERY)),
        }
    }

    /// Counts one request of the key of `identity`: whether it may be answered, and the headers
    /// that its answer gets in either case.
    pub(crate) fn count(&self, identity: &Identity) -> (Result<(), ApiError>, HeaderMap) {
        self.forget_now_and_then();
        let key = (identity.project.clone(), identity.key_name.clone());
        let RateLimit { requests, per } = self.limit;
        match self.counts.check_key(&key) {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                (Ok(()), self.headers(left))
            }
            Err(not_until) => {
                let retry_after = not_until.wait_time_from(self.counts.clock().now());
                let refused = ApiError::RateLimited {
                    requests,
                    per,
                    retry_after,
                };
                (Err(refused), self.headers(0))
            }
        }
    }

    fn headers(&self, left: u32) -> HeaderMap {
        let RateLimit { requests, per } = self.limit;
        let used = requests.saturating_sub(left);
        let whole_again = (per / requests.max(1)).saturating_mul(used);
        let policy = format!("\"key\";q={requests};w={}", per.as_secs());
        let state = format!("\"key\";r={left};t={}", whole_seconds(whole_again));
        let named = [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)];
        let values = named
            .into_iter()
            .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
        values.collect()
    }

    /// A key that has all its requests back is as good as one that never asked.
    fn forget_now_and_then(&self) {
        let down = |left: u32| Some(left.checked_sub(1).unwrap_or(FORGET_EVERY));
        let (relaxed, left) = (Ordering::Relaxed, &self.until_forgetting);
        if left.fetch_update(relaxed, relaxed, down) == Ok(0) {
            self.counts.retain_recent();
            self.counts.shrink_to_fit();
        }
    }
}

/// Seconds, rounded up: who comes back after so many does not come too early. At least one.
pub(crate) fn whole_seconds(time: Duration) -> u64 {
    let begun = u64::from(time.subsec_nanos() > 0);
    time.as_secs().saturating_add(begun).max(1)
}

/// Tokio's time since the limiter was made, so that a test can let it pass.
#[derive(Debug, Clone)]
struct SinceStart(tokio::time::Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit {
        requests: 3,
        per: Duration::from_secs(60),
    };

    fn key(name: &str) -> Identity {
        Identity {
            project: "acme".parse().unwrap(),
            organization: None,
            scopes: Vec::new(),
            key_name: name.to_owned(),
        }
    }

    /// The header `RateLimit`, and when to try again if it was refused.
    fn count(limiter: &RateLimiter, name: &str) -> (String, Option<Duration>) {
        let (counted, headers) = limiter.count(&key(name));
        assert_eq!(headers[RATE_LIMIT_POLICY], "\"key\";q=3;w=60");
        let refused = match counted {
            Ok(()) => None,
            Err(ApiError::RateLimited { retry_after, .. }) => Some(retry_after),
            Err(other) => panic!("{other}"),
        };
        (headers[RATE_LIMIT].to_str().unwrap().to_owned(), refused)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_counts_down_until_nothing_is_and_comes_back_evenly() {
        let limiter = RateLimiter::new(LIMIT);
        let left = |text: &str| (text.to_owned(), None);
        assert_eq!(count(&limiter, "a"), left("\"key\";r=2;t=20"));
        assert_eq!(count(&limiter, "a"), left("\"key\";r=1;t=40"));
        assert_eq!(count(&limiter, "a"), left("\"key\";r=0;t=60"));
        let (state, retry_after) = count(&limiter, "a");
        assert_eq!(state, "\"key\";r=0;t=60");
        tokio::time::advance(retry_after.unwrap()).await;
        assert_eq!(retry_after, Some(Duration::from_secs(20)));
        assert_eq!(count(&limiter, "a"), left("\"key\";r=0;t=60"));
        tokio::time::advance(LIMIT.per).await;
        assert_eq!(count(&limiter, "a"), left("\"key\";r=2;t=20"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_not_limited_by_what_another_one_does() {
        let limiter = RateLimiter::new(LIMIT);
        while count(&limiter, "a").1.is_none() {}
        assert_eq!(count(&limiter, "b").1, None);
        let of_other = Identity {
            project: "other".parse().unwrap(),
            ..key("a")
        };
        assert!(limiter.count(&of_other).0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_idle_are_forgotten_and_others_are_not() {
        let limiter = RateLimiter::new(LIMIT);
        for number in 0..100 {
            count(&limiter, &number.to_string());
        }
        tokio::time::advance(LIMIT.per).await;
        for _ in 0..=FORGET_EVERY {
            count(&limiter, "busy");
        }
        assert_eq!(limiter.counts.len(), 1);
        assert!(count(&limiter, "busy").1.is_some());
    }

    #[test]
    fn a_limit_that_cannot_be_said_in_the_headers_is_refused() {
        let read = |text: &str| {
            toml::from_str::<RateLimit>(text)
                .unwrap()
                .complaints()
                .len()
        };
        assert_eq!(read("requests = 600\nper = '1m'"), 0);
        assert_eq!(read("requests = 0\nper = '1500ms'"), 2);
        assert_eq!(read("requests = 1\nper = '0s'"), 1);
        assert_eq!(read("requests = 1\nper = '25h'"), 1);
        assert!(toml::from_str::<RateLimit>("requests = 1\nper = '1s'\nburst = 2").is_err());
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
