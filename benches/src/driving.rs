//! What the command `dind` adds to what the engine and the host need, next to the docker command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::container::Container;
use crate::engine::{self, IMAGE, docker};
use crate::measure::milliseconds;
use crate::ways::Way;

/// How many hosts are listed.
const HOSTS: usize = 50;

/// The samples, in milliseconds, one a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Driving {
    /// `dind up -q`: from its start to its end, when the host is ready.
    pub(crate) up_ms: Vec<f64>,
    /// `docker run -d` with the same options, and `docker exec HOST dind-init wait`.
    pub(crate) docker_up_ms: Vec<f64>,
    /// Of `up_ms`, what passed before the engine had made the container, and after the host had said that it is ready.
    pub(crate) added_ms: Vec<f64>,
    /// `dind ls -a` with 50 hosts.
    pub(crate) ls_ms: Vec<f64>,
    /// `docker ps -a` with the same.
    pub(crate) docker_ps_ms: Vec<f64>,
}

/// Checks that there is the command.
pub(crate) fn check() -> Result<()> {
    ensure!(
        program().exists(),
        "there is no {}\n  help: ./quickstart --build builds it",
        program().display()
    );
    Ok(())
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dind")
}

/// One host by each, in turns.
pub(crate) fn once(round: u32, driving: &mut Driving) -> Result<()> {
    for turn in 0..2 {
        if (round + turn).is_multiple_of(2) {
            let (whole, added) = up()?;
            driving.up_ms.push(whole);
            driving.added_ms.push(added);
        } else {
            driving.docker_up_ms.push(docker_up()?);
        }
    }
    Ok(())
}

/// Lists 50 hosts by each, in turns. They are made and not started: a list asks the engine, and no host.
pub(crate) fn lists(rounds: u32, driving: &mut Driving) -> Result<()> {
    let made: Result<Vec<Container>> =
        (0..HOSTS).map(|_| Container::create(&[IMAGE], Way::Host.entrypoint())).collect();
    let _made = made?;
    for round in 0..rounds {
        for turn in 0..2 {
            let begin = Instant::now();
            if (round + turn).is_multiple_of(2) {
                let listed = dind(&["ls", "-a", "-q"])?;
                driving.ls_ms.push(milliseconds(begin.elapsed()));
                ensure!(listed.lines().count() >= HOSTS, "dind ls lists {} hosts", listed.lines().count());
            } else {
                docker(&["ps", "-a", "-q"])?;
                driving.docker_ps_ms.push(milliseconds(begin.elapsed()));
            }
        }
    }
    Ok(())
}

fn up() -> Result<(f64, f64)> {
    let label = engine::label();
    let (begin, clock) = (Instant::now(), OffsetDateTime::now_utc());
    let id = dind(&["up", "-q", "--image", IMAGE, "--label", &label])?;
    let (whole, end) = (begin.elapsed(), OffsetDateTime::now_utc());
    let created = moment(&docker(&["inspect", "--format", "{{.Created}}", &id])?)?;
    let log = docker(&["logs", &id])?;
    let line = log
        .lines()
        .find(|line| line.contains("dind-init: ready in"))
        .context("the host does not say that it is ready")?;
    let ready = moment(line.split(' ').next().unwrap_or_default())?;
    engine::remove(&id)?;
    let added = (created - clock) + (end - ready);
    Ok((milliseconds(whole), added.as_seconds_f64() * 1000.0))
}

fn docker_up() -> Result<f64> {
    let label = engine::label();
    let mut arguments = vec!["run", "-d", "--label", &label, "--publish", "127.0.0.1::2376"];
    let options = Way::Host.arguments();
    arguments.extend(options.iter().map(String::as_str));
    let begin = Instant::now();
    let id = docker(&arguments)?;
    docker(&["exec", &id, "dind-init", "wait"])?;
    let whole = begin.elapsed();
    engine::remove(&id)?;
    Ok(milliseconds(whole))
}

fn moment(text: &str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).with_context(|| format!("{text} is not a moment"))
}

/// Calls the command.
pub(crate) fn dind(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program());
    command.args(arguments);
    for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        command.env_remove(variable);
    }
    let output = command.output().context("cannot run dind")?;
    engine::printed(arguments, &output)
}
