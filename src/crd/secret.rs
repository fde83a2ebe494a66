//! Secrets as manifests write them: bytes in base64, and plain texts.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::model::SecretBytes;

/// Bytes that a manifest writes in base64.
#[derive(Default)]
pub(super) struct Base64(pub(super) SecretBytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        match decode(&text) {
            Some(bytes) => Ok(Self(SecretBytes::new(&bytes))),
            // The text is a secret: it must not be part of the message.
            None => Err(serde::de::Error::custom("not base64")),
        }
    }
}

impl JsonSchema for Base64 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Base64".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "byte"})
    }
}

/// A text that a manifest writes and nobody may see. It cannot be serialised, and printing it shows no content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretText(SecretBytes);

impl SecretText {
    /// The bytes of the text.
    #[must_use]
    pub fn get(&self) -> &SecretBytes {
        &self.0
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self(SecretBytes::new(text.as_bytes())))
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "password"})
    }
}

/// Decodes base64 with padding and the standard alphabet; line breaks are skipped, as the API server does.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut filled, mut padding) = (0_u32, 0_u32, 0_u32);
    for byte in text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            // Padding stands for the last one or two characters of the last group.
            b'=' if filled >= 2 => {
                padding += 1;
                0
            }
            _ => return None,
        };
        if padding > 0 && (byte != b'=' || filled == 0) {
            return None;
        }
        group = (group << 6) | u32::from(value);
        filled += 1;
        if filled == 4 {
            let [_, first, second, third] = group.to_be_bytes();
            bytes.extend_from_slice(&[first, second, third][..3 - padding as usize]);
            (group, filled) = (0, 0);
            if padding > 0 {
                // Nothing but line breaks may follow: a further character fails above.
                padding = 3;
            }
        }
    }
    (filled == 0).then_some(bytes)
}

/// Encodes bytes as base64 with padding, as [`decode`] reads them.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().chain(&[0, 0]).take(3).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        for position in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * position)) as usize & 63];
            text.push(if position <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_rows() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9v\nYmE=\n", Some(b"fooba")),
            ("/+8=", Some(b"\xff\xef")),
            ("Zg", None),
            ("Zg=", None),
            ("=", None),
            ("Z===", None),
            ("Zg==Zg==", None),
            ("Zm8=a", None),
            ("Zm 9v", None),
            ("Zm9-", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text:?}");
        }
    }
}
