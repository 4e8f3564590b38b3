//! Names of resources and ops.

use syn::{Expr, Lit};

use super::expr::{is_constant, literal, single_ident, ungrouped};
use super::kinds::Name;

/// The two kinds of things that have names in a key.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum NameKind {
    Resource,
    Op,
}

impl NameKind {
    pub(super) fn read(self, value: &Expr) -> syn::Result<Name> {
        let value = ungrouped(value);
        // A lower-case word is most likely one without its quotes.
        if let Some(word) = single_ident(value).filter(|word| !is_constant(word)) {
            let what = match self {
                Self::Resource => "a resource",
                Self::Op => "an op",
            };
            let message =
                format!("{what} is a string or the path of a constant; write `\"{word}\"`");
            return Err(syn::Error::new_spanned(word, message));
        }
        if let Expr::Path(path) = value {
            return Ok(Name::Path(path.clone()));
        }
        match literal(value) {
            Some(Lit::Str(text)) if self.allows(&text.value()) => Ok(Name::Literal(text.clone())),
            Some(Lit::Str(text)) => {
                Err(syn::Error::new_spanned(text, self.misnamed(&text.value())))
            }
            _ => Err(syn::Error::new_spanned(
                value,
                match self {
                    Self::Resource => {
                        "a resource is a string or the path of a constant, \
                     e.g. `\"users\"` or `Self::RESOURCE`"
                    }
                    Self::Op => "an op is a string or the path of a constant, e.g. `\"list\"`",
                },
            )),
        }
    }

    fn allows(self, name: &str) -> bool {
        match self {
            Self::Resource => is_segment(name),
            Self::Op => name.len() <= LONGEST && name.split(':').all(is_segment),
        }
    }

    fn misnamed(self, name: &str) -> String {
        if name.len() > LONGEST {
            let what = match self {
                Self::Resource => "resource name",
                Self::Op => "op",
            };
            return format!("this {what} is too long; it may have {LONGEST} bytes");
        }
        let letters = "use lower-case letters, digits, `-` and `_`";
        match self {
            Self::Resource => {
                let example = repaired(name, "users");
                format!("`{name}` is not a resource name; {letters}, e.g. `{example}`")
            }
            Self::Op => {
                let parts: Vec<String> = name.split(':').map(|part| repaired(part, "")).collect();
                let example = parts.join(":");
                let example = if self.allows(&example) {
                    &example
                } else {
                    "list"
                };
                format!(
                    "`{name}` is not an op; {letters}, in parts joined by `:`, e.g. `{example}`"
                )
            }
        }
    }
}

/// The allowed name that is nearest: `UserAccounts` becomes `user-accounts`.
pub(crate) fn repaired(name: &str, default: &str) -> String {
    let mut fixed = String::new();
    let mut was_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            if was_lower && letter.is_ascii_uppercase() {
                fixed.push('-');
            }
            fixed.push(letter.to_ascii_lowercase());
        } else if !fixed.ends_with('-') {
            fixed.push('-');
        }
        was_lower = letter.is_ascii_lowercase();
    }
    match fixed.trim_matches('-') {
        "" => default.to_owned(),
        fixed => fixed.to_owned(),
    }
}

/// The most bytes of a resource's or an op's name. The runtime has the same limit.
const LONGEST: usize = 128;

/// Whether a name is short enough, and has only the characters that a resource, or one part of an
/// op, may have.
pub(crate) fn is_segment(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}
