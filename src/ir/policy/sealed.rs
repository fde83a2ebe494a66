//! Secrets in what is attached to routes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something secret, or nothing once it was written to a file and read again.
///
/// What is attached to routes is remembered in files. There, this leaves nothing but its place, and printing it shows
/// no content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sealed<T>(Option<Arc<T>>);

impl<T> Sealed<T> {
    /// Seals something.
    #[must_use]
    pub fn new(secret: T) -> Self {
        Self(Some(Arc::new(secret)))
    }

    /// What is inside, for the one place that sends it to the entitled gateway.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }
}

impl<T> Default for Sealed<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "<sealed>" } else { "<lost>" })
    }
}

impl<T> Serialize for Sealed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de, T> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer)?;
        Ok(Self(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_in_no_text_and_no_file() {
        let sealed = Sealed::new("CANARY".to_owned());
        assert_eq!(sealed.get().map(String::as_str), Some("CANARY"));
        let written = serde_json::to_string(&sealed).expect("JSON");
        assert!(!written.contains("CANARY") && !format!("{sealed:?}").contains("CANARY"));
        assert_eq!(serde_json::from_str::<Sealed<String>>(&written).expect("read").get(), None);
        assert_ne!(sealed, Sealed::default());
    }
}
