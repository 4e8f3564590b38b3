-- Booleans are INTEGER here: sqlx's `Any` driver, which lets one code path serve both databases, knows
-- no BOOLEAN of SQLite's. AUTOINCREMENT so that the id of a deleted row is never given out again.
CREATE TABLE users (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    email      TEXT    NOT NULL,
    age        INTEGER NOT NULL,
    active     INTEGER NOT NULL,
    created_at INTEGER NOT NULL -- microseconds since 1970, UTC
);

CREATE UNIQUE INDEX users_email_key ON users (lower(email));
