//! Parameters that may be part of a transaction.

use super::*;

/// The mistakes of a function with this parameter, which its key does not mention.
fn beside_the_key(generics: &str, parameter: &str, condition: &str) -> Vec<(String, String)> {
    let item = format!(
        "async fn get{generics}(id: i64, {parameter}) -> Option<User> {condition} {{ load(id) }}"
    );
    cached_mistakes(&format!("{USERS}, key(id)"), &item)
}

#[test]
fn transactions_connections_and_executors_are_known_by_type_and_bound() {
    for (generics, parameter, condition, underlined) in [
        ("", "tx: &mut Transaction<'_, Postgres>", "", "Transaction"),
        ("", "tx: sqlx::PgTransaction<'static>", "", "PgTransaction"),
        ("", "tx: &DatabaseTransaction", "", "DatabaseTransaction"),
        ("", "tx: &mut Tx<'_>", "", "Tx"),
        ("", "tx: Tx<'_>", "", "Tx"),
        ("", "tx: Arc<Mutex<Option<Tx>>>", "", "Tx"),
        (
            "",
            "tx: Option<&mut Transaction<'_, Db>>",
            "",
            "Transaction",
        ),
        ("", "c: &mut PgConnection", "", "PgConnection"),
        ("", "c: &mut PoolConnection<Postgres>", "", "PoolConnection"),
        ("", "s: &mut ClientSession", "", "ClientSession"),
        ("", "c: &mut Object<AsyncPgConnection>", "", "Object"),
        ("", "mut c: PoolConnection<Postgres>", "", "PoolConnection"),
        ("", "c: &mut PooledConnection<M>", "", "PooledConnection"),
        (
            "",
            "c: &mut <Postgres as Database>::Connection",
            "",
            "Connection",
        ),
        ("", "c: &mut rusqlite::Connection", "", "Connection"),
        ("", "c: &mut DbConn", "", "DbConn"),
        ("", "c: &Connection", "", "Connection"),
        ("", "c: &rusqlite::Connection", "", "Connection"),
        ("", "c: libsql::Connection", "", "Connection"),
        ("", "s: &Savepoint<'_>", "", "Savepoint"),
        ("", "tx: &Link<'_>", "", "tx"),
        ("", "db_txn: Link", "", "db_txn"),
        (
            "",
            "c: &tokio::sync::Mutex<PgConnection>",
            "",
            "PgConnection",
        ),
        (
            "",
            "(a, b): (&PgPool, &mut PgConnection)",
            "",
            "PgConnection",
        ),
        ("", "e: impl PgExecutor<'_>", "", "PgExecutor"),
        (
            "",
            "e: impl sqlx::Executor<'_, Database = Postgres>",
            "",
            "Executor",
        ),
        (
            "",
            "e: impl Acquire<'_, Database = Postgres> + Send",
            "",
            "Acquire",
        ),
        ("", "e: &impl ConnectionTrait", "", "ConnectionTrait"),
        ("", "e: &dyn ConnectionTrait", "", "ConnectionTrait"),
        (
            "",
            "e: &(impl ConnectionTrait + TransactionTrait)",
            "",
            "ConnectionTrait",
        ),
        ("", "e: &DatabaseExecutor<'_>", "", "DatabaseExecutor"),
        ("", "e: &impl GenericClient", "", "GenericClient"),
        ("", "e: &mut impl AsyncConnection", "", "AsyncConnection"),
        (
            "",
            "e: impl DerefMut<Target = PgConnection>",
            "",
            "PgConnection",
        ),
        ("", "e: impl AsMut<PgConnection>", "", "PgConnection"),
        ("", "c: impl Deref<Target = Connection>", "", "Connection"),
        ("", "c: &impl AsRef<rusqlite::Connection>", "", "Connection"),
        ("", "db: Tx<Postgres>", "", "Tx"),
        ("", "e: &impl StreamTrait", "", "StreamTrait"),
        (
            "",
            "e: &mut impl AsyncConnectionCore",
            "",
            "AsyncConnectionCore",
        ),
        ("", "e: &mut impl Queryable", "", "Queryable"),
        ("", "e: &mut impl ConnectionLike", "", "ConnectionLike"),
        ("", "e: &RBatisTxExecutor", "", "RBatisTxExecutor"),
        ("", "e: &TransactionalTree", "", "TransactionalTree"),
        (
            "",
            "c: MaybePoolConnection<'_, Db>",
            "",
            "MaybePoolConnection",
        ),
        ("", "p: &mut redis::Pipeline", "", "Pipeline"),
        ("", "p: &mut Pipeline", "", "Pipeline"),
        ("", "all: Vec<&mut PgConnection>", "", "PgConnection"),
        ("", "all: &mut [PgConnection]", "", "PgConnection"),
        ("", "all: [&mut PgConnection; 2]", "", "PgConnection"),
        ("", "tx: State<Transaction<'_, Db>>", "", "Transaction"),
        ("<'e, E: Executor<'e>>", "e: E", "", "E"),
        ("<C: ConnectionTrait>", "e: &C", "", "C"),
        (
            "<'e, E>",
            "e: Option<E>",
            "where E: 'e + PgExecutor<'e>",
            "E",
        ),
        (
            "<C>",
            "e: &mut C",
            "where for<'e> &'e mut C: Executor<'e>",
            "C",
        ),
    ] {
        let found = beside_the_key(generics, parameter, condition);
        let [(place, message)] = &found[..] else {
            panic!("{parameter}: {found:?}");
        };
        assert_eq!(place, underlined, "{parameter}");
        assert!(message.contains("may never be committed"), "{message}");
        assert!(!message.contains("skip"), "{message}");

        let name = parameter.trim_start_matches("mut ").split(':').next();
        let name = name.filter(|name| !name.starts_with('('));
        let Some(name) = name else { continue };
        assert!(
            message.contains(&format!("`autocommit({name})`")),
            "{message}"
        );
        let item = format!(
            "async fn get{generics}(id: i64, {parameter}) -> Option<User> {condition} {{ load(id) }}"
        );
        let options = format!("{USERS}, autocommit({name})");
        assert_mistakes(&cached_mistakes(&options, &item), &[]);
        let options = format!("\"users\", id = id, autocommit({name})");
        assert_mistakes(&invalidates_mistakes(&options, &item), &[]);
        let found = invalidates_mistakes("\"users\", id = id", &item);
        assert!(
            found[0].1.contains("`after_commit`"),
            "{parameter}: {found:?}"
        );
    }
}

#[test]
fn pools_and_data_are_no_transactions() {
    for (generics, parameter) in [
        ("", "pool: &PgPool"),
        ("", "pool: &Pool<ConnectionManager<PgConnection>>"),
        ("", "pool: &DatabaseConnection"),
        ("", "pool: Arc<Pool<Postgres>>"),
        ("", "client: &tokio_postgres::Client"),
        ("", "tx: &Tx"),
        ("", "paid: Tx<Euro>"),
        ("", "p: &wgpu::RenderPipeline"),
        ("", "tx: mpsc::Sender<Transaction>"),
        ("", "paid: Vec<Transaction>"),
        ("", "paid: &mut Vec<BankTransaction>"),
        ("", "paid: Page<Transaction>"),
        ("", "connection: &ConnectionInfo"),
        ("", "broker: &lapin::Connection"),
        ("", "tx: &UnboundedSender<Event>"),
        ("", "tx: u64"),
        ("<T: Serialize>", "value: T"),
        ("", "by: impl AsRef<str>"),
    ] {
        assert_mistakes(&beside_the_key(generics, parameter, ""), &[]);
    }
}

#[test]
fn data_in_the_key_is_no_transaction_because_of_its_name() {
    let item = "async fn report(of: BankTransaction, to: &Transaction) -> User { x }";
    signature(item, &[]);
    cached(
        "key(of)",
        item,
        &[(
            "Transaction",
            "what is read through a transaction may never be committed, and would be served to everybody; \
         read from the pool or, if no caller is in a transaction, add `autocommit(to)`",
        )],
    );
    let item = "async fn report(of: &mut Tx, to: DatabaseTransaction) -> User { x }";
    assert_eq!(cached_mistakes(USERS, item).len(), 2);
}

#[test]
fn mutable_borrows_are_in_the_key_or_commit() {
    let hit = "a hit would leave what is borrowed mutably as it is, and if this is a connection, what it reads may never be \
               committed; take `&`, or add `autocommit(db)`";
    let item = "async fn get(db: &mut Source, id: i64) -> User { load(db, id) }";
    cached("skip(db)", item, &[("mut", hit)]);
    cached("key(id)", item, &[("mut", hit)]);
    cached("autocommit(db)", item, &[]);
    cached("id = (db.id(), id)", item, &[]);
    cached(
        "skip(log)",
        "async fn get(log: &mut Vec<String>, id: i64) -> User { load(log, id) }",
        &[],
    );
    cached(
        "skip(db)",
        "async fn get(db: Option<&mut Source>, id: i64) -> User { load(db, id) }",
        &[("mut", hit)],
    );
}

#[test]
fn autocommit_names_parameters_once() {
    let item = "async fn get(db: impl Executor<'_>, id: i64) -> User { load(db, id) }";
    cached(
        "autocommit(db), skip(db)",
        item,
        &[(
            "db",
            "`autocommit(db)` leaves `db` out of the key already; remove it from `skip`",
        )],
    );
    cached(
        "autocommit(db, db)",
        item,
        &[("db", "`db` is given twice; remove one")],
    );
    let found = cached_mistakes(&format!("{USERS}, autocommit(bd)"), item);
    assert!(found.iter().any(|(_, message)| message
        == "`autocommit(bd)` matches no parameter; did you mean `db`? this function has `db`, `id`"));
    assert_mistakes(
        &invalidates_mistakes("\"users\", id = id, autocommit(db), after_commit", item),
        &[(
            "autocommit",
            "`autocommit` can't be combined with `after_commit`, which is for functions inside a transaction; remove one of them",
        )],
    );
}
