//! Starts the suite, or a part of it. `scripts/bench` builds what it needs and calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use cache_rivals::chaos;
use cache_rivals::course::{self, Setting};
use cache_rivals::figures::Findings;
use cache_rivals::machine::Machine;
use cache_rivals::progress::Step;
use cache_rivals::rivals::NAMES;
use cache_rivals::suite::{Failed, PARTS, Part, Settings};
use cache_rivals::{plot, report, worker};

const HELP: &str = "The benchmark suite of cache-runtime.

  rivals bench [--quick] [--only PART,..] [--out FOLDER] [--keep FOLDER]
      all parts, or some; writes BENCHMARKS.md and docs/benchmarks/*.svg into FOLDER, the repository unless said
  rivals course [--seed N] [--seconds S] [--rivals NAME,..] [--processes P] [--keys K]
      stale reads, ours and the rivals' on the same course
  rivals chaos [--seed N] [--seconds S] [--rivals NAME,..] [--faults LIST] [--processes P]
      reads under every fault, ours and the rivals' on the same course
  rivals profile local|redis|hand-written [CALLS [TASKS]]
      hits and nothing else, for a profiler
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("chaos-process", rest)) = arguments
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return chaos::process(rest).unwrap_or_else(|failure| {
            eprintln!("rivals: {failure}");
            ExitCode::FAILURE
        });
    }
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rivals: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &[String]) -> Result<(), Failed> {
    let (first, rest) = arguments.split_first().ok_or(HELP)?;
    match first.as_str() {
        "bench" => bench(rest),
        "part" => part(rest),
        "course" => runtime(None)?.block_on(course(rest)),
        "chaos" => chaos(rest),
        "profile" => cache_rivals::profile::run(rest),
        "worker" => runtime(None)?.block_on(worker::run(rest)),
        "link" => cache_rivals::link::run(),
        "help" | "--help" | "-h" => {
            eprint!("{HELP}");
            Ok(())
        }
        other => Err(format!("`{other}` is no command\n\n{HELP}").into()),
    }
}

fn runtime(threads: Option<usize>) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

/// `--name value` and `--flag`, taken out one by one.
struct Options(Vec<String>);

impl Options {
    fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|argument| argument == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, Failed> {
        let Some(place) = self.0.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        self.0.remove(place);
        if place == self.0.len() {
            return Err(format!("{name} wants a value").into());
        }
        Ok(Some(self.0.remove(place)))
    }

    fn nothing_left(self) -> Result<(), Failed> {
        match self.0.first() {
            Some(argument) => Err(format!("unknown option `{argument}`\n\n{HELP}").into()),
            None => Ok(()),
        }
    }
}

fn root() -> &'static Path {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("the crate lies in tests/rivals")
}

fn bench(arguments: &[String]) -> Result<(), Failed> {
    let command = format!("scripts/bench {}", arguments.join(" "));
    let mut options = Options(arguments.to_vec());
    let quick = options.flag("--quick");
    let only = options.value("--only")?;
    let kept = options.value("--keep")?.map(PathBuf::from);
    if let Some(folder) = &kept {
        std::fs::create_dir_all(folder)?;
    }
    let out = options
        .value("--out")?
        .map_or(root().to_owned(), PathBuf::from);
    options.nothing_left()?;
    let wanted: Vec<&str> = match &only {
        Some(names) => names.split(',').collect(),
        None => PARTS.iter().map(|part| part.name).collect(),
    };
    let unknown = |name: &&&str| PARTS.iter().all(|part| part.name != **name);
    if let Some(unknown) = wanted.iter().find(unknown) {
        let known = PARTS.map(|part| part.name).join(", ");
        return Err(format!("no part `{unknown}`; there are {known}").into());
    }
    let mut findings = Findings::default();
    let mut failed = Vec::new();
    let began = Instant::now();
    for (place, name) in wanted.iter().enumerate() {
        let mut part = Command::new(std::env::current_exe()?);
        part.arg("part").arg(name);
        part.arg(format!("{}/{}", place + 1, wanted.len()));
        if quick {
            part.arg("--quick");
        }
        match found(part, kept.as_ref().map(|folder| folder.join(name)))? {
            Some(found) => findings.extend(found),
            None => failed.push(*name),
        }
    }
    let folder = out.join("docs/benchmarks");
    std::fs::create_dir_all(&folder)?;
    for plot in &findings.plots {
        plot::draw(plot, &folder).map_err(|error| error.to_string())?;
    }
    let page = report::page(&findings, &Machine::here(command.trim(), began.elapsed()));
    let file = out.join("BENCHMARKS.md");
    std::fs::write(&file, &page)?;
    let end = page
        .find("\n## Growth")
        .or(page.find("\n## "))
        .unwrap_or(page.len());
    eprintln!("{}\nAll of it is in {}", &page[..end], file.display());
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("these parts failed: {}", failed.join(", ")).into())
    }
}

/// What a part has found: in its file, if it has been run before, else by running it. `None` if it
/// fails.
fn found(mut part: Command, file: Option<PathBuf>) -> Result<Option<Findings>, Failed> {
    if let Some(file) = file.as_ref().filter(|file| file.exists()) {
        return Ok(Some(serde_json::from_slice(&std::fs::read(file)?)?));
    }
    let output = part.stderr(Stdio::inherit()).output()?;
    let found = serde_json::from_slice(&output.stdout).ok();
    let found = found.filter(|_| output.status.success());
    if let (Some(file), Some(_)) = (&file, &found) {
        std::fs::write(file, &output.stdout)?;
    }
    Ok(found)
}

/// One part in this process; its findings go to standard output.
fn part(arguments: &[String]) -> Result<(), Failed> {
    let [name, place, rest @ ..] = arguments else {
        return Err("`part NAME PLACE`".into());
    };
    let Part {
        title,
        threads,
        run,
        ..
    } = PARTS
        .into_iter()
        .find(|part| part.name == name)
        .ok_or("no such part")?;
    let settings = Settings {
        quick: rest.iter().any(|argument| argument == "--quick"),
        demo: std::env::var_os("DEMO_API").map(PathBuf::from),
        root: root().to_owned(),
    };
    let step = Step::begin(place, title);
    let findings = runtime(threads)?.block_on(run(&settings, &step))?;
    drop(step);
    serde_json::to_writer(std::io::stdout(), &findings)?;
    Ok(())
}

async fn course(arguments: &[String]) -> Result<(), Failed> {
    let mut options = Options(arguments.to_vec());
    let mut setting = Setting::default();
    if let Some(seed) = options.value("--seed")? {
        setting.seed = seed.parse()?;
    }
    if let Some(seconds) = options.value("--seconds")? {
        setting.seconds = seconds.parse()?;
    }
    if let Some(processes) = options.value("--processes")? {
        setting.processes = processes.parse()?;
    }
    if let Some(keys) = options.value("--keys")? {
        setting.keys = keys.parse()?;
    }
    let names = options.value("--rivals")?;
    options.nothing_left()?;
    let names: Vec<&str> = match &names {
        Some(names) => names.split(',').collect(),
        None => NAMES.to_vec(),
    };
    let (table, verdicts) = {
        let step = Step::begin("course", "Stale reads");
        course::run(&names, &setting, |name| step.say(name)).await?
    };
    print(&report::table_text(&table))?;
    match verdicts
        .iter()
        .find(|verdict| verdict.ours && verdict.stale > 0)
    {
        Some(verdict) => Err(format!("{} stale reads of {}", verdict.stale, verdict.name).into()),
        None => Ok(()),
    }
}

fn chaos(arguments: &[String]) -> Result<(), Failed> {
    let mut options = Options(arguments.to_vec());
    let number = |value: Option<String>, usual: u64| value.map_or(Ok(usual), |it| it.parse());
    let setting = cache_chaos::Setting {
        seed: number(options.value("--seed")?, 1)?,
        seconds: number(options.value("--seconds")?, 20)?,
        processes: usize::try_from(number(options.value("--processes")?, 4)?)?,
        faults: options.value("--faults")?.unwrap_or_default(),
    };
    let names = options.value("--rivals")?;
    options.nothing_left()?;
    let names: Vec<&str> = match &names {
        Some(names) => names.split(',').collect(),
        None => chaos::NAMES.to_vec(),
    };
    // Each takes its time; what is known is told.
    let (table, is_right) = chaos::run(&names, &setting, |row| eprintln!("{row}"))?;
    print(&report::table_text(&table))?;
    if is_right {
        Ok(())
    } else {
        Err("this project has broken a promise".into())
    }
}

fn print(text: &str) -> Result<(), Failed> {
    use std::io::Write;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
