//! Starts the demo API.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use cache_runtime::{Cache, CacheConfig};
use demo_api::access::{CacheAccess, is_this_machine};
use demo_api::config::{Config, ConfigError};
use demo_api::server::Limits;
use demo_api::{api, db, outbox, server};
use tokio::net::TcpListener;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long requests under way may take to finish once the process is asked to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// The in-process tier of the demo when `CACHE_LOCAL_MB` is unset.
const LOCAL_MB: u32 = 64;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("demo-api: {failure}");
            ExitCode::FAILURE
        }
    }
}

const HELP: &str = "The demo API of cache-runtime.

  demo-api              serves HTTP, as the environment says (see .env.example)
  demo-api doctor       looks for what operators forget; ends with 1 if it found something
  demo-api outbox sql   the SQL by which the database tells the cache what changes, also from psql
  demo-api outbox install, status, remove   runs it, looks at it, takes it away
  demo-api map          what the annotated functions cache and invalidate, as a table
  demo-api map json     the same in JSON
  demo-api map mermaid  the same as a Mermaid diagram
  demo-api cache switches         what is switched off for all processes
  demo-api cache disable users    all processes read users past the cache from now on;
                                  one function: users:list; everything: '*'
  demo-api cache enable users     they use it again
";

fn start() -> Result<ExitCode, Failure> {
    let arguments = std::env::args_os().skip(1);
    // No command has other letters than these, so replaced ones make no other command of it.
    let arguments = arguments.map(|it| it.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let map = demo_api::catalog;
    match arguments[..] {
        [] => with_runtime("info,poem=warn,sqlx=warn", serve()),
        // Connection problems are part of the report.
        ["doctor"] => with_runtime("error", doctor()),
        [
            "outbox",
            command @ ("sql" | "install" | "status" | "remove"),
        ] => with_runtime("error", run_outbox(command.to_owned())),
        ["map"] => print(&map().to_string()),
        ["map", "json"] => print(&format!("{}\n", serde_json::to_string_pretty(&map())?)),
        ["map", "mermaid"] => print(&map().to_mermaid()),
        ["cache", "switches"] => with_runtime("error", switches(None)),
        ["cache", "disable", target] => with_runtime("error", switches(Some((target, false)))),
        ["cache", "enable", target] => with_runtime("error", switches(Some((target, true)))),
        ["help" | "--help" | "-h"] => print(HELP),
        _ => {
            let given = arguments.join(" ");
            Err(format!("`{given}` is no command; it may be `doctor`, `cache switches`, `cache disable NAME`, `cache enable NAME`, `outbox sql`, `outbox install`, `outbox status`, `outbox remove`, `map`, `map json`, `map mermaid`, or nothing to serve").into())
        }
    }
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn with_runtime(
    log_level: &str,
    run: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    // Before a second thread exists, because it changes the environment. Variables that are set
    // already win.
    match dotenvy::dotenv() {
        Err(error) if !error.not_found() => return Err(format!(".env: {error}").into()),
        _ => {}
    }
    log(log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run)
}

/// Prints the settings that should be changed, and what was checked.
async fn doctor() -> Result<ExitCode, Failure> {
    let cache = Cache::new(cache_config()?.advice(false)).await;
    let report = cache.doctor().await;
    cache.shutdown().await;
    print(&report.to_string())?;
    Ok(if report.advice.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs the outbox in the database, shows its state, or removes it.
async fn run_outbox(command: String) -> Result<ExitCode, Failure> {
    let config = Config::from_env()?;
    match command.as_str() {
        "sql" => return print(&outbox::sql(&config.database_url)?),
        "install" => {
            // The tables have to exist first.
            let pool = db::open(&config.database_url)
                .await
                .map_err(|error| unusable(&config, &error))?;
            pool.close().await;
            outbox::install(&config.database_url).await?;
        }
        "remove" => outbox::remove(&config.database_url).await?,
        _ => {}
    }
    print(&outbox::status(&config.database_url).await?.to_string())
}

/// Switches reads for all processes, and prints what is switched off.
async fn switches(change: Option<(&str, bool)>) -> Result<ExitCode, Failure> {
    let cache = Cache::new(cache_config()?.advice(false).catalog(demo_api::catalog())).await;
    if let Some((target, false)) = change
        && !cache.is_switchable(target)
    {
        let no_such = cache.no_such(target);
        cache.shutdown().await;
        return Err(no_such.into());
    }
    let changed = match change {
        Some((target, true)) => cache.enable_everywhere(target).await,
        Some((target, false)) => cache.disable_everywhere(target).await,
        None => Ok(()),
    };
    let off = cache.switched_off().everywhere;
    cache.shutdown().await;
    changed?;
    match off.is_empty() {
        true => print("nothing is switched off\n"),
        false => print(&format!("switched off: {}\n", off.join(", "))),
    }
}

async fn serve() -> Result<ExitCode, Failure> {
    let config = Config::from_env()?;
    let cache_config = cache_config()?;
    // Before the cache, so that no figure is recorded without a recorder.
    api::metrics::install()?;

    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let pool = db::open(&config.database_url)
        .await
        .map_err(|error| unusable(&config, &error))?;
    let cache_config = if config.outbox {
        outbox::install_if_missing(&config.database_url).await?;
        cache_config.outbox(outbox::config(&config.database_url)?)
    } else {
        cache_config
    };
    let cache = cache_runtime::init(cache_config).await;

    let stop = stop_signal()?;
    let access = CacheAccess::new(address.ip(), config.admin_token);
    if !is_this_machine(address.ip()) {
        tracing::warn!(%address, "other machines may reach this address, and change all data");
    }
    greet(&format!("http://{address}"), &access);
    let limits = Limits {
        connections: config.max_connections,
        client_timeout: config.client_timeout,
        drain: DRAIN,
    };
    let routes = api::routes(pool.clone(), access, limits.client_timeout);
    server::serve(listener, routes, limits, stop).await?;

    tracing::info!("stopping");
    // In this order: waiting invalidations are delivered before the process ends.
    cache.shutdown().await;
    pool.close().await;
    Ok(ExitCode::SUCCESS)
}

fn unusable(config: &Config, error: &sqlx::Error) -> ConfigError {
    let mut problem = format!("the database can't be used: {error}");
    if config.database_url.starts_with("sqlite") && !config.database_url.contains("mode=") {
        problem.push_str("; `?mode=rwc` at the end of the URL creates a missing file");
    }
    ConfigError::new("DATABASE_URL", problem)
}

/// The configuration from the environment. Unless the environment turns it off, the local tier is
/// on, with Redis or without.
fn cache_config() -> Result<CacheConfig, Failure> {
    let config = CacheConfig::from_env()?.catalog(demo_api::catalog());
    let is_unset = |name| std::env::var(name).map_or(true, |value| value.trim().is_empty());
    // Memcached does not report changes, so there is no tier beside it.
    Ok(if is_unset("CACHE_LOCAL_MB") && is_unset("MEMCACHED_URL") {
        config.local_mb(LOCAL_MB)
    } else {
        config
    })
}

async fn listen(config: &Config) -> Result<TcpListener, ConfigError> {
    let Config { host, port, .. } = config;
    TcpListener::bind((host.as_str(), *port))
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ConfigError::new(
                "PORT",
                format!("{port} is in use by another program; choose another one"),
            ),
            io::ErrorKind::PermissionDenied => {
                ConfigError::new("PORT", format!("{port} may not be used without privileges"))
            }
            _ => ConfigError::new("HOST", format!("can't listen on `{host}`: {error}")),
        })
}

/// Prints what to open and what to type. A failure to print is not an error.
fn greet(url: &str, access: &CacheAccess) {
    let greeting = format!(
        "Listening on {url}

  Documentation, to try things out:  {url}/docs
  Twice, and the second is a hit:    curl -i {url}/users/1
  A page of users:                   curl '{url}/users?skip=0&limit=5'
  Look for some:                     curl {url}/users/filter -H 'content-type: application/json' \\
                                       -d '{{\"conditions\":[{{\"field\":\"name\",\"op\":\"ilike\",\"value\":\"ada%\"}}],\"limit\":3}}'
  What the cache has done:           curl {url}/cache/stats
  {access}.

Ctrl-C stops.
"
    );
    let mut out = io::stdout().lock();
    let _ = out
        .write_all(greeting.as_bytes())
        .and_then(|()| out.flush());
}

/// The log filter, on standard error; `RUST_LOG` replaces the default.
fn log(default: &str) -> Result<(), ConfigError> {
    let wanted = std::env::var("RUST_LOG")
        .ok()
        .filter(|wanted| !wanted.trim().is_empty());
    let targets: Targets = wanted
        .as_deref()
        .unwrap_or(default)
        .parse()
        .map_err(|error| {
            let value = wanted.as_deref().unwrap_or(default);
            let problem = format!("is `{value}`, not a filter such as `info,poem=warn`: {error}");
            ConfigError::new("RUST_LOG", problem)
        })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .without_time()
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(targets)
        .init();
    Ok(())
}

/// Resolves at Ctrl-C, or at SIGTERM from a service manager. Once this has returned, neither ends
/// the process by itself.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Resolves at Ctrl-C.
#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
