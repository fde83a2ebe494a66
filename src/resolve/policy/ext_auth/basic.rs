//! Users and passwords of a policy. What a password is checked against is a secret: it is read where it is needed, and
//! no message quotes it.

use std::collections::BTreeMap;

use crate::crd::policy::ext_auth::{BasicAuth, BasicAuthUser};
use crate::crd::secret;
use crate::model::{FieldPath, Name, SecretBytes};
use crate::resolve::facts::Fault;

use super::super::parts::{fault, unsupported};

/// Length of a SHA-1 hash.
const SHA1: usize = 20;

/// The users of a method, each with the 20 bytes of the SHA-1 of the password.
///
/// # Errors
/// No user; a name with a colon or a line break, which Envoy cannot read; a hash that is none, at `field`.
/// [`Code::Unsupported`](crate::model::Code) for APR1 and for hashes with salt.
pub(super) fn users(field: &FieldPath, written: &BasicAuth) -> Result<BTreeMap<Name, SecretBytes>, Fault> {
    const SHA1_ALONE: &str = "Envoy compares passwords by SHA-1 alone; write `encryption: {sha1: {}}` and new hashes";
    let list = match (&written.apr, &written.encryption, &written.user_list) {
        (Some(_), None, None) => return Err(unsupported(&field.field("apr"), format!("basicAuth.apr: {SHA1_ALONE}"))),
        (Some(_), ..) => return Err(fault(&field.field("apr"), "`apr` stands alone; remove it or the other fields")),
        (None, Some(encryption), Some(list)) => {
            let place = field.field("encryption");
            match (&encryption.apr, &encryption.sha1) {
                (None, Some(_)) => list,
                (Some(_), _) => {
                    return Err(unsupported(&place.field("apr"), format!("basicAuth.encryption.apr: {SHA1_ALONE}")));
                }
                (None, None) => return Err(fault(&place, "it is not said how passwords are hashed: write `sha1: {}`")),
            }
        }
        _ => return Err(fault(field, "there are no users: write `encryption: {sha1: {}}` and `userList`")),
    };
    let place = field.field("userList").field("users");
    if list.users.is_empty() {
        return Err(fault(&place, "there are no users: write at least one"));
    }
    let mut users = BTreeMap::new();
    for (name, user) in &list.users {
        let place = place.field(name);
        if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) {
            return Err(fault(&place, "the name of a user has no `:` and no line break, and is not empty"));
        }
        users.insert(Name::from(name), hash(&place, user)?);
    }
    Ok(users)
}

fn hash(field: &FieldPath, user: &BasicAuthUser) -> Result<SecretBytes, Fault> {
    if !user.salt.get().expose().is_empty() {
        let why = "basicAuth with a salt: Envoy compares passwords by plain SHA-1; write new hashes without `salt`";
        return Err(unsupported(&field.field("salt"), why));
    }
    let written = user.hashed_password.get().expose();
    let text = std::str::from_utf8(written).unwrap_or_default();
    let text = text.strip_prefix("{SHA}").unwrap_or(text);
    let bytes = hex(text).or_else(|| secret::decode(text)).filter(|bytes| bytes.len() == SHA1);
    match bytes {
        Some(bytes) => Ok(SecretBytes::new(&bytes)),
        None => {
            let why = "this is no SHA-1 hash: write 40 hexadecimal digits, or the 20 bytes in base64";
            Err(fault(&field.field("hashedPassword"), why))
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * SHA1 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
