//! What a host needs from the machine under it. Whatever can be refused is looked at before anything is changed.

mod build_cache;
mod capabilities;
mod cgroups;
mod data_root;
mod decision;
mod dns;
pub(crate) mod firewall;
mod forwarding;
mod limits;
mod mounts;
pub(crate) mod network;
mod pools;
mod probe;
mod program;
mod registries;
mod routes;
mod runtime;
pub(crate) mod storage;
mod trial;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dind_contract::status::{LastStop, Step};
use dind_contract::{Finding, Verdict};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::helper::{Door, Helper, NotUp};
use crate::interrupts::Interrupts;
use crate::log::Log;
use crate::repair::Report;
use crate::services;
use crate::settings::Settings;
use crate::sshd;
use crate::store;
use crate::sync::Synced;

pub(crate) use build_cache::BuildCache;
pub(crate) use capabilities::{check as check_capabilities, given as given_capability};
pub(crate) use data_root::copied::{Source, Target};
pub(crate) use data_root::{DataRoot, Looked, look, mark_clean};
pub(crate) use decision::Decision;
pub(crate) use limits::{Nofile, apply as apply_limits};
pub(crate) use mounts::detach_below;
#[cfg(fuzzing)]
pub(crate) use mounts::parse as parse_mounts;
pub(crate) use probe::{Probed, Wanted};
pub(crate) use program::run as run_program;
pub(crate) use registries::{Authorities, Registries};
pub(crate) use storage::{DISK_FILE, release as release_disk};
pub(crate) use trial::run as run_trial;

/// The longest that probes may take. They need a few hundredths of a second on a machine that is well.
const PROBES: Duration = Duration::from_secs(30);

/// The longest that the data root may take to answer at all: a server of files that is being started, say.
const ANSWERS: Duration = Duration::from_secs(120);

/// The longest that a check of the data root may take. It reads what is younger than the last sync, or everything where
/// there was none.
const REPAIR: Duration = Duration::from_secs(60 * 60);

/// Where a host finds itself.
pub(crate) struct Surroundings {
    /// Addresses of this machine.
    pub(crate) addresses: Vec<IpAddr>,
    /// The one by which the world reaches it.
    pub(crate) outside: IpAddr,
    /// Its name.
    pub(crate) hostname: String,
    /// What was decided while it was done: about control groups, and proxies.
    pub(crate) decisions: Vec<Decision>,
}

/// What the services stand on.
pub(crate) struct Ground {
    /// What was decided, part by part.
    pub(crate) decisions: Vec<Decision>,
    /// Where the engine keeps its data: the data root, or a file system in it.
    pub(crate) engine_root: PathBuf,
}

impl Ground {
    /// Ground about which nothing was decided.
    pub(crate) fn new(data_root: PathBuf) -> Self {
        Self { decisions: Vec::new(), engine_root: data_root }
    }

    /// What dockerd is told on its command line.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.decisions.iter().flat_map(|decision| decision.arguments.iter().map(String::as_str))
    }

    /// What dockerd's configuration file says beside what its user wrote there.
    pub(crate) fn config(&self) -> Map<String, Value> {
        self.decisions.iter().flat_map(|decision| decision.config.clone()).collect()
    }

    /// Name servers for which there must be a relay.
    pub(crate) fn relayed(&self) -> impl Iterator<Item = IpAddr> {
        self.decisions.iter().flat_map(|decision| decision.relayed.iter().copied())
    }

    /// dockerd's environment: what the user's gives to services, and what was decided.
    pub(crate) fn environment(&self, given: &BTreeMap<String, OsString>) -> BTreeMap<String, OsString> {
        let decided = self.decisions.iter().flat_map(|decision| decision.environment.clone());
        given.clone().into_iter().chain(decided).collect()
    }
}

/// Decides about every part of the ground but for control groups, which are decided on while they are changed.
pub(crate) fn decide(settings: &Settings, probed: &Probed) -> Vec<Decision> {
    let file = crate::read_if_there(Path::new(dns::RESOLV_CONF)).ok().flatten().unwrap_or_default();
    let path = settings.environment.get("PATH").cloned().unwrap_or_default();
    let mut all = trial::decide(&probed.trial);
    all.push(storage::decide(settings, &probed.storage).decision);
    all.extend(limits::decide(settings, &probed.limits));
    all.push(build_cache::decide(settings, &probed.disk));
    all.extend(registries::decide(settings));
    all.extend([
        firewall::decide(settings.firewall, &settings.daemon, probed.firewall.as_ref(), &path),
        network::decide_mtu(settings, network::mtu()),
        dns::decide(settings, &file),
        pools::decide(settings, &probed.needed, &routes::attached()),
        forwarding::decide(settings, forwarding::look()),
    ]);
    all
}

/// Refuses settings that say twice what can be said once.
///
/// # Errors
/// The first of them.
pub(crate) fn check_settings(settings: &Settings) -> Result<(), Failure> {
    limits::check(settings)?;
    build_cache::check(settings)
}

/// The first finding without which no host can run, as what ends it.
///
/// # Errors
/// There is one.
pub(crate) fn refuse_missing(decisions: &[Decision]) -> Result<(), Failure> {
    let mut findings = decisions.iter().map(|decision| &decision.finding);
    match findings.find(|finding| finding.verdict == Verdict::Missing) {
        None => Ok(()),
        Some(finding) => {
            let why = if finding.why.is_empty() { String::new() } else { format!("; {}", finding.why) };
            Err(Failure::unavailable(
                format!("{}: {}{why}", finding.subject, finding.found),
                finding.better.clone().unwrap_or_default(),
            ))
        }
    }
}

/// Mounts the data root's disk, if it was decided that there is one. Returns where the engine keeps its data.
///
/// # Errors
/// It cannot be made, checked or mounted, or a stop was asked for meanwhile.
pub(crate) fn mount_disk(
    settings: &Settings,
    probed: &Probed,
    interrupts: &Interrupts,
    door: &mut Door,
    steps: &mut Steps,
    log: &mut Log,
) -> Result<PathBuf, NotUp> {
    let root = &settings.daemon.data_root;
    let Some(bytes) = storage::decide(settings, &probed.storage).disk else { return Ok(root.clone()) };
    let began = Instant::now();
    let arguments = ["disk".to_owned(), root.display().to_string(), bytes.to_string()];
    let helper =
        Helper::start("the disk of the data root", &arguments, &settings.environment, storage::DEADLINE)?;
    // A file system that is being repaired or grown does not survive the end of the program that does it.
    match helper.undisturbed().answer(interrupts, log, Some(door))? {
        storage::Answer::Mounted(said) => {
            let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            log.info(&format!("disk: {said}, in {ms} ms"));
            steps.0.push(Step { name: "disk".to_owned(), ms });
            Ok(storage::on_disk(root))
        }
        storage::Answer::Failed { cause, help } => Err(Failure::unavailable(cause, help).into()),
    }
}

/// Gives the engine the images of the appliance's store, if there is one; refuses a data root that needs another.
///
/// # Errors
/// The store is damaged or missing, or a stop was asked for meanwhile.
pub(crate) fn open_store(
    settings: &Settings,
    probed: &Probed,
    engine_root: &Path,
    interrupts: &Interrupts,
    door: &mut Door,
    steps: &mut Steps,
    log: &mut Log,
) -> Result<(), NotUp> {
    if !store::is_wanted(&settings.daemon.data_root) {
        return Ok(());
    }
    let began = Instant::now();
    let helper = store::start(settings, engine_root, storage::is_overlay2(settings, &probed.storage))?;
    let answer: store::Answer = helper.answer(interrupts, log, Some(door))?;
    let (said, warnings) = answer.judge()?;
    warnings.iter().for_each(|line| log.warn(line));
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if let Some(said) = said {
        log.info(&format!("store: {said}, in {ms} ms"));
    }
    steps.0.push(Step { name: "store".to_owned(), ms });
    Ok(())
}

/// The file whose changes tell of new images beside the engine's own events, if there is one.
pub(crate) fn image_names(settings: &Settings, engine_root: &Path) -> Option<PathBuf> {
    storage::image_names(settings, engine_root)
}

/// Makes the links that decisions need.
///
/// # Errors
/// One cannot be made.
pub(crate) fn make_links(decisions: &[Decision]) -> Result<(), Failure> {
    for (link, target) in decisions.iter().flat_map(|decision| &decision.links) {
        // The folder is on a fresh tmpfs of ours: there is nothing in the way.
        let made = link.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::os::unix::fs::symlink(target, link)).map_err(|e| {
            Failure::unavailable(format!("cannot make the link {}: {e}", link.display()), "look at /run/dind")
        })?;
    }
    Ok(())
}

/// What a host would find and choose here. Nothing is changed.
///
/// # Errors
/// A setting that no host would take.
pub(crate) fn diagnose(settings: &Settings) -> Result<Vec<Finding>, Failure> {
    let authorities = Authorities::read(settings)?;
    let mut decisions = vec![cgroups::look(settings)];
    decisions.extend(decide(settings, &probe::run(&settings.daemon.data_root, &wanted(settings))));
    decisions.extend(authorities.map(|authorities| authorities.decide()));
    let missing = capabilities::check().err().map(|failure| {
        Decision::good("capabilities", failure.cause, "none: no host can run").missing(failure.help)
    });
    Ok(missing.into_iter().chain(decisions).map(|decision| decision.finding).collect())
}

/// Starts the process that makes the probes: other work can be done meanwhile.
///
/// # Errors
/// No process can be made.
pub(crate) fn start_probes(settings: &Settings) -> Result<Helper, Failure> {
    let mut arguments = vec!["probe".to_owned(), settings.daemon.data_root.display().to_string()];
    arguments.extend(wanted(settings).arguments());
    Helper::start("the probes of the ground", &arguments, &settings.environment, PROBES)
}

/// Makes the probes and prints what they found: the work of the process that [`start_probes`] starts.
pub(crate) fn print_probes(data_root: &Path, wanted: &Wanted) -> String {
    serde_json::to_string(&probe::run(data_root, wanted)).unwrap_or_default()
}

/// Which probes there is a use for.
fn wanted(settings: &Settings) -> Wanted {
    Wanted {
        no_firewall: !settings.firewall.needs_probe(&settings.daemon),
        storage: storage::wanted(settings).to_owned(),
        needed: pools::needed(settings),
    }
}

/// Mounts the data root's disk and prints what came of it: the work of the process that [`mount_disk`] starts.
pub(crate) fn print_disk(data_root: &Path, bytes: u64) -> String {
    serde_json::to_string(&storage::prepare(data_root, bytes)).unwrap_or_default()
}

/// Puts findings into the log, a line each.
pub(crate) fn say(log: &mut Log, findings: &[Finding]) {
    findings.iter().for_each(|finding| decision::say(log, finding));
}

/// Steps of the start, each with its time, as they are logged and shown by `status`.
#[derive(Default)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl Steps {
    /// Does `work` and takes note of how long it took; `describe` says what was done, if anything.
    pub(crate) fn take<T>(
        &mut self,
        log: &mut Log,
        name: &str,
        work: impl FnOnce() -> Result<(T, Option<String>), Failure>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let (result, said) = work()?;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(said) = said {
            log.info(&format!("{name}: {said}, in {ms} ms"));
        }
        self.0.push(Step { name: name.to_owned(), ms });
        Ok(result)
    }
}

/// Looks at what can be refused, before anything is changed, and finds the services' programs.
///
/// # Errors
/// What is missing, by name.
pub(crate) fn check(settings: &Settings, steps: &mut Steps, log: &mut Log) -> Result<Vec<PathBuf>, Failure> {
    steps.take(log, "checks", || {
        let path = settings.environment.get("PATH").cloned().unwrap_or_default();
        let programs = services::programs()
            .into_iter()
            .map(|program| find_program(program, &path))
            .collect::<Result<Vec<_>, Failure>>()?;
        capabilities::check()?;
        runtime::check(&settings.daemon.pidfile)?;
        network::check_ports(&settings.daemon.listeners(settings.listen.tls()))?;
        if sshd::is_wanted() {
            sshd::check_ports()?;
        }
        Ok((programs, None))
    })
}

/// Brings the ground into the state that services need.
///
/// # Errors
/// What cannot be brought there, by name.
pub(crate) fn prepare(
    settings: &Settings,
    steps: &mut Steps,
    log: &mut Log,
) -> Result<Surroundings, Failure> {
    steps.take(log, "orphans", || {
        let ended = runtime::end_orphans();
        Ok((
            (),
            (ended > 0).then(|| format!("{ended} processes of containers whose host was killed are ended")),
        ))
    })?;
    steps.take(log, "runtime folders", || Ok((runtime::renew()?, None)))?;
    steps.take(log, "mounts", || {
        let said = [mounts::share_root(), mounts::open_proc_sys()?];
        Ok(((), said.into_iter().flatten().reduce(|all, one| format!("{all}, {one}"))))
    })?;
    let proxies = registries::pass_on_proxies(settings);
    let cgroups =
        steps.take(log, "cgroups", || cgroups::prepare(settings).map(|decision| (decision, None)))?;
    let hostname =
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let addresses = network::addresses();
    let outside = network::outside()
        .or_else(|| addresses.iter().find(|address| !address.is_loopback()).copied())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let decisions = std::iter::once(cgroups).chain(proxies).collect();
    Ok(Surroundings { addresses, outside, hostname, decisions })
}

/// Starts the process that looks at the data root before we do.
///
/// # Errors
/// No process can be made.
pub(crate) fn start_look(settings: &Settings) -> Result<Helper, Failure> {
    let arguments = ["look".to_owned(), settings.daemon.data_root.display().to_string()];
    Helper::start("the data root", &arguments, &settings.environment, ANSWERS)
}

/// Takes hold of the data root, for as long as the value lives.
///
/// # Errors
/// It cannot be written to, or another host uses it.
pub(crate) fn take_data_root(path: &Path, steps: &mut Steps, log: &mut Log) -> Result<DataRoot, Failure> {
    steps.take(log, "data root", || {
        let data_root = DataRoot::lock(path)?;
        let said = match data_root.last_stop {
            // A data root of another engine: what befell it is not known.
            LastStop::First if path.join("image").is_dir() => {
                "used by a host for the first time, and what is in it is not checked (dind-init verify does)"
            }
            LastStop::First => "used for the first time",
            LastStop::Clean => "left by a clean stop",
            LastStop::Unclean => "the last stop was not clean",
        };
        let synced = Synced::load(path).filter(|_| data_root.last_stop == LastStop::Unclean);
        let said =
            synced.map_or(said.to_owned(), |synced| format!("{said}, last synced at {}", synced.since));
        Ok((data_root, Some(format!("{}: {said}", path.display()))))
    })
}

/// Sets aside what an unclean stop has damaged, and says so.
///
/// # Errors
/// It cannot be done, or a stop was asked for meanwhile: the next start does it.
pub(crate) fn repair(
    settings: &Settings,
    data_root: &DataRoot,
    engine_root: &Path,
    interrupts: &Interrupts,
    door: &mut Door,
    steps: &mut Steps,
    log: &mut Log,
) -> Result<(), NotUp> {
    // A host that kept its images elsewhere in the data root has not looked at those here.
    let moved = || Synced::load(&data_root.path).is_some_and(|synced| synced.engine_root != engine_root);
    if data_root.last_stop != LastStop::Unclean && !moved() {
        return Ok(());
    }
    let began = Instant::now();
    let folders = [&data_root.path, engine_root].map(|folder| folder.display().to_string());
    let arguments: Vec<String> = std::iter::once("repair".to_owned()).chain(folders).collect();
    let helper = Helper::start("the check of the data root", &arguments, &settings.environment, REPAIR)?;
    let report: Report = helper.answer(interrupts, log, Some(door))?;
    if let Some(trouble) = report.trouble {
        return Err(
            Failure::unavailable(trouble, "make room on its disk, or look at the machine's disk").into()
        );
    }
    for line in &report.set_aside {
        log.warn(line);
    }
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    log.info(&format!("repair: {}, in {ms} ms", report.summary));
    steps.0.push(Step { name: "repair".to_owned(), ms });
    Ok(())
}

/// Where an engine has its data if `data_root` is its data root: there, or on the disk in it.
pub(crate) fn engine_root(data_root: &Path) -> PathBuf {
    storage::mounted(data_root).unwrap_or_else(|| data_root.to_owned())
}

/// The file that `program` on `path` stands for.
///
/// # Errors
/// It is in none of the folders.
pub(crate) fn find_program(program: &str, path: &std::ffi::OsStr) -> Result<PathBuf, Failure> {
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
        .ok_or_else(|| {
            Failure::unavailable(
                format!(
                    "{program} is not in this image: it is in no folder of PATH ({})",
                    path.to_string_lossy()
                ),
                "use an image with a complete Docker engine, such as dind-debian, or set PATH to where it is",
            )
        })
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
}
