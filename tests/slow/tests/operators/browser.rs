//! A real browser, and a demo for it to look at.

use std::process::Command;
use std::time::{Duration, Instant};

use cache_tests::{Demo, Process, RedisServer, free_port};
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::SOON;

/// A Chromium of this width, driven by its own chromedriver.
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Process,
    _directory: tempfile::TempDir,
}

pub(crate) const WIDE: (u32, u32) = (1280, 900);
pub(crate) const NARROW: (u32, u32) = (375, 812);

impl Browser {
    pub(crate) async fn start(screen: (u32, u32)) -> Self {
        Self::start_with(screen, &[]).await
    }

    /// With further arguments of Chromium.
    pub(crate) async fn start_with((width, height): (u32, u32), more: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        command.env("TMPDIR", directory.path());
        let driver = Process::start(&mut command, Signal::KILL, Some(directory.path()))
            .expect("install Debian's packages `chromium` and `chromium-driver`");
        let profile = format!(
            "--user-data-dir={}",
            directory.path().join("profile").display()
        );
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-proxy-server",
            &profile,
        ];
        let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
        // A window is never as narrow as a telephone.
        let screen = json!({"width": width, "height": height, "pixelRatio": 1.0});
        let options = json!({
            "args": arguments,
            "mobileEmulation": {"deviceMetrics": screen},
        });
        let Value::Object(capabilities) = json!({"goog:chromeOptions": options}) else {
            unreachable!("an object");
        };
        let url = format!("http://127.0.0.1:{port}");
        let mut client = None;
        for _ in 0..100 {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            match builder
                .capabilities(capabilities.clone())
                .connect(&url)
                .await
            {
                Ok(connected) => {
                    client = Some(connected);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        Self {
            client: client.unwrap_or_else(|| panic!("no browser: {:?}", driver.stderr().lines())),
            _driver: driver,
            _directory: directory,
        }
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        let found = self.client.find(Locator::Css(css)).await;
        let element = found.unwrap_or_else(|error| panic!("{css}: {error}"));
        element.text().await.expect("text")
    }

    pub(crate) async fn eventually_says(&self, css: &str, text: &str) {
        let end = Instant::now() + SOON;
        loop {
            let said = match self.client.find(Locator::Css(css)).await {
                Ok(element) => element.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            if said.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "{css} does not say {text}: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await.expect(css);
        element.click().await.expect(css);
    }

    pub(crate) async fn js(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.expect(script)
    }

    /// Presses a key on what has the focus.
    pub(crate) async fn press(&self, key: impl Into<char>) {
        let value = key.into();
        let keys = KeyActions::new("keyboard".into())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        self.client.perform_actions(keys).await.expect("pressed");
    }

    /// Types into a field, in place of what was there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let field = self.client.find(Locator::Css(css)).await.expect(css);
        field.clear().await.expect(css);
        field.send_keys(text).await.expect(css);
    }

    /// Keeps a picture where `CACHE_SCREENSHOTS` says, for the book.
    pub(crate) async fn picture(&self, name: &str) {
        if let Some(directory) = std::env::var_os("CACHE_SCREENSHOTS") {
            let picture = self.client.screenshot().await.expect("a picture");
            let file = std::path::Path::new(&directory).join(format!("{name}.png"));
            std::fs::write(file, picture).expect("kept");
        }
    }

    /// Whether something sticks out to the right.
    pub(crate) async fn is_wider_than_the_screen(&self) -> bool {
        let script = "return document.documentElement.scrollWidth > innerWidth";
        self.js(script).await == json!(true)
    }
}

pub(crate) fn demo(server: &RedisServer, more: &[(&str, &str)]) -> Demo {
    let port = server.port().to_string();
    let usual = [
        ("REDIS_ENABLED", "True"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("CACHE_TIMEOUT_MS", "5000"),
        ("CACHE_AUDIT", "0.3"),
    ];
    Demo::start(usual.into_iter().chain(more.iter().copied()))
}

pub(crate) async fn traffic(demo: &Demo) {
    for id in 1..8 {
        for _ in 0..4 {
            demo.get(&format!("/users/{id}")).await;
            demo.get(&format!("/products/{id}")).await;
        }
        demo.get(&format!("/users?skip={id}&limit=5")).await;
    }
}
