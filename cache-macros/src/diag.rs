//! Collects every mistake of one function, and writes the messages' common parts.

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// The mistakes found so far.
///
/// Every stage adds to the same list and continues as well as it can, so that one compilation shows
/// all mistakes.
#[derive(Default)]
pub(crate) struct Errors(Vec<syn::Error>);

impl Errors {
    /// Adds a mistake at one place.
    pub(crate) fn at(&mut self, span: Span, message: impl Into<String>) {
        self.0.push(syn::Error::new(span, message.into()));
    }

    /// Adds a mistake that underlines all of `tokens`.
    pub(crate) fn on(&mut self, tokens: impl ToTokens, message: impl Into<String>) {
        self.0.push(syn::Error::new_spanned(tokens, message.into()));
    }

    /// Adds what the parser reported.
    pub(crate) fn absorb(&mut self, error: syn::Error) {
        self.0.push(error);
    }

    /// The checked model, or the mistakes if there was any.
    pub(crate) fn verdict<M>(self, model: Option<M>) -> Result<M, Self> {
        match model {
            Some(model) if self.0.is_empty() => Ok(model),
            _ => Err(self),
        }
    }

    /// All mistakes, followed by the function as it was written. Its callers still find it, so the
    /// compiler reports only the mistakes and no errors that follow from them.
    pub(crate) fn beside(self, item: TokenStream) -> TokenStream {
        let mut tokens: TokenStream = self.0.iter().map(syn::Error::to_compile_error).collect();
        tokens.extend(item);
        tokens
    }
}

#[cfg(test)]
impl Errors {
    /// Each message with the source it underlines, in the order of the source.
    pub(crate) fn shown(&self) -> Vec<(String, String)> {
        let mut all: Vec<syn::Error> = self.0.iter().flatten().collect();
        all.sort_by_key(|error| (error.span().start().line, error.span().start().column));
        all.iter()
            .map(|error| {
                (
                    error.span().source_text().unwrap_or_default(),
                    error.to_string(),
                )
            })
            .collect()
    }
}

/// The name that is most likely meant by `given`.
pub(crate) fn nearest<'a>(
    given: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(given, name), name))
        .filter(|(distance, name)| *distance <= given.len().max(name.len()).div_ceil(3))
        .filter(|(distance, name)| *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Names as a reader sees them in a message: `` `db`, `id` ``.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [&str; 5] = ["resource", "ttl", "op", "id", "none_ttl"];

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        for (given, meant) in [
            ("tll", "ttl"),
            ("tlt", "ttl"),
            ("tl", "ttl"),
            ("resourse", "resource"),
            ("ressource", "resource"),
            ("none_tll", "none_ttl"),
            ("idd", "id"),
        ] {
            assert_eq!(nearest(given, OPTIONS), Some(meant), "{given}");
        }
    }

    #[test]
    fn another_word_is_not_guessed_at() {
        for given in ["on", "x", "colour", "is_a"] {
            assert_eq!(nearest(given, ["id", "ttl", "resource"]), None, "{given}");
        }
    }

    #[test]
    fn names_are_listed_in_code_quotes() {
        assert_eq!(listed(["db", "id"]), "`db`, `id`");
    }
}
