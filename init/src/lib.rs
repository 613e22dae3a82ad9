//! `dind-init`: PID 1 of a Docker host, and the subcommands that ask it.
//!
//! As PID 1 or as the child of another init it brings up containerd and dockerd, keeps them up, and takes them down
//! without losing anything.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "PID 1 does not die"
)]

mod appliance;
mod arguments;
mod ask;
mod changes;
mod client;
mod command;
mod copy;
mod doctor;
mod engine_config;
mod event_loop;
mod exec;
mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ground;
mod helper;
mod host;
mod http;
mod interrupts;
mod layers;
mod lines;
mod log;
mod notify;
mod options;
mod pipes;
mod process;
mod reaper;
mod repair;
mod resolver;
mod services;
mod settings;
mod shutdown;
mod signals;
mod sshd;
mod status;
mod store;
mod supervisor;
mod sync;
mod terminal;
mod tls;
mod users;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dind_contract::exit;

use arguments::Job;
use command::Command;

/// How long readers may take for the last lines, all in all. A host ends in time, read or not.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(200);

/// Does what the program was called for.
pub fn main() -> ExitCode {
    let began = Instant::now();
    std::panic::set_hook(Box::new(|info| {
        log::last_words(
            format!("dind-init: defect: {info}\n  help: report this, with the log\n").as_bytes(),
            Instant::now() + LAST_WORDS,
        );
        std::process::exit(exit::FAILED.into());
    }));
    let result = match arguments::parse(arguments::words(std::env::args_os())) {
        Ok(Job::Host(options)) => {
            let stays = arguments::as_entrypoint(&options).and_then(ask::stay);
            stays.unwrap_or_else(|| host::run(&options, None, began))
        }
        Ok(Job::Command(words)) => host::run_for(&words, began),
        Ok(Job::Client(words)) => Command::find(&words, std::env::vars_os())
            .and_then(|command| exec::supervise(&command.elsewhere())),
        Ok(Job::Exec(words)) => exec::run(&words, std::env::vars_os()),
        Ok(Job::Status { json }) => ask::status(json),
        Ok(Job::Wait { timeout, json }) => ask::wait(timeout, json),
        Ok(Job::Health) => ask::health(),
        Ok(Job::Doctor { json }) => doctor::doctor(json),
        Ok(Job::Resolver { servers }) => resolver::run(&servers),
        Ok(Job::Look { data_root }) => {
            ask::print(&serde_json::to_string(&ground::look(&data_root)).unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::Probe { data_root, wanted }) => {
            ask::print(&ground::print_probes(&data_root, &wanted));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::Disk { data_root, bytes }) => {
            ask::print(&ground::print_disk(&data_root, bytes));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::Trial) => {
            ground::run_trial();
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::HostKeys) => {
            ask::print(&sshd::print_host_keys());
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::CheckApplication(project)) => {
            ask::print(&appliance::print_check(&project));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::Application(duty)) => appliance::run(&duty),
        Ok(Job::Store { data_root, engine_root, linked }) => {
            let answer = store::prepare(&data_root, &engine_root, linked);
            ask::print(&serde_json::to_string(&answer).unwrap_or_default());
            Ok(ExitCode::SUCCESS)
        }
        Ok(Job::LoadStore { data_root }) => store::load(&data_root),
        Ok(Job::MakeStore { request, target }) => {
            store::make(Path::new(dind_contract::paths::DATA_ROOT), &request, &target)
        }
        Ok(Job::CopyDataRoot { source, target }) => copy::run(&source, &target, std::env::vars_os()),
        Ok(Job::Adduserkey { remove, list, words }) => users::run(remove, list, &words),
        Ok(Job::Repair { data_root, engine_root }) => repair::run(&data_root, &engine_root),
        Ok(Job::Verify { data_root, json }) => repair::verify(&ground::engine_root(&data_root), json),
        Ok(Job::Sync { data_root, engine_root }) => sync::run(&data_root, &engine_root),
        Ok(Job::Flush { data_root, engine_root, clean }) => sync::finish(&data_root, &engine_root, clean),
        Ok(Job::Print(text)) => {
            ask::print(&text);
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => Err(failure),
    };
    result.unwrap_or_else(|failure| {
        log::last_words(failure.to_string().as_bytes(), Instant::now() + LAST_WORDS);
        ExitCode::from(failure.code)
    })
}

/// The text of a file that somebody brought; `None`: there is none.
///
/// # Errors
/// It is no file, or cannot be read. A pipe in its place does not keep us waiting.
fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.json");
        assert_eq!(read_if_there(&path).unwrap(), None);
        fs::write(&path, "{}").unwrap();
        assert_eq!(read_if_there(&path).unwrap().as_deref(), Some("{}"));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_if_there(&path).unwrap_err().to_string(), "it is no file");
        assert!(read_if_there(folder.path()).is_err());
    }
}
