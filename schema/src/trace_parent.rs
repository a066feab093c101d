//! The trace that something belongs to, as W3C Trace Context says it.
//!
//! Source: <https://www.w3.org/TR/trace-context/#traceparent-header>. What does not follow it is
//! ignored, never an error: a trace is a hint to whoever looks for slowness, and no part of an event.

use std::fmt;

/// A place in a trace: the value of a header `traceparent`.
///
/// ```
/// use audit_schema::TraceParent;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent = TraceParent::parse(header.as_bytes()).ok_or("no traceparent")?;
/// assert_eq!(parent.to_string(), header);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    is_sampled: bool,
}

impl TraceParent {
    /// A place of these ids; `None` if one of them is 0.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Option<Self> {
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            is_sampled,
        })
    }

    /// Reads a header; `None` if it is no valid one of 55 bytes. Of a version later than 00 it reads
    /// what 00 has.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (version, rest) = field::<1>(header)?;
        let (trace_id, rest) = field(rest.strip_prefix(b"-")?)?;
        let (span_id, rest) = field(rest.strip_prefix(b"-")?)?;
        let ([flags], rest) = field::<1>(rest.strip_prefix(b"-")?)?;
        if version == [0xFF] || !rest.is_empty() {
            return None;
        }
        Self::new(trace_id, span_id, flags & 1 == 1)
    }

    /// The id of the trace; not 0.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The id of the span; not 0.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let span_id = u64::from_be_bytes(self.span_id);
        let flags = u8::from(self.is_sampled);
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// So many bytes in small hexadecimal letters, and what follows them.
fn field<const N: usize>(text: &[u8]) -> Option<([u8; N], &[u8])> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let mut rest = text;
    for byte in &mut bytes {
        let ([high, low], after) = rest.split_first_chunk()?;
        *byte = (digit(*high)? << 4) | digit(*low)?;
        rest = after;
    }
    Some((bytes, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(header: &str) -> Option<TraceParent> {
        TraceParent::parse(header.as_bytes())
    }

    #[test]
    fn the_last_bit_of_the_flags_says_whether_a_trace_is_recorded() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let header = VALID.replace("-01", &format!("-{flags}"));
            assert_eq!(parse(&header).unwrap().is_sampled(), sampled, "{flags}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_the_first() {
        let later = VALID.replacen("00", "cc", 1);
        assert_eq!(parse(&later), parse(VALID));
    }

    #[test]
    fn what_the_recommendation_forbids_is_no_trace_parent() {
        for refused in [
            "",
            "00",
            VALID.trim_end_matches('1'),
            &format!("{VALID}-"),
            &format!("{VALID} "),
            &VALID.replacen("00", "ff", 1),
            &VALID.replace("4bf9", "4BF9"),
            &VALID.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-010",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_or_none_and_what_is_written_is_read_back(
            bytes: Vec<u8>, trace_id: [u8; 16], span_id: [u8; 8], sampled: bool,
        ) {
            TraceParent::parse(&bytes);
            let written = TraceParent::new(trace_id, span_id, sampled);
            let read = written.and_then(|parent| parse(&parent.to_string()));
            prop_assert_eq!(read, written);
        }
    }
}
