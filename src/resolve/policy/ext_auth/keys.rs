//! API keys out of Secrets. No message quotes anything of a Secret but its name and those of its entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ir::policy::ext_auth::{ApiClient, ApiKey};
use crate::model::{FieldPath, Name, ObjectRef, SecretBytes};
use crate::resolve::facts::{Fault, Secret, Selector};
use crate::resolve::policy::parts::{fault, quoted};
use crate::resolve::policy::settling::References;
use crate::resolve::world::World;

/// What the type of a Secret with a key is.
const TYPE: &str = "extauth.solo.io/apikey";

/// The entry with the key.
const KEY: &str = "api-key";

/// Who has a key, oldest Secret first.
///
/// Secrets of other workspaces do not count. Of two with the same key the older counts.
///
/// # Errors
/// A Secret that is named and not there, or that holds no key. One that a label selects is left out with a remark.
pub(super) fn clients<W: World + ?Sized>(
    references: &mut References<'_, W>,
    field: &FieldPath,
    key: &ApiKey,
) -> Result<Vec<ApiClient>, Fault> {
    let field = field.field("apiKeyAuth");
    let about = |id: &ObjectRef, what: &str| format!("`{id}` {what}");
    let mut found: BTreeMap<_, Arc<Secret>> = BTreeMap::new();
    for (id, place) in &key.secrets {
        let secret = references.world.secret(id);
        let Some(secret) = secret.filter(|_| references.world.roster().owner_of(id) == Some(references.owner)) else {
            let message = format!("does not exist in workspace `{}`; check the reference", references.owner);
            return Err(fault(place, about(id, &message)));
        };
        read(&secret).map_err(|reason| fault(place, about(id, reason)))?;
        found.insert(secret.age.clone(), secret);
    }
    if let Some(labels) = &key.secret_labels {
        let selector = Selector { labels: labels.clone(), ..Selector::default() };
        for secret in references.world.secrets(&selector) {
            if references.world.roster().owner_of(&secret.id) != Some(references.owner) {
                continue;
            }
            match read(&secret) {
                Ok(_) => drop(found.insert(secret.age.clone(), secret)),
                Err(reason) => references.remark(&field, about(&secret.id, &format!("is left out: it {reason}"))),
            }
        }
    }
    let mut clients: Vec<ApiClient> = Vec::new();
    let mut taken: BTreeMap<SecretBytes, ObjectRef> = BTreeMap::new();
    for secret in found.into_values() {
        let Ok(bytes) = read(&secret) else { continue };
        if let Some(older) = taken.get(bytes) {
            let text = about(&secret.id, &format!("has the same key as the older `{older}`, so it does not count"));
            references.remark(&field, text);
            continue;
        }
        match headers(&secret, key) {
            Ok(headers) => {
                taken.insert(bytes.clone(), secret.id.clone());
                clients.push(ApiClient { secret: secret.id.clone(), key: bytes.clone(), headers });
            }
            Err(entry) => {
                let text =
                    format!("is left out: its entry {} is wanted, and absent or no header value", quoted(&entry));
                references.remark(&field, about(&secret.id, &text));
            }
        }
    }
    if clients.is_empty() {
        references.remark(&field, "there is no key, so no request has one");
    }
    Ok(clients)
}

/// The key in a Secret.
fn read(secret: &Secret) -> Result<&SecretBytes, &'static str> {
    if secret.kind != TYPE {
        return Err("is not of type `extauth.solo.io/apikey`; write that as its `type`");
    }
    let bytes = secret.data.get(KEY).ok_or("has no entry `api-key`")?;
    if !is_header_value(bytes.expose()) {
        return Err("has a key that no header can hold: write visible characters, and no line break at the end");
    }
    Ok(bytes)
}

/// The headers that come of a Secret.
///
/// # Errors
/// The name of an entry without which the key is not valid.
fn headers(secret: &Secret, key: &ApiKey) -> Result<BTreeMap<Name, SecretBytes>, Name> {
    let mut headers = BTreeMap::new();
    for (header, entry) in &key.headers {
        match secret.data.get(&entry.name).filter(|value| is_header_value(value.expose())) {
            Some(value) => drop(headers.insert(header.clone(), value.clone())),
            None if entry.required => return Err(entry.name.clone()),
            None => {}
        }
    }
    Ok(headers)
}

/// Whether bytes can be the value of a header as they are: visible ASCII, with spaces inside.
fn is_header_value(bytes: &[u8]) -> bool {
    let is_at_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    is_at_edge(bytes.first())
        && is_at_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}
