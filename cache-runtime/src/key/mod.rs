//! Names: how a call becomes a key, and which generations the key hangs on.
//!
//! An *entity* is one row under its primary identity, `users:1`. Anything else is *derived*:
//! `users:list:<hash>`, where the hash covers the arguments. Ids are escaped and hashes are fixed-width, so
//! two calls never share a key by accident.

mod bound;
mod canonical;
mod id;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use self::bound::{ARGUMENT_LIMIT, LONGEST_ID};
pub(crate) use self::bound::{ID_LIMIT, NAME_LIMIT};
pub(crate) use self::id::IdForm;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::id::render as render_id;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::base::nonce::hash128;
use crate::call::read::Extra;

/// A value that can stand in a cache key: anything that implements serde's `Serialize`.
///
/// Floats may be in a key; `NaN` may not (it is not equal to itself), and a call with one bypasses the cache.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "this parameter would be in the key",
    note = "leave it out with `skip(..)` if the result does not depend on it, name what it stands for with `key(..)`, or derive `serde::Serialize`"
)]
pub trait KeyPart: Serialize {}

// The message above is better than one that names serde's trait.
#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {}

/// Why an argument can't be in a key.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct KeyError(Cow<'static, str>);

const TOO_LONG: &str =
    "the arguments of a call may have 1 MiB together, and an id 8 MiB, to be in a cache key";

impl KeyError {
    fn unordered() -> Self {
        Self(Cow::Borrowed(
            "a set without an order can't be an id; use a `BTreeSet`, or give the function an `op`, and the set is hashed",
        ))
    }

    fn not_a_number() -> Self {
        Self(Cow::Borrowed(
            "NaN can't be in a cache key, because it is not equal to itself",
        ))
    }

    fn too_long() -> Self {
        Self(Cow::Borrowed(TOO_LONG))
    }

    /// Whether there is too much of it, which is a property of the call and not of the type.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0 == TOO_LONG
    }
}

/// Whether a collection is a set that is iterated in another order each time.
///
/// A serializer does not see the type of a value, but sets go through `Serializer::collect_seq`, whose iterator is the set.
fn is_unordered<I>() -> bool {
    std::any::type_name::<I>().contains("HashSet")
}

impl serde::ser::Error for KeyError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Cow::Owned(message.to_string()))
    }
}

/// Whether an entry holds one row under its primary identity, or anything else computed from the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// One row: `users:1`. Depends on the generation of its resource.
    Entity,
    /// A list, a filter, a look-up by another column. Depends on the resource's derived generation as well.
    Derived,
}

impl EntryKind {
    /// The kind's name as it stands in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Derived => "derived",
        }
    }
}

/// What distinguishes one deployment's keys from another's: the namespace in front, and the secret of the hash.
#[derive(Clone, Default)]
pub(crate) struct KeySpace {
    pub(crate) namespace: String,
    pub(crate) hash_key: [u8; 16],
}

impl fmt::Debug for KeySpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash key is a secret.
        f.debug_struct("KeySpace")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl KeySpace {
    /// What all keys of a resource begin with.
    pub(crate) fn prefix(&self, resource: &str) -> String {
        format!("{}{resource}:", self.namespace)
    }

    /// The key of the generation of `dep`.
    pub(crate) fn generation(&self, dep: &str) -> String {
        format!("{}@gen:{dep}", self.namespace)
    }

    /// The key of the generation of a tag, which no resource is spelled like.
    pub(crate) fn tag(&self, tag: &str) -> String {
        let mut key = self.generation("~");
        let start = key.len();
        id::escape(tag, &mut key);
        bound::bound(&mut key, start, &self.hash_key);
        key
    }
}

/// Builds one key from left to right.
#[derive(Debug, Default)]
pub(crate) struct KeyWriter {
    text: String,
    /// The canonical bytes of the arguments, to be hashed at once.
    args: Vec<u8>,
}

impl KeyWriter {
    pub(crate) fn new(space: &KeySpace, resource: &str) -> Self {
        let mut key = Self::default();
        key.begin(&space.prefix(resource));
        key
    }

    /// Begins anew, in the memory that the last key took, with what [all keys](KeySpace::prefix) of the resource begin with.
    #[inline]
    pub(crate) fn begin(&mut self, prefix: &str) {
        self.args.clear();
        self.text.clear();
        self.text.reserve(prefix.len() + 48);
        self.text.push_str(prefix);
    }

    #[inline]
    pub(crate) fn op(&mut self, op: &str) {
        self.text.push_str(op);
        self.text.push(':');
    }

    /// The id, or the beginning and the hash of a long one.
    #[inline]
    pub(crate) fn id<T: Serialize + ?Sized>(
        &mut self,
        id: &T,
        hash_key: &[u8; 16],
    ) -> Result<IdForm, KeyError> {
        let start = self.text.len();
        let form = id::render(id, &mut self.text);
        let is_too_long = self.text.len() - start > LONGEST_ID;
        bound::bound(&mut self.text, start, hash_key);
        if is_too_long {
            return Err(KeyError::too_long());
        }
        form
    }

    pub(crate) fn arg<T: Serialize + ?Sized>(&mut self, arg: &T) -> Result<(), KeyError> {
        let encoded = canonical::encode(arg, &mut self.args);
        if self.args.len() > ARGUMENT_LIMIT {
            // It is hashed no more, and its memory not kept.
            self.args = Vec::new();
            return Err(KeyError::too_long());
        }
        encoded
    }

    /// The hash of the arguments (there may be none) ends the key.
    #[inline]
    pub(crate) fn end_hashed(&mut self, space: &KeySpace) {
        push_hash(&mut self.text, hash128(&space.hash_key, &self.args));
    }

    /// What is written so far.
    #[inline]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The key, whose memory is its reader's.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Whether it is worth holding on to its memory.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.text.capacity() + self.args.capacity() <= SPARE_LIMIT
    }
}

/// A key that is larger is not worth holding on to.
const SPARE_LIMIT: usize = 1024;

fn push_hash(text: &mut String, hash: u128) {
    /// The digits of each byte: half as many steps as digit by digit.
    const DIGITS: [[u8; 2]; 256] = {
        let digits = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let pairs = hash.to_be_bytes().map(|byte| DIGITS[usize::from(byte)]);
    // They are ASCII.
    text.push_str(std::str::from_utf8(pairs.as_flattened()).unwrap_or_default());
}

/// Whether `name` is a resource: `[a-z0-9_-]+`, of a length that fits into a key.
pub(crate) fn is_resource(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// Whether `op` is segments `[a-z0-9_-]+` joined by `:`.
pub(crate) fn is_op(op: &str) -> bool {
    op.len() <= NAME_LIMIT && op.split(':').all(is_resource)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Id {
        text: String,
        form: Option<IdForm>,
    },
    Args {
        op: Option<Cow<'static, str>>,
        canonical: Vec<u8>,
    },
    Literal(String),
}

/// The name of an entry for the manual operations, under the same rules as annotated functions use.
///
/// ```
/// use cache_runtime::Key;
///
/// let user = Key::entity("users", 1)?; // users:1
/// let page = Key::args("users", "list", &(0, 100))?; // users:list:<hash>
/// let own = Key::named("custom_key", &("2024-06", "eu"))?; // custom_key:<hash>
/// let same_as_first: Key = "users:1".parse()?;
/// # assert_eq!(user.resource(), same_as_first.resource());
/// # Ok::<(), cache_runtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    resource: String,
    rest: Rest,
    extras: Vec<Extra>,
    version: u32,
}

impl Key {
    /// The entity `resource:id`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the resource is not `[a-z0-9_-]+`, or the id can't be in a key.
    pub fn entity(resource: impl Into<String>, id: impl KeyPart) -> Result<Self, Error> {
        let mut text = String::new();
        let form = id::render(&id, &mut text).map_err(|e| invalid(e.to_string()))?;
        if text.len() > LONGEST_ID {
            return Err(invalid(TOO_LONG.into()));
        }
        Self::checked(
            resource.into(),
            Rest::Id {
                text,
                form: Some(form),
            },
        )
    }

    /// The derived entry `resource:op:hash`, the hash being that of a function annotated with this `op`
    /// whose keyed arguments are the elements of the tuple `args`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the resource or the op is malformed, or an argument can't be in a key.
    pub fn args(
        resource: impl Into<String>,
        op: impl Into<Cow<'static, str>>,
        args: &impl KeyPart,
    ) -> Result<Self, Error> {
        let op = op.into();
        if !is_op(&op) {
            return Err(invalid(format!(
                "`{}` is not an op; use segments of [a-z0-9_-] joined by `:`, up to {NAME_LIMIT} bytes",
                shortened(&op)
            )));
        }
        Self::checked(
            resource.into(),
            Rest::Args {
                op: Some(op),
                canonical: arguments(args)?,
            },
        )
    }

    /// An entry of one's own, `name:hash`; `name` is its resource.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the name is not `[a-z0-9_-]+`, or an argument can't be in a key.
    pub fn named(name: impl Into<String>, args: &impl KeyPart) -> Result<Self, Error> {
        Self::checked(
            name.into(),
            Rest::Args {
                op: None,
                canonical: arguments(args)?,
            },
        )
    }

    /// Makes the entry depend on a tag as well, so that [`invalidate_tag`](crate::Cache::invalidate_tag)
    /// reaches it. A reader and a writer of the entry must name the same tags.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.extras.push(Extra::Tag(tag.into()));
        self
    }

    /// Makes the entry depend on everything of another resource as well. A reader and a writer of the entry must name
    /// the same ones.
    #[must_use]
    pub fn depends(mut self, resource: impl Into<String>) -> Self {
        self.extras
            .push(Extra::Resource(Cow::Owned(resource.into())));
        self
    }

    /// The `version` of the value's type, as in the attribute; 0 without it.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The key of an annotated function's call; `rest` is what stands behind the resource.
    pub(crate) fn rendered(
        resource: &str,
        rest: &str,
        kind: EntryKind,
        extras: Vec<Extra>,
        version: u32,
    ) -> Self {
        let text = rest.to_owned();
        Self {
            resource: resource.to_owned(),
            rest: match kind {
                EntryKind::Entity => Rest::Id { text, form: None },
                EntryKind::Derived => Rest::Literal(text),
            },
            extras,
            version,
        }
    }

    /// The resource this is an entry of.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Whether this names an entity or something derived.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match &self.rest {
            Rest::Id { .. } => EntryKind::Entity,
            Rest::Args { .. } | Rest::Literal(_) => EntryKind::Derived,
        }
    }

    pub(crate) fn extras(&self) -> &[Extra] {
        &self.extras
    }

    pub(crate) fn type_version(&self) -> u32 {
        self.version
    }

    pub(crate) fn id_form(&self) -> Option<IdForm> {
        match self.rest {
            Rest::Id { form, .. } => form,
            _ => None,
        }
    }

    pub(crate) fn render(&self, space: &KeySpace) -> String {
        let mut key = KeyWriter::new(space, &self.resource);
        match &self.rest {
            Rest::Id { text, .. } | Rest::Literal(text) => {
                key.text.push_str(text);
                // Behind an op, which was checked when this was made, there is an id or a hash.
                let id = text.rfind(':').map_or(0, |colon| colon + 1);
                let start = key.text.len() - (text.len() - id);
                bound::bound(&mut key.text, start, &space.hash_key);
            }
            Rest::Args { op, canonical } => {
                if let Some(op) = op {
                    key.op(op);
                }
                key.args.extend_from_slice(canonical);
                key.end_hashed(space);
            }
        }
        key.take()
    }

    fn checked(resource: String, rest: Rest) -> Result<Self, Error> {
        if is_resource(&resource) {
            Ok(Self {
                resource,
                rest,
                extras: Vec::new(),
                version: 0,
            })
        } else {
            Err(invalid(format!(
                "`{}` is not a resource name; use lower-case letters, digits, `-` and `_`, up to {NAME_LIMIT}",
                shortened(&resource)
            )))
        }
    }
}

/// The canonical bytes of a tuple's elements one after the other, as an annotated function writes them.
fn arguments(args: &impl KeyPart) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    canonical::encode(args, &mut bytes).map_err(|e| invalid(e.to_string()))?;
    if bytes.len() > ARGUMENT_LIMIT {
        return Err(invalid(TOO_LONG.into()));
    }
    // A tuple is encoded as a list: what stands between its mark and its end are the elements.
    Ok(match bytes.as_slice() {
        [b'l', elements @ .., b'e'] => elements.to_vec(),
        // `()` is the tuple without elements.
        b"_" => Vec::new(),
        _ => bytes,
    })
}

/// The canonical bytes of one argument.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn canonical_bytes(arg: &impl KeyPart) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    canonical::encode(arg, &mut bytes)?;
    Ok(bytes)
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::InvalidKey, context)
}

impl std::str::FromStr for Key {
    type Err = Error;

    /// Reads a key as `redis-cli` shows it, without the namespace: `users:1` or `users:list:<hash>`. An id that
    /// looks like a hash (32 hex digits) is taken for one; [`Key::entity`] is exact.
    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((resource, rest)) = text.split_once(':').filter(|(_, rest)| !rest.is_empty())
        else {
            return Err(invalid(format!(
                "`{}` is not a key; it has the form `resource:id` or `resource:op:hash`",
                shortened(text)
            )));
        };
        if rest.len() > LONGEST_ID {
            return Err(invalid(TOO_LONG.into()));
        }
        if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(invalid(format!(
                "`{}` is not a key; spaces in an id are written `%20`",
                shortened(text)
            )));
        }
        let op = rest.rfind(':').unwrap_or(0);
        if op > ID_LIMIT {
            return Err(invalid(format!(
                "`{}` is not a key; its op is longer than {NAME_LIMIT} bytes",
                shortened(text)
            )));
        }
        let rest = if rest.contains(':') || is_hash(rest) {
            Rest::Literal(rest.to_owned())
        } else {
            Rest::Id {
                text: rest.to_owned(),
                form: None,
            }
        };
        Self::checked(resource.to_owned(), rest)
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whatever names an entry: a [`Key`], or its text such as `"users:1"`.
pub trait IntoKey {
    /// The key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the text is not a key.
    fn into_key(self) -> Result<Key, Error>;
}

impl IntoKey for Key {
    fn into_key(self) -> Result<Key, Error> {
        Ok(self)
    }
}

impl IntoKey for &Key {
    fn into_key(self) -> Result<Key, Error> {
        Ok(self.clone())
    }
}

impl IntoKey for &str {
    fn into_key(self) -> Result<Key, Error> {
        self.parse()
    }
}

impl IntoKey for String {
    fn into_key(self) -> Result<Key, Error> {
        self.parse()
    }
}

impl IntoKey for &String {
    fn into_key(self) -> Result<Key, Error> {
        self.parse()
    }
}

impl IntoKey for Result<Key, Error> {
    fn into_key(self) -> Result<Key, Error> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> KeySpace {
        KeySpace {
            namespace: "app:".into(),
            hash_key: *b"0123456789abcdef",
        }
    }

    #[test]
    fn golden() {
        // These are a contract with every running process: a change here makes all caches cold.
        let space = space();
        let rendered = |key: Result<Key, Error>| key.expect("valid").render(&space);
        assert_eq!(rendered(Key::entity("users", 1)), "app:users:1");
        assert_eq!(
            rendered(Key::entity("users", (7, "a b"))),
            "app:users:7,a%20b"
        );
        assert_eq!(
            rendered(Key::args("users", "list", &(0, 100))),
            "app:users:list:670f3f76f0216e52f1d551da77fccdd4"
        );
        assert_eq!(
            rendered(Key::named("custom_key", &("x",))),
            "app:custom_key:8d76d6190280379f249fd956deb092f5"
        );
        assert_eq!(space.generation("users~derived"), "app:@gen:users~derived");
    }

    #[test]
    fn a_long_id_is_one_key_on_every_path() {
        let space = space();
        let id = "ä b".repeat(400_000);
        let mut key = KeyWriter::new(&space, "users");
        key.id(&id, &space.hash_key).expect("renders");
        let written = key.take();
        assert!(written.len() <= "app:users:".len() + ID_LIMIT, "{written}");
        let by_hand = Key::entity("users", &id).expect("valid");
        assert_eq!(by_hand.render(&space), written);
        let text = format!("users:{}", id.replace(' ', "%20"));
        let parsed: Key = text.parse().expect("valid");
        assert_eq!(parsed.render(&space), written);
        // As `redis-cli` shows it.
        let shown = written.strip_prefix("app:").expect("namespace");
        let parsed: Key = shown.parse().expect("valid");
        assert_eq!(parsed.render(&space), written);
        let other = KeySpace {
            hash_key: [1; 16],
            ..space.clone()
        };
        assert_ne!(by_hand.render(&other), written, "the hash has a key");
        assert!(space.tag(&id).len() <= "app:@gen:~".len() + ID_LIMIT);
        assert_eq!(space.tag("team:7"), "app:@gen:~team%3A7");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let space = space();
        let text = "x".repeat(ARGUMENT_LIMIT);
        let mut key = KeyWriter::new(&space, "users");
        let error = key.arg(&text).expect_err("too much");
        assert!(error.is_too_long());
        assert!(Key::args("users", "list", &(&text,)).is_err());
        for name in ["x".repeat(NAME_LIMIT + 1), "X\n".repeat(1 << 20)] {
            let error = Key::entity(name, 1).expect_err("no name").to_string();
            assert!(error.len() < 500 && !error.contains('\n'), "{error}");
        }
        assert!(
            format!("users:{}:1", "x".repeat(1000))
                .parse::<Key>()
                .is_err()
        );
    }

    #[test]
    fn a_manual_key_is_the_annotated_functions() {
        let space = space();
        let mut key = KeyWriter::new(&space, "users");
        key.op("list");
        key.arg(&0u32).expect("encodes");
        key.arg(&100u32).expect("encodes");
        key.end_hashed(&space);
        let written = key.take();
        assert_eq!(
            written,
            Key::args("users", "list", &(0, 100))
                .expect("valid")
                .render(&space)
        );
        let text = written.strip_prefix("app:").expect("namespace");
        assert_eq!(text.parse::<Key>().expect("valid").render(&space), written);
    }

    #[test]
    fn texts_that_are_no_keys_are_refused() {
        for text in [
            "",
            "users",
            "users:",
            ":1",
            "Users:1",
            "users:a b",
            "us ers:1",
            "users@:1",
        ] {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
        assert_eq!(
            "users:1".parse::<Key>().expect("valid").kind(),
            EntryKind::Entity
        );
        assert_eq!(
            "users:list:00".parse::<Key>().expect("valid").kind(),
            EntryKind::Derived
        );
    }
}
