//! Authorities that registries are trusted by beside the system's: those of a company, of a proxy that looks inside TLS.
//!
//! Go programs read one file of certificates, the one that `SSL_CERT_FILE` names or else the system's (crypto/x509): so dockerd
//! gets a file with both in it. It is read at dockerd's start only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dind_contract::paths;
use dind_contract::variables::DIND_CA_CERTIFICATES;
use x509_parser::pem::Pem;

use crate::failure::Failure;
use crate::ground::decision::Decision;
use crate::settings::Settings;

/// The system's own (Debian's ca-certificates).
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// What certificates are called in a folder.
const SUFFIXES: [&str; 3] = ["pem", "crt", "cer"];
/// No file with authorities is longer, in bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Certificates to trust, read and looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorities {
    /// Where they came from.
    source: PathBuf,
    /// How many there are.
    count: usize,
    /// They and the system's, as PEM.
    bundle: String,
}

impl Authorities {
    /// Reads what `DIND_CA_CERTIFICATES` names, if it does.
    ///
    /// # Errors
    /// It is not there, or has something else in it.
    pub(crate) fn read(settings: &Settings) -> Result<Option<Self>, Failure> {
        let Some(source) = settings.registries.authorities.clone() else { return Ok(None) };
        let mut bundle = String::new();
        let mut count = 0;
        for file in files(&source).map_err(|e| unreadable(&source, &e))? {
            let text = read(&file).map_err(|e| unreadable(&file, &e))?;
            let found = certificates(&text).map_err(|why| refused(&file, &why))?;
            count += found;
            bundle.push_str(&text);
            bundle.push('\n');
        }
        if count == 0 {
            return Err(refused(&source, "has no certificate in it"));
        }
        let system = settings.environment.get("SSL_CERT_FILE").map_or(Path::new(SYSTEM), Path::new);
        // An image may have none.
        match read(system) {
            Ok(text) => bundle.push_str(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(system, &e)),
        }
        Ok(Some(Self { source, count, bundle }))
    }

    /// What is done with them.
    pub(crate) fn decide(&self) -> Decision {
        let plural = if self.count == 1 { "certificate" } else { "certificates" };
        let mut decision = Decision::good(
            "authorities",
            format!("{} {plural} in {}", self.count, self.source.display()),
            "trusted by dockerd beside the system's own",
        )
        .because(format!("{DIND_CA_CERTIFICATES} names them"));
        decision.environment.insert("SSL_CERT_FILE".to_owned(), OsString::from(paths::AUTHORITIES));
        decision
    }

    /// Puts them where dockerd finds them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn install(&self) -> Result<(), Failure> {
        fs::write(paths::AUTHORITIES, &self.bundle).map_err(|e| {
            Failure::unavailable(
                format!("cannot write {}: {e}", paths::AUTHORITIES),
                "give the host a writable /run",
            )
        })
    }
}

/// The file itself, or the certificates in the folder. Links to folders and hidden files (as Kubernetes has them beside what
/// it mounts) are passed over.
fn files(source: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(source)?.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_named = path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known));
        if is_named && !is_hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> io::Result<String> {
    let about = fs::metadata(file)?;
    // A pipe would keep us waiting for ever.
    if !about.is_file() || about.len() > LONGEST {
        return Err(io::Error::other("it is not a file of certificates"));
    }
    fs::read_to_string(file)
}

/// How many certificates are in a text, or what is wrong with it.
fn certificates(text: &str) -> Result<usize, String> {
    let mut count = 0;
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        let pem = pem.map_err(|_| "is not PEM".to_owned())?;
        if pem.label.ends_with("PRIVATE KEY") {
            return Err("has a private key in it, which has no place there".to_owned());
        }
        if pem.label != "CERTIFICATE" {
            continue;
        }
        pem.parse_x509()
            .map_err(|_| format!("is damaged: certificate {} in it cannot be read", count + 1))?;
        count += 1;
    }
    Ok(count)
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::usage(
        format!("{DIND_CA_CERTIFICATES}: {} {why}", path.display()),
        "give it certificates of authorities as PEM: a file, or a folder of .pem, .crt or .cer files",
    )
}

fn unreadable(path: &Path, e: &io::Error) -> Failure {
    Failure::usage(
        format!("{DIND_CA_CERTIFICATES}: cannot read {}: {e}", path.display()),
        "mount a readable file or folder of certificates there (-v), or leave the variable out",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem()
    }

    fn settings(path: &Path, system: &Path) -> Settings {
        let environment =
            [(DIND_CA_CERTIFICATES.into(), path.into()), ("SSL_CERT_FILE".into(), system.into())];
        Settings::load(environment, &[], |_| Ok(None)).unwrap()
    }

    #[test]
    fn a_file_or_a_folder_joins_the_systems_own() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (certificate(), certificate());
        let system = folder.path().join("system");
        fs::write(&system, "# the system's\n").unwrap();
        fs::write(folder.path().join("a.pem"), one.clone() + &two).unwrap();
        fs::write(folder.path().join("b.crt"), &two).unwrap();
        fs::write(folder.path().join(".hidden.pem"), "not a certificate").unwrap();
        fs::write(folder.path().join("README"), "not a certificate").unwrap();
        for (path, count) in [(folder.path().join("a.pem"), 2), (folder.path().to_owned(), 3)] {
            let read = Authorities::read(&settings(&path, &system)).unwrap().unwrap();
            assert_eq!(read.count, count);
            assert!(read.bundle.contains(&one) && read.bundle.ends_with("# the system's\n"));
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let good = certificate();
        let damaged = good.replacen("MII", "AAA", 1);
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (text, why) in [
            ("".to_owned(), "no certificate"),
            ("hello".to_owned(), "no certificate"),
            (damaged, "damaged"),
            (good.clone() + &key, "private key"),
            (good[..good.len() / 2].to_owned(), "not PEM"),
        ] {
            let file = folder.path().join("ca.pem");
            fs::write(&file, text).unwrap();
            let failure = Authorities::read(&settings(&file, &file)).unwrap_err();
            assert_eq!(failure.code, 64);
            assert!(failure.cause.contains(why) && failure.cause.contains("ca.pem"), "{}", failure.cause);
        }
        let nowhere = folder.path().join("nowhere");
        let failure = Authorities::read(&settings(&nowhere, &nowhere)).unwrap_err();
        assert!(failure.cause.contains("nowhere"), "{}", failure.cause);
    }
}
