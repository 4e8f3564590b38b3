//! The annotated function: attributes, visibility and signature are parsed, the body stays as it
//! was typed.
//!
//! An unfinished body still completes in an editor, because nothing here has to parse it.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, FnArg, GenericArgument, GenericParam, Ident, Lifetime, Pat, PathArguments,
    PathSegment, ReturnType, Signature, Token, Type, TypeParamBound, Visibility,
};

/// A function with its body in tokens.
pub(crate) struct Item {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    /// `#![..]` at the start of the body. They are only allowed there, so they can't move with the
    /// body.
    pub(crate) inner_attrs: Vec<Attribute>,
    /// The braces and their content.
    pub(crate) body: Group,
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig: Signature = match input.parse() {
            Ok(sig) => sig,
            Err(_) if input.peek(Token![impl]) => {
                return Err(input.error(
                    "this attribute goes on the methods of an `impl` block; what they have in \
                     common can stand in a `#[cache_defaults(..)]` on the block",
                ));
            }
            Err(_) if !looks_like_a_function(input) => {
                return Err(input.error("this attribute goes on a function or a method"));
            }
            Err(error) => return Err(error),
        };
        if input.peek(Token![;]) {
            return Err(syn::Error::new_spanned(
                &sig.ident,
                format!(
                    "`{}` has no body here; put the attribute on the method in the `impl` block",
                    sig.ident
                ),
            ));
        }
        let (inner_attrs, body) = split_inner_attrs(block(input)?)?;
        Ok(Self {
            attrs,
            vis,
            sig,
            inner_attrs,
            body,
        })
    }
}

fn block(input: ParseStream<'_>) -> syn::Result<Group> {
    let error = input.error("expected the body of the function in braces");
    braces(input.parse()?).ok_or(error)
}

/// The braces of a body. A macro's `$body:block` is in a group without delimiters (tokio#4513).
pub(crate) fn braces(tree: TokenTree) -> Option<Group> {
    let TokenTree::Group(group) = tree else {
        return None;
    };
    match group.delimiter() {
        Delimiter::Brace => Some(group),
        Delimiter::None => {
            let mut inside = group.stream().into_iter();
            let only = inside.next()?;
            inside.next().is_none().then(|| braces(only)).flatten()
        }
        _ => None,
    }
}

/// Whether a `fn` comes before anything that has a body or ends an item.
fn looks_like_a_function(input: ParseStream<'_>) -> bool {
    input
        .fork()
        .parse::<TokenStream>()
        .unwrap_or_default()
        .into_iter()
        .take_while(|token| !matches!(token, TokenTree::Group(_)))
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "fn"))
}

fn split_inner_attrs(body: Group) -> syn::Result<(Vec<Attribute>, Group)> {
    let split = |input: ParseStream<'_>| {
        Ok((
            input.call(Attribute::parse_inner)?,
            input.parse::<TokenStream>()?,
        ))
    };
    let (inner_attrs, rest) = split.parse2(body.stream())?;
    if inner_attrs.is_empty() {
        return Ok((inner_attrs, body));
    }
    let mut stripped = Group::new(body.delimiter(), rest);
    stripped.set_span(body.span());
    Ok((inner_attrs, stripped))
}

/// A name that a parameter brings into the body's scope, and so a possible part of the key.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) ident: Ident,
    /// The parameter's type, unless the name is one of several in a pattern.
    pub(crate) ty: Option<Type>,
    /// The type of the parameter that the name is in, also in a pattern. `None` for a const
    /// parameter.
    pub(crate) whole: Option<Box<Type>>,
    /// The part to underline when the value can't be in a key.
    pub(crate) place: Span,
}

impl Binding {
    /// The name as it is shown to a reader: without `r#`.
    pub(crate) fn name(&self) -> String {
        self.ident.unraw().to_string()
    }

    /// Whether a name in an option refers to this one.
    pub(crate) fn is(&self, name: &Ident) -> bool {
        self.ident.unraw() == name.unraw()
    }
}

impl Item {
    /// The function's name without `r#`.
    pub(crate) fn name(&self) -> String {
        self.sig.ident.unraw().to_string()
    }

    /// The names that the parameters bind, in order, without `self`, and without `_`, whose value
    /// the body can't read. Also returns the patterns whose names can't be seen, such as macros.
    pub(crate) fn bindings(&self) -> (Vec<Binding>, Vec<&Pat>) {
        let (mut bindings, mut opaque) = (Vec::new(), Vec::new());
        for input in &self.sig.inputs {
            let FnArg::Typed(parameter) = input else {
                continue;
            };
            if let Pat::Ident(name) = &*parameter.pat
                && name.subpat.is_none()
            {
                bindings.push(Binding {
                    ident: name.ident.clone(),
                    ty: Some((*parameter.ty).clone()),
                    whole: Some(parameter.ty.clone()),
                    place: type_name(&parameter.ty),
                });
            } else {
                let first = bindings.len();
                collect_bindings(&parameter.pat, &mut bindings, &mut opaque);
                for binding in bindings.iter_mut().skip(first) {
                    binding.whole = Some(parameter.ty.clone());
                }
            }
        }
        (bindings, opaque)
    }

    /// Whether a parameter is declared `mut`.
    pub(crate) fn is_mutable(&self, name: &Ident) -> bool {
        self.sig.inputs.iter().any(|input| match input {
            FnArg::Typed(parameter) => matches!(&*parameter.pat,
                Pat::Ident(pat) if pat.ident == *name && pat.mutability.is_some()),
            FnArg::Receiver(_) => false,
        })
    }

    /// The type parameters of the function itself.
    pub(crate) fn type_params(&self) -> impl Iterator<Item = &Ident> {
        self.sig
            .generics
            .type_params()
            .map(|parameter| &parameter.ident)
    }

    /// The const parameters of the function itself, which are arguments like any other.
    pub(crate) fn const_params(&self) -> impl Iterator<Item = Binding> {
        self.sig
            .generics
            .params
            .iter()
            .filter_map(|parameter| match parameter {
                GenericParam::Const(parameter) => Some(Binding {
                    ident: parameter.ident.clone(),
                    ty: Some(parameter.ty.clone()),
                    whole: None,
                    place: type_name(&parameter.ty),
                }),
                _ => None,
            })
    }

    /// The part to underline when the return type can't be cached.
    pub(crate) fn output_place(&self) -> Span {
        self.output()
            .map_or_else(|| self.sig.ident.span(), type_name)
    }

    /// The type that a caller gets by awaiting the function, unless that is `()`.
    pub(crate) fn output(&self) -> Option<&Type> {
        let written = self.written_output()?;
        match self.form() {
            Some(Form::Boxed | Form::Opaque) => awaited(written).map(|(_, ty)| ty),
            Some(Form::Async) | None => Some(written),
        }
    }

    /// The type after the arrow.
    pub(crate) fn written_output(&self) -> Option<&Type> {
        match &self.sig.output {
            ReturnType::Default => None,
            ReturnType::Type(_, ty) => Some(ty),
        }
    }

    /// The boxed future after the arrow, with a lifetime that the compiler infers: a body borrows
    /// from its closure for a shorter time than the function's arguments live.
    pub(crate) fn boxed_future(&self) -> Option<Type> {
        let mut written = self.written_output()?.clone();
        if let Some(lifetime) = boxed_lifetime(&mut written) {
            lifetime.ident = Ident::new("_", lifetime.ident.span());
        }
        Some(written)
    }

    /// How the function is asynchronous; `None` if it is not.
    pub(crate) fn form(&self) -> Option<Form> {
        if self.sig.asyncness.is_some() {
            return Some(Form::Async);
        }
        self.written_output()
            .and_then(awaited)
            .map(|(form, _)| form)
    }
}

/// The ways in which a function is asynchronous.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// `async fn`
    Async,
    /// It returns a boxed future, as under `#[async_trait]`.
    Boxed,
    /// It returns `impl Future`.
    Opaque,
}

/// How a type is a future, and its output: `Pin<Box<dyn Future<Output = T>>>`, `BoxFuture<'_, T>`,
/// `impl Future<Output = T>`.
fn awaited(ty: &Type) -> Option<(Form, &Type)> {
    match ty {
        Type::Paren(paren) => awaited(&paren.elem),
        Type::Group(group) => awaited(&group.elem),
        Type::ImplTrait(opaque) => Some((Form::Opaque, output_of(&opaque.bounds)?)),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            if last.ident == "BoxFuture" || last.ident == "LocalBoxFuture" {
                return Some((Form::Boxed, first_type(last)?));
            }
            let Type::Path(boxed) = first_type(last).filter(|_| last.ident == "Pin")? else {
                return None;
            };
            let boxed = boxed
                .path
                .segments
                .last()
                .filter(|last| last.ident == "Box")?;
            match first_type(boxed)? {
                Type::TraitObject(object) => Some((Form::Boxed, output_of(&object.bounds)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The `'a` of `Pin<Box<dyn Future + 'a>>` and of `BoxFuture<'a, T>`.
fn boxed_lifetime(ty: &mut Type) -> Option<&mut Lifetime> {
    match ty {
        Type::Paren(paren) => boxed_lifetime(&mut paren.elem),
        Type::Group(group) => boxed_lifetime(&mut group.elem),
        Type::TraitObject(object) => object.bounds.iter_mut().find_map(|bound| match bound {
            TypeParamBound::Lifetime(lifetime) => Some(lifetime),
            _ => None,
        }),
        Type::Path(path) => {
            let last = path.path.segments.last_mut()?;
            let PathArguments::AngleBracketed(arguments) = &mut last.arguments else {
                return None;
            };
            arguments
                .args
                .iter_mut()
                .find_map(|argument| match argument {
                    GenericArgument::Lifetime(lifetime) => Some(lifetime),
                    GenericArgument::Type(ty) => boxed_lifetime(ty),
                    _ => None,
                })
        }
        _ => None,
    }
}

pub(crate) fn first_type(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// The `T` of a bound `Future<Output = T>`.
fn output_of(bounds: &Punctuated<TypeParamBound, Token![+]>) -> Option<&Type> {
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else {
            return None;
        };
        let last = bound
            .path
            .segments
            .last()
            .filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            return None;
        };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(assoc) if assoc.ident == "Output" => Some(&assoc.ty),
            _ => None,
        })
    })
}

/// The names that one parameter's pattern binds.
pub(crate) fn bindings_of(pat: &Pat) -> Vec<Binding> {
    let mut bindings = Vec::new();
    collect_bindings(pat, &mut bindings, &mut Vec::new());
    bindings
}

/// Adds the names that a destructuring pattern binds. Each is underlined itself, since its type is
/// not written anywhere.
fn collect_bindings<'a>(pat: &'a Pat, bindings: &mut Vec<Binding>, opaque: &mut Vec<&'a Pat>) {
    match pat {
        Pat::Ident(name) => {
            // The alternatives of an or-pattern all bind the same names.
            if !bindings.iter().any(|known| known.ident == name.ident) {
                bindings.push(Binding {
                    ident: name.ident.clone(),
                    ty: None,
                    whole: None,
                    place: name.ident.span(),
                });
            }
            if let Some((_, pat)) = &name.subpat {
                collect_bindings(pat, bindings, opaque);
            }
        }
        Pat::Or(or) => or
            .cases
            .iter()
            .for_each(|pat| collect_bindings(pat, bindings, opaque)),
        Pat::Paren(paren) => collect_bindings(&paren.pat, bindings, opaque),
        Pat::Reference(reference) => collect_bindings(&reference.pat, bindings, opaque),
        Pat::Slice(slice) => slice
            .elems
            .iter()
            .for_each(|pat| collect_bindings(pat, bindings, opaque)),
        Pat::Struct(fields) => fields
            .fields
            .iter()
            .for_each(|field| collect_bindings(&field.pat, bindings, opaque)),
        Pat::Tuple(tuple) => tuple
            .elems
            .iter()
            .for_each(|pat| collect_bindings(pat, bindings, opaque)),
        Pat::TupleStruct(tuple) => tuple
            .elems
            .iter()
            .for_each(|pat| collect_bindings(pat, bindings, opaque)),
        Pat::Type(typed) => collect_bindings(&typed.pat, bindings, opaque),
        Pat::Const(_)
        | Pat::Lit(_)
        | Pat::Path(_)
        | Pat::Range(_)
        | Pat::Rest(_)
        | Pat::Wild(_) => {}
        _ => opaque.push(pat),
    }
}

/// The one token to underline for a type: for `&'a sqlx::Pool<Db>` it is `Pool`. Stable Rust can't
/// join spans, and the compiler shows a mistake once for each place that the tokens of one call
/// have.
fn type_name(ty: &Type) -> Span {
    match ty {
        Type::Reference(reference) => type_name(&reference.elem),
        Type::Paren(paren) => type_name(&paren.elem),
        Type::Group(group) => type_name(&group.elem),
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map_or_else(|| path.span(), |last| last.ident.span()),
        other => other.span(),
    }
}

/// The borrow in a return type in place of a value: a reference, a type with a lifetime, a `Cow`
/// that may borrow. The compiler finds it too, but reports `Deserialize` for any lifetime.
pub(crate) fn borrowed_value(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Reference(_) => Some(ty),
        Type::Paren(paren) => borrowed_value(&paren.elem),
        Type::Group(group) => borrowed_value(&group.elem),
        Type::Array(array) => borrowed_value(&array.elem),
        Type::Slice(slice) => borrowed_value(&slice.elem),
        Type::Tuple(tuple) => tuple.elems.iter().find_map(borrowed_value),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let PathArguments::AngleBracketed(arguments) = &last.arguments else {
                return None;
            };
            let mut lifetimes = arguments.args.iter().filter_map(|argument| match argument {
                GenericArgument::Lifetime(lifetime) => Some(lifetime.ident != "static"),
                _ => None,
            });
            // Without a lifetime a `Cow` has that of the arguments.
            if lifetimes.next().unwrap_or(last.ident == "Cow") || lifetimes.any(|it| it) {
                return Some(ty);
            }
            let mut types = arguments.args.iter().filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            });
            match last.ident == "Result" {
                // An error is not stored.
                true => types.next().and_then(borrowed_value),
                false => types.find_map(borrowed_value),
            }
        }
        _ => None,
    }
}

/// Whether a type is `()`, perhaps in a `Result` or an `Option`.
pub(crate) fn returns_nothing(ty: &Type) -> bool {
    match ungrouped(ty) {
        Type::Tuple(tuple) => tuple.elems.is_empty(),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            (last.ident == "Result" || last.ident == "Option")
                && first_type(last).is_some_and(returns_nothing)
        }),
        _ => false,
    }
}

/// Whether a type can't be an alias of a `Result`. A type with an unknown name may be one.
pub(crate) fn never_fails(ty: &Type) -> bool {
    let known = [
        "Option", "Vec", "String", "Arc", "Box", "HashMap", "BTreeMap",
    ];
    match ty {
        Type::Reference(_) => true,
        ty => is_builtin(ty, &known),
    }
}

/// Whether a type is a primitive one, a tuple, a slice or an array, or has one of these names.
pub(crate) fn is_builtin(ty: &Type, known: &[&str]) -> bool {
    match ty {
        Type::Paren(paren) => is_builtin(&paren.elem, known),
        Type::Group(group) => is_builtin(&group.elem, known),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            let name = last.ident.to_string();
            known.contains(&name.as_str()) || name.starts_with(char::is_lowercase)
        }),
        Type::Tuple(_) | Type::Slice(_) | Type::Array(_) => true,
        _ => false,
    }
}

/// The type inside parentheses, and inside the group that a macro's `$t:ty` is.
pub(crate) fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Paren(paren) => ungrouped(&paren.elem),
        Type::Group(group) => ungrouped(&group.elem),
        ty => ty,
    }
}

/// Whether a path may lead into the standard library. Another module may have its own `Duration`.
fn is_of_std(path: &syn::Path) -> bool {
    let first = path.segments.first().map(|first| first.ident.to_string());
    path.segments.len() == 1 || matches!(first.as_deref(), Some("std" | "core" | "alloc"))
}

/// Whether all names in a type are those of standard types, so that serialisation keeps everything
/// that tells its values apart.
pub(crate) fn is_plain(ty: &Type) -> bool {
    const PRIMITIVES: [&str; 18] = [
        "bool", "char", "f32", "f64", "i8", "i16", "i32", "i64", "i128", "isize", "str", "u8",
        "u16", "u32", "u64", "u128", "usize", "String",
    ];
    const CONTAINERS: [&str; 8] = [
        "Option", "Vec", "Box", "Arc", "BTreeMap", "BTreeSet", "HashMap", "Cow",
    ];
    match ty {
        Type::Paren(paren) => is_plain(&paren.elem),
        Type::Group(group) => is_plain(&group.elem),
        Type::Reference(reference) => is_plain(&reference.elem),
        Type::Slice(slice) => is_plain(&slice.elem),
        Type::Array(array) => is_plain(&array.elem),
        Type::Tuple(tuple) => tuple.elems.iter().all(is_plain),
        Type::Path(path) if path.qself.is_none() && is_of_std(&path.path) => {
            path.path.segments.last().is_some_and(|last| {
                let name = last.ident.to_string();
                match &last.arguments {
                    PathArguments::None => PRIMITIVES.contains(&name.as_str()),
                    PathArguments::AngleBracketed(arguments) => {
                        CONTAINERS.contains(&name.as_str())
                            && arguments.args.iter().all(|argument| match argument {
                                GenericArgument::Type(ty) => is_plain(ty),
                                argument => matches!(argument, GenericArgument::Lifetime(_)),
                            })
                    }
                    PathArguments::Parenthesized(_) => false,
                }
            })
        }
        _ => false,
    }
}

/// The `Result` of an `Option<Result<..>>`.
pub(crate) fn optional_result(ty: &Type) -> Option<&Type> {
    fn named<'a>(ty: &'a Type, name: &str) -> Option<&'a PathSegment> {
        match ty {
            Type::Paren(paren) => named(&paren.elem, name),
            Type::Group(group) => named(&group.elem, name),
            Type::Path(path) => path.path.segments.last().filter(|last| last.ident == name),
            _ => None,
        }
    }
    let result = first_type(named(ty, "Option")?)?;
    named(result, "Result").map(|_| result)
}

/// The first `impl` in a return type: such a type has no name.
pub(crate) fn impl_trait(ty: &Type) -> Option<Span> {
    fn find(tokens: TokenStream) -> Option<Span> {
        tokens.into_iter().find_map(|token| match token {
            TokenTree::Ident(ident) if ident == "impl" => Some(ident.span()),
            TokenTree::Group(group) => find(group.stream()),
            _ => None,
        })
    }
    find(ty.to_token_stream())
}
