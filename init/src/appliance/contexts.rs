//! From what the application's own images are built, and whether that has changed. Compose builds an image that is not there; one that
//! is there it takes for good. A new version of an appliance finds the old version's images on its volume.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde_json::Value;

/// Deeper folders are not looked into: nobody's are, and links may lead in circles.
const DEEPEST: usize = 64;

/// What is built, and where it is written down what it was built from.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    file: PathBuf,
    fingerprint: Option<String>,
}

impl Contexts {
    /// Reads what `config`, as Compose has understood it, builds. `file`: where it is written down.
    pub(super) fn read(config: &Value, file: &Path) -> Self {
        Self { file: file.to_owned(), fingerprint: fingerprint(config) }
    }

    /// Whether images must be built anew.
    pub(super) fn have_changed(&self) -> bool {
        self.fingerprint.is_some() && fs::read_to_string(&self.file).ok() != self.fingerprint
    }

    /// They have been built from this.
    ///
    /// # Errors
    /// It cannot be written down: then they are built again at the next start.
    pub(super) fn built(&self) -> io::Result<()> {
        let Some(fingerprint) = &self.fingerprint else { return Ok(()) };
        if !self.have_changed() {
            return Ok(());
        }
        let new = self.file.with_extension("new");
        let mut written = File::create(&new)?;
        written.write_all(fingerprint.as_bytes())?;
        written.sync_all()?;
        fs::rename(new, &self.file)
    }
}

/// `None`: nothing is built.
fn fingerprint(config: &Value) -> Option<String> {
    let services = config.get("services")?.as_object()?;
    let mut digest = Context::new(&SHA256);
    let mut any = false;
    for (name, service) in services {
        let Some(build) = service.get("build") else { continue };
        any = true;
        digest.update(name.as_bytes());
        digest.update(build.to_string().as_bytes());
        let more = build.get("additional_contexts").and_then(Value::as_object);
        let places = build.get("context").into_iter().chain(more.into_iter().flat_map(|more| more.values()));
        // What is no folder here is fetched from elsewhere: whether that has changed is not known without asking.
        for place in places.filter_map(Value::as_str).map(Path::new).filter(|place| place.is_absolute()) {
            let _ = add(&mut digest, place, DEEPEST);
        }
    }
    any.then(|| digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds a file or folder with all that is in it: names, modes and contents, and no times, which every copy changes.
fn add(digest: &mut Context, path: &Path, depth: usize) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    digest.update(path.as_os_str().as_bytes());
    digest.update(&metadata.permissions().mode().to_be_bytes());
    if metadata.is_symlink() {
        digest.update(fs::read_link(path)?.as_os_str().as_bytes());
    } else if metadata.is_dir() && depth > 0 {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let _ = add(digest, &entry, depth - 1);
        }
    } else if metadata.is_file() {
        digest.update(&metadata.len().to_be_bytes());
        let mut file = File::open(path)?;
        let mut piece = vec![0; 64 * 1024];
        loop {
            match file.read(&mut piece)? {
                0 => break,
                length => digest.update(piece.get(..length).unwrap_or_default()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_built_from_something_else_is_built_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (context, file) = (folder.path().join("web"), folder.path().join("built"));
        fs::create_dir(&context).unwrap();
        fs::write(context.join("Dockerfile"), "FROM scratch").unwrap();
        let config =
            |target: &str| json!({"services": {"web": {"build": {"context": context, "target": target}}}});
        let read = |target: &str| Contexts::read(&config(target), &file);
        assert!(read("a").have_changed());
        read("a").built().unwrap();
        assert!(!read("a").have_changed());
        assert!(read("b").have_changed());
        fs::write(context.join("page"), "new").unwrap();
        assert!(read("a").have_changed());
        read("a").built().unwrap();
        fs::set_permissions(context.join("page"), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read("a").have_changed());
        std::os::unix::fs::symlink("page", context.join("link")).unwrap();
        read("a").built().unwrap();
        assert!(!read("a").have_changed());
    }

    #[test]
    fn where_nothing_is_built_nothing_is_built_anew() {
        let contexts = Contexts::read(&json!({"services": {"web": {"image": "web"}}}), Path::new("/nowhere"));
        assert!(!contexts.have_changed());
        contexts.built().unwrap();
        assert!(!Contexts::read(&Value::Null, Path::new("/nowhere")).have_changed());
    }
}
