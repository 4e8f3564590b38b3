//! The admin page in a real browser: seen, used by keyboard, and acted on.

use std::time::Duration;

use cache_runtime::admin::{Admin, Rights};
use cache_runtime::{Cache, CacheConfig, Key as CacheKey, RedisConfig, cached};
use cache_tests::{RedisServer, eventually};
use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::SOON;
use crate::browser::{Browser, NARROW, WIDE, demo, traffic};

/// What the page stands on in each theme.
const LIGHT: &str = "rgb(251, 251, 250)";
const DARK: &str = "rgb(22, 24, 28)";

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_seen_and_acted_on() {
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    traffic(&demo).await;
    let browser = Browser::start(WIDE).await;
    let client = &browser.client;
    client.goto(&demo.url("/cache/ui")).await.expect("the page");
    browser.eventually_says("#circuit", "circuit closed").await;
    browser.eventually_says("#resources tbody", "users").await;
    browser
        .eventually_says("#functions tbody", "users \u{b7} ")
        .await;
    // Twice, for the lines to have a beginning and an end.
    traffic(&demo).await;
    eventually(SOON, async || {
        traffic(&demo).await;
        let drawn = "return [...document.querySelectorAll('svg.spark path')].some(p => p.getAttribute('d').split('L').length > 3)";
        browser.js(drawn).await == json!(true)
    })
    .await;
    browser.picture("admin-light").await;

    browser.click("nav a[href='#map']").await;
    browser
        .eventually_says("#catalog tbody", "invalidates")
        .await;
    let boxes = "return document.querySelectorAll('#map svg rect').length";
    assert!(
        browser
            .js(boxes)
            .await
            .as_u64()
            .is_some_and(|boxes| boxes > 5)
    );
    browser.picture("admin-catalog").await;

    browser.click("nav a[href='#entry']").await;
    let field = client
        .find(Locator::Css("#look input"))
        .await
        .expect("a field");
    field.send_keys("users:1").await.expect("typed");
    browser.click("#look button").await;
    browser.eventually_says("#verdict", "alive").await;
    let seen = browser.text("#seen").await;
    for words in [
        "A value, in JSON.",
        "nothing has invalidated it",
        "Fresh for",
        "\"id\": 1",
    ] {
        assert!(seen.contains(words), "{words} in {seen}");
    }
    browser.picture("admin-entry").await;

    // By keyboard alone: the link, the field, the button.
    client
        .find(Locator::Css("nav a[href='#act']"))
        .await
        .expect("a link")
        .send_keys(&Key::Enter.to_string())
        .await
        .expect("pressed");
    let row = client
        .find(Locator::Css("[data-act=invalidate] input"))
        .await
        .expect("a field");
    let names = client
        .find(Locator::Css("select.names"))
        .await
        .expect("names");
    names.select_by_value("users").await.expect("chosen");
    row.send_keys(&format!("1{}", char::from(Key::Enter)))
        .await
        .expect("pressed");
    browser
        .eventually_says("#said", "invalidated users:1")
        .await;
    let status = demo.get("/users/1").await.cache_status();
    assert!(format!("{status:?}").contains("miss"), "{status:?}");

    let target = client
        .find(Locator::Css("[name=target]"))
        .await
        .expect("a field");
    target.send_keys("users").await.expect("typed");
    browser.click("[data-act=switch] button[value=false]").await;
    browser.eventually_says("#off", "switched off: users").await;
    let status = demo.get("/users/1").await.cache_status();
    assert!(format!("{status:?}").contains("switched-off"), "{status:?}");
    browser.click("[data-act=switch] button[value=true]").await;
    eventually(SOON, async || {
        browser.text("#switches").await.contains("nothing")
    })
    .await;
    browser.picture("admin-act").await;

    browser.click("nav a[href='#events']").await;
    browser
        .eventually_says("#list", "invalidated users:1")
        .await;
    browser
        .eventually_says("#list", "reads of users switched off")
        .await;
    browser.click("nav a[href='#health']").await;
    browser.click("#doctor button").await;
    browser.eventually_says("#advice", "looked at").await;
    browser.click("nav a[href='#audit']").await;
    browser.eventually_says("#audits tbody", "users").await;

    browser.click("#theme").await;
    browser.click("#theme").await;
    browser.eventually_says("#theme", "dark").await;
    let dark = "return getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.js(dark).await, json!("rgb(22, 24, 28)"));
    browser.click("nav a[href='#numbers']").await;
    browser.picture("admin-dark").await;
    client.clone().close().await.expect("closed");
}

/// Whoever may only look writes nothing by that.
#[tokio::test]
async fn looking_at_entries_writes_nothing() {
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    assert_eq!(demo.get("/users/1").await.status, 200);
    // As after a flush of part of the keys: the entries are there, and what they depend on is not.
    for generation in ["@gen:users", "@gen:users~derived", "@gen:users~op:list"] {
        server.cli(&["UNLINK", generation]);
    }
    assert_eq!(demo.get("/users?limit=5").await.status, 200);
    let list = server.cli(&["--scan", "--pattern", "users:list:*"]);
    server.cli(&["UNLINK", "@gen:users", "@gen:users~derived"]);
    let before = server.cli(&["--scan"]);
    for (key, alive) in [
        ("users:1", false),
        (list.as_str(), false),
        ("users:77", false),
        ("users:list:abc", false),
        ("nothing:1", false),
        ("zz1:1", false),
        ("@gen:users", false),
    ] {
        let path = format!("/cache/ui/api/entry?key={key}");
        let answer = demo.get(&path).await;
        assert_eq!(answer.status, 200, "{key}");
        assert_eq!(answer.json()["alive"], alive, "{key}: {answer:?}");
    }
    let sorted = |keys: &str| {
        // Heartbeats come and go.
        let keys = keys.lines().filter(|key| !key.starts_with("@beat:"));
        let mut keys: Vec<_> = keys.map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(sorted(&server.cli(&["--scan"])), sorted(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fits_a_telephone_and_is_read_only_without_the_token() {
    let server = RedisServer::start();
    let demo = demo(&server, &[("CACHE_ADMIN_TOKEN", "s3cret")]);
    traffic(&demo).await;
    let browser = Browser::start(NARROW).await;
    let client = &browser.client;
    client.goto(&demo.url("/cache/ui")).await.expect("the page");
    browser.eventually_says("#rights", "read-only").await;
    for view in [
        "numbers", "map", "entry", "events", "health", "audit", "act",
    ] {
        browser.click(&format!("nav a[href='#{view}']")).await;
        if view == "map" {
            browser
                .eventually_says("#catalog tbody", "invalidates")
                .await;
        }
        assert!(!browser.is_wider_than_the_screen().await, "{view}");
        if view == "numbers" {
            browser.picture("admin-narrow-light").await;
        }
    }
    let buttons =
        "return [...document.querySelectorAll('[data-act] button')].every(b => b.disabled)";
    assert_eq!(browser.js(buttons).await, json!(true));
    let field = client
        .find(Locator::Css("#token input"))
        .await
        .expect("a field");
    field.send_keys("s3cret").await.expect("typed");
    browser.click("#token button").await;
    browser.eventually_says("#rights", "may change").await;
    browser.click("#theme").await;
    browser.click("#theme").await;
    browser.click("nav a[href='#numbers']").await;
    browser.picture("admin-narrow-dark").await;
    client.clone().close().await.expect("closed");
}

/// The page in an axum service, whose login is a header.
async fn axum_service(cache: &Cache) -> (String, tokio::task::JoinHandle<()>) {
    let page = Admin::new(cache).into_axum(|request| match request.headers.get("x-user") {
        Some(user) if user == "operator" => Rights::Change,
        _ => Rights::Read,
    });
    let routes = axum::Router::new().nest_service("/cache/ui", page);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let url = format!("http://{}/cache/ui", listener.local_addr().expect("bound"));
    let served = tokio::spawn(async move {
        axum::serve(listener, routes).await.expect("it serves");
    });
    (url, served)
}

/// A price that depends on a tag, which its caller names and its key does not show.
struct Tagged {
    cache: Cache,
}

impl Tagged {
    #[cached(resource = "tagged", tags("team:{team}"), ttl = 300, cache = self.cache, skip(team))]
    async fn price(&self, id: u32, team: u32) -> u32 {
        id * team
    }
}

/// Whether such an entry is alive, nobody can tell from its key: the page says so, and neither that
/// it is alive nor that it is dead.
#[tokio::test(flavor = "multi_thread")]
async fn undecidable_entries_are_shown_as_unknown() {
    let server = RedisServer::start();
    let config = CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5));
    let cache = Cache::new(config).await;
    let tagged = Tagged {
        cache: cache.clone(),
    };
    assert_eq!(tagged.price(7, 3).await, 21);
    let (url, served) = axum_service(&cache).await;
    let browser = Browser::start(WIDE).await;
    let page = format!("{url}#entry");
    browser.client.goto(&page).await.expect("the page");
    browser.eventually_says("#circuit", "circuit closed").await;
    browser.fill("#look input", "tagged:7").await;
    browser.click("#look button").await;
    browser
        .eventually_says("#verdict", "can\u{2019}t be told")
        .await;
    let seen = browser.text("#seen").await;
    for words in [
        "whether the entry is alive can't be told here",
        "Fresh for",
        "21",
    ] {
        assert!(seen.contains(words), "{words} in {seen}");
    }
    let colour = "return document.querySelector('#verdict').className";
    assert_eq!(browser.js(colour).await, json!("warn"));
    // Once it is gone, that can be told.
    server.cli(&["UNLINK", "tagged:7"]);
    browser.click("#look button").await;
    browser.eventually_says("#verdict", "nothing").await;
    browser.client.clone().close().await.expect("closed");
    served.abort();
}

/// The page follows the system until its user chooses a theme, and keeps what was chosen.
#[tokio::test(flavor = "multi_thread")]
async fn each_theme_is_chosen_whatever_the_system_says() {
    const GROUND: &str = "return getComputedStyle(document.body).backgroundColor";
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    traffic(&demo).await;
    let mut systems = Vec::new();
    for system in ["preferredColorScheme=0", "preferredColorScheme=1"] {
        let system = format!("--blink-settings={system}");
        let browser = Browser::start_with(WIDE, &[&system]).await;
        let open = async || {
            let url = demo.url("/cache/ui");
            browser.client.goto(&url).await.expect("the page");
            browser.eventually_says("#resources tbody", "users").await;
            browser.js(GROUND).await
        };
        systems.push(open().await);
        let mut chosen = Vec::new();
        for theme in ["light", "dark"] {
            browser.click("#theme").await;
            browser.eventually_says("#theme", theme).await;
            chosen.push(browser.js(GROUND).await);
            assert_eq!(open().await, chosen[chosen.len() - 1], "{theme} is kept");
            browser.eventually_says("#theme", theme).await;
        }
        assert_eq!(chosen, [LIGHT, DARK], "{system}");
        browser.click("#theme").await;
        browser.eventually_says("#theme", "system").await;
        browser.client.clone().close().await.expect("closed");
    }
    assert_eq!(systems, [DARK, LIGHT]);
}

/// In axum the page is what it is in Poem: read-only unless the application says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn axum_serves_it_too_and_read_only_by_default() {
    let server = RedisServer::start();
    let config = CacheConfig::default()
        .redis(RedisConfig::at("127.0.0.1", server.port()))
        .command_budget(Duration::from_secs(5));
    let cache = Cache::new(config).await;
    let key = CacheKey::entity("users", 1).expect("a key");
    cache.set(&key, &7u32, 60).await.expect("stored");
    let (url, served) = axum_service(&cache).await;

    let http = reqwest::Client::builder().no_proxy().build().expect("HTTP");
    let get = async |path: &str| {
        let answer = http.get(format!("{url}{path}")).send().await.expect(path);
        (answer.status().as_u16(), answer.json::<Value>().await)
    };
    for path in ["", "/"] {
        let page = http.get(format!("{url}{path}")).send().await.expect("page");
        assert_eq!(page.status(), 200, "{path}");
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.headers().contains_key("content-security-policy"));
    }
    let (status, state) = get("/api/state").await;
    let state = state.expect("JSON");
    assert_eq!((status, &state["rights"]), (200, &json!("read")));
    let (_, entry) = get("/api/entry?key=users%3A1").await;
    assert_eq!(entry.expect("JSON")["alive"], true);
    assert_eq!(get("/api/nothing").await.0, 404);

    let act = async |user: &str, body: String| {
        let request = http.post(format!("{url}/api/act")).header("x-user", user);
        let request = request.header("content-type", "application/json");
        request.body(body).send().await.expect("an answer").status()
    };
    let action = json!({"action": "invalidate", "resource": "users", "id": "1"}).to_string();
    assert_eq!(act("anybody", action.clone()).await, 403);
    assert_eq!(cache.get::<u32>(&key).await, Some(7));
    assert_eq!(act("operator", " ".repeat(70_000)).await, 413);
    assert_eq!(act("operator", action).await, 200);
    assert_eq!(cache.get::<u32>(&key).await, None);

    let browser = Browser::start(WIDE).await;
    browser.client.goto(&url).await.expect("the page");
    browser.eventually_says("#circuit", "circuit closed").await;
    browser.eventually_says("#rights", "read-only").await;
    browser.client.clone().close().await.expect("closed");
    served.abort();
}
