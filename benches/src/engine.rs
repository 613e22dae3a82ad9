//! The machine's own engine, and the removal of whatever a run made on it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio, exit};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Uid;

/// The image that everything is measured on.
pub(crate) const IMAGE: &str = "dind-debian";

/// The label of every container made here; its value is the pid of the run.
const LABEL: &str = "dind.benches";

/// How long one call of docker may take, in seconds, where nothing else is said.
const DEADLINE: u32 = 60;

/// Held while a container is made, and for good once the run is interrupted.
static CREATING: Mutex<()> = Mutex::new(());

/// Calls docker, and gives what it printed without the last newline.
pub(crate) fn docker(arguments: &[&str]) -> Result<String> {
    docker_within(DEADLINE, arguments)
}

/// The same for what may take longer than others: so many seconds.
pub(crate) fn docker_within(seconds: u32, arguments: &[&str]) -> Result<String> {
    let output = spawn_for(seconds, arguments)?.wait_with_output()?;
    printed(arguments, &output)
}

/// Starts a call of docker, to be ended by [`printed`].
pub(crate) fn spawn(arguments: &[&str]) -> Result<Child> {
    spawn_for(DEADLINE, arguments)
}

fn spawn_for(seconds: u32, arguments: &[&str]) -> Result<Child> {
    // timeout(1) also puts docker into a process group of its own: Ctrl-C is for us to see.
    let mut command = Command::new("timeout");
    command.args([&seconds.to_string(), "docker"]).args(arguments);
    for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        // The processes that are measured must be this machine's.
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot run timeout(1), which runs docker")
}

/// What a call of docker printed, or why it failed.
pub(crate) fn printed(arguments: &[&str], output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let call = arguments.first().copied().unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(124) => bail!("docker {call} was not done in time"),
        _ => bail!("docker {call} failed: {}", said.trim_end()),
    }
}

/// What marks a container as ours.
pub(crate) fn label() -> String {
    format!("{LABEL}={}", std::process::id())
}

/// Makes a container, marked as ours; gives its id.
pub(crate) fn create(arguments: &[&str]) -> Result<String> {
    let label = label();
    let arguments: Vec<_> = ["create", "--label", &label].iter().chain(arguments).copied().collect();
    let creating = CREATING.lock();
    let id = docker(&arguments);
    drop(creating);
    id
}

/// Checks that there is what the run needs, removes what killed runs left, and sees to it that an interrupted run
/// leaves nothing.
pub(crate) fn prepare() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("only root may see the processes and sockets in a container\n  help: run it as root");
    }
    if let Err(error) = docker(&["version", "--format", "{{.Server.Version}}"]) {
        bail!(
            "there is no Docker engine here: {error:#}\n  help: ./quickstart --build installs and starts one"
        );
    }
    if docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]).is_err() {
        bail!("the image {IMAGE} is not there\n  help: ./quickstart --build builds it");
    }
    let version = docker(&["run", "--rm", "--entrypoint", "dind-init", IMAGE, "--version"])?;
    if version.contains("not optimized") {
        bail!(
            "the image {IMAGE} is one that ./check made for its tests, not optimized\n  help: ./quickstart --build-all"
        );
    }
    sweep_when_interrupted()?;
    sweep()
}

fn sweep_when_interrupted() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    // Blocked in every thread that is made from here on; std unblocks what it starts.
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        let signal = signals.wait();
        let _creating = CREATING.lock();
        eprintln!("dind-benches: interrupted, removing containers");
        if let Err(error) = sweep() {
            eprintln!("dind-benches: {error:#}");
        }
        exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}

/// Removes the containers of this run, and of those that are gone.
pub(crate) fn sweep() -> Result<()> {
    let filter = format!("label={LABEL}");
    let format = format!("{{{{.ID}}}} {{{{.Label \"{LABEL}\"}}}}");
    let list = docker(&["ps", "--all", "--filter", &filter, "--format", &format])?;
    let me = std::process::id().to_string();
    let ours = list.lines().filter_map(|line| line.split_once(' '));
    let left = ours.filter(|(_, owner)| *owner == me || !Path::new("/proc").join(owner).exists());
    // One that stays must not keep the others.
    let removed: Vec<_> = left.map(|(id, _)| remove(id)).collect();
    removed.into_iter().collect()
}

/// Removes a container and its anonymous volume. It is no error when someone else does, or did.
pub(crate) fn remove(id: &str) -> Result<()> {
    match docker(&["rm", "--force", "--volumes", id]) {
        Err(error)
            if !["No such container", "already in progress"]
                .iter()
                .any(|known| error.to_string().contains(known)) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Returns, unless the run was interrupted: then the thread that cleans up ends the process.
pub(crate) fn yield_to_interruption() {
    drop(CREATING.lock());
}
