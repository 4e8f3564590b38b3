//! Tags: texts with expressions in them.

use syn::ext::IdentExt as _;
use syn::parse::ParseStream;
use syn::{Expr, Ident, Lit, LitStr};

use super::expr::{literal, ungrouped};
use super::kinds::Tag;

impl Tag {
    pub(super) fn read(value: &Expr) -> syn::Result<Self> {
        let Some(Lit::Str(text)) = literal(value) else {
            return Ok(Self::Value(Box::new(ungrouped(value).clone())));
        };
        let wrong = |what: &str| {
            let how = "write an expression between the braces, e.g. `\"team:{team_id}\"`";
            syn::Error::new_spanned(text, format!("{what}; {how}"))
        };
        let raw = text.value();
        if raw.is_empty() {
            let message = "this tag is empty; name what it reaches, e.g. `\"team:{team_id}\"`";
            return Err(syn::Error::new_spanned(text, message));
        }
        let (mut format, mut values) = (String::new(), Vec::new());
        let mut rest = raw.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(at);
            format.push_str(before);
            if braced.starts_with("{{") || braced.starts_with("}}") {
                format.push_str(&braced[..2]);
                rest = &braced[2..];
                continue;
            }
            let end = braced.find('}').filter(|_| braced.starts_with('{'));
            let end = end.ok_or_else(|| wrong("this tag has a brace without its pair"))?;
            if braced[1..end].trim().is_empty() {
                return Err(wrong("this tag has nothing between its braces"));
            }
            let inner = LitStr::new(&braced[1..end], text.span());
            let value = inner
                .parse::<Expr>()
                .or_else(|_| inner.parse_with(raw_name))
                .map_err(|_| match without_format(&inner) {
                    Some(value) => {
                        let message = format!(
                            "a tag takes no format such as that in `{{{}}}`; write `{{{value}}}`, or an expression that makes the text",
                            inner.value()
                        );
                        syn::Error::new_spanned(text, message)
                    }
                    None => wrong(&format!("`{}` is no expression", inner.value())),
                })?;
            if matches!(value, Expr::Lit(_)) {
                let message = format!(
                    "`{{{}}}` is the same for every call; name what tells calls apart, e.g. `{{team_id}}`, or write it without braces",
                    inner.value()
                );
                return Err(syn::Error::new_spanned(text, message));
            }
            format.push_str("{}");
            values.push(value);
            rest = &braced[end + 1..];
        }
        format.push_str(rest);
        Ok(Self::Format(LitStr::new(&format, text.span()), values))
    }
}

/// `id` of `id:02`, as a format string has it.
fn without_format(inner: &LitStr) -> Option<String> {
    let text = inner.value();
    let (value, _) = text.rsplit_once(':')?;
    let value = value.trim_end();
    syn::parse_str::<Expr>(value)
        .is_ok()
        .then(|| value.to_owned())
}

/// A keyword alone is the parameter of that name, as in a format string: `"{type}"` is `r#type`.
fn raw_name(input: ParseStream<'_>) -> syn::Result<Expr> {
    let word = input.call(Ident::parse_any)?;
    if ["self", "Self", "super", "crate"]
        .iter()
        .any(|it| word == it)
    {
        return Err(syn::Error::new(word.span(), "no name"));
    }
    let name = Ident::new_raw(&word.to_string(), word.span());
    Ok(syn::parse_quote!(#name))
}
