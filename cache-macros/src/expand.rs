//! From the model to tokens. Nothing can fail here, and no other file writes a path into
//! `cache-runtime`.
//!
//! Names: locals start with two underscores and are hygienic. Items are never hygienic, so the two
//! items, `__crt` and `__CRT`, have names that are unlikely elsewhere. Paths are absolute, so that
//! they mean the same whatever the user's module calls `core` or `Result`. A method that is found
//! through a chain of `Deref`s (`__form`, `__read`, `__known`) can't be named by a path, and a trait that the
//! user implements for all types comes before the chain; so its name starts with two underscores,
//! too. Other methods belong to the receiver's own type, which comes before any trait.
//!
//! Spans: a value in a key has the spans of the parameter's type, and the shape those of the return
//! type, because the compiler underlines these if a bound isn't met.

mod detached;
mod plan;

use proc_macro2::{Group, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, ExprReference, Token};

use crate::args::{Name, Tag, Ttl};
use crate::description;
use crate::item::{Form, Item};
use crate::model::{
    BatchBy, CachedFn, CandidateType, ConnectionCandidate, Env, InvalidatesFn, Key, On, Target,
};

// Turns
//
// #[cached(resource = "users", ttl = 300)]
// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> { BODY }
//
// into
//
// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
//     use ::cache_runtime::__private as __crt;
//     #[used]
//     #[unsafe(link_section = "linkme_SITES")]
//     static __CRT: __crt::Site = __crt::cached("get", "users:{id: i64}, ttl 300", || ());
//     __crt::Shape::<Result<Option<User>, DbError>>::OF
//         .__form()
//         .__read(&__CRT, "users", |__p| __p.id(&id).ttl(300u64))
//         .run(move |__kind| async move {
//             if __kind.unreached() {
//                 return __kind.value();
//             }
//             BODY
//         })
//         .await
// }
pub(crate) fn cached(function: CachedFn) -> TokenStream {
    let description = description::cached(&function);
    let plan = function.plan();
    let CachedFn {
        mut item,
        env,
        resource,
        key,
        unless,
        context,
        detached,
        reads_through,
        ..
    } = function;
    let (ids, run) = match &key {
        Key::Batch(batch) => {
            let run = match batch.by {
                BatchBy::Slice => "run",
                BatchBy::Vec => "run_owned",
            };
            (Some(&batch.ids.ident), run)
        }
        _ => (None, "run"),
    };
    let given = ids.map(|ids| quote_spanned!(mixed()=> &#ids,));
    let shape = match &key {
        Key::Batch(_) => shape("BatchShape", &item),
        _ => shape("Shape", &item),
    };
    let (read, cache) = env.method("__read", &item);
    let form = match &key {
        Key::Batch(_) => None,
        _ => Some(quote_spanned!(mixed().located_at(item.output_place())=> .__form())),
    };
    // At the closure, which the compiler underlines if the closure takes another type.
    let unless =
        unless.map(|unless| quote_spanned!(mixed().located_at(unless.span())=> .unless(#unless)));
    let with_context = context
        .as_ref()
        .map(|context| quote_spanned!(mixed()=> .context(&#context)));
    let context =
        context.map(|context| quote_spanned!(mixed()=> let #context = __crt::LoadContext::new();));
    let checks = reads_through.iter().map(|it| it.check("__committed"));
    let before = checks.chain(context).collect::<TokenStream>();
    let call = quote_spanned! {mixed().located_at(item.output_place())=>
        #shape #form.#read(#cache &__CRT, #resource, #given |__p| __p #plan) #unless #with_context
    };
    let run = match &detached {
        Some(detached) => detached.run(&item),
        None if item.form().is_none() => blocking(&item),
        None => inline(&item, run, ids),
    };
    if let Some(detached) = &detached {
        detached.without_mut(&mut item);
    }
    function_around(&item, &env, "cached", &description, Some(before), call, run)
}

// Turns
//
// #[invalidates("users", id = result.id, "teams", rejected = |e| matches!(e, DbError::Conflict))]
// pub async fn create(&self, new: NewUser) -> Result<User, DbError> { BODY }
//
// into
//
// pub async fn create(&self, new: NewUser) -> Result<User, DbError> {
//     use ::cache_runtime::__private as __crt;
//     #[used] ..
//     static __CRT: __crt::Site = __crt::invalidates("create", "users:{result.id}, teams");
//     __crt::through_type::<NewUser>().__settled();
//     __crt::Shape::<Result<User, DbError>>::OF
//         .__write(&__CRT, |__p| __p.resource("users").resource("teams"))
//         .rejected(|e| matches!(e, DbError::Conflict))
//         .result(move |__p, result| __p.resource("users").id(&result.id).resource("teams"))
//         .run(move |__kind| async move { .. BODY })
//         .await
// }
pub(crate) fn invalidates(function: InvalidatesFn) -> TokenStream {
    let description = description::invalidates(&function);
    let InvalidatesFn {
        item,
        env,
        targets,
        tags,
        crash_safe,
        required,
        after_commit,
        writes_through,
        result,
        on,
    } = function;
    let checks = writes_through.iter().map(|it| it.check("__settled"));
    let checks: TokenStream = checks.collect();
    let tags: TokenStream = tags.iter().map(Tag::call).collect();
    let known_before = targets.iter().map(Target::before);
    let crash_safe = crash_safe.then(|| quote_spanned!(mixed()=> .crash_safe()));
    let after_commit = after_commit.then(|| quote_spanned!(mixed()=> .after_commit()));
    // At the return type, which has to say that the write was refused.
    let place = mixed().located_at(item.output_place());
    let required = required.then(|| quote_spanned!(place=> .required()));
    let on = match on {
        On::Always => None,
        On::Ok => Some(quote_spanned!(mixed()=> .on_ok())),
        // At the option that says that there are no errors.
        On::UnlessRejected(judge) => {
            let rejected = syn::Ident::new("rejected", mixed().located_at(item.output_place()));
            Some(quote_spanned!(mixed()=> .#rejected(#judge)))
        }
    };
    let result = result.map(|result| result.call(&targets));
    let shape = shape("Shape", &item);
    let (write, cache) = env.method("__write", &item);
    let call = quote_spanned! {mixed().located_at(item.output_place())=>
        #shape.#write(#cache &__CRT, |__p| __p #(#known_before)* #tags #crash_safe #after_commit) #required #on #result
    };
    let run = inline(&item, "run", None);
    function_around(
        &item,
        &env,
        "invalidates",
        &description,
        Some(checks),
        call,
        run,
    )
}

impl ConnectionCandidate {
    /// Asks the compiler, which refuses the type or accepts it by `method`.
    fn check(&self, method: &str) -> TokenStream {
        let ConnectionCandidate { cfg, what } = self;
        let place = match what {
            CandidateType::Value(value) => value.span(),
            CandidateType::Type(ty) => ty.span(),
        };
        let place = mixed().located_at(place);
        let method = syn::Ident::new(method, place);
        match what {
            CandidateType::Value(value) => {
                quote_spanned!(place=> #(#cfg)* __crt::through(#value).#method();)
            }
            CandidateType::Type(ty) => {
                quote_spanned!(place=> #(#cfg)* __crt::through_type::<#ty>().#method();)
            }
        }
    }
}

/// `run(body)`, for a body that lives no longer than the call.
///
/// An async block in a closure: an async closure is one more function, which the compiler checks for
/// each annotated one. Only a body that borrows its argument, the ids of a batch, needs one.
///
/// `run` is at the return type: an unmet bound is reported for an argument, for the call and for
/// its future, and the compiler shows only the first of several reports for one place.
fn inline(item: &Item, run: &str, ids: Option<&syn::Ident>) -> TokenStream {
    let place = mixed().located_at(item.output_place());
    let (run, body) = (syn::Ident::new(run, place), body(item));
    match ids {
        Some(ids) => quote_spanned!(place=> #run(async move |__kind, #ids| #body)),
        None => quote_spanned!(place=> #run(move |__kind| async move #body)),
    }
}

/// `run_sync(body)`, for a function that is not `async`.
fn blocking(item: &Item) -> TokenStream {
    let place = mixed().located_at(item.output_place());
    let body = body(item);
    quote_spanned!(place=> run_sync(move |__kind| #body))
}

/// The same function around `call.run(body).await`: exactly one item.
///
/// The call site is a `static` that holds names only, because a `static` can't use the function's
/// type parameters.
fn function_around(
    item: &Item,
    env: &Env,
    role: &str,
    description: &str,
    before: Option<TokenStream>,
    call: TokenStream,
    run: TokenStream,
) -> TokenStream {
    let Item {
        attrs,
        vis,
        sig,
        inner_attrs,
        body: original,
    } = item;
    let place = mixed().located_at(item.output_place());
    let answer = match item.form() {
        Some(_) => quote_spanned!(place=> #before #call.#run.await),
        None => quote_spanned!(place=> #before #call.#run),
    };
    let answer = match item.form() {
        Some(Form::Boxed) => {
            quote_spanned!(mixed()=> ::std::boxed::Box::pin(async move { #answer }))
        }
        Some(Form::Opaque) => quote_spanned!(mixed()=> async move { #answer }),
        Some(Form::Async) | None => answer,
    };
    let (private, site) = (env.private(), site(role, &item.name(), description));
    let mut block = Group::new(
        original.delimiter(),
        quote_spanned! {mixed()=>
            #(#inner_attrs)*
            use #private as __crt;
            #site
            #answer
        },
    );
    block.set_span(original.span());
    quote!(#(#attrs)* #vis #sig #block)
}

/// The body, with its own spans. The compiler knows its return type.
fn body(item: &Item) -> Group {
    let original = &item.body;
    let statements = match item.form() {
        // The function's own statements make a future, and may return one early.
        Some(Form::Boxed) => {
            let output = item.boxed_future();
            quote_spanned! {mixed()=>
                let _ = __kind;
                let __body = move || -> #output #original;
                __body().await
            }
        }
        Some(Form::Opaque) => {
            // Where the compiler says of what the future should be.
            let place = mixed().located_at(item.output_place());
            quote_spanned!(place=> __kind.future(move || #original).await)
        }
        Some(Form::Async) | None => {
            let statements = original.stream();
            // Where the compiler says from what it knows the type.
            let typed = quote_spanned! {mixed().located_at(item.output_place())=>
                if __kind.unreached() {
                    return __kind.value();
                }
            };
            quote!(#typed #statements)
        }
    };
    let mut body = Group::new(original.delimiter(), statements);
    body.set_span(original.span());
    body
}

impl Env {
    /// The module with all that generated code may name.
    fn private(&self) -> TokenStream {
        match &self.krate {
            Some(krate) => quote_spanned!(mixed()=> #krate::__private),
            None => quote_spanned!(mixed()=> ::cache_runtime::__private),
        }
    }

    /// The method that starts a call, and its first argument: the cache, unless it is the
    /// process-wide one.
    fn method(&self, name: &str, item: &Item) -> (syn::Ident, Option<TokenStream>) {
        // Where the compiler says that a type can't be cached.
        let place = mixed().located_at(item.output_place());
        match &self.cache {
            Some(instance) => {
                let instance = borrowed(instance, instance.span());
                let name = format!("{name}_in");
                (
                    syn::Ident::new(&name, place),
                    Some(quote_spanned!(mixed()=> #instance,)),
                )
            }
            None => (syn::Ident::new(name, place), None),
        }
    }
}

/// `Shape::<R>::OF`, all of it at the place of `R`.
fn shape(chain: &str, item: &Item) -> TokenStream {
    let place = mixed().located_at(item.output_place());
    let chain = syn::Ident::new(chain, place);
    match item.output() {
        Some(output) => quote_spanned!(place=> __crt::#chain::<#output>::OF),
        None => quote_spanned!(place=> __crt::#chain::<()>::OF),
    }
}

/// The static that stands for the function. linkme's macro around it puts it where the linker
/// collects all of them. linkme's attribute would do the same in eight more lines.
fn site(role: &str, name: &str, description: &str) -> TokenStream {
    let role = syn::Ident::new(role, mixed());
    // Its type holds the function's name, even if no type parameter is known yet.
    let declared = (role == "cached").then(|| quote_spanned!(mixed()=> , || ()));
    let site = quote_spanned!(mixed()=> static __CRT: __crt::Site = __crt::#role(#name, #description #declared););
    // The unit tests are easier to read without it.
    if !cfg!(feature = "map") || cfg!(test) {
        return site;
    }
    quote_spanned!(mixed()=> __crt::SITES! { #![linkme_macro = __crt::SITES] #site })
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

/// Locals under this span are invisible to the user's code, and the user's locals to ours.
fn mixed() -> Span {
    Span::mixed_site()
}

/// `&value`, underlined at `place`. Each element of a tuple is borrowed, since the tuple would move
/// them.
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

#[cfg(test)]
mod tests;
