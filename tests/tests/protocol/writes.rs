//! Writes: acknowledged, refused, lost, dropped, panicking.

use std::time::Duration;

use cache_runtime::Cache;
use cache_tests::{RedisServer, eventually};

use crate::shop::{DbError, Fault, Gate, Shop};
use crate::{Pair, over, over_each_store, patient};

const TEST_TIMEOUT: Duration = Duration::from_secs(20);

over_each_store! {
    a_write_is_seen_by_the_next_read;
    a_row_keeps_its_neighbours;
    a_refused_write_empties_nothing;
    an_error_that_hides_a_commit_is_invalidated;
    a_caller_that_hangs_up_after_the_commit_leaves_nothing_stale;
    a_panic_after_the_commit_leaves_nothing_stale;
    a_created_row_is_named_by_the_result;
    a_caller_that_hangs_up_before_the_body_changes_nothing;
    tags_are_invalidated_beside_a_row_named_by_the_result;
    a_mistake_in_the_attribute_leaves_nothing_stale;
}

async fn a_write_is_seen_by_the_next_read(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    for round in 0..50 {
        let name = format!("round {round}");
        let (writer, reader) = if round % 2 == 0 {
            (&shop, &other)
        } else {
            (&other, &shop)
        };
        reader.name(1).await;
        reader.list(0, 1).await.expect("read");
        if round % 3 == 0 {
            writer.rename_in_bulk(1, &name).await.expect("written");
        } else {
            writer.rename(1, &name).await.expect("written");
        }
        assert_eq!(reader.name(1).await, name);
        assert_eq!(reader.list(0, 1).await.expect("read")[0].name, name);
    }
}

async fn a_row_keeps_its_neighbours(pair: Pair) {
    let shop = Shop::new(&pair.a);
    for id in 1..=3 {
        shop.name(id).await;
    }
    shop.rename(1, "new").await.expect("written");
    shop.name(2).await;
    assert_eq!(shop.loads(), 3, "row 2 is still there");
    shop.rename_in_bulk(1, "newer").await.expect("written");
    shop.name(2).await;
    assert_eq!(shop.loads(), 4, "the whole resource is not");
}

async fn a_refused_write_empties_nothing(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    let refused = shop.with_fault(Fault::Refused).rename(1, "new").await;
    assert_eq!(refused, Err(DbError::Refused));
    shop.name(1).await;
    assert_eq!(shop.loads(), 1);
}

async fn an_error_that_hides_a_commit_is_invalidated(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    other.name(1).await;
    let lost = shop
        .with_fault(Fault::LostAfterCommit)
        .rename(1, "new")
        .await;
    assert_eq!(lost, Err(DbError::ConnectionLost));
    assert_eq!(other.name(1).await, "new");
}

/// The connection breaks before the answer, and the database commits after a reader has looked.
async fn a_commit_after_an_error(cache: Cache) {
    let shop = Shop::new(&cache);
    shop.name(1).await;
    let lost = shop
        .with_fault(Fault::LostBeforeCommit)
        .rename(1, "new")
        .await;
    assert_eq!(lost, Err(DbError::ConnectionLost));
    a_late_commit_is_seen(&shop, "user 1", "late").await;
    // The same inside of an `Ok`.
    let lost = shop
        .with_fault(Fault::LostBeforeCommit)
        .rename_in_time(1, "newer")
        .await;
    assert_eq!(lost, Ok(Err(DbError::ConnectionLost)));
    a_late_commit_is_seen(&shop, "late", "later").await;
}

async fn a_late_commit_is_seen(shop: &Shop, before: &str, after: &str) {
    let name = shop.name(1).await;
    assert_eq!(name, before, "invalidated, loaded again, stored");
    shop.commit(1, after);
    eventually(TEST_TIMEOUT, async || shop.name(1).await == after).await;
}

const UNCERTAINTY: Duration = Duration::from_millis(500);

#[tokio::test]
async fn an_error_whose_commit_comes_later_is_invalidated_again_in_memory() {
    a_commit_after_an_error(Cache::new(patient().local_mb(4).in_doubt_window(UNCERTAINTY)).await)
        .await;
}

#[tokio::test]
async fn an_error_whose_commit_comes_later_is_invalidated_again_in_redis() {
    let server = RedisServer::start();
    a_commit_after_an_error(Cache::new(over(&server).in_doubt_window(UNCERTAINTY)).await).await;
}

async fn a_caller_that_hangs_up_after_the_commit_leaves_nothing_stale(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    other.name(1).await;
    let gate = Gate::new();
    let held = shop.with_write_gate(&gate);
    let write = cache_tests::spawn(async move { held.rename(1, "new").await });
    gate.arrival().await;
    assert_eq!(
        other.name(1).await,
        "user 1",
        "nothing is promised before the write ends"
    );
    write.abort();
    assert!(write.await.expect_err("aborted").is_cancelled());
    eventually(TEST_TIMEOUT, async || other.name(1).await == "new").await;
}

async fn a_panic_after_the_commit_leaves_nothing_stale(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    other.name(1).await;
    let broken = shop.with_fault(Fault::Panic);
    let write = cache_tests::spawn(async move { broken.rename(1, "new").await });
    assert!(write.await.expect_err("it panics").is_panic());
    eventually(TEST_TIMEOUT, async || other.name(1).await == "new").await;
}

async fn a_created_row_is_named_by_the_result(pair: Pair) {
    let shop = Shop::new(&pair.a);
    assert_eq!(shop.get(4).await, Ok(None));
    shop.name(1).await;
    assert_eq!(shop.create("four").await.expect("created").id, 4);
    assert_eq!(shop.name(4).await, "four");
    shop.name(1).await;
    assert_eq!(shop.loads(), 3, "row 1 is still there");
    // Without a result nobody knows which row it was.
    let lost = shop.with_fault(Fault::LostAfterCommit).create("five").await;
    assert_eq!(lost, Err(DbError::ConnectionLost));
    shop.name(1).await;
    assert_eq!(shop.loads(), 4, "the whole resource is not");
}

async fn a_caller_that_hangs_up_before_the_body_changes_nothing(pair: Pair) {
    let shop = Shop::new(&pair.a);
    shop.name(1).await;
    drop(shop.rename(1, "new"));
    shop.name(1).await;
    assert_eq!(shop.loads(), 1);
}

async fn tags_are_invalidated_beside_a_row_named_by_the_result(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    assert_eq!(other.page(0).await.expect("read")[0].name, "user 1");
    shop.rename_on_page(0, "new").await.expect("written");
    assert_eq!(other.page(0).await.expect("read")[0].name, "new");
}

async fn a_mistake_in_the_attribute_leaves_nothing_stale(pair: Pair) {
    let shop = Shop::new(&pair.a);
    let other = shop.node(&pair.b);
    assert_eq!(other.name(1).await, "user 1");
    let writer = shop.clone();
    let write = cache_tests::spawn(async move { writer.rename_all("new").await });
    assert!(write.await.expect_err("it panics").is_panic());
    eventually(TEST_TIMEOUT, async || other.name(1).await == "new").await;

    let writer = shop.with_fault(Fault::LostAfterCommit);
    let write = cache_tests::spawn(async move { writer.rename_misjudged(1, "newer").await });
    assert!(write.await.expect_err("it panics").is_panic());
    eventually(TEST_TIMEOUT, async || other.name(1).await == "newer").await;
}
