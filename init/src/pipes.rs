//! The pipes of programs whose start dockerd did not live to see.
//!
//! A containerd-shim that starts a program (a container, or a command or health check in one) opens its pipes for writing and waits
//! until dockerd has them open for reading, which it has before it asks. If dockerd is killed between the two, the shim waits for
//! 30 s (containerd, `process/exec.go`), and meanwhile tells nobody of any process that ends: neither SIGTERM nor SIGKILL
//! seem to help, so the next dockerd waits that long for the container. The reader that is missing is put there here.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// How many are held open at most: so many programs do not start in the same moment.
const MOST: usize = 256;

/// Readers for the pipes in `folder`, which has a folder a container, that nobody has open; to be held until dockerd is back.
pub(crate) fn readers(folder: &Path) -> Vec<File> {
    let names = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    names(folder)
        .filter(|container| container.file_type().is_ok_and(|kind| kind.is_dir()))
        .flat_map(|container| names(&container.path()))
        .filter(|pipe| pipe.file_type().is_ok_and(|kind| kind.is_fifo()))
        .filter_map(|pipe| reader(&pipe.path()))
        .take(MOST)
        .collect()
}

/// A reader for a pipe, unless it has one: a shim that has opened a pipe reads it, too.
fn reader(pipe: &Path) -> Option<File> {
    let open =
        |options: &mut OpenOptions| options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(pipe);
    match open(OpenOptions::new().write(true)) {
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => open(OpenOptions::new().read(true)).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_writer_finds_a_reader_and_a_pipe_that_has_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let container = folder.path().join("c0ffee");
        fs::create_dir(&container).unwrap();
        fs::write(folder.path().join("containerd.toml"), "").unwrap();
        fs::write(container.join("config.json"), "").unwrap();
        let [alone, read] = ["exec-stdout", "init-stdout"].map(|name| container.join(name));
        for pipe in [&alone, &read] {
            mkfifo(pipe, Mode::S_IRWXU).unwrap();
        }
        std::os::unix::fs::symlink(&alone, container.join("link-stdout")).unwrap();
        let open = |options: &mut OpenOptions, pipe| options.custom_flags(libc::O_NONBLOCK).open(pipe);
        let has_reader = open(OpenOptions::new().read(true), &read).unwrap();
        // One that may block would wait.
        assert!(open(OpenOptions::new().write(true), &alone).is_err());
        let held = readers(folder.path());
        assert_eq!(held.len(), 1);
        open(OpenOptions::new().write(true), &alone).unwrap();
        drop(has_reader);
        assert_eq!(readers(&folder.path().join("none")).len(), 0);
    }
}
