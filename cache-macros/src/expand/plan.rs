//! The calls of generated code on `__p`: the key and the options of a read, and what a write
//! invalidates.

use proc_macro2::TokenStream;
use quote::{ToTokens as _, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Expr, Type};

use super::{borrowed, mixed};
use crate::args::{Tag, Ttl};
use crate::item::{is_plain, ungrouped};
use crate::model::{
    Absence, AfterResult, Batch, CachedFn, Depends, Key, KeyPart, LocalOptions, Op, Rows, Target,
    Typing,
};

impl CachedFn {
    /// The key and the options of a read.
    pub(super) fn plan(&self) -> TokenStream {
        let key = self.key.calls();
        let when = self
            .when
            .as_ref()
            .map(|when| quote_spanned!(mixed()=> .when(#when)));
        let depends = &self.depends;
        let depends = depends.iter().map(Depends::call);
        let tags: TokenStream = self.tags.iter().map(Tag::call).collect();
        let policy = policy(self);
        let codec = self.codec.as_ref().map(|codec| {
            let name = &codec.name;
            let value = quote_spanned!(mixed().located_at(name.span())=> __crt::codec::#name);
            quote_spanned!(mixed()=> .codec(#value))
        });
        let shared = self.shared.then(|| quote_spanned!(mixed()=> .shared()));
        let local_options = match &self.local_options {
            LocalOptions::Kept(None) => None,
            LocalOptions::Kept(Some(ttl)) => Some(quote_spanned!(mixed()=> .local_ttl(#ttl))),
            LocalOptions::NotKept => Some(quote_spanned!(mixed()=> .local(false))),
            LocalOptions::Strict => Some(quote_spanned!(mixed()=> .strict())),
            LocalOptions::InProcess => Some(quote_spanned!(mixed()=> .in_process())),
        };
        let around = &self.include_context;
        let max_loads = self.max_loads.as_ref();
        let max_loads = max_loads.map(|most| quote_spanned!(mixed()=> .max_loads(#most)));
        let memo = self.memo.then(|| quote_spanned!(mixed()=> .memo()));
        let types = self.types.iter().map(Typing::call);
        quote_spanned!(mixed()=> #key #(.include_context(#around))* #(#types)* #when #(#depends)* #tags #policy #codec #shared #local_options #max_loads #memo)
    }
}

impl Typing {
    fn call(&self) -> TokenStream {
        match self {
            Self::InKey(name) => quote_spanned!(mixed()=> .type_of(&#name)),
            Self::Entry(name) => quote_spanned!(mixed()=> .typed::<#name>()),
            Self::EntryOf(name) => quote_spanned!(mixed()=> .typed_as(&#name)),
            Self::Instance(name) => quote_spanned!(mixed()=> .instance_for::<#name>()),
            Self::InstanceOf(name) => quote_spanned!(mixed()=> .instance_for_type_of(&#name)),
            Self::InstanceBehind(name) => {
                quote_spanned!(mixed()=> .instance_for_type_of(&*#name))
            }
            Self::LeftOut(name) => quote_spanned!(mixed()=> .untyped::<#name>()),
            Self::LeftOutOf(name) => quote_spanned!(mixed()=> .untyped_as(&#name)),
        }
    }
}

impl Depends {
    fn call(&self) -> TokenStream {
        let resource = &self.resource;
        match &self.row {
            Some(id) => {
                let id = borrowed(&id.value, id.place);
                quote_spanned!(mixed()=> .depends_row(#resource, #id))
            }
            None => quote_spanned!(mixed()=> .depends(#resource)),
        }
    }
}

impl Tag {
    pub(super) fn call(&self) -> TokenStream {
        match self {
            Self::Format(text, values) if values.is_empty() => {
                let text = syn::LitStr::new(
                    &text.value().replace("{{", "{").replace("}}", "}"),
                    text.span(),
                );
                quote_spanned!(mixed()=> .tag(#text))
            }
            // A part that is `None` removes the tag.
            Self::Format(text, values) => {
                // An expression that can't be written is underlined in the tag.
                let place = mixed().located_at(text.span());
                let parts = values.iter().map(|value| {
                    let value = borrowed(value, value.span());
                    quote_spanned!(place=> __crt::part(#value).__text())
                });
                quote_spanned!(mixed()=> .tag(::core::format_args!(#text, #(#parts),*)))
            }
            Self::Value(value) => {
                let place = mixed().located_at(value.span());
                let value = borrowed(value, value.span());
                quote_spanned!(place=> .tag(__crt::part(#value).__text()))
            }
        }
    }
}

impl Key {
    fn calls(&self) -> TokenStream {
        match self {
            Self::Batch(batch) => batch.calls(),
            Self::Entity(id) => id.read("id"),
            Self::Row(op, id) => {
                let id = id.read("id");
                quote_spanned!(mixed()=> .op(#op) #id)
            }
            Self::Derived { op, types, parts } => {
                let (op, parts) = (op.call(), parts.iter().map(|part| part.read("arg")));
                quote_spanned!(mixed()=> #op #(.type_param::<#types>())* #(#parts)*)
            }
        }
    }
}

impl Batch {
    /// Ids of a type whose `Serialize` may leave something out are checked one by one.
    fn calls(&self) -> TokenStream {
        let ids = &self.ids.ident;
        if self.id.as_ref().is_some_and(is_plain) {
            return quote_spanned!(mixed()=> .each(&#ids));
        }
        let place = mixed().located_at(self.ids.place);
        let known = quote_spanned!(place=> |__id| __crt::argument(__id).__known());
        quote_spanned!(mixed()=> .each_of(&#ids, #known))
    }
}

impl Op {
    fn call(&self) -> Option<TokenStream> {
        match self {
            Self::Given(name) => Some(quote_spanned!(mixed()=> .op(#name))),
            // It is in the call site.
            Self::Function => None,
        }
    }
}

impl KeyPart {
    fn call(&self, method: &str) -> TokenStream {
        let method = syn::Ident::new(method, mixed());
        let value = borrowed(&self.value, self.place);
        quote_spanned!(mixed()=> .#method(#value))
    }

    /// The same for a read, whose entries are also told apart by what `Serialize` leaves out.
    fn read(&self, method: &str) -> TokenStream {
        let is_plain = self.ty.as_ref().is_some_and(is_plain) || is_literal(&self.value);
        if is_plain {
            return self.call(method);
        }
        let method = syn::Ident::new(&format!("{method}_of"), mixed());
        let value = match self.ty.as_ref().map(ungrouped) {
            // The value itself, not a reference to it, has the size of its type.
            Some(Type::Reference(_)) => {
                let name = &self.value;
                quote_spanned!(mixed().located_at(self.place)=> &*#name)
            }
            _ => borrowed(&self.value, self.place),
        };
        // With the author's own span, so that an unmet bound is reported there, without the macro
        // around it.
        let value = quote_spanned!(self.place=> __crt::argument(#value).__known());
        quote_spanned!(mixed()=> .#method(#value))
    }

    /// Each of many ids. A variable is borrowed, and a computed value is consumed.
    fn each(&self) -> TokenStream {
        let value = match &self.value {
            value @ (Expr::Path(_) | Expr::Field(_)) => {
                let value = borrowed(value, self.place);
                quote_spanned!(mixed().located_at(self.place)=> __crt::each(#value).__each())
            }
            value => value.to_token_stream(),
        };
        quote_spanned!(mixed()=> .ids(#value))
    }
}

impl Target {
    /// The plan of what is known before the function runs.
    pub(super) fn before(&self) -> TokenStream {
        match &self.rows {
            // Without a result, the whole resource is invalidated.
            Rows::OfResult(_) | Rows::ManyOfResult(_) => {
                let resource = &self.resource;
                quote_spanned!(mixed()=> .resource(#resource))
            }
            Rows::NotNamed | Rows::One(_) | Rows::Many(_) => self.after(),
        }
    }

    /// The plan of what is known once there is a `result`.
    fn after(&self) -> TokenStream {
        let (resource, ops) = (&self.resource, &self.ops);
        let ids = match &self.rows {
            Rows::NotNamed => None,
            Rows::One(id) | Rows::OfResult(id) => Some(id.call("id")),
            Rows::Many(ids) | Rows::ManyOfResult(ids) => Some(ids.each()),
        };
        quote_spanned!(mixed()=> .resource(#resource) #ids #(.op(#ops))*)
    }
}

impl AfterResult {
    /// The plan closure that gets the result. It outlives the arguments, so it owns the parts that
    /// it needs.
    pub(super) fn call(&self, targets: &[Target]) -> TokenStream {
        let (result, kept) = (&self.result, &self.kept);
        let known_after = targets.iter().map(Target::after);
        let plan = quote_spanned!(mixed()=> move |__p, #result| __p #(#known_after)*);
        if kept.is_empty() {
            return quote_spanned!(mixed()=> .result(#plan));
        }
        quote_spanned!(mixed()=> .result({
            #(let #kept = ::core::clone::Clone::clone(&#kept);)*
            // A closure in an id may have a parameter of the same name.
            let _ = (#(&#kept,)*);
            #plan
        }))
    }
}

fn policy(function: &CachedFn) -> TokenStream {
    let CachedFn {
        ttl,
        absence,
        version,
        stale_policy,
        ..
    } = function;
    let ttl = ttl.as_ref().map(|ttl| quote_spanned!(mixed()=> .ttl(#ttl)));
    let absence = match absence {
        Absence::ByDefault => None,
        Absence::KeptFor { ttl, is_default } => Some(match is_default {
            false => quote_spanned!(mixed()=> .none_ttl(#ttl)),
            true => quote_spanned!(mixed()=> .default_none_ttl(#ttl)),
        }),
        Absence::NotKept => Some(quote_spanned!(mixed()=> .cache_none(false))),
    };
    let version = version.map(|version| quote_spanned!(mixed()=> .version(#version)));
    let time = |method: &str, time: &Option<Ttl>| {
        let method = syn::Ident::new(method, mixed());
        match time {
            Some(time) => quote_spanned!(mixed()=> .#method(#time)),
            None => quote_spanned!(mixed()=> .#method(__crt::AS_CONFIGURED)),
        }
    };
    let swr = stale_policy.swr.as_ref().map(|swr| time("swr", swr));
    let timeout = stale_policy
        .timeout
        .as_ref()
        .map(|limit| time("timeout", limit));
    let stale_if_error = &stale_policy.stale_if_error;
    let stale_if_error = stale_if_error
        .as_ref()
        .map(|time| quote_spanned!(mixed()=> .stale_if_error(#time)));
    let early = &stale_policy.early;
    let early = early
        .as_ref()
        .map(|beta| quote_spanned!(mixed()=> .early(#beta)));
    let jitter = &stale_policy.jitter;
    let jitter = jitter
        .as_ref()
        .map(|part| quote_spanned!(mixed()=> .jitter(#part)));
    let audit = stale_policy.audit.as_ref();
    let audit = audit.map(|part| quote_spanned!(mixed()=> .audit(#part)));
    quote!(#ttl #absence #version #stale_if_error #swr #timeout #early #jitter #audit)
}

/// A number or text as it is written.
fn is_literal(value: &Expr) -> bool {
    matches!(value, Expr::Lit(_))
}
