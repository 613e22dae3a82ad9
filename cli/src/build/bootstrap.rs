//! A base made from Debian's packages, where no registry gives one.

use std::path::Path;
use std::process::Stdio;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::endpoint::{self, Endpoint};
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::state;

/// The name of a base that was made here.
pub(crate) fn name(release: &str) -> String {
    format!("dind-base:{release}")
}

/// Makes it with mmdebstrap, on this machine, and gives it to the endpoint.
///
/// # Errors
/// There is no mmdebstrap, or it fails: with its last lines.
pub(crate) async fn make(endpoint: &Endpoint, release: &str, progress: &Progress) -> Result<String> {
    let program = which::which("mmdebstrap").map_err(|_| {
        Failure::unavailable(
            "there is no mmdebstrap in PATH, with which a base is made from Debian's packages",
            "as root: apt-get install mmdebstrap (and uidmap, for who is not root)",
        )
    })?;
    let folder = state::folder();
    state::private_folder(&folder)?;
    let file = folder.join(format!("base-{}.tar", std::process::id()));
    let made = debootstrap(&program, release, &file, progress).await;
    let name = name(release);
    let given = match made {
        Ok(()) => import(endpoint, &file, &name, progress).await,
        Err(failure) => Err(failure),
    };
    let _ = std::fs::remove_file(&file);
    given.map(|()| name)
}

async fn debootstrap(program: &Path, release: &str, file: &Path, progress: &Progress) -> Result<()> {
    let made = name(release);
    progress.begin(
        &format!("making {made} from Debian's packages"),
        &format!("{made} is made from Debian's packages"),
    );
    let mut child = Command::new(program)
        .arg("--variant=minbase")
        // Without what debian:RELEASE-slim is without, too.
        .args(
            ["doc", "info", "lintian", "locale", "man"]
                .map(|folder| format!("--dpkgopt=path-exclude=/usr/share/{folder}/*")),
        )
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        .arg("--format=tar")
        .arg("--")
        .arg(release)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            Failure::unavailable(
                format!("cannot run {}: {e}", program.display()),
                "look whether it is executable",
            )
        })?;
    let mut last = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            progress.detail(&line);
            last.push(line);
            if last.len() > 10 {
                last.remove(0);
            }
        }
    }
    match child.wait().await {
        Ok(status) if status.success() => {
            progress.end();
            Ok(())
        }
        _ => Err(Failure::unavailable(
            format!("mmdebstrap cannot make a system of Debian {release}"),
            "its last lines say why; it needs Debian's packages, and root or user namespaces (uidmap)",
        )
        .with_details(last)),
    }
}

async fn import(endpoint: &Endpoint, file: &Path, name: &str, progress: &Progress) -> Result<()> {
    progress.begin(&format!("giving {name} to the endpoint"), &format!("the endpoint has {name}"));
    let bytes = tokio::fs::read(file)
        .await
        .map_err(|e| Failure::new(format!("cannot read {}: {e}", file.display()), "try again"))?;
    let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
    let body = bollard::body_full(bytes.into());
    let pieces = endpoint.docker.create_image(Some(options), Some(body), None);
    let refuse = |cause: String| {
        Failure::new(format!("the endpoint does not take {name}: {cause}"), "look whether its disk is full")
    };
    let pieces: Vec<_> = pieces.map_err(|error| refuse(endpoint::cause(&error))).collect().await;
    for piece in pieces {
        if let Some(error) = piece?.error_detail.and_then(|detail| detail.message) {
            return Err(refuse(error));
        }
    }
    progress.end();
    Ok(())
}
