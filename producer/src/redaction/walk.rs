//! One walk over the text of event data, which copies it only once something has to go.
//!
//! [`EventData`](audit_schema::EventData) is a JSON object and nested at most 100 levels deep, so
//! the walk does not check what it passes, and may call itself. It ends with `None` on a text that
//! cannot be event data.

use std::borrow::Cow;

use super::Redaction;
use super::replace::{Redacted, unquoted};

/// Where a value stands.
pub(super) struct Place<'p> {
    /// Its key; `None` in a list.
    pub(super) key: Option<&'p str>,
    /// The place of the object or list it stands in; `None` if that is the event data itself.
    pub(super) above: Option<&'p Place<'p>>,
}

/// A walk over the data of one event.
pub(super) struct Walk<'j, 'r> {
    json: &'j str,
    at: usize,
    redaction: &'r Redaction,
    event_type: &'r str,
    redacted: String,
    /// How much of `json` is in `redacted`, or has gone.
    copied: usize,
}

impl<'j, 'r> Walk<'j, 'r> {
    pub(super) fn new(json: &'j str, redaction: &'r Redaction, event_type: &'r str) -> Self {
        Self {
            json,
            at: 0,
            redaction,
            event_type,
            redacted: String::new(),
            copied: 0,
        }
    }

    /// The text without what has to go.
    pub(super) fn redact(mut self) -> Option<Cow<'j, str>> {
        self.members(None)?;
        if self.copied == 0 {
            return Some(Cow::Borrowed(self.json));
        }
        self.redacted.push_str(self.json.get(self.copied..)?);
        Some(Cow::Owned(self.redacted))
    }

    /// Walks through the object or list that starts here.
    fn members(&mut self, above: Option<&Place<'_>>) -> Option<()> {
        let close = match self.take()? {
            b'{' => b'}',
            b'[' => b']',
            _ => return None,
        };
        self.space();
        if self.peek()? == close {
            return self.take().map(drop);
        }
        let (mut one_stays, mut end_before) = (false, self.at);
        loop {
            let start = self.at;
            let key = if close == b'}' {
                Some(self.key()?)
            } else {
                None
            };
            let place = Place {
                key: key.as_deref(),
                above,
            };
            let stays = self.value(&place)?;
            let end = self.at;
            self.space();
            let is_last = match self.take()? {
                b',' => false,
                byte if byte == close => true,
                _ => return None,
            };
            if !is_last {
                self.space();
            }
            match (stays, one_stays) {
                (true, _) => one_stays = true,
                // With it goes one comma: the one before it, or if none stays there, after it.
                (false, true) => self.cut(end_before, end)?,
                (false, false) if is_last => self.cut(start, end)?,
                (false, false) => self.cut(start, self.at)?,
            }
            if is_last {
                return Some(());
            }
            end_before = end;
        }
    }

    /// Walks through one value, and says whether it stays.
    fn value(&mut self, place: &Place<'_>) -> Option<bool> {
        let start = self.at;
        let redaction = self.redaction;
        let Some(action) = redaction.rules.action_at(place, self.event_type) else {
            match self.peek()? {
                b'{' | b'[' => self.members(Some(place))?,
                _ => self.pass()?,
            }
            return Some(true);
        };
        self.pass()?;
        match action.on_json(self.json.get(start..self.at)?, redaction.mac.as_ref()) {
            Redacted::Kept => Some(true),
            Redacted::Dropped => Some(false),
            Redacted::Replaced(other) => {
                self.cut(start, self.at)?;
                self.redacted.push_str(&other);
                Some(true)
            }
        }
    }

    /// Takes `start..end` out. What is before it was decided on, and is copied.
    fn cut(&mut self, start: usize, end: usize) -> Option<()> {
        self.redacted.push_str(self.json.get(self.copied..start)?);
        self.copied = end;
        Some(())
    }

    /// Passes a key and its colon.
    fn key(&mut self) -> Option<Cow<'j, str>> {
        let key = self.text()?;
        self.space();
        if self.take()? != b':' {
            return None;
        }
        self.space();
        Some(unquoted(key))
    }

    /// Passes one value, without looking into it.
    fn pass(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => drop(self.text()?),
                b'{' | b'[' => {
                    self.take()?;
                    depth = depth.saturating_add(1);
                }
                b'}' | b']' => {
                    self.take()?;
                    depth = depth.checked_sub(1)?;
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => drop(self.take()?),
                _ => self.word()?,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Passes a number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<()> {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let rest = self.json.as_bytes().get(self.at..)?;
        let len = rest.iter().take_while(|byte| is_part(byte)).count();
        self.at = self.at.saturating_add(len);
        (len > 0).then_some(())
    }

    /// Passes a text, and gives it with its quotes.
    fn text(&mut self) -> Option<&'j str> {
        let start = self.at;
        if self.take()? != b'"' {
            return None;
        }
        loop {
            let rest = self.json.as_bytes().get(self.at..)?;
            let len = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            self.at = self.at.saturating_add(len);
            if self.take()? == b'"' {
                return self.json.get(start..self.at);
            }
            self.take()?;
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at = self.at.saturating_add(1);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at = self.at.saturating_add(1);
        Some(byte)
    }
}
