//! What limits a goal, for the page of a run that misses it. Looked into by profiles, and written
//! by people.

const ALONE: &str = "what a read costs the client besides the network: without the cache around it, the connection that only reads has 1.05 to \
     1.2 times the throughput of hand-written code. The key's hash, the call with its limits and statistics, the queue and the comparison \
     of stamps take about 1 µs when they are in the processor's caches, and 5 µs with one caller, when they are not. Two designs were \
     measured: reads over the client's connection, an answer boxed once (24,600 instructions, hand-written 13,400), and reads over a socket \
     of the cache's own, which is kept";

const FEW_TASKS: &str = "as with fewer tasks: what a call costs around its read. Two designs were measured: batches sent by two tasks over the \
     client's connection (0.54 times with 8 tasks), and one task that gathers reads and drives a socket (1.0 times in the same small program), \
     which is kept";

const ROUND_TRIP: &str = "a round trip, which takes 0.5 to 1 ms with the process that delays the packets, and which either waits for once. What a read \
     costs the client besides is 10 to 30 µs more than with hand-written code. No hit that asks the server can take less than a round trip, \
     so nothing above 1 can be had with few callers. Two designs that ask it less often are there: entries in the process, and one read \
     for all who want the same row at the same moment, which is rare with 8 callers for 100 rows";

/// How a goal's name begins, and why it may be missed; without a full stop.
const LIMITS: &[(&str, &str)] = &[
    ("Redis hit, one row, 1 task:", ALONE),
    ("Redis hit, one row, 2 tasks", ALONE),
    ("Redis hit, one row, 4 tasks", ALONE),
    (
        "Redis hit, 100 rows in JSON",
        "as for one row: decoding is the same, and what a read alone costs more is a tenth of the time",
    ),
    ("Redis hit, one row, 8 tasks", FEW_TASKS),
    ("Redis hit, one row, 16 tasks", FEW_TASKS),
    ("Redis hit on a `current_thread` runtime, 1 tasks", ALONE),
    (
        "Redis hit on a `current_thread` runtime, 64 tasks",
        "one thread that runs the callers, gathers their reads and drives the socket: a read costs it 2.0 µs of processor time, of \
         which the socket, the batch and the decoding of JSON are 0.9; with hand-written code 1.9. Two designs were measured: each such \
         runtime has a connection of the client and batches of its own (2.3 µs), and a socket of the cache's own, which is kept",
    ),
    (
        "Redis hit, one row, 64 tasks",
        "one task that reads the socket, decodes all entries of a batch and wakes their callers, while the other processor waits for it. \
         Two designs were measured: two tasks that send batches over the client's connection, as fast with many callers and half as fast \
         with 8, and more batches in flight, no change. To decode an entry where its caller runs is next",
    ),
    (
        "Redis hit, one row, 512 tasks",
        "as with 64 tasks, and two threads that write to the same memory: what is written in turn is the batch, its lock, and the counts of \
         what calls share. Two designs were measured: a place to gather for each thread gains 3 % here, and loses as much with 64 tasks; \
         two tasks that send batches over the client's connection are as fast",
    ),
    (
        "Local hit, `Arc` value",
        "about 490 instructions, of which 100 are the future of an `async` function, 90 the plan of the call, 50 the clock, and 30 \
         the statistics. Four cache lines of each entry are read: its slot, what the thread keeps, its flag and its value's count",
    ),
    (
        "The same: p50 against `cached`, sharded",
        "as for the time itself; `cached` has a lock, a hash and a count, and no coherence, statistics and scopes",
    ),
    (
        "Local hits on 2 threads",
        "the two processors share what they read in turn; each hit writes to its value's count alone",
    ),
    (
        "Local entry",
        "16 bytes of reference counts, 120 of the entry, 45 of the key's text (32 of them the hash of the arguments) and 50 of its \
         share of the table. Two designs were measured, and are kept: a list of generations that entries share, and a part for leases and kept entries \
         that lies apart, which together took 104 bytes away. A key in binary form would take 16 bytes less, and a stamp that is \
         computed anew 16 more",
    ),
    (
        "Idle instance",
        "code: of what is resident more than with hand-written code, nine tenths are pages of the executable, which all processes \
         share, and 1 MB belongs to the process alone. The kernel maps 64 kB around each function that runs once",
    ),
    (
        "Cluster, a hit, 1 task",
        "a second node: hand-written code asks the node of the row, and this project also that of the resource's generations. Both are \
         asked at the same time, but to write to a second socket and to be woken a second time takes as long as half of the rest. Two designs \
         were measured: the second command sent after a pause, so that no other thread is woken (49 µs in place of 61 on one thread; \
         dropped, since the pause itself polls the network), and a namespace with a hash tag, whose hits ask one node (25 µs; one may \
         choose it)",
    ),
    (
        "Cluster, a hit, 64 tasks",
        "each entry of a batch is a command of its own, since the keys of one command have to be in one slot: 4.4 µs of this \
         process's time for each hit, where a namespace with a hash tag, whose batches are one command, takes 3.4",
    ),
    (
        "Cache off",
        "what is asked all the same: whether there is a cache by now, whether somebody observes, and whether only the key is \
         wanted; and a future of 120 bytes in place of none",
    ),
    (
        "Another client's longest wait",
        "single waits of an idle server differ by more than the goal on this machine; the longest command of the sweep, by \
         the server's clock, is the figure to look at",
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 130 B, 1 tasks",
        ROUND_TRIP,
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 130 B, 8 tasks",
        ROUND_TRIP,
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 12 kB, 1 tasks",
        ROUND_TRIP,
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 12 kB, 8 tasks",
        ROUND_TRIP,
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 130 B",
        "two processors for the client, the server and the process that delays the packets, which copies each of them. With hand-written code \
         that process has a packet for each read, so its share falls with batches: that is what 512 callers gain",
    ),
    (
        "Over a link of 0.3 ms and 1 Gbit/s: throughput against hand-written, 12 kB",
        "the link: 8,000 pages a second are 94 MB, and more than 110 do not pass. A page that several reads of a batch ask for is sent once, \
         which gives 2.4 times with 512 callers for 100 pages, and nothing with 64. Fewer bytes would do: `codec = \"json+zstd\"` sends a sixth \
         of the demo's lists, and has 1.5 times the hits there with 64 callers",
    ),
    (
        "Demo over PostgreSQL, list of 100: throughput with both tiers against the cache off",
        "the service around the cache: a handler that answers with a fixed body of that size has 13.7 times the throughput of the cache off, \
         and the list's hit eight tenths of that. What is left is HTTP, the copy of the body, and the load generator on the same two \
         processors. Two designs are in use: the bytes of the entry are the body, without decoding, and the process holds them",
    ),
    (
        "Compile time of an annotated function, `cargo check`",
        "type checking: the body is an async block in a closure, whose type is passed through the call, and each parameter is looked up as \
         an argument of a key. Half of it was the search for the form of the return type, along one chain of up to 48 types; there are two \
         now, of at most five and four",
    ),
    (
        "Compile time of an annotated function, `cargo build`",
        "each function has its own call around its own body, as futures that nothing can share: 1,300 lines of the compiler's \
         intermediate code beside the 400 of the body. Each type of values adds what serde makes of it: encoding, decoding, and the probe of its shape. A struct of six fields \
         that is returned in two forms takes 140 ms of processor time, 240 before what packs, verifies and compares a value was compiled \
         once, and 44 with hand-written JSON. A third of the time is spent on debugging information. Two designs were measured: a call's \
         future as a state machine written by hand, which is kept, and bodies as `dyn Future` in it, which was dropped, since whether a boxed \
         body is `Send` has to be said beforehand. A plan that is called through a pointer changed nothing",
    ),
    (
        "Redis hit, 100 rows in MessagePack",
        "of its time, three quarters are the round trip of one small row and the way of 11.7 kB; decoding takes 15 µs, of which \
         the 300 strings are 5.5. Positions in place of the fields' names would spare 5 µs and 4.4 kB, and take a changed \
         struct's old entries for its new ones; `cached`, which does that, misses the goal as well. The second design is `codec = \"postcard\"`, which does it by \
         choice; its figure is in the table",
    ),
    (
        "Whole resource",
        "a round trip, the row `PING` of the table, and the script: a server that has just been woken takes 40 µs longer for it (5 µs \
         when it is busy)",
    ),
    (
        "One row: invalidation",
        "as for a whole resource: the script is the server's way to do several steps as one, and a `PING` does none. Two designs were \
         measured: the caller's task sends it, which spares two wake-ups and is kept, and the runtime of the connection sends it, which \
         spares 0.05 ms and loses invalidations where that runtime is blocked",
    ),
    (
        "The list's hit",
        "the demo's own way to its handler: in a profile of such hits the cache has 1.3 %, and the kernel 56 %. The rest is four \
         middlewares, the router of poem-openapi and two parameters, none of which the fixed body has; whole runs gave 0.78× \
         to 0.90×",
    ),
    (
        "The same: p99 of the waiters",
        "the processors: with both to themselves, all four processes together take 15 ms until 10,000 callers have arrived, and \
         10 ms until all are woken and answered. The server, and the tasks that read its answers, get their turn among those who \
         arrive, so the load begins 12 ms after the first call, and what it asks the database is answered 3 to 5 ms late, which \
         counts as well. Of the arrival a third is memory fetched from the system, of which half are the callers' own tasks; \
         what is left is spread over many functions",
    ),
];

/// What is known of the goal of this name.
pub fn of(what: &str) -> Option<&'static str> {
    let known = LIMITS.iter().find(|(name, _)| what.starts_with(name));
    known.map(|(_, why)| *why)
}
