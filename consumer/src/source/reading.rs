//! What is being read of one partition.

use tokio::sync::mpsc;

use crate::batch::{Batch, PartitionId};

/// How far one partition is read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: PartitionId,
    pub(super) batch: Batch,
    pub(super) batches: mpsc::Sender<Batch>,
    /// Whether the partition's loop waits for a batch.
    pub(super) ready: bool,
    /// The batch cannot grow any more; reading is paused until it is handed over.
    pub(super) closed: bool,
    /// Reading has to be moved to the batch's next offset first.
    pub(super) seek: bool,
    /// Kafka said that nothing follows this offset.
    pub(super) end_seen: Option<u64>,
    /// This offset did not come, though the log was seen to end behind it.
    lacked: Option<u64>,
}

impl Reading {
    /// Reading moves to `from`, and the loop waits for a batch.
    pub(super) fn begin(id: PartitionId, from: u64, batches: mpsc::Sender<Batch>) -> Self {
        Self {
            id,
            batch: Batch::new(id, from),
            batches,
            ready: true,
            closed: false,
            seek: true,
            end_seen: None,
            lacked: None,
        }
    }

    /// Whether the log is seen to end behind what was read for the second time, with nothing read in
    /// between: the first time a record may be just coming.
    pub(super) fn lacks_its_end(&mut self, end: u64) -> bool {
        let next = self.batch.next_offset();
        let lacks = end > next && self.end_seen == Some(next) && !self.seek && !self.closed;
        let lacked = std::mem::replace(&mut self.lacked, lacks.then_some(next));
        lacks && lacked == Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_just_coming_is_no_hole() {
        let id = PartitionId {
            incarnation: 1,
            partition: 0,
        };
        let mut reading = Reading::begin(id, 5, mpsc::channel(1).0);
        reading.seek = false;
        reading.end_seen = Some(5);
        assert!(!reading.lacks_its_end(7));
        reading.batch = Batch::new(id, 7);
        reading.end_seen = Some(7);
        assert!(!reading.lacks_its_end(8), "another one");
        assert!(!reading.lacks_its_end(7), "it was not there yet");
        assert!(!reading.lacks_its_end(8));
        assert!(reading.lacks_its_end(9), "still not");
    }
}
