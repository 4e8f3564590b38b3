//! Keys for the manual operations.

use std::borrow::Cow;

use serde::Serialize;

use super::bound::{self, ARGUMENT_LIMIT, ID_LIMIT, LONGEST_ID, NAME_LIMIT};
use super::canonical;
use super::disambiguator::Disambiguator;
use super::error::TOO_LONG;
use super::id;
use super::id_form::IdForm;
use super::kind::EntryKind;
use super::left_out::{self, WrittenFor};
use super::names::{is_op, is_resource};
use super::space::KeySpace;
use super::writer::KeyWriter;
use crate::base::error::{Error, ErrorKind, shortened};
use crate::key::NamedDependency;

/// A value that can be part of a cache key: anything that implements serde's `Serialize`.
///
/// Floats may be in a key. `NaN` may not, since it is not equal to itself: a call with one bypasses
/// the cache.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "this parameter would be in the key",
    note = "leave it out with `skip(..)` if the result does not depend on it, name what it stands for with `key(..)`, or derive `serde::Serialize`"
)]
pub trait KeyPart: Serialize {}

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

/// The name of an entry for the manual operations, by the same rules as in annotated functions.
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
    extras: Vec<NamedDependency>,
    version: u32,
    /// The parts of the hashed id or arguments that their text does not show.
    disambiguator: Disambiguator,
    /// Whether the id or an argument has a field that is not in the key, so that another one would
    /// have the same key. Manual operations neither read nor store such an entry.
    is_ambiguous: bool,
    /// Whether it is the key of a function that is `in_process`. Manual operations must not send
    /// its values to the store.
    is_in_process: bool,
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
        let form = Some(form);
        Self::of(&id, resource.into(), Rest::Id { text, form })
    }

    /// The derived entry `resource:op:hash`. The hash is that of an annotated function with this
    /// `op` whose keyed arguments are the elements of the tuple `args`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the resource or the op is malformed, or an argument can't be in
    /// a key.
    pub fn args(
        resource: impl Into<String>,
        op: impl Into<Cow<'static, str>>,
        args: &impl KeyPart,
    ) -> Result<Self, Error> {
        let op = op.into();
        if !is_op(&op) {
            return Err(invalid(format!(
                "`{}` is not an op; use segments of [a-z0-9_-] joined by `:`, \
                 up to {NAME_LIMIT} bytes",
                shortened(&op)
            )));
        }
        let (canonical, disambiguator) = arguments(args)?;
        let rest = Rest::Args {
            op: Some(op),
            canonical,
        };
        Ok(Self {
            disambiguator,
            ..Self::of(args, resource.into(), rest)?
        })
    }

    /// An entry under a name of your own, `name:hash`; `name` is its resource.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the name is not `[a-z0-9_-]+`, or an argument can't be in a
    /// key.
    pub fn named(name: impl Into<String>, args: &impl KeyPart) -> Result<Self, Error> {
        let (canonical, disambiguator) = arguments(args)?;
        let rest = Rest::Args {
            op: None,
            canonical,
        };
        Ok(Self {
            disambiguator,
            ..Self::of(args, name.into(), rest)?
        })
    }

    /// Makes the entry depend on a tag too, so that
    /// [`invalidate_tag`](crate::Cache::invalidate_tag) reaches it. A reader and a writer of the
    /// entry must name the same tags.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.extras.push(NamedDependency::Tag(tag.into()));
        self
    }

    /// Makes the entry depend on everything under another resource too. A reader and a writer of
    /// the entry must name the same resources.
    #[must_use]
    pub fn depends(mut self, resource: impl Into<String>) -> Self {
        self.extras
            .push(NamedDependency::Resource(Cow::Owned(resource.into())));
        self
    }

    /// The `version` of the value's type, as in the attribute; 0 by default.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The key of an annotated function's call; `rest` is the text after the resource.
    pub(crate) fn rendered(
        resource: &str,
        rest: &str,
        kind: EntryKind,
        extras: Vec<NamedDependency>,
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
            disambiguator: Disambiguator::default(),
            is_ambiguous: false,
            is_in_process: false,
        }
    }

    /// The same key, of a function that is `in_process` or is not.
    pub(crate) fn in_process(mut self, is_in_process: bool) -> Self {
        self.is_in_process = is_in_process;
        self
    }

    /// The resource that this entry belongs to.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Whether this names an entity or a derived entry.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match &self.rest {
            Rest::Id { .. } => EntryKind::Entity,
            Rest::Args { .. } | Rest::Literal(_) => EntryKind::Derived,
        }
    }

    /// The `op` of a derived entry, if it has one.
    pub(crate) fn op(&self) -> Option<&str> {
        match &self.rest {
            Rest::Id { .. } => None,
            Rest::Args { op, .. } => op.as_deref(),
            // The context of the call may precede it.
            Rest::Literal(text) => text
                .rsplit_once(':')
                .map(|(op, _)| op.rsplit_once('@').map_or(op, |(_, op)| op)),
        }
    }

    pub(crate) fn extras(&self) -> &[NamedDependency] {
        &self.extras
    }

    pub(crate) fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    pub(crate) fn is_in_process(&self) -> bool {
        self.is_in_process
    }

    pub(crate) fn type_version(&self) -> u32 {
        let id = self.id_form().map_or(0, |form| form.version());
        self.version ^ self.disambiguator.version() ^ id
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
                // After the last `:` stands an id or a hash. The op before it was checked when this
                // was built.
                let id = text.rfind(':').map_or(0, |colon| colon + 1);
                let start = key.text.len() - (text.len() - id);
                bound::bound_parts(&mut key.text, start, &space.hash_key);
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

    fn of(part: &impl KeyPart, resource: String, rest: Rest) -> Result<Self, Error> {
        let mut key = Self::checked(resource, rest)?;
        let form = match &key.rest {
            Rest::Id { .. } | Rest::Literal(_) => WrittenFor::id(),
            Rest::Args { .. } => WrittenFor::Programs,
        };
        let node = left_out::record(part, form);
        key.is_ambiguous = node.is_some_and(|node| left_out::leaves_out(&node, None));
        Ok(key)
    }

    fn checked(resource: String, rest: Rest) -> Result<Self, Error> {
        if is_resource(&resource) {
            Ok(Self {
                resource,
                rest,
                extras: Vec::new(),
                version: 0,
                disambiguator: Disambiguator::default(),
                is_ambiguous: false,
                is_in_process: false,
            })
        } else {
            Err(invalid(format!(
                "`{}` is not a resource name; use lower-case letters, digits, `-` and `_`, \
                 up to {NAME_LIMIT} bytes",
                shortened(&resource)
            )))
        }
    }
}

/// The canonical bytes of a tuple's elements, one after the other, as an annotated function writes
/// them.
fn arguments(args: &impl KeyPart) -> Result<(Vec<u8>, Disambiguator), Error> {
    let mut bytes = Vec::new();
    let mut disambiguator = Disambiguator::default();
    canonical::encode(args, &mut bytes, &mut disambiguator).map_err(|e| invalid(e.to_string()))?;
    if bytes.len() > ARGUMENT_LIMIT {
        return Err(invalid(TOO_LONG.into()));
    }
    // A tuple is encoded as a list: the elements stand between its tag and its end mark.
    let elements = match bytes.as_slice() {
        [b'l', elements @ .., b'e'] => elements.to_vec(),
        // `()` is the tuple without elements.
        b"_" => Vec::new(),
        _ => bytes,
    };
    Ok((elements, disambiguator))
}

/// The canonical bytes of one argument.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn canonical_bytes(arg: &impl KeyPart) -> Result<Vec<u8>, super::error::KeyError> {
    let mut bytes = Vec::new();
    canonical::encode(arg, &mut bytes, &mut Disambiguator::default())?;
    Ok(bytes)
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::InvalidKey, context)
}

impl std::str::FromStr for Key {
    type Err = Error;

    /// Reads a key as `redis-cli` shows it, without the namespace: `users:1` or
    /// `users:list:<hash>`. An id of 32 hex digits is taken for a hash; [`Key::entity`] is exact.
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

/// Anything that names an entry: a [`Key`], what its constructors return, or its text such as
/// `"users:1"`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name an entry",
    label = "not a key",
    note = "a key is a `Key`, also by reference, the `Result<Key, Error>` of its constructors by \
            value, or a text such as `\"users:1\"`"
)]
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

impl IntoKey for String {
    fn into_key(self) -> Result<Key, Error> {
        self.parse()
    }
}

// The message of `KeyPart` is better than one that names serde's trait.
#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {}

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
        // All running processes share these keys: a change here makes all caches cold.
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
        // The key as `redis-cli` shows it.
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
    fn texts_that_are_too_long_are_refused() {
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
