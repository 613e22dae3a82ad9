//! A host from the first to the last moment: brought up, kept up by the loop, and ended with the words that somebody must read.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dind_contract::paths::{self, NOTIFY_SOCKET, RUNTIME, STATUS_SOCKET};
use dind_contract::status::{Endpoint, Phase, Service, ServiceState};
use dind_contract::{Finding, Status, exit};
use time::OffsetDateTime;

use crate::appliance::{self, Checked};
use crate::command::Command;
use crate::event_loop::{self, Ended, Prepared};
use crate::failure::Failure;
use crate::ground::{self, Authorities, DataRoot, Ground, Looked, Probed, Steps};
use crate::helper::{Door, NotUp};
use crate::interrupts::Interrupts;
use crate::log::{self, Log, Output};
use crate::notify::Notifications;
use crate::settings::{self, Listen, Settings, time_limit};
use crate::sshd::{self, HostKeys};
use crate::status::StatusSocket;
use crate::supervisor::Outcome;
use crate::{LAST_WORDS, exec, read_if_there, services, signals, tls};

/// How long whoever waits for a command may take to read the log of the host that did not come so far.
const SHOWN: Duration = Duration::from_secs(5);

/// Runs a host for a command. What goes wrong before that could run is 125, whatever it is: the other codes are the command's.
pub(crate) fn run_for(words: &[OsString], began: Instant) -> Result<ExitCode, Failure> {
    // Looked for first: whoever has misspelt it need not wait for an engine.
    let command = Command::find(words, std::env::vars_os())?;
    if let Err(lacking) = ground::check_capabilities() {
        return run_without(&command.elsewhere(), &lacking);
    }
    run(&[], Some(command.on_host()), began).map_err(|failure| Failure { code: exit::NO_COMMAND, ..failure })
}

/// Where no host can be, and nothing says that there should be one, the command runs alone, as in `docker:dind`. A container that was
/// meant for a host is refused: its command, tests say, would find no engine, or another one.
fn run_without(command: &Command, lacking: &Failure) -> Result<ExitCode, Failure> {
    const ALONE: &str = "docker-entrypoint.sh runs a command without a host";
    if let Some(asks) = asks_for_host() {
        return Err(Failure {
            code: exit::NO_COMMAND,
            cause: format!("{}; {asks} asks for a dind host", lacking.cause),
            help: format!("{}; {ALONE}", lacking.help),
        });
    }
    let said = Failure {
        cause: format!("{:?} runs without a dind host: {}", command.name(), lacking.cause),
        help: format!("{}; {ALONE}, and without these lines", lacking.help),
        code: lacking.code,
    };
    log::last_words(said.to_string().as_bytes(), Instant::now() + LAST_WORDS);
    exec::supervise(command)
}

/// What says that a command shall have a host: a capability, a setting, or the image.
fn asks_for_host() -> Option<String> {
    let names = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    ground::given_capability()
        .map(|capability| format!("the capability {capability}"))
        .or_else(|| settings::asks_for_host(names.filter_map(|(name, _)| name.into_string().ok())))
        .or_else(|| Path::new(paths::APPLIANCE).exists().then(|| "an appliance's image".to_owned()))
}

/// Runs a host, from the first to the last moment.
pub(crate) fn run(options: &[String], command: Option<Command>, began: Instant) -> Result<ExitCode, Failure> {
    let system = |what: &'static str| {
        move |e: io::Error| {
            Failure::failed(
                format!("cannot {what}: {e}"),
                "report this, with `docker info` of the machine below",
            )
        }
    };
    let signals = signals::take_over().map_err(system("take over signals"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| system("become a subreaper")(e.into()))?;
    let settings = Settings::load(std::env::vars_os(), options, read_if_there)?;
    let has_command = command.is_some();
    let output = if has_command { Output::Held } else { Output::standard(1) };
    let mut log = Log::new(settings.log, output);
    let interrupts = Interrupts { signals, began, time_limit: settings.time_limit };
    let ended = match bring_up(settings, interrupts, command, &mut log) {
        Ok(prepared) => event_loop::run(prepared, &mut log, began),
        Err(NotUp::Failed(failure)) => Ended::not_up(Outcome { failure: Some(failure), ..Outcome::CLEAN }),
        Err(NotUp::Stopped { why, number }) => {
            log.info(&format!("stopped before it was up, because of {why}"));
            // As if the signal had ended the command: whoever waits for its code must not take it for done.
            let number = i32::try_from(number).unwrap_or_default();
            let code = has_command.then(|| exit::killed_by(number));
            Ended::not_up(Outcome { code, ..Outcome::CLEAN })
        }
        Err(NotUp::TimeOver(limit)) => {
            log.warn(&format!("stopped before it was up, because {}", time_limit::over(limit)));
            let code = has_command.then(|| exit::killed_by(libc::SIGTERM));
            Ended::not_up(Outcome { code, time_over: Some(limit), ..Outcome::CLEAN })
        }
    };
    let code = match has_command && !ended.reached_command && ended.outcome.code.is_none() {
        true => exit::NO_COMMAND,
        false => ended.outcome.code(),
    };
    let failed = ended.outcome.failure.filter(|_| ended.outcome.code.is_none());
    if failed.is_none() {
        log.info(&format!("stopped, exit code {code}"));
    }
    log.drain(Instant::now() + LAST_WORDS);
    if has_command && let Some(limit) = ended.outcome.time_over {
        let happened =
            if ended.reached_command { "the command was asked to end" } else { "the command was not run" };
        let words = format!(
            "dind-init: {happened}, because {}\n  help: give its host more time, or leave DIND_TIME_LIMIT out\n",
            time_limit::over(limit)
        );
        log::last_words(words.as_bytes(), Instant::now() + LAST_WORDS);
    }
    let Some(failure) = failed else { return Ok(ExitCode::from(code)) };
    // Whoever waits for a command that never ran sees why. Otherwise all but its own words are in the log.
    if has_command && !ended.reached_command {
        log::last_words(&log.kept(), Instant::now() + SHOWN);
    }
    let tail: String = ended.tail.iter().map(|line| format!("  | {line}\n")).collect();
    let words = format!("dind-init: {}\n{tail}  help: {}\n", failure.cause, failure.help);
    log::last_words(words.as_bytes(), Instant::now() + LAST_WORDS);
    Ok(ExitCode::from(code))
}

/// Everything before the first service starts.
fn bring_up(
    settings: Settings,
    interrupts: Interrupts,
    command: Option<Command>,
    log: &mut Log,
) -> Result<Prepared, NotUp> {
    let role = if std::process::id() == 1 { "as PID 1" } else { "as a child subreaper" };
    log.info(&format!("dind-init {} {role}", env!("CARGO_PKG_VERSION")));
    // Refused before anything else is looked at: without an application an appliance is there for nothing.
    if let Some(appliance) = &settings.appliance {
        appliance.has_source()?;
    }
    let mut warnings = settings.warnings.clone();
    warnings.extend(settings.about_tls());
    let mut steps = Steps::default();
    // A data root whose disk or server hangs must not take us with it.
    let look = ground::start_look(&settings)?;
    let programs = ground::check(&settings, &mut steps, log)?;
    let authorities = Authorities::read(&settings)?;
    look.answer::<Looked>(&interrupts, log, None)?;
    // Locked before anything is changed, so that a second host in the same place changes nothing.
    let mut data_root = ground::take_data_root(&settings.daemon.data_root, &mut steps, log)?;
    let probes = ground::start_probes(&settings)?;
    let host_keys = sshd::is_wanted().then(|| sshd::start_host_keys(&settings)).transpose()?;
    let surroundings = match ground::prepare(&settings, &mut steps, log) {
        Ok(surroundings) => surroundings,
        Err(failure) => {
            // What the machine refuses to a container, it refuses to the host, too: the probes know what is missing.
            let probed: Probed = probes.answer(&interrupts, log, None)?;
            ground::refuse_missing(&ground::decide(&settings, &probed))?;
            return Err(failure.into());
        }
    };
    log.keep(Path::new(paths::LOG));
    let check = match &settings.appliance {
        None => None,
        Some(appliance) => {
            let project = appliance.project()?;
            Some((appliance, appliance::start_check(appliance, &project)?, project))
        }
    };
    let certificates = match &settings.listen {
        Listen::Local | Listen::Plain | Listen::Told => None,
        Listen::Tls(folder) => Some(steps.take(log, "certificates", || {
            let hosts = read_if_there(Path::new("/etc/hosts")).ok().flatten().unwrap_or_default();
            let told = [settings.names.clone(), tls::full_names(&hosts, &surroundings.hostname)].concat();
            let names = tls::names(&told, &surroundings.hostname, &surroundings.addresses);
            let made = tls::prepare(folder, &names, OffsetDateTime::now_utc())?;
            let said = Some(format!("{} in {}", made.said, folder.display()));
            Ok((made, said))
        })?),
    };
    warnings.extend(certificates.iter().flat_map(|certificates| certificates.warnings.clone()));
    for warning in &warnings {
        log.warn(warning);
    }
    let probed: Probed = probes.answer(&interrupts, log, None)?;
    let mut ground = Ground::new(settings.daemon.data_root.clone());
    ground.decisions = ground::decide(&settings, &probed);
    ground.decisions.extend(surroundings.decisions);
    if let Some(authorities) = authorities {
        authorities.install()?;
        ground.decisions.push(authorities.decide());
    }
    let findings: Vec<Finding> = ground.decisions.iter().map(|decision| decision.finding.clone()).collect();
    ground::say(log, &findings);
    ground::refuse_missing(&ground.decisions)?;
    if let Some(host_keys) = host_keys {
        let said = host_keys.answer::<HostKeys>(&interrupts, log, None)?.said()?;
        log.info(&format!("host keys: {said}"));
    }
    let mut application = None;
    if let Some((appliance, check, project)) = check {
        let checked = check.answer::<Checked>(&interrupts, log, None)?;
        let (project, warned) = checked.judge(appliance, project)?;
        warned.iter().for_each(|warning| log.warn(warning));
        warnings.extend(warned);
        let name = project.name.as_deref().unwrap_or_default();
        log.info(&format!("application: {name}, from {}", appliance.called()));
        application = Some(project);
    }
    let bind = |e: io::Error| {
        Failure::failed(format!("cannot make a socket in {RUNTIME}: {e}"), "look at its permissions")
    };
    let endpoint = services::endpoint(&settings, surroundings.outside);
    let mut door = Door {
        socket: StatusSocket::bind(Path::new(STATUS_SOCKET)).map_err(bind)?,
        status: starting(&endpoint, &data_root, &findings, &warnings, application.is_some()),
    };
    ground.engine_root = ground::mount_disk(&settings, &probed, &interrupts, &mut door, &mut steps, log)?;
    ground::open_store(&settings, &probed, &ground.engine_root, &interrupts, &mut door, &mut steps, log)?;
    ground::repair(&settings, &data_root, &ground.engine_root, &interrupts, &mut door, &mut steps, log)?;
    ground::apply_limits(&settings);
    ground::make_links(&ground.decisions)?;
    let image_names = ground::image_names(&settings, &ground.engine_root);
    let services = services::all(&settings, &ground, &programs, application);
    let notifications = Notifications::bind(Path::new(NOTIFY_SOCKET)).map_err(bind)?;
    // Last, so that nothing above leaves a mark on it.
    data_root.mark_running()?;
    Ok(Prepared {
        settings,
        services,
        image_names,
        data_root,
        engine_root: ground.engine_root,
        endpoint,
        certificates,
        steps,
        findings,
        warnings,
        signals: interrupts.signals,
        notifications,
        status_socket: door.socket,
        command,
    })
}

/// What a host says of itself before the loop runs.
fn starting(
    endpoint: &Endpoint,
    data_root: &DataRoot,
    findings: &[Finding],
    warnings: &[String],
    is_appliance: bool,
) -> Status {
    let names = services::programs().into_iter().chain(is_appliance.then_some(services::COMPOSE));
    let services = names.map(|name| Service {
        name: name.to_owned(),
        state: ServiceState::Waiting,
        pid: None,
        restarts: 0,
    });
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        phase: Phase::Starting,
        services: services.collect(),
        application: None,
        endpoint: endpoint.clone(),
        certificate: None,
        last_stop: data_root.last_stop,
        ready_ms: None,
        // Said anew to each who asks.
        seconds_left: None,
        last_sync: None,
        steps: Vec::new(),
        ground: findings.to_vec(),
        warnings: warnings.to_vec(),
    }
}
