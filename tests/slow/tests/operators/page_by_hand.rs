//! The admin page by keyboard, its actions, and what it says when something is refused.

use cache_tests::{RedisServer, eventually};
use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::SOON;
use crate::browser::{Browser, WIDE, demo, traffic};

/// What has the focus, in words, and whether that can be seen.
const FOCUS: &str = "
    const e = document.activeElement, s = getComputedStyle(e), at = e.getBoundingClientRect();
    const seen = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0 && at.width > 0 && at.left >= 0;
    const name = e === document.body ? 'nothing' : e.getAttribute('href') || e.name && e.name !== 'enabled' && e.name || e.textContent;
    return [name.startsWith('Theme') ? 'Theme' : name, seen]";

impl Browser {
    /// Presses Tab until the focus leaves the page, and returns what has had it.
    async fn tab_through(&self) -> Vec<String> {
        let mut reached = Vec::new();
        for _ in 0..40 {
            self.press(Key::Tab).await;
            let focus = self.js(FOCUS).await;
            let name = focus[0].as_str().unwrap_or_default().to_owned();
            if name == "nothing" || reached.first() == Some(&name) {
                break;
            }
            assert_eq!(focus[1], true, "the focus on {name} is not seen");
            reached.push(name);
        }
        reached
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_everything_in_order() {
    const TOP: [&str; 9] = [
        "#main", "Theme", "#numbers", "#map", "#entry", "#events", "#health", "#audit", "#act",
    ];
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    traffic(&demo).await;
    let browser = Browser::start(WIDE).await;
    let open = async || {
        browser.client.goto("about:blank").await.expect("left");
        let url = demo.url("/cache/ui");
        browser.client.goto(&url).await.expect("the page");
        browser.eventually_says("#rights", "may change").await;
    };
    open().await;
    assert_eq!(browser.tab_through().await, TOP);
    // Enter on a link goes to its part of the page, and Tab goes on there.
    for (view, fields) in [
        ("entry", &["key", "Look"][..]),
        ("health", &["Examine"]),
        (
            "act",
            &[
                "resource",
                "id",
                "Invalidate",
                "tag",
                "Invalidate the tag",
                "target",
                "everywhere",
                "Switch off",
                "Switch on",
            ],
        ),
    ] {
        open().await;
        let link = TOP.iter().position(|link| link[1..] == *view);
        for _ in 0..=link.expect("a link") {
            browser.press(Key::Tab).await;
        }
        browser.press(Key::Enter).await;
        assert_eq!(browser.tab_through().await, fields, "{view}");
    }

    // From the top of the page to an invalidation, by keys alone.
    open().await;
    for _ in TOP {
        browser.press(Key::Tab).await;
    }
    browser.press(Key::Enter).await;
    browser.press(Key::Tab).await;
    for key in "users".chars() {
        browser.press(key).await;
    }
    browser.press(Key::Tab).await;
    browser.press('1').await;
    browser.press(Key::Enter).await;
    browser
        .eventually_says("#said", "invalidated users:1")
        .await;
    browser.client.clone().close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_action_does_what_its_button_says() {
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    traffic(&demo).await;
    let browser = Browser::start(WIDE).await;
    let client = &browser.client;
    client
        .goto(&demo.url("/cache/ui#act"))
        .await
        .expect("the page");
    browser.eventually_says("#rights", "may change").await;
    let choose = "document.querySelector('select.names').value = 'users'";
    browser.js(choose).await;

    // A whole resource is asked about first.
    let is_hit = async || demo.get("/users/1").await.cache_status().hit;
    assert!(is_hit().await);
    browser.click("[data-act=invalidate] button").await;
    let asked = client.get_alert_text().await.expect("a question");
    assert!(asked.contains("everything of users"), "{asked}");
    client.dismiss_alert().await.expect("no");
    assert!(is_hit().await, "nothing was done");
    browser.click("[data-act=invalidate] button").await;
    client.accept_alert().await.expect("yes");
    browser
        .eventually_says("#said", "invalidated all of users")
        .await;
    assert!(!is_hit().await);

    browser.fill("[name=tag]", "spring").await;
    browser.click("[data-act=tag] button").await;
    browser
        .eventually_says("#said", "invalidated tag spring")
        .await;
    assert_eq!(
        server.cli(&["EXISTS", "@gen:~spring"]),
        "1",
        "{}",
        server.cli(&["--scan"])
    );

    browser.fill("[name=target]", "users").await;
    browser.click("[name=everywhere]").await;
    browser.click("[data-act=switch] button[value=false]").await;
    browser.eventually_says("#said", "in all processes").await;
    browser.eventually_says("#switches", "users").await;
    assert_eq!(server.cli(&["GET", "@off"]), "users");
    browser.click("[data-act=switch] button[value=true]").await;
    eventually(SOON, async || server.cli(&["GET", "@off"]).is_empty()).await;

    browser.fill("[name=target]", "no name").await;
    browser.click("[data-act=switch] button[value=false]").await;
    browser.eventually_says("#said", "no name").await;

    // Of an entry whose generation is lost nothing is known but that it is dead.
    assert_eq!(demo.get("/users/1").await.status, 200);
    server.cli(&["UNLINK", "@gen:users"]);
    browser.click("nav a[href='#entry']").await;
    browser.fill("#look input", "users:1").await;
    browser.click("#look button").await;
    browser.eventually_says("#verdict", "dead").await;
    client.clone().close().await.expect("closed");
}

/// What comes from outside stays text, wherever it is shown.
#[tokio::test(flavor = "multi_thread")]
async fn markup_in_keys_and_values_stays_text() {
    const MARKUP: &str = r#""><img src=x onerror="window.pwned=1">"#;
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    traffic(&demo).await;
    let renamed = json!({"name": MARKUP, "email": "markup@example.com", "age": 36});
    let answer = demo.put("/users/1", &renamed).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(demo.get("/users/1").await.status, 200);
    let browser = Browser::start(WIDE).await;
    let client = &browser.client;
    client
        .goto(&demo.url("/cache/ui#act"))
        .await
        .expect("the page");
    browser.eventually_says("#rights", "may change").await;
    let choose = "document.querySelector('select.names').value = 'users'";
    browser.js(choose).await;
    browser.fill("[name=id]", MARKUP).await;
    browser.click("[data-act=invalidate] button").await;
    browser.eventually_says("#said", "<img src=x").await;
    browser.fill("[name=tag]", MARKUP).await;
    browser.click("[data-act=tag] button").await;
    browser.eventually_says("#said", "tag \"><img src=x").await;
    browser.fill("[name=target]", MARKUP).await;
    browser.click("[name=everywhere]").await;
    browser.click("[data-act=switch] button[value=false]").await;
    browser.eventually_says("#said", "`\"><img src=x").await;
    browser.click("nav a[href='#entry']").await;
    browser.fill("#look input", "users:1").await;
    eventually(SOON, async || {
        assert_eq!(demo.get("/users/1").await.status, 200);
        browser.click("#look button").await;
        browser.text("#seen").await.contains("<img src=x")
    })
    .await;
    for view in [
        "numbers", "map", "events", "health", "audit", "act", "entry",
    ] {
        browser.click(&format!("nav a[href='#{view}']")).await;
        if view == "events" {
            browser.eventually_says("#list", "img").await;
        }
        if view == "health" {
            browser.click("#doctor button").await;
            browser.eventually_says("#advice", "looked at").await;
        }
        // The policy keeps such a handler from running, so the element itself is looked for.
        let found = "return [window.pwned ?? null, document.querySelectorAll('img').length]";
        assert_eq!(browser.js(found).await, json!([Value::Null, 0]), "{view}");
    }
    client.clone().close().await.expect("closed");
}

/// A name that resolves to loopback, as another site can make one. The page shows figures, says
/// what it does not show, and takes the token.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_reported_where_the_limit_is_set() {
    let server = RedisServer::start();
    let demo = demo(&server, &[("CACHE_ADMIN_TOKEN", "s3cret")]);
    traffic(&demo).await;
    let rule = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let browser = Browser::start_with(WIDE, &[rule]).await;
    let client = &browser.client;
    let url = format!("http://evil.example:{}/cache/ui", demo.port());
    client.goto(&url).await.expect("the page");
    browser.eventually_says("#resources tbody", "users").await;
    browser.click("nav a[href='#health']").await;
    browser.click("#doctor button").await;
    browser.eventually_says("#advice", "only figures").await;
    browser.click("nav a[href='#entry']").await;
    browser.fill("#look input", "users:1").await;
    browser.click("#look button").await;
    browser.eventually_says("#seen", "only figures").await;
    browser.click("nav a[href='#events']").await;
    browser.eventually_says("#withheld", "figures only").await;
    browser.click("nav a[href='#act']").await;
    browser
        .eventually_says("#forbidden", "CACHE_ADMIN_TOKEN")
        .await;
    browser.fill("#token input", "guess").await;
    browser.click("#token button").await;
    browser.eventually_says("#said", "no more rights").await;
    browser.fill("#token input", "s3cret").await;
    browser.click("#token button").await;
    browser.eventually_says("#rights", "may change").await;
    browser.click("nav a[href='#entry']").await;
    browser.click("#look button").await;
    browser.eventually_says("#verdict", "alive").await;
    client.clone().close().await.expect("closed");
}

/// Text can be read in both themes: a contrast of 4.5 to 1, as WCAG asks for.
#[tokio::test(flavor = "multi_thread")]
async fn both_themes_have_enough_contrast() {
    const CONTRAST: &str = "
        const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
            .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
        const section = document.querySelector('section'), found = {};
        for (const name of ['', 'soft', 'ok', 'bad', 'warn']) {
            const e = document.createElement('span'); e.className = name; section.append(e);
            const two = [getComputedStyle(e).color, getComputedStyle(section).backgroundColor].map(light).sort((a, b) => b - a);
            found[name || 'text'] = (two[0] + .05) / (two[1] + .05); e.remove();
        }
        return [getComputedStyle(document.body).backgroundColor, found]";
    let server = RedisServer::start();
    let demo = demo(&server, &[]);
    let browser = Browser::start(WIDE).await;
    let client = &browser.client;
    client.goto(&demo.url("/cache/ui")).await.expect("the page");
    browser.eventually_says("#theme", "Theme").await;
    let mut grounds = Vec::new();
    for theme in ["light", "dark"] {
        browser.click("#theme").await;
        browser.eventually_says("#theme", theme).await;
        let seen = browser.js(CONTRAST).await;
        let found = seen[1].as_object().expect("figures");
        assert_eq!(found.len(), 5);
        for (name, contrast) in found {
            let contrast = contrast.as_f64().expect("a number");
            assert!(contrast >= 4.5, "{name} in {theme}: {contrast}");
        }
        grounds.push(seen[0].clone());
    }
    assert_ne!(grounds[0], grounds[1]);
    client.clone().close().await.expect("closed");
}
