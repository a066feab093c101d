//! How full a producer is: what callers count in themselves, and what the delivery thread tells.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Events and bytes of them that wait, against the limits of memory.
#[derive(Debug)]
pub(crate) struct Occupancy {
    events: AtomicUsize,
    bytes: AtomicUsize,
    max_events: usize,
    max_bytes: usize,
    /// Entries of the spool that Kafka did not confirm.
    in_spool: AtomicU64,
    /// Whether some of them are on disk alone.
    unread: AtomicBool,
    /// Whether the spool takes no more.
    spool_refuses: AtomicBool,
}

impl Occupancy {
    /// Nothing waits.
    pub(crate) fn new(max_events: u32, max_bytes: u64) -> Self {
        let most = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_events: most(max_events.into()).max(1),
            max_bytes: most(max_bytes).max(1_024),
            in_spool: AtomicU64::new(0),
            unread: AtomicBool::new(false),
            spool_refuses: AtomicBool::new(false),
        }
    }

    /// Counts a record in, if there is room. An empty memory has room for any.
    pub(crate) fn enter(&self, cost: usize) -> bool {
        let events = self.events.fetch_add(1, Ordering::SeqCst);
        let bytes = self.bytes.fetch_add(cost, Ordering::SeqCst);
        let fits = bytes.saturating_add(cost) <= self.max_bytes || events == 0;
        let room = events < self.max_events && fits;
        if !room {
            self.leave(cost);
        }
        room
    }

    /// Counts a record in that has to travel on, room or not.
    pub(crate) fn enter_anyway(&self, cost: usize) {
        self.events.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(cost, Ordering::SeqCst);
    }

    /// Counts a record out.
    pub(crate) fn leave(&self, cost: usize) {
        self.bytes.fetch_sub(cost, Ordering::SeqCst);
        self.events.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether so many quarters of either limit are used.
    pub(crate) fn is_used(&self, quarters: usize) -> bool {
        let used = |now: usize, most: usize| now.saturating_mul(4) >= most.saturating_mul(quarters);
        used(self.events(), self.max_events)
            || used(self.bytes.load(Ordering::SeqCst), self.max_bytes)
    }

    /// Events in memory.
    pub(crate) fn events(&self) -> usize {
        self.events.load(Ordering::SeqCst)
    }

    /// Events in the spool; some may be in memory too.
    pub(crate) fn in_spool(&self) -> u64 {
        self.in_spool.load(Ordering::SeqCst)
    }

    /// Whether nothing waits, in memory or on disk.
    pub(crate) fn is_empty(&self) -> bool {
        // In this order: an event that goes to disk is there before it leaves memory, and the
        // other way round.
        let unread = self.unread.load(Ordering::SeqCst);
        self.events() == 0 && !unread && !self.unread.load(Ordering::SeqCst)
    }

    /// Whether an event that is published now would have no place.
    pub(crate) fn is_full(&self) -> bool {
        self.is_used(4) || self.spool_refuses.load(Ordering::SeqCst)
    }

    pub(crate) fn spool_has(&self, entries: u64, unread: bool) {
        self.in_spool.store(entries, Ordering::SeqCst);
        self.unread.store(unread, Ordering::SeqCst);
    }

    pub(crate) fn spool_refuses(&self, refuses: bool) {
        self.spool_refuses.store(refuses, Ordering::SeqCst);
    }
}
