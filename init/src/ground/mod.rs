//! What a host needs from the machine under it. Whatever can be refused is looked at before anything is changed.

mod capabilities;
mod cgroups;
mod data_root;
mod mounts;
mod network;
mod runtime;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use dind_contract::status::{LastStop, Step};

use crate::failure::Failure;
use crate::log::Log;
use crate::services::Service;
use crate::settings::Settings;

pub(crate) use data_root::{DataRoot, mark_clean};
pub(crate) use mounts::detach_below;
pub(crate) use network::mtu;

/// Where a host finds itself.
pub(crate) struct Surroundings {
    /// Addresses of this machine.
    pub(crate) addresses: Vec<IpAddr>,
    /// The one by which the world reaches it.
    pub(crate) outside: IpAddr,
    /// Its name.
    pub(crate) hostname: String,
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
pub(crate) fn check(
    settings: &Settings,
    services: Vec<Service>,
    steps: &mut Steps,
    log: &mut Log,
) -> Result<Vec<(Service, PathBuf)>, Failure> {
    steps.take(log, "checks", || {
        let path = settings.environment.get("PATH").cloned().unwrap_or_default();
        let services = services
            .into_iter()
            .map(|service| find_program(service.program, &path).map(|program| (service, program)))
            .collect::<Result<Vec<_>, Failure>>()?;
        capabilities::check()?;
        runtime::check(&settings.daemon.pidfile)?;
        network::check_ports(&settings.daemon.listeners(settings.listen.tls()))?;
        Ok((services, None))
    })
}

/// Brings the ground into the state that services need.
///
/// # Errors
/// What cannot be brought there, by name.
pub(crate) fn prepare(steps: &mut Steps, log: &mut Log) -> Result<Surroundings, Failure> {
    steps.take(log, "orphans", || {
        let ended = runtime::end_orphans();
        Ok((
            (),
            (ended > 0).then(|| format!("{ended} processes of containers whose host was killed are ended")),
        ))
    })?;
    steps.take(log, "runtime folders", || Ok((runtime::renew()?, None)))?;
    steps.take(log, "mounts", || Ok(((), mounts::share_root())))?;
    steps.take(log, "cgroups", || cgroups::prepare().map(|said| ((), Some(said))))?;
    let hostname =
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let addresses = network::addresses();
    let outside = network::outside()
        .or_else(|| addresses.iter().find(|address| !address.is_loopback()).copied())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Surroundings { addresses, outside, hostname })
}

/// Takes hold of the data root, for as long as the value lives.
///
/// # Errors
/// It cannot be written to, or another host uses it.
pub(crate) fn take_data_root(path: &Path, steps: &mut Steps, log: &mut Log) -> Result<DataRoot, Failure> {
    steps.take(log, "data root", || {
        let data_root = DataRoot::lock(path)?;
        let said = match data_root.last_stop {
            LastStop::First => "used for the first time",
            LastStop::Clean => "left by a clean stop",
            LastStop::Unclean => "the last stop was not clean, dockerd picks up what is there",
        };
        Ok((data_root, Some(format!("{}: {said}", path.display()))))
    })
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
