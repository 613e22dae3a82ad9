//! A certificate and its key in files that are whole or not there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Ending of a file that is being written.
const UNFINISHED: &str = ".unfinished";

/// Who may read a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Access {
    /// Root.
    Ours,
    /// Root and this group id.
    Group(u32),
}

/// A folder with `cert.pem`, `key.pem` and perhaps `ca.pem`. What a killed run left half-written counts as not there.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    folder: PathBuf,
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    /// Whether one of them is there and half-written.
    pub(super) is_half: bool,
}

impl Pair {
    pub(super) fn empty(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ca: None, cert: None, key: None, is_half: false }
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        let mut pair = Self::empty(folder);
        for (name, place) in
            [("ca.pem", &mut pair.ca), ("cert.pem", &mut pair.cert), ("key.pem", &mut pair.key)]
        {
            let text = read(&folder.join(name))?;
            pair.is_half |= text.as_deref().is_some_and(is_half);
            *place = text.filter(|text| !is_half(text));
        }
        Ok(pair)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }

    /// Whether anything whole is there.
    pub(super) fn is_any(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    pub(super) fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    pub(super) fn ca_path(&self) -> String {
        self.folder.join("ca.pem").display().to_string()
    }

    pub(super) fn cert_path(&self) -> String {
        self.folder.join("cert.pem").display().to_string()
    }

    pub(super) fn key_path(&self) -> String {
        self.folder.join("key.pem").display().to_string()
    }

    /// A path beside the pair's folder.
    pub(super) fn beside(&self, path: &str) -> String {
        self.folder.with_file_name(path).display().to_string()
    }

    /// Replaces the pair: the old certificate goes first and the new one comes last.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(super) fn write(
        &self,
        ca: Option<&str>,
        cert: &str,
        key: &str,
        access: Access,
    ) -> Result<(), Failure> {
        let cannot = |e: io::Error| cannot_write(&self.folder, &e);
        let folder_mode = if matches!(access, Access::Ours) { 0o700 } else { 0o755 };
        fs::create_dir_all(&self.folder).map_err(cannot)?;
        fs::set_permissions(&self.folder, Permissions::from_mode(folder_mode)).map_err(cannot)?;
        remove(&self.folder.join("cert.pem"))?;
        replace(&self.folder.join("key.pem"), key, access, true).map_err(cannot)?;
        if let Some(ca) = ca {
            replace(&self.folder.join("ca.pem"), ca, access, false).map_err(cannot)?;
        }
        replace(&self.folder.join("cert.pem"), cert, access, false).map_err(cannot)
    }
}

/// A file's text, if there is one.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        // A file where a folder should be shows when it is written to.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Failure::usage(
            format!("cannot read {}: {e}", path.display()),
            "make it a readable file, or remove it to have a new one made",
        )),
    }
}

/// Whether a text is only the first part of a PEM block, or of nothing.
fn is_half(text: &str) -> bool {
    text.trim().is_empty() || (text.contains("-----BEGIN") && !text.contains("-----END"))
}

/// Writes a file under another name, brings it to the disk, and gives it its name.
fn replace(path: &Path, text: &str, access: Access, secret: bool) -> io::Result<()> {
    let unfinished = PathBuf::from(format!("{}{UNFINISHED}", path.display()));
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    let mode = match (secret, access) {
        (false, _) => 0o644,
        (true, Access::Ours) => 0o600,
        (true, Access::Group(group)) => {
            // Some shared folders know no owners; then root alone reads the key.
            if chown(&unfinished, None, Some(group)).is_ok() { 0o640 } else { 0o600 }
        }
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Removes a file, if it is there.
///
/// # Errors
/// It is there and stays.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(cannot_write(path, &e)),
        _ => Ok(()),
    }
}

/// Removes what a killed run was writing.
pub(super) fn remove_unfinished(folder: &Path) {
    for part in ["ca", "server", "client"] {
        let Ok(entries) = fs::read_dir(folder.join(part)) else { continue };
        for entry in
            entries.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(UNFINISHED))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn cannot_write(path: &Path, e: &io::Error) -> Failure {
    let help = match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "let DOCKER_TLS_CERTDIR name a folder",
        _ => {
            "mount a writable folder there, set DOCKER_TLS_CERTDIR to another, or bring a whole set of certificates"
        }
    };
    Failure::unavailable(format!("cannot write certificates to {}: {e}", path.display()), help)
}
