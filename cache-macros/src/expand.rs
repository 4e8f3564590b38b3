//! From the model to tokens. Nothing can fail here, and no other file writes a path into `cache-runtime`.
//!
//! Names: locals are `__cache_*` and hygienic; paths are absolute, so that they mean the same whatever the
//! user's module calls `core` or `Result`. Spans: a value in a key has those of the parameter's type, and the
//! shape those of the return type, because that is what the compiler underlines when a bound isn't met.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, ExprReference, Token};

use crate::args::{Name, Ttl};
use crate::item::Item;
use crate::model::{
    Absence, AfterResult, CachedFn, Env, InvalidatesFn, Key, On, Op, Part, Rows, Target,
};

// Turns
//
// #[cached(resource = "users", ttl = 300)]
// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> { BODY }
//
// into
//
// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
//     static __CACHE_SITE: ::cache_runtime::__private::Site =
//         ::cache_runtime::__private::Site::new(::core::module_path!(), "get");
//     let __cache_kind = ::cache_runtime::__private::Shape::<Result<Option<User>, DbError>>::OF.kind();
//     let __cache_read = ::cache_runtime::__private::Read::new(
//         &__CACHE_SITE,
//         ::cache_runtime::__private::global(),
//         __cache_kind,
//         |__cache_plan| __cache_plan.resource("users").id(&id).ttl(300u64),
//     );
//     __cache_read
//         .run(async move || {
//             if let ::core::option::Option::Some(__cache_returned) = __cache_kind.unreached() {
//                 return __cache_returned;
//             }
//             BODY
//         })
//         .await
// }
pub(crate) fn cached(function: CachedFn) -> TokenStream {
    let CachedFn {
        item,
        env,
        resource,
        key,
        ttl,
        absence,
        version,
    } = function;
    let (private, cache, body) = (env.private(), env.cache(), body(&item));
    let key = key.calls(&item);
    let policy = policy(ttl, absence, version);
    let run = run(
        &item,
        quote_spanned!(mixed()=> __cache_read),
        quote_spanned!(mixed()=> async move || #body),
    );
    wrap(
        &item,
        &env,
        quote_spanned! {mixed()=>
            let __cache_read = #private::Read::new(
                &__CACHE_SITE,
                #cache,
                __cache_kind,
                |__cache_plan| __cache_plan.resource(#resource) #key #policy,
            );
            #run
        },
    )
}

// Turns
//
// #[invalidates("users", id = result.id, "teams", rejected = |e| matches!(e, DbError::Conflict))]
// pub async fn create(&self, new: NewUser) -> Result<User, DbError> { BODY }
//
// into
//
// pub async fn create(&self, new: NewUser) -> Result<User, DbError> {
//     static __CACHE_SITE: .. = ..;
//     let __cache_kind = ..;
//     let __cache_write = ::cache_runtime::__private::Write::new(
//         &__CACHE_SITE,
//         ::cache_runtime::__private::global(),
//         __cache_kind,
//         |__cache_plan| __cache_plan.resource("users").resource("teams"),
//     )
//     .rejected(|e| matches!(e, DbError::Conflict))
//     .result(move |__cache_plan, result| __cache_plan.resource("users").id(&result.id).resource("teams"));
//     __cache_write.run(async move || { .. BODY }).await
// }
pub(crate) fn invalidates(function: InvalidatesFn) -> TokenStream {
    let InvalidatesFn {
        item,
        env,
        targets,
        result,
        on,
    } = function;
    let (private, cache, body) = (env.private(), env.cache(), body(&item));
    let known_before = targets.iter().map(Target::before);
    let on = match on {
        On::Always => None,
        On::Ok => Some(quote_spanned!(mixed()=> .on_ok())),
        On::UnlessRejected(judge) => Some(quote_spanned!(mixed()=> .rejected(#judge))),
    };
    let result = result.map(|result| result.call(&targets));
    let run = run(
        &item,
        quote_spanned!(mixed()=> __cache_write),
        quote_spanned!(mixed()=> async move || #body),
    );
    wrap(
        &item,
        &env,
        quote_spanned! {mixed()=>
            let __cache_write = #private::Write::new(
                &__CACHE_SITE,
                #cache,
                __cache_kind,
                |__cache_plan| __cache_plan #(#known_before)*,
            ) #on #result;
            #run
        },
    )
}

/// The user's body, behind a statement that tells the compiler what it returns: of a closure's future it infers
/// that from the body alone, and so would neither coerce `Box<Error>` to `Box<dyn Error>` nor underline the culprit
/// of a mismatch.
fn body(item: &Item) -> Group {
    if item.output().is_none() {
        return item.body.clone();
    }
    let statements = item.body.stream();
    let place = mixed().located_at(item.output_place());
    let returned = quote_spanned!(place=> __cache_returned);
    let mut body = Group::new(
        item.body.delimiter(),
        quote_spanned! {mixed()=>
            if let ::core::option::Option::Some(#returned) = __cache_kind.unreached() {
                return #returned;
            }
            #statements
        },
    );
    body.set_span(item.body.span());
    body
}

/// `call.run(arguments).await`, at the return type: a bound that isn't met is reported for an argument, the call and
/// its future, and of reports for one place the compiler shows the first.
fn run(item: &Item, call: TokenStream, arguments: TokenStream) -> TokenStream {
    let call = placed(call, item.output_place());
    quote_spanned!(mixed().located_at(item.output_place())=> #call.run(#arguments).await)
}

/// The same function around other statements: exactly one item.
///
/// The site is a `static` that holds names only, for a `static` can't mention the function's type parameters.
fn wrap(item: &Item, env: &Env, statements: TokenStream) -> TokenStream {
    let Item {
        attrs,
        vis,
        sig,
        inner_attrs,
        body,
    } = item;
    let (private, name, shape) = (env.private(), item.name(), env.shape(item));
    let mut block = Group::new(
        body.delimiter(),
        quote_spanned! {mixed()=>
            #(#inner_attrs)*
            static __CACHE_SITE: #private::Site = #private::Site::new(::core::module_path!(), #name);
            let __cache_kind = #shape;
            #statements
        },
    );
    block.set_span(body.span());
    quote!(#(#attrs)* #vis #sig #block)
}

impl Env {
    /// The module with all that generated code may name.
    fn private(&self) -> TokenStream {
        match &self.krate {
            Some(krate) => quote_spanned!(mixed()=> #krate::__private),
            None => quote_spanned!(mixed()=> ::cache_runtime::__private),
        }
    }

    fn cache(&self) -> TokenStream {
        let private = self.private();
        match &self.cache {
            Some(instance) => {
                let instance = borrowed(instance, instance.span());
                quote_spanned!(mixed()=> #private::own(#instance))
            }
            None => quote_spanned!(mixed()=> #private::global()),
        }
    }

    /// `Shape::<R>::OF.kind()`, all of it at the place of `R`.
    fn shape(&self, item: &Item) -> TokenStream {
        let private = self.private();
        let Some(output) = item.output() else {
            return quote_spanned!(mixed()=> #private::Shape::<()>::OF.kind());
        };
        let private = placed(private, item.output_place());
        quote_spanned!(mixed().located_at(item.output_place())=> #private::Shape::<#output>::OF.kind())
    }
}

impl Key {
    fn calls(&self, item: &Item) -> TokenStream {
        match self {
            Self::Entity(id) => id.call("id"),
            Self::Row(op, id) => {
                let id = id.call("id");
                quote_spanned!(mixed()=> .op(#op) #id)
            }
            Self::Derived { op, types, parts } => {
                let (op, parts) = (op.call(item), parts.iter().map(|part| part.call("arg")));
                quote_spanned!(mixed()=> #op #(.type_param::<#types>())* #(#parts)*)
            }
        }
    }
}

impl Op {
    fn call(&self, item: &Item) -> TokenStream {
        match self {
            Self::Given(name) => quote_spanned!(mixed()=> .op(#name)),
            Self::Function => {
                let name = item.name();
                quote_spanned!(mixed()=> .op(#name))
            }
        }
    }
}

impl Part {
    fn call(&self, method: &str) -> TokenStream {
        let method = syn::Ident::new(method, mixed());
        let value = borrowed(&self.value, self.place);
        quote_spanned!(mixed()=> .#method(#value))
    }
}

impl Target {
    /// What is known before the function runs.
    fn before(&self) -> TokenStream {
        let resource = &self.resource;
        let id = match &self.rows {
            Rows::All | Rows::OfResult(_) => None,
            Rows::One(id) => Some(id.call("id")),
        };
        quote_spanned!(mixed()=> .resource(#resource) #id)
    }

    /// What is known when `result` is.
    fn after(&self) -> TokenStream {
        let resource = &self.resource;
        let id = match &self.rows {
            Rows::All => None,
            Rows::One(id) | Rows::OfResult(id) => Some(id.call("id")),
        };
        quote_spanned!(mixed()=> .resource(#resource) #id)
    }
}

impl AfterResult {
    /// The plan closure that is given the result; it outlives the arguments, so it owns what it needs of them.
    fn call(&self, targets: &[Target]) -> TokenStream {
        let (result, kept) = (&self.result, &self.kept);
        let known_after = targets.iter().map(Target::after);
        let plan =
            quote_spanned!(mixed()=> move |__cache_plan, #result| __cache_plan #(#known_after)*);
        if kept.is_empty() {
            return quote_spanned!(mixed()=> .result(#plan));
        }
        quote_spanned!(mixed()=> .result({
            #(let #kept = ::core::clone::Clone::clone(&#kept);)*
            #plan
        }))
    }
}

fn policy(ttl: Option<Ttl>, absence: Absence, version: Option<u32>) -> TokenStream {
    let ttl = ttl.map(|ttl| quote_spanned!(mixed()=> .ttl(#ttl)));
    let absence = match absence {
        Absence::ByDefault => None,
        Absence::KeptFor(ttl) => Some(quote_spanned!(mixed()=> .none_ttl(#ttl))),
        Absence::NotKept => Some(quote_spanned!(mixed()=> .cache_none(false))),
    };
    let version = version.map(|version| quote_spanned!(mixed()=> .version(#version)));
    quote!(#ttl #absence #version)
}

impl ToTokens for Name {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Literal(name) => name.to_tokens(tokens),
            Self::Path(path) => path.to_tokens(tokens),
        }
    }
}

impl ToTokens for Ttl {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        match self {
            Self::Seconds(seconds) => seconds.to_tokens(tokens),
            Self::Millis(millis) if millis % 1000 == 0 => (millis / 1000).to_tokens(tokens),
            Self::Millis(millis) => tokens.extend(quote_spanned! {mixed()=>
                ::core::time::Duration::from_millis(#millis)
            }),
            Self::Expr(value) => value.to_tokens(tokens),
        }
    }
}

/// Locals under this span can't be seen by the user's code, nor the user's locals by ours.
fn mixed() -> Span {
    Span::mixed_site()
}

/// `&value`, underlined at `place`; of a tuple each element is borrowed, too, for it would move them.
fn borrowed(value: &Expr, place: Span) -> TokenStream {
    let borrow = |value: &Expr, place: Span| {
        Expr::Reference(ExprReference {
            attrs: Vec::new(),
            and_token: Token![&](value.span().located_at(place)),
            mutability: None,
            expr: Box::new(value.clone()),
        })
    };
    let mut value = value.clone();
    if let Expr::Tuple(tuple) = &mut value {
        for element in &mut tuple.elems {
            if matches!(element, Expr::Path(_) | Expr::Field(_)) {
                *element = borrow(element, element.span());
            }
        }
    }
    // Printing the tree, and not its parts, adds parentheses where `&` would bind too tightly.
    borrow(&value, place).into_token_stream()
}

/// The same tokens, meaning the same, at another place of the file.
fn placed(tokens: TokenStream, place: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut token| {
            if let TokenTree::Group(group) = &token {
                let mut moved = Group::new(group.delimiter(), placed(group.stream(), place));
                moved.set_span(group.span().located_at(place));
                return TokenTree::Group(moved);
            }
            token.set_span(token.span().located_at(place));
            token
        })
        .collect()
}

#[cfg(test)]
mod tests;
