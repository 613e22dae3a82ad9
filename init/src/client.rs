//! A command as a client of an engine that runs elsewhere: what `docker-entrypoint.sh` does in `docker:dind`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use dind_contract::{API_PORT, PLAIN_PORT, paths, variables};

/// What `docker:dind` calls the program that runs its clients.
pub(crate) const ENTRYPOINT: &str = "docker-entrypoint.sh";

/// How `docker:dind` calls the host that a client is for, unless somebody says otherwise.
const SERVICE: &str = "docker";

/// Words that are docker's: its own commands, from 20.10 to 29, and those of the plugins in the image. They are listed here because
/// `docker help WORD`, which is how `docker:dind` asks, is a program that a start would wait for.
const COMMANDS: [&str; 61] = [
    "attach",
    "bake",
    "build",
    "builder",
    "buildx",
    "checkpoint",
    "commit",
    "compose",
    "config",
    "container",
    "context",
    "cp",
    "create",
    "diff",
    "events",
    "exec",
    "export",
    "help",
    "history",
    "image",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "login",
    "logout",
    "logs",
    "manifest",
    "network",
    "node",
    "pause",
    "plugin",
    "port",
    "ps",
    "pull",
    "push",
    "rename",
    "restart",
    "rm",
    "rmi",
    "run",
    "save",
    "search",
    "secret",
    "service",
    "stack",
    "start",
    "stats",
    "stop",
    "swarm",
    "system",
    "tag",
    "top",
    "trust",
    "unpause",
    "update",
    "version",
    "volume",
    "wait",
];

/// The command that these words mean: options and commands of docker's have `docker` before them.
pub(crate) fn complete(words: &[OsString]) -> Vec<OsString> {
    let is_dockers = words.first().is_some_and(|word| {
        word.as_bytes().starts_with(b"-") || COMMANDS.iter().any(|command| word == command)
    });
    is_dockers.then(|| OsString::from("docker")).into_iter().chain(words.iter().cloned()).collect()
}

/// The environment of a client here, for user `uid`.
pub(crate) fn environment(given: BTreeMap<OsString, OsString>, uid: u32) -> BTreeMap<OsString, OsString> {
    let is_socket = |path: &Path| path.metadata().is_ok_and(|file| file.file_type().is_socket());
    let has_text = |path: &Path| path.metadata().is_ok_and(|file| file.len() > 0);
    lead(given, uid, is_socket, has_text)
}

/// Leads a client to an engine: to the one that was named, else to that of a socket here, else to the host that `docker:dind` would
/// be beside it, with TLS where that has left a certificate. An empty variable is as good as none.
fn lead(
    mut environment: BTreeMap<OsString, OsString>,
    uid: u32,
    is_socket: impl Fn(&Path) -> bool,
    has_text: impl Fn(&Path) -> bool,
) -> BTreeMap<OsString, OsString> {
    let set = |name: &str| environment.get(OsStr::new(name)).filter(|value| !value.is_empty());
    let runtime = set("XDG_RUNTIME_DIR").map_or_else(|| format!("/run/user/{uid}").into(), PathBuf::from);
    let sockets = [PathBuf::from(paths::DOCKER_SOCKET), runtime.join("docker.sock")];
    let certificates = match environment.get(OsStr::new(variables::DOCKER_TLS_CERTDIR)) {
        None => Some(Path::new(paths::CERTIFICATES)),
        // Set but empty means that there is no TLS.
        Some(folder) => Some(Path::new(folder)).filter(|_| !folder.is_empty()),
    };
    let certificates = certificates
        .map(|folder| folder.join("client"))
        .filter(|folder| ["ca.pem", "cert.pem", "key.pem"].iter().all(|file| has_text(&folder.join(file))));
    let (verifies, has_path) = (set("DOCKER_TLS_VERIFY").is_some(), set("DOCKER_CERT_PATH").is_some());
    let host = set("DOCKER_HOST").cloned().unwrap_or_else(|| {
        let mut url = OsString::from("unix://");
        match sockets.iter().find(|socket| is_socket(socket)) {
            Some(socket) => url.push(socket),
            None if certificates.is_some() || verifies => url = format!("tcp://{SERVICE}:{API_PORT}").into(),
            None => url = format!("tcp://{SERVICE}:{PLAIN_PORT}").into(),
        }
        url
    });
    if let Some(folder) = certificates
        && host.as_bytes().starts_with(b"tcp:")
        && !verifies
        && !has_path
    {
        environment.insert("DOCKER_TLS_VERIFY".into(), "1".into());
        environment.insert("DOCKER_CERT_PATH".into(), folder.into());
    }
    environment.insert("DOCKER_HOST".into(), host);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn what_is_dockers_has_docker_before_it() {
        for line in ["version", "compose up -d", "cp a b", "--version", "-H tcp://a:1 ps", "help"] {
            assert_eq!(complete(&words(line)), words(&format!("docker {line}")), "{line}");
        }
        for line in ["docker version", "sh -c version", "./version", "Version", "echo", ""] {
            assert_eq!(complete(&words(line)), words(line), "{line}");
        }
    }

    #[test]
    fn the_list_is_in_order() {
        assert!(COMMANDS.is_sorted());
    }

    /// Variables, files that are there, and where a client goes: `DOCKER_HOST`, and the folder of its certificate.
    #[test]
    fn a_client_goes_where_docker_dinds_would() {
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str, Option<&'a str>);
        const SOCKET: &str = "/var/run/docker.sock";
        const CLIENT: [&str; 3] = ["/certs/client/ca.pem", "/certs/client/cert.pem", "/certs/client/key.pem"];
        let rootless = "/run/user/1000/docker.sock";
        let moved = ["/tls/client/ca.pem", "/tls/client/cert.pem", "/tls/client/key.pem"];
        let table: [Row<'_>; 17] = [
            (&[], &[], "tcp://docker:2375", None),
            (&[], &CLIENT, "tcp://docker:2376", Some("/certs/client")),
            (&[], &CLIENT[..2], "tcp://docker:2375", None),
            (&[("DOCKER_TLS_CERTDIR", "/certs")], &CLIENT, "tcp://docker:2376", Some("/certs/client")),
            (&[("DOCKER_TLS_CERTDIR", "")], &CLIENT, "tcp://docker:2375", None),
            (&[("DOCKER_TLS_CERTDIR", "/tls")], &CLIENT, "tcp://docker:2375", None),
            (&[("DOCKER_TLS_CERTDIR", "/tls")], &moved, "tcp://docker:2376", Some("/tls/client")),
            // Who verifies by other means has them in the usual place, or says where.
            (&[("DOCKER_TLS_VERIFY", "1")], &[], "tcp://docker:2376", None),
            (&[("DOCKER_TLS_VERIFY", "1")], &CLIENT, "tcp://docker:2376", None),
            (&[("DOCKER_TLS_VERIFY", "")], &CLIENT, "tcp://docker:2376", Some("/certs/client")),
            (&[("DOCKER_CERT_PATH", "/mine")], &CLIENT, "tcp://docker:2376", Some("/mine")),
            // A socket needs no certificate, and what was named needs no guess.
            (&[], &[SOCKET, rootless, CLIENT[0], CLIENT[1], CLIENT[2]], "unix:///var/run/docker.sock", None),
            (&[], &[rootless], "unix:///run/user/1000/docker.sock", None),
            (&[("XDG_RUNTIME_DIR", "/x")], &["/x/docker.sock"], "unix:///x/docker.sock", None),
            (&[("DOCKER_HOST", "")], &[SOCKET], "unix:///var/run/docker.sock", None),
            (&[("DOCKER_HOST", "ssh://a")], &[SOCKET, CLIENT[0], CLIENT[1], CLIENT[2]], "ssh://a", None),
            (&[("DOCKER_HOST", "tcp://a:1")], &CLIENT, "tcp://a:1", Some("/certs/client")),
        ];
        for (variables, files, host, certificates) in table {
            let given = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            let is_there = |path: &Path| files.iter().any(|file| Path::new(file) == path);
            let led = lead(given, 1000, is_there, is_there);
            let get = |name: &str| led.get(OsStr::new(name)).and_then(|value| value.to_str());
            assert_eq!(
                (get("DOCKER_HOST"), get("DOCKER_CERT_PATH")),
                (Some(host), certificates),
                "{variables:?} {files:?}"
            );
            // TLS without a folder is docker's own affair.
            if certificates == Some("/certs/client") {
                assert_eq!(get("DOCKER_TLS_VERIFY"), Some("1"), "{variables:?} {files:?}");
            }
        }
    }
}
