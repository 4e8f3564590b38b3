//! Values that stay encoded on their way from the store to an HTTP response.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, ErrorKind};
use crate::integrations::http;
use crate::protocol::cacheable::Cacheable;
use crate::protocol::codec::{self, Refusal};
use crate::protocol::codec_id::CodecId;
use crate::protocol::contents::Contents;
use crate::protocol::schema::{self, Schema};

/// A `T` as JSON, for functions whose value is sent to a client unchanged. A hit neither decodes
/// nor encodes: it returns the stored bytes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), cache_runtime::Error> {
/// use cache_runtime::{Cache, CacheConfig, Encoded, cached};
///
/// struct Users { cache: Cache }
///
/// impl Users {
///     #[cached(resource = "users", op = "list", cache = self.cache)]
///     async fn list(&self) -> Result<Encoded<Vec<String>>, cache_runtime::Error> {
///         Encoded::new(&vec!["Ada".to_owned()])
///     }
/// }
///
/// # let users = Users { cache: Cache::new(CacheConfig::default().local_mb(4)).await };
/// let list = users.list().await?;
/// assert_eq!(list.json(), br#"["Ada"]"#);
/// assert_eq!(list.decode()?, ["Ada"]);
/// # Ok(()) }
/// ```
///
/// It is cheap to clone. With the features `axum`, `actix` and `poem` it is a response of these
/// frameworks with a weak `ETag` and `Cache-Control: no-cache`, which makes browsers revalidate
/// before reuse; their cache layers answer `If-None-Match`.
///
/// It is always JSON: with another `codec` in the attribute it is not stored. Stored bytes are not
/// parsed. That they are the JSON of a `T` is ensured by the fingerprint of the type and its shape,
/// so `T` must be `DeserializeOwned` in a cached function. Values that JSON can't express, such as
/// infinity, become `null`, in the first answer as in a hit.
pub struct Encoded<T> {
    shared: Arc<Shared>,
    value: PhantomData<fn() -> T>,
}

struct Shared {
    json: Bytes,
    etag: OnceLock<String>,
}

impl<T> Encoded<T> {
    /// Encodes a value.
    ///
    /// # Errors
    /// [`ErrorKind::Unstorable`] for a value that JSON can't express, such as a map whose keys are
    /// not strings.
    pub fn new(value: &T) -> Result<Self, Error>
    where
        T: Serialize,
    {
        let mut json = Vec::new();
        codec::write_json(value, &mut json)?;
        Ok(Self::of(json.into()))
    }

    fn of(json: Bytes) -> Self {
        Self {
            shared: Arc::new(Shared {
                json,
                etag: OnceLock::new(),
            }),
            value: PhantomData,
        }
    }

    /// Returns the JSON.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.shared.json
    }

    /// Returns the JSON as bytes that share their memory with this value.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.shared.json.clone()
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// [`ErrorKind::Unstorable`] if the JSON is not a `T`.
    pub fn decode(&self) -> Result<T, Error>
    where
        T: DeserializeOwned,
    {
        serde_json::from_slice(&self.shared.json)
            .map_err(|error| Error::new(ErrorKind::Unstorable, error.to_string()))
    }

    /// Returns the entity tag of the JSON ([RFC
    /// 9110](https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3)), with its quotes. Equal bytes
    /// have equal tags in every process. It is computed once for all clones of a value, so once per
    /// value in memory.
    #[must_use]
    pub fn etag(&self) -> &str {
        self.shared
            .etag
            .get_or_init(|| http::etag_of(&self.shared.json))
    }

    /// The tag as responses have it: weak, since a layer may compress the body and leave the tag
    /// alone. RFC 9110 (8.8.3.3) wants a strong tag to differ then, and `If-None-Match` compares
    /// weakly.
    #[cfg(any(feature = "actix", feature = "axum", feature = "poem"))]
    pub(crate) fn etag_of_response(&self) -> String {
        format!("W/{}", self.etag())
    }

    /// Returns true if a client that sends this `If-None-Match` has the value already.
    #[must_use]
    pub fn is_known_by(&self, if_none_match: &str) -> bool {
        http::is_known_by(self.etag(), if_none_match)
    }
}

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoded")
            .field(&String::from_utf8_lossy(self.json()))
            .finish()
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl<T> Eq for Encoded<T> {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + 'static> Cacheable for Encoded<T> {
    fn contents(&self) -> Contents<'_> {
        Contents::of_json(&self.shared.json)
    }

    fn from_bytes(codec: CodecId, bytes: &Bytes) -> Option<Self> {
        (codec == CodecId::Json).then(|| Self::of(bytes.clone()))
    }

    fn undecodable(_: CodecId, _: &Bytes) -> Refusal {
        Refusal::new(
            String::new(),
            "is no JSON",
            "leave out the attribute's `codec`",
        )
    }

    fn find_schema() -> (Schema, bool) {
        schema::find_of_read::<T>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_have_equal_tags() {
        let of = |value: &[u8]| Encoded::new(&value.to_vec()).expect("JSON");
        assert_eq!(of(&[1, 2]).etag(), of(&[1, 2]).etag());
        assert_ne!(of(&[1, 2]).etag(), of(&[1, 3]).etag());
        assert_eq!(of(&[]).etag().len(), 18);
    }

    #[test]
    fn other_codecs_do_not_take_it() {
        let value = Encoded::new(&7u8).expect("JSON");
        assert!(value.to_bytes(CodecId::MsgPack).is_err());
        let (bytes, _) = value.to_bytes(CodecId::Json).expect("stored");
        assert_eq!(Encoded::<u8>::from_bytes(CodecId::MsgPack, &bytes), None);
        assert_eq!(Encoded::from_bytes(CodecId::Json, &bytes), Some(value));
    }
}
