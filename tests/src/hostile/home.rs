//! The home of somebody who uses the endpoint: with things in it that are not the command's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::command::Call;
use crate::dind::Dind;

/// Where the command keeps its state in it.
const STATE: &str = ".local/state/dind";
/// A host of which it has kept something, and which is no more.
pub const EARLIER: &str = "aaaaaaaaaaaaaaaa";

/// The home.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
    /// What it was, by path: its kind and mode, and its content.
    before: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Home {
    /// Makes it: with keys, notes and a link, and with what the command has kept of a host of this endpoint.
    ///
    /// # Panics
    /// When there is no `dind`.
    #[track_caller]
    pub fn new(docker_host: &str) -> Self {
        assert!(
            Dind::program().exists(),
            "there is no {}\n  help: ./quickstart --build",
            Dind::program().display()
        );
        let mut home =
            Self { folder: tempfile::tempdir().expect("a folder can be made"), before: BTreeMap::new() };
        let earlier = of_host(docker_host, EARLIER);
        for (file, content) in [
            (".ssh/known_hosts", "precious.example.com ssh-ed25519 AAAA\n"),
            (".ssh/id_ed25519", "a private key\n"),
            (".docker/config.json", "{}\n"),
            ("notes.txt", "precious\n"),
            ("work/deep/er/notes.txt", "more\n"),
            ("project/compose.yaml", "services: {web: {image: web}}\n"),
            // As `dind env` writes it, of a host that was on this endpoint, and a folder that is no host's.
            (&format!("{earlier}/name"), "earlier"),
            (&format!("{earlier}/id"), EARLIER),
            (&format!("{earlier}/endpoint"), docker_host),
            (&format!("{earlier}/ca.pem"), "a certificate\n"),
            (&format!("{STATE}/hosts/notes/endpoint"), docker_host),
        ] {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().expect("it is below the home")).expect("a folder can be made");
            fs::write(&path, content).expect("a file can be written");
        }
        fs::set_permissions(home.path().join(".ssh/id_ed25519"), fs::Permissions::from_mode(0o600))
            .expect("its mode can be set");
        symlink("notes.txt", home.path().join("link")).expect("a link can be made");
        home.before = home.now();
        home
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file that only a command that should not run would make.
    pub fn marker(&self) -> PathBuf {
        self.path().join("a-command-ran")
    }

    /// What the command keeps of the host with this id on this endpoint.
    pub fn kept(&self, docker_host: &str, id: &str) -> PathBuf {
        self.path().join(of_host(docker_host, id))
    }

    /// A folder of the command's that is no host's.
    pub fn notes(&self) -> PathBuf {
        self.path().join(STATE).join("hosts/notes")
    }

    /// Takes what it is now for what it was.
    pub fn settle(&mut self) {
        self.before = self.now();
    }

    /// A call of `dind` by its owner.
    pub fn dind<S: AsRef<str>>(&self, docker_host: &str, args: impl IntoIterator<Item = S>) -> Call {
        ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_TLS"]
            .into_iter()
            .fold(Call::new(&Dind::program().to_string_lossy()), Call::env_remove)
            .args(args)
            .env("DOCKER_HOST", docker_host)
            .env("HOME", self.path())
            .env("XDG_STATE_HOME", self.path().join(".local/state"))
            .env("DOCKER_CONFIG", self.path().join(".docker"))
            .folder(self.path())
    }

    /// How it differs from what it was when it was made, a line for each path.
    pub fn changes(&self) -> Vec<String> {
        let now = self.now();
        let gone = self.before.keys().filter(|path| !now.contains_key(*path));
        let gone = gone.map(|path| format!("{} is gone", path.display()));
        let other = now.iter().filter(|(path, it)| self.before.get(*path) != Some(*it));
        gone.chain(other.map(|(path, _)| format!("{} is new or changed", path.display()))).collect()
    }

    fn now(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            // The home itself may be gone.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let found = entry.metadata().expect("what is listed is there");
                let content = if found.is_dir() {
                    folders.push(path.clone());
                    Vec::new()
                } else if found.is_symlink() {
                    fs::read_link(&path).expect("a link can be read").into_os_string().into_encoded_bytes()
                } else {
                    fs::read(&path).expect("a file can be read")
                };
                all.insert(path, (found.mode(), content));
            }
        }
        all
    }
}

/// The folder of a host, below the home: it is named by the hash of its endpoint and its id.
fn of_host(docker_host: &str, id: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{docker_host} {id}").as_bytes());
    let name: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{STATE}/hosts/{name}")
}
