//! The traces that a batch, or a count of several, belongs to.

use audit_schema::TraceParent;

/// How many links a span has at most.
const MOST: usize = 128;

/// Places in traces, each once: the first 128 of them.
#[derive(Debug, Clone, Default)]
pub struct Traced(Vec<TraceParent>);

impl Traced {
    /// Takes further places, as far as there is room.
    pub fn note(&mut self, places: impl IntoIterator<Item = TraceParent>) {
        for place in places {
            if self.0.len() < MOST && !self.0.contains(&place) {
                self.0.push(place);
            }
        }
    }

    /// The places.
    pub fn places(&self) -> &[TraceParent] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_bounded_and_each_is_there_once() {
        let mut traced = Traced::default();
        traced.note(None);
        for span in 0_u64..1000 {
            let place = TraceParent::new([1; 16], (span / 2).to_be_bytes(), true);
            traced.note(place);
        }
        assert_eq!(traced.places().len(), MOST);
        assert_eq!(traced.places()[1].span_id(), 2_u64.to_be_bytes());
    }
}
