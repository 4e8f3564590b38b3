//! From the model to tokens. Nothing can fail here, and no other file writes a path into `cache-runtime`.
//!
//! Names: locals are `__cache_*` and hygienic; paths are absolute, so that they mean the same whatever the user's
//! module calls `core` or `Result`. Spans: a value in a key has those of the parameter's type, and the shape
//! those of the return type, because that is what the compiler underlines when a bound isn't met.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, ExprReference, Token};

use crate::args::{Name, Ttl};
use crate::item::{Item, Place};
use crate::model::{Absence, CachedFn, Env, InvalidatesFn, Key, On, Op, Part, Rows, Target};

/// Turns
///
/// ```ignore
/// #[cached(resource = "users", ttl = 300)]
/// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> { BODY }
/// ```
///
/// into
///
/// ```ignore
/// pub async fn get(&self, id: i64) -> Result<Option<User>, DbError> {
///     static __CACHE_SITE: ::cache_runtime::__private::Site = ::cache_runtime::__private::Site::new(
///         ::core::module_path!(), "get", ::core::file!(), ::core::line!());
///     let __cache_read = ::cache_runtime::__private::Read::new(
///         &__CACHE_SITE,
///         ::cache_runtime::__private::global(),
///         |__cache_plan| __cache_plan.resource("users").id(&id).ttl(300u64),
///     );
///     __cache_read
///         .run(
///             ::cache_runtime::__private::Shape::<Result<Option<User>, DbError>>::OF.kind(),
///             async move || { BODY },
///         )
///         .await
/// }
/// ```
pub(crate) fn cached(function: CachedFn) -> TokenStream {
    let CachedFn { item, env, resource, key, ttl, absence, version } = function;
    let (private, cache, body) = (env.private(), env.cache(), &item.body);
    let key = key_calls(&key, &item);
    let ttl = ttl.map(|ttl| method("ttl", ttl.tokens()));
    let absence = match absence {
        Absence::ByDefault => None,
        Absence::KeptFor(ttl) => Some(method("none_ttl", ttl.tokens())),
        Absence::NotKept => Some(method("cache_none", quote!(false))),
    };
    let version = version.map(|version| method("version", quote!(#version)));
    let shape = shape(&env, &item);
    wrap(&item, &env, mixed(quote! {
        let __cache_read = #private::Read::new(
            &__CACHE_SITE,
            #cache,
            |__cache_plan| __cache_plan.resource(#resource) #key #ttl #absence #version,
        );
        __cache_read.run(#shape, async move || #body).await
    }))
}
