//! What is done with a container, one function a column of the table. Each gives the text of its cell, or how it failed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::archive::Archive;

use super::container::Container;
use super::facts::{Facts, Kept};
use super::place::{succeed, wait};

/// The text of a cell, or how what it is about failed.
pub(super) type Cell = Result<String, String>;

/// A file that is copied into a container, out of it, and is in its image after a commit.
const COPIED: (&str, &str) = ("/tmp/copied", "copied into the container\n");
/// `docker stop` waits so long before it kills; nothing here takes that long.
const GRACE: &str = "60";

pub(super) fn health(container: &Container<'_>) -> Cell {
    container.wait()?;
    container.inspect("{{.State.Health.Status}}")
}

pub(super) fn exec_as_root(container: &Container<'_>) -> Cell {
    container.exec(&["-u", "root"], "id -u").map(|uid| format!("uid {uid}"))
}

/// A user of the image's own sees what process 1 is, and whose.
pub(super) fn exec_as_user(container: &Container<'_>, facts: &Facts) -> Cell {
    let line =
        "id -un; while read -r name value _; do [ $name != Uid: ] || echo $value; done </proc/1/status";
    let output = container.exec(&["-u", &facts.user], line)?;
    Ok(output.replace('\n', ", process 1 is "))
}

pub(super) fn logs(container: &Container<'_>, facts: &Facts) -> Cell {
    container.wait_for_log(&facts.ready, 1)?;
    Ok("ready".into())
}

/// Of the rows of `docker top`, those that are expected: health checks come and go.
pub(super) fn top(container: &Container<'_>, facts: &Facts) -> Cell {
    let output = container.place.docker(["top", &container.name, "-eo", "pid,uid,comm"])?;
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        Some(words.get(1..)?.join(" "))
    };
    let rows: BTreeSet<String> = output.lines().skip(1).filter_map(row).collect();
    let missing: Vec<&String> = facts.top.iter().filter(|row| !rows.contains(*row)).collect();
    if missing.is_empty() { Ok(facts.top.join(", ")) } else { Err(format!("no {missing:?} in\n{output}")) }
}

/// Memory and processes are counted, and there are as many processes as `docker top` lists, at least.
pub(super) fn stats(container: &Container<'_>, facts: &Facts) -> Cell {
    let format = "{{.MemUsage}};{{.PIDs}}";
    let output = container.place.docker(["stats", "--no-stream", "--format", format, &container.name])?;
    let (memory, processes) = output.split_once(';').unwrap_or_default();
    let processes: usize = processes.parse().unwrap_or_default();
    if memory.starts_with("0B") || memory.starts_with('-') || processes < facts.top.len() {
        return Err(format!("docker stats counts {output:?}"));
    }
    Ok("counted".into())
}

/// A file goes in, is there, and comes out as it was.
pub(super) fn copy(container: &Container<'_>) -> Cell {
    let (path, content) = COPIED;
    let archive = Archive::new().file(path, 0o640, content.as_bytes()).bytes();
    let target = format!("{}:/", container.name);
    succeed(container.place.call().args(["cp", "-", &target]).stdin(archive))?;
    let seen = container.exec(&["-u", "root"], &format!("stat -c '%a %u:%g' {path} && cat {path}"))?;
    let source = format!("{}:{path}", container.name);
    let output = succeed(container.place.call().args(["cp", &source, "-"]))?;
    let error = |error: std::io::Error| format!("docker cp gives no archive: {error}");
    let mut archive = tar::Archive::new(output.as_bytes());
    let mut entry =
        archive.entries().map_err(error)?.next().ok_or("docker cp gives nothing")?.map_err(error)?;
    let mode = entry.header().mode().map_err(error)?;
    let mut text = String::new();
    entry.read_to_string(&mut text).map_err(error)?;
    if (seen + "\n", mode & 0o777, text.as_str()) != (format!("640 0:0\n{content}"), 0o640, content) {
        return Err(format!("the file has mode {mode:o} and says {text:?}"));
    }
    Ok("in and out".into())
}

/// The image of the container has the copied file, and is otherwise the container's own.
pub(super) fn commit(container: &Container<'_>, facts: &Facts) -> Cell {
    let (place, (path, content)) = (container.place, COPIED);
    let image = format!("{}-committed", container.name);
    place.docker(["commit", &container.name, &image])?;
    let found = place.docker(["run", "--rm", "--user", "0", "--entrypoint", "cat", &image, path]);
    let signal = place.docker(["image", "inspect", "--format", "{{.Config.StopSignal}}", &image]);
    place.docker(["rmi", &image])?;
    let (found, signal) = (found?, or_default(signal?));
    if found != content.trim_end() || signal != facts.stop.signal {
        return Err(format!("the committed image says {found:?} and stops by {signal}"));
    }
    Ok("kept".into())
}

/// What answers at the published port.
pub(super) fn port(container: &Container<'_>, facts: &Facts) -> Cell {
    let published = container.place.docker(["port", &container.name, &facts.port.to_string()])?;
    let port = published.lines().next().and_then(|line| line.rsplit_once(':')?.1.parse::<u16>().ok());
    let port = port.ok_or_else(|| format!("docker port says {published:?}"))?;
    let address = container.place.address();
    let answered = || {
        let answer = ask(&address, port, facts);
        Ok(match answer {
            Ok(answer) if answer.contains(&facts.answers) => Ok(()),
            answer => Err(format!("{address}:{port} answers {answer:?}")),
        })
    };
    wait(20, answered)?;
    Ok("answers".into())
}

/// Everything until the answer is there, or nothing more comes.
fn ask(address: &str, port: u16, facts: &Facts) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // One byte a character: what is asked need not be text.
    let bytes: Vec<u8> =
        facts.asks.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect();
    stream.write_all(&bytes)?;
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains(&facts.answers) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.push_str(&String::from_utf8_lossy(&buffer[..count])),
            Err(error) if answer.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(answer)
}

/// What was written before is there after `docker restart`.
pub(super) fn restart(container: &Container<'_>, facts: &Facts) -> Cell {
    let before = container.inspect("{{.State.StartedAt}}")?;
    container.place.docker(["restart", "-t", GRACE, &container.name])?;
    container.wait()?;
    let after = container.inspect("{{.State.StartedAt}}")?;
    if before == after {
        return Err(format!("docker restart has left it running since {before}"));
    }
    facts.kept().map_or(Ok("healthy".into()), |kept| container.exec(&[], kept.read))
}

/// `docker stop`, with the image's own signal.
pub(super) fn stop(container: &Container<'_>, facts: &Facts) -> Cell {
    let says = &facts.stop.says;
    // It has stopped before: for the restart, and postgres for the making of its database.
    let before = container.logs()?.matches(says).count();
    container.place.docker(["stop", "-t", GRACE, &container.name])?;
    let signal = or_default(container.inspect("{{.Config.StopSignal}}")?);
    let code = container.inspect("{{.State.ExitCode}}")?;
    container.wait_for_log(says, before + 1)?;
    Ok(format!("{code} by {signal}"))
}

/// The signal of an image that names none.
fn or_default(signal: String) -> String {
    if signal.is_empty() { "SIGTERM".into() } else { signal }
}

pub(super) fn write(container: &Container<'_>, kept: &Kept<'_>) -> Result<(), String> {
    container.exec(&[], kept.write).map(|_| ())
}

/// A new container on the volume of the one that was stopped has what that one kept.
pub(super) fn volume(container: &Container<'_>, kept: &Kept<'_>) -> Cell {
    container.remove()?;
    container.start_anew()?;
    container.wait()?;
    container.exec(&[], kept.read)
}

/// Everything in the volume belongs to whom it should, also after somebody has given it to root.
pub(super) fn owner(container: &Container<'_>, kept: &Kept<'_>) -> Cell {
    // Files that go away meanwhile are nobody's.
    let line = format!("find {} -ignore_readdir_race -printf '%U:%G\\n' | sort -u", kept.volume);
    let owners = |container: &Container<'_>| container.exec(&["-u", "root"], &line);
    let before = owners(container)?;
    if !kept.chowns || before.contains('\n') {
        return Ok(before.replace('\n', " "));
    }
    container.remove()?;
    container.run_on_volume(kept.volume, "chown", &["-R", "0:0", kept.volume])?;
    container.start_anew()?;
    container.wait()?;
    let after = owners(container)?;
    if after == before { Ok(after) } else { Err(format!("given to root, the volume belongs to {after}")) }
}
