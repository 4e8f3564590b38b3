use super::recent::REMEMBERED;
use super::*;
use crate::config::CacheConfig;

async fn answer(admin: &Admin, method: &str, path: &str, body: &str, rights: Rights) -> Response {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let request = Request {
        method,
        path,
        query,
        content_type: "application/json",
        body: body.as_bytes(),
    };
    admin.answer(request, rights).await
}

fn json(response: &Response) -> Value {
    serde_json::from_str(&response.body).expect("JSON")
}

#[tokio::test]
async fn only_those_who_may_change_it_do() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    let off = r#"{"action":"switch","target":"users","enabled":false}"#;
    for rights in [Rights::Read, Rights::ReadUntilToken] {
        let refused = answer(&admin, "POST", "/api/act", off, rights).await;
        assert_eq!(refused.status, 403);
    }
    let form = Request {
        method: "POST",
        path: "/api/act",
        query: "",
        content_type: "text/plain",
        body: off.as_bytes(),
    };
    assert_eq!(admin.answer(form, Rights::Change).await.status, 415);
    assert!(cache.switched_off().here.is_empty());
    let done = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
    assert_eq!((done.status, cache.switched_off().here.len()), (200, 1));
    let again = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
    assert_eq!(again.status, 400);
    let nonsense = answer(&admin, "POST", "/api/act", "{}", Rights::Change).await;
    assert_eq!(nonsense.status, 400);
    for (method, path, status) in [
        ("GET", "/", 200),
        ("GET", "", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/api/state", 200),
        ("HEAD", "/api/entry", 400),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/entry", 400),
    ] {
        let answer = answer(&admin, method, path, "", Rights::Read).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("OPTIONS", "/api/state", "GET, HEAD"),
        ("GET", "/api/act", "POST"),
        ("HEAD", "/api/act", "POST"),
    ] {
        let refused = answer(&admin, method, path, "", Rights::Change).await;
        assert_eq!(refused.status, 405, "{method} {path}");
        let allow = refused.headers.iter().find(|(name, _)| *name == "allow");
        assert_eq!(allow.map(|(_, value)| value.as_str()), Some(allowed));
    }
}

#[tokio::test]
async fn rights_to_figures_show_no_key_and_no_value() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    for path in ["/", "/api/state", "/api/catalog", "/api/events"] {
        let refused = answer(&admin, "GET", path, "", Rights::None).await;
        assert_eq!(refused.status, 403, "{path}");
        let shown = answer(&admin, "GET", path, "", Rights::Figures).await;
        assert_eq!(shown.status, 200, "{path}");
    }
    cache.set("users:1", &7u32, 60).await.expect("stored");
    for rights in [Rights::Figures, Rights::FiguresUntilToken] {
        for path in ["/api/entry?key=users:1", "/api/doctor"] {
            let refused = answer(&admin, "GET", path, "", rights).await;
            assert_eq!(refused.status, 403, "{path}");
        }
        let state = json(&answer(&admin, "GET", "/api/state", "", rights).await);
        let asks = rights == Rights::FiguresUntilToken;
        assert_eq!(
            (&state["rights"], &state["token_helps"]),
            (&json!("read"), &json!(asks))
        );
    }
    let _ = cache.invalidate("users", &1).await;
    let events = loop {
        let events = json(&answer(&admin, "GET", "/api/events", "", Rights::Figures).await);
        if events["next"] == 1 {
            break events;
        }
        crate::base::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(events["events"], json!([]), "they name keys");
    assert_eq!(events["shown"], false);
}

#[tokio::test]
async fn refused_users_learn_how_to_get_the_right() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache).advise("Set OPS_TOKEN.");
    let off = r#"{"action":"switch","target":"users","enabled":false}"#;
    for (rights, names_token) in [
        (Rights::Figures, false),
        (Rights::Read, false),
        (Rights::ReadUntilToken, true),
        (Rights::FiguresUntilToken, true),
    ] {
        let refused = answer(&admin, "POST", "/api/act", off, rights).await;
        let error = json(&refused)["error"].to_string();
        assert_eq!(refused.status, 403);
        assert!(error.contains("Set OPS_TOKEN."), "{error}");
        assert_eq!(error.contains("Bearer"), names_token, "{error}");
    }
    let state = json(&answer(&admin, "GET", "/api/state", "", Rights::Read).await);
    assert_eq!(state["advice"], "Set OPS_TOKEN.");
}

#[tokio::test]
async fn the_browser_runs_no_script_but_the_page_s_own() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    let mut numbers = Vec::new();
    for _ in 0..2 {
        let page = answer(&admin, "GET", "/", "", Rights::Read).await;
        let mut headers = page.headers.iter();
        let policy = headers.find(|(name, _)| *name == "content-security-policy");
        let (_, number) = policy
            .and_then(|(_, policy)| policy.split_once("script-src 'nonce-"))
            .expect("a number");
        let number = number.trim_end_matches('\'').to_owned();
        assert_eq!(page.body.matches("<script").count(), 1);
        let script = format!("<script nonce=\"{number}\">");
        assert!(page.body.contains(&script), "{script}");
        numbers.push(number);
    }
    assert_ne!(numbers[0], numbers[1], "nobody knows it beforehand");
}

/// Hundreds of stale hits, just when an operator wants to see why.
#[test]
fn many_events_of_one_kind_leave_the_others() {
    use crate::telemetry::events::EventKind;

    let mut recent = Recent::default();
    let mut keep = |kind| {
        recent.keep(Event {
            at: std::time::SystemTime::UNIX_EPOCH,
            kind,
        });
    };
    keep(EventKind::LocalFlushed { flushes: 1 });
    for waiting in 0..600 {
        keep(EventKind::InvalidationPending { waiting });
    }
    let numbers: Vec<u64> = recent.events.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), REMEMBERED + 1);
    assert_eq!((numbers[0], numbers[1]), (0, 501), "the oldest gave way");
}

#[tokio::test]
async fn a_page_that_knows_another_process_has_seen_nothing_of_this_one() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    let _ = cache.invalidate_all("users").await;
    let ask = async |path: &str| json(&answer(&admin, "GET", path, "", Rights::Read).await);
    let events = loop {
        let events = ask("/api/events").await;
        if events["next"] == 1 {
            break events;
        }
        crate::base::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(events["events"][0]["number"], 0);
    assert_eq!(events["process"], *PROCESS);
    let same = ask(&format!("/api/events?since=1&process={}", *PROCESS)).await;
    assert_eq!(same["events"], json!([]));
    let other = ask("/api/events?since=1&process=7-abc").await;
    assert_eq!(other["events"], events["events"]);
    assert_eq!(ask("/api/state").await["process"], *PROCESS);
}

#[tokio::test]
async fn a_name_that_nothing_has_is_switched_with_a_word_about_it() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    let off = r#"{"action":"switch","target":"usres","enabled":false}"#;
    let done = answer(&admin, "POST", "/api/act", off, Rights::Change).await;
    let said = json(&done)["said"].to_string();
    assert!(said.contains("nothing here is called `usres`"), "{said}");
}

#[tokio::test]
async fn an_entry_is_told_in_words_and_events_are_remembered() {
    let cache = Cache::new(CacheConfig::default().local_mb(1)).await;
    let admin = Admin::new(&cache);
    let nothing = answer(&admin, "GET", "/api/entry?key=users%3A1", "", Rights::Read).await;
    assert_eq!(json(&nothing)["found"], "nothing");
    cache.set("users:1", &7u32, 60).await.expect("stored");
    let there = answer(&admin, "GET", "/api/entry?key=users%3A1", "", Rights::Read).await;
    let there = json(&there);
    assert_eq!(
        (&there["found"], &there["alive"]),
        (&json!("entry"), &json!(true))
    );
    let wrong = answer(&admin, "GET", "/api/entry?key=nonsense", "", Rights::Read).await;
    assert_eq!(json(&wrong)["found"], "no key");

    // An id as it is, and escaped as in keys.
    for (key, id) in [
        ("users:1", "1"),
        ("users:a%40b", "a@b"),
        ("users:a%40b", "a%40b"),
        ("users:7,1", "7,1"),
    ] {
        cache.set(key, &7u32, 60).await.expect("stored");
        let one = json!({"action": "invalidate", "resource": "users", "id": id}).to_string();
        let done = answer(&admin, "POST", "/api/act", &one, Rights::Change).await;
        assert_eq!(done.status, 200);
        assert_eq!(cache.get::<u32>(key).await, None, "{key} {id}");
    }

    let all = r#"{"action":"invalidate","resource":"users"}"#;
    let done = answer(&admin, "POST", "/api/act", all, Rights::Change).await;
    assert_eq!(json(&done)["said"], "invalidated all of users");
    let events = loop {
        let events = json(&answer(&admin, "GET", "/api/events", "", Rights::Read).await);
        if events["next"] == 5 {
            break events;
        }
        crate::base::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(events["events"][0]["event"], "invalidated");
    let later = answer(&admin, "GET", "/api/events?since=5", "", Rights::Read).await;
    assert_eq!(json(&later)["events"], json!([]));
    // More than are remembered, before the page asks again.
    for number in 0..REMEMBERED as u64 + 7 {
        cache.set("users:1", &number, 60).await.expect("stored");
        let _ = cache.invalidate("users", &1).await;
    }
    let late = loop {
        let late = answer(&admin, "GET", "/api/events?since=5", "", Rights::Read).await;
        let late = json(&late);
        if late["next"] == REMEMBERED + 7 + 5 {
            break late;
        }
        crate::base::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((&late["missed"], &late["lost"]), (&json!(7), &json!(0)));
    let state = json(&answer(&admin, "GET", "/api/state", "", Rights::Read).await);
    assert_eq!(state["rights"], "read");
    assert_eq!(state["stats"]["enabled"], true);
}
