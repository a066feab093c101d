//! Names of keys that are dropped wherever they stand.

use serde::Deserialize;

/// The letters and digits that a key has to end with, as words of its own.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct KeyName(String);

impl TryFrom<String> for KeyName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let letters = |char: &char| !char.is_ascii() || char.is_ascii_alphanumeric();
        let name: String = name.chars().filter(letters).collect();
        if name.is_empty() {
            return Err("a name in `drop_keys` needs a letter or a digit".to_owned());
        }
        Ok(Self(name))
    }
}

impl KeyName {
    /// Whether the last words of `key` spell this name. Case does not count, nor what is between
    /// words: `api_key` is meant by `apiKey` and by `X-Api-Key`.
    pub(super) fn ends(&self, key: &str) -> bool {
        let key = key.as_bytes();
        let backwards = key.iter().enumerate().rev();
        let mut letters = backwards.filter(|(_, byte)| is_letter(**byte));
        let mut start = 0;
        for letter in self.0.bytes().rev() {
            match letters.next() {
                Some((place, byte)) if byte.eq_ignore_ascii_case(&letter) => start = place,
                _ => return false,
            }
        }
        starts_word(key, start)
    }
}

/// Letters of other scripts count, whatever they are.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// Whether a word starts at `place`, as at `T` in `accessToken` and `APIToken`.
fn starts_word(key: &[u8], place: usize) -> bool {
    let Some(before) = place.checked_sub(1).and_then(|before| key.get(before)) else {
        return true;
    };
    let is_upper = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_uppercase);
    let is_lower = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_lowercase);
    let hump = is_upper(key.get(place))
        && (!before.is_ascii_uppercase() || is_lower(key.get(place.saturating_add(1))));
    hump || before.is_ascii_digit() || !is_letter(*before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(name: &str, key: &str) -> bool {
        KeyName::try_from(name.to_owned()).unwrap().ends(key)
    }

    #[test]
    fn a_name_is_the_last_word_of_a_key() {
        for key in [
            "token",
            "TOKEN",
            "accessToken",
            "access_token",
            "APIToken",
            "oauth2Token",
            "oauth2token",
            "X-CSRF-Token",
            "reset token",
            "a.token",
            "_token_",
            "user[token]",
            "schlüsselToken",
        ] {
            assert!(ends("token", key), "{key}");
        }
        for key in [
            "",
            "_",
            "oken",
            "tokens",
            "tokenType",
            "token_at",
            "bätoken",
            "subtoken",
        ] {
            assert!(!ends("token", key), "{key}");
        }
        assert!(!ends("password", "passwordChangedAt"));
    }

    #[test]
    fn a_name_may_have_several_words() {
        for name in ["api_key", "apiKey", "API-KEY"] {
            for key in ["apikey", "api_key", "X-Api-Key", "stripeApiKey"] {
                assert!(ends(name, key), "{name} {key}");
            }
            assert!(!ends(name, "key"), "{name}");
        }
    }

    #[test]
    fn letters_of_any_script_are_compared() {
        assert!(ends("hasło", "nowe_hasło"));
        assert!(!ends("hasło", "haslo"));
    }
}
