//! Waits for several futures at once.

use futures_util::future::{BoxFuture, JoinAll, join_all};

/// The results of all these futures, in their order.
///
/// They are boxed. `join_all` keeps few futures in one way and many in another, so the compiler
/// would make two copies of the body of each, and of what drops it. Without the boxes, 300 kB of a
/// release build's 5.9 MB were such copies.
pub(crate) fn all<'f, F>(futures: impl IntoIterator<Item = F>) -> JoinAll<BoxFuture<'f, F::Output>>
where
    F: Future + Send + 'f,
{
    join_all(
        futures
            .into_iter()
            .map(|it| Box::pin(it) as BoxFuture<'f, _>),
    )
}
