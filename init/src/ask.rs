//! The subcommands that ask a running host: `status`, `wait` and `health`. They are ordinary programs, and may block.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dind_contract::status::{ContainerState, Health, LastStop, Phase, ServiceState};
use dind_contract::{Status, exit, paths};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;
use crate::http::{Asked, Question};

/// How long a host may take to say how it is.
const ANSWER: Duration = Duration::from_secs(5);
/// Time between two tries to reach a host that has just been started.
const AGAIN: Duration = Duration::from_millis(20);
/// Days before a certificate's end from which on `status` and `health` speak of it.
pub(crate) const WARN_DAYS: i64 = 30;

/// Prints how the host is.
pub(crate) fn status(json: bool) -> Result<ExitCode, Failure> {
    let status = current()?;
    let text = if json {
        serde_json::to_string_pretty(&status).map_err(|e| {
            Failure::failed(format!("cannot write the status: {e}"), "report this as a defect")
        })? + "\n"
    } else {
        describe(&status)
    };
    show(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the host is ready. With `json` each status on the way is printed, one a line, the last being that of the ready host.
pub(crate) fn wait(timeout: Duration, json: bool) -> Result<ExitCode, Failure> {
    let deadline = Instant::now().checked_add(timeout);
    let mut last = None;
    loop {
        match follow(deadline, json, &mut last) {
            Ok(status) if status.phase == Phase::Ready => {
                if !json {
                    print(&format!("ready: {}\n", status.endpoint.environment()));
                }
                return Ok(ExitCode::SUCCESS);
            }
            Ok(_) => {
                return Err(Failure::failed(
                    "the host is stopping, so it will not be ready",
                    "look at its log: docker logs HOST",
                ));
            }
            // It is not there yet, or not any more.
            Err(_) => {
                let left =
                    deadline.map_or(AGAIN, |deadline| deadline.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    return Err(timed_out(timeout, last.as_ref()));
                }
                pause(left.min(AGAIN));
            }
        }
    }
}

/// Stays for as long as the host that runs here does; `None`: there is none. In `docker:dind` a command may start the engine itself
/// (`sh -c "… && dockerd-entrypoint.sh"`); here there is one already, for every command.
pub(crate) fn stay(options: &[String]) -> Option<Result<ExitCode, Failure>> {
    let stream = UnixStream::connect(paths::STATUS_SOCKET).ok()?;
    if let Some(option) = options.first() {
        return Some(Err(Failure::usage(
            format!("the host runs already, so {option} comes too late for its dockerd"),
            "give dockerd's options in DOCKER_OPTS",
        )));
    }
    let mut lines = BufReader::new(stream);
    while read_line(&mut lines).is_ok() {}
    Some(Ok(ExitCode::SUCCESS))
}

/// Says whether the host is ready and its engine answers right now.
pub(crate) fn health() -> Result<ExitCode, Failure> {
    let status = current()?;
    if status.phase != Phase::Ready {
        return Err(Failure::failed(
            format!("the host is {}: {}", status.phase.word(), waits(&status).join(", ")),
            "look at its log: docker logs HOST",
        ));
    }
    if !ping(Path::new(paths::DOCKER_SOCKET), ANSWER) {
        return Err(Failure::failed(
            format!("dockerd does not answer on {} within {} s", paths::DOCKER_SOCKET, ANSWER.as_secs()),
            "look at its log: docker logs HOST; a restart of the host brings a hung engine back",
        ));
    }
    print("healthy\n");
    for warning in &status.warnings {
        print(&format!("warning: {warning}\n"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The status as it is now.
pub(crate) fn current() -> Result<Status, Failure> {
    let no_host = |e: &io::Error| {
        Failure::unavailable(
            format!("no host answers on {}: {e}", paths::STATUS_SOCKET),
            "run this inside a running host: docker exec HOST dind-init status",
        )
    };
    let stream = UnixStream::connect(paths::STATUS_SOCKET).map_err(|e| no_host(&e))?;
    stream.set_read_timeout(Some(ANSWER)).map_err(|e| no_host(&e))?;
    let line = read_line(&mut BufReader::new(stream)).map_err(|e| no_host(&e))?;
    parse(&line).map_err(|e| no_host(&e))
}

/// Follows the host until it is ready or stopping; an error when it hangs up or the time is over.
fn follow(deadline: Option<Instant>, json: bool, last: &mut Option<Status>) -> io::Result<Status> {
    let stream = UnixStream::connect(paths::STATUS_SOCKET)?;
    let mut lines = BufReader::new(stream);
    // The status as it is now comes at once, and is heard even with no time left.
    let mut patience = Some(ANSWER);
    loop {
        lines.get_ref().set_read_timeout(patience)?;
        let line = read_line(&mut lines)?;
        let status = parse(&line)?;
        if json {
            print(&line);
        }
        *last = Some(status.clone());
        if matches!(status.phase, Phase::Ready | Phase::Stopping) {
            return Ok(status);
        }
        patience = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if patience.is_some_and(|left| left.is_zero()) {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

fn read_line(lines: &mut BufReader<UnixStream>) -> io::Result<String> {
    let mut line = String::new();
    match lines.read_line(&mut line)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(line),
    }
}

fn parse(line: &str) -> io::Result<Status> {
    serde_json::from_str(line).map_err(io::Error::other)
}

fn timed_out(timeout: Duration, last: Option<&Status>) -> Failure {
    let seen = last.map_or_else(
        || format!("no host answers on {}", paths::STATUS_SOCKET),
        |status| format!("the host is still {} ({})", status.phase.word(), waits(status).join(", ")),
    );
    Failure {
        code: exit::TIMED_OUT,
        cause: format!("not ready after {} s: {seen}", timeout.as_secs_f64()),
        help: "look at the host's log (docker logs HOST), or wait longer with --timeout".to_owned(),
    }
}

/// Asks the engine, waiting at most `patience` for all of its answer.
fn ping(socket: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let Ok(mut asked) = Asked::engine(socket, Question::Ping) else { return false };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let polled = poll(&mut [PollFd::new(asked.fd(), PollFlags::POLLIN)], timeout);
        match polled {
            Ok(1..) => {
                if let Some(answer) = asked.advance() {
                    return answer;
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            _ => return false,
        }
    }
}

/// Waits, without a signal or an event that could end it.
fn pause(time: Duration) {
    let _ = poll(&mut [], PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
}

/// Prints an answer, which must not be taken for one when it is not all there.
///
/// # Errors
/// It cannot be written. That nobody reads it any more is none.
pub(crate) fn show(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("cannot write to standard output: {e}"),
            "look at where it goes: its disk may be full",
        )),
        _ => Ok(()),
    }
}

/// Prints to standard output; that nobody reads it is not our trouble.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn times(restarts: u32) -> String {
    match restarts {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        more => format!(", restarted {more} times"),
    }
}

/// What is not as it should be.
fn waits(status: &Status) -> Vec<String> {
    let services = status.services.iter().filter(|service| service.state != ServiceState::Ready);
    let mut waits: Vec<String> =
        services.map(|service| format!("{} is {}", service.name, service.state.word())).collect();
    for container in status.application.iter().flat_map(|application| &application.containers) {
        let (name, state) = (&container.name, container.state.word());
        match (container.state, container.health, container.exit_code) {
            (ContainerState::Running, None | Some(Health::Healthy), _)
            | (ContainerState::Exited, _, Some(0)) => {}
            (ContainerState::Running, Some(Health::Starting), _) => {
                waits.push(format!("{name} has not been found healthy yet"));
            }
            (ContainerState::Running, Some(Health::Unhealthy), _) => {
                waits.push(format!("{name} is unhealthy"));
            }
            (_, _, Some(code)) => waits.push(format!("{name} has {state} with {code}")),
            _ => waits.push(format!("{name} is {state}")),
        }
    }
    waits
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:<12} {}", "phase", status.phase.word());
    if let Some(ms) = status.ready_ms {
        text.push_str(&format!(" (ready in {ms} ms)"));
    }
    for service in &status.services {
        let pid = service.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let restarts = times(service.restarts);
        text.push_str(&format!("\n{:<12} {}{pid}{restarts}", service.name, service.state.word()));
    }
    for container in status.application.iter().flat_map(|application| &application.containers) {
        let code = container.exit_code.map_or_else(String::new, |code| format!(" with {code}"));
        let health = container.health.map_or_else(String::new, |health| match health {
            Health::Starting => ", no health yet".to_owned(),
            other => format!(", {}", other.word()),
        });
        let restarts = times(container.restarts);
        let state = container.state.word();
        text.push_str(&format!("\n  {:<10} {state}{code}{health}{restarts}", container.name));
    }
    if let Some(seconds) = status.seconds_left {
        text.push_str(&format!("\n{:<12} in {} (DIND_TIME_LIMIT)", "ends", in_words(seconds)));
    }
    text.push_str(&format!("\n{:<12} {}", "client", status.endpoint.environment()));
    if let Some(certificate) = &status.certificate {
        let (day, days) = (certificate.expires.get(..10).unwrap_or_default(), certificate.days_left);
        text.push_str(&format!("\n{:<12} until {day} ({days} days)", "certificate"));
    }
    let last = match status.last_stop {
        LastStop::First => "none, the data root was new",
        LastStop::Clean => "clean",
        LastStop::Unclean => "not clean",
    };
    text.push_str(&format!("\n{:<12} {last}", "last stop"));
    for warning in &status.warnings {
        text.push_str(&format!("\n{:<12} {warning}", "warning"));
    }
    text + "\n"
}

/// A number of seconds, in its two largest units.
fn in_words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / (60 * 60), seconds / (24 * 60 * 60));
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use dind_contract::status::{Application, Certificate, Container, Endpoint, Service};

    use super::*;

    #[test]
    fn the_text_says_what_the_document_says() {
        let status = Status {
            version: "1".into(),
            phase: Phase::Degraded,
            services: vec![
                Service { name: "containerd".into(), state: ServiceState::Ready, pid: Some(7), restarts: 0 },
                Service { name: "dockerd".into(), state: ServiceState::Backoff, pid: None, restarts: 2 },
            ],
            application: Some(Application {
                project: "compose".into(),
                containers: vec![
                    Container {
                        name: "task-1".into(),
                        state: ContainerState::Exited,
                        health: None,
                        exit_code: Some(3),
                        restarts: 0,
                    },
                    Container {
                        name: "web-1".into(),
                        state: ContainerState::Running,
                        health: Some(Health::Unhealthy),
                        exit_code: None,
                        restarts: 1,
                    },
                ],
            }),
            endpoint: Endpoint {
                docker_host: "tcp://10.0.0.2:2376".into(),
                tls_verify: true,
                cert_path: None,
            },
            certificate: Some(Certificate { expires: "2028-02-01T00:00:00Z".into(), days_left: 12 }),
            last_stop: LastStop::Unclean,
            ready_ms: Some(312),
            seconds_left: Some(3725),
            last_sync: None,
            steps: Vec::new(),
            ground: Vec::new(),
            warnings: vec!["careful".into()],
        };
        let expected = "\
phase        degraded (ready in 312 ms)
containerd   ready, pid 7
dockerd      backoff, restarted 2 times
  task-1     exited with 3
  web-1      running, unhealthy, restarted once
ends         in 1 h 2 min (DIND_TIME_LIMIT)
client       DOCKER_HOST=tcp://10.0.0.2:2376 DOCKER_TLS_VERIFY=1
certificate  until 2028-02-01 (12 days)
last stop    not clean
warning      careful
";
        assert_eq!(describe(&status), expected);
        assert_eq!(waits(&status), ["dockerd is backoff", "task-1 has exited with 3", "web-1 is unhealthy"]);
    }

    #[test]
    fn time_is_said_in_two_units() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3599, "59 min 59 s"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }

    #[test]
    fn an_engine_that_does_not_answer_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!ping(&path, Duration::from_millis(30)));
    }
}
