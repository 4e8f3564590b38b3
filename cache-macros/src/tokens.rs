//! Helpers for tokens: printing them as a person writes them, and searching for a name.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Ident;
use syn::ext::IdentExt as _;

/// Tokens as a person writes them: spaces between words and behind commas only.
pub(crate) fn text(tokens: &impl ToTokens) -> String {
    let mut out = String::new();
    push(&mut out, tokens.to_token_stream());
    out
}

fn push(out: &mut String, tokens: TokenStream) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                out.push_str(open);
                push(out, group.stream());
                out.push_str(close);
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => out.push_str(", "),
            TokenTree::Punct(punct) => out.push(punct.as_char()),
            word => {
                if out.ends_with(|last: char| last.is_alphanumeric() || last == '_') {
                    out.push(' ');
                }
                out.push_str(&word.to_string());
            }
        }
    }
}

/// Options in which `self` is that of the method, also where a `macro_rules!` has written them beside
/// a method that it was given: then the two are different names. A text may contain it in braces.
pub(crate) fn of_receiver(options: TokenStream, receiver: Span) -> TokenStream {
    let each = options.into_iter().map(|mut token| match token {
        TokenTree::Group(group) => {
            let inside = of_receiver(group.stream(), receiver);
            let mut changed = Group::new(group.delimiter(), inside);
            changed.set_span(group.span());
            TokenTree::Group(changed)
        }
        TokenTree::Ident(_) | TokenTree::Literal(_) => {
            if matches!(token, TokenTree::Literal(_)) || token.to_string() == "self" {
                token.set_span(receiver.located_at(token.span()));
            }
            token
        }
        TokenTree::Punct(_) => token,
    });
    each.collect()
}

/// The first place where an expression reads the variable `name`: not a field, not a path's
/// segment; also inside a macro, and in a format string as `{name}`.
pub(crate) fn mention(tokens: TokenStream, name: &str) -> Option<Ident> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let punct = |n: Option<usize>, wanted: char| {
        n.and_then(|n| tokens.get(n)).is_some_and(
            |token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted),
        )
    };
    for (n, token) in tokens.iter().enumerate() {
        let before = |by: usize| n.checked_sub(by);
        match token {
            TokenTree::Ident(ident) if ident.unraw() == name => {
                let field = punct(before(1), '.') && !punct(before(2), '.');
                let segment =
                    punct(before(1), ':') && punct(before(2), ':') || punct(Some(n + 1), ':');
                if !field && !segment {
                    return Some(ident.clone());
                }
            }
            TokenTree::Group(group) => {
                if let Some(found) = mention(group.stream(), name) {
                    return Some(found);
                }
            }
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.contains(&format!("{{{name}}}")) || text.contains(&format!("{{{name}:")) {
                    return Some(Ident::new(name, literal.span()));
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether an identifier or keyword is among these tokens.
pub(crate) fn holds(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == word,
        TokenTree::Group(group) => holds(group.stream(), word),
        _ => false,
    })
}

/// Tokens of a body, each with whether it belongs to the body itself, and not to an item inside it
/// (`impl`, `trait`, `fn`), where `self` is another one.
pub(crate) fn outside_of_items(tokens: TokenStream) -> impl Iterator<Item = (TokenTree, bool)> {
    let mut tokens = tokens.into_iter().peekable();
    let mut is_inside = false;
    std::iter::from_fn(move || {
        let token = tokens.next()?;
        let has_name = matches!(tokens.peek(), Some(TokenTree::Ident(_)));
        match &token {
            TokenTree::Ident(word) if word == "impl" || word == "trait" => is_inside = true,
            // `fn(u8)` is a type.
            TokenTree::Ident(word) if word == "fn" => is_inside |= has_name,
            _ => {}
        }
        let is_outside = !is_inside;
        let ends = match &token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        is_inside &= !ends;
        Some((token, is_outside))
    })
}
