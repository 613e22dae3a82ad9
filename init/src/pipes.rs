//! Readers for pipes that a killed dockerd has left.
//!
//! dockerd opens the pipes of a program (a container, or a command or health check in one) for reading, and then asks for its start.
//! The containerd-shim opens them for writing once the program runs. If dockerd is killed in between, that open blocks for 30 s
//! (containerd, `process/exec.go`), with a lock held: the shim reports no process that ends meanwhile, and the next dockerd
//! waits for containers that have ended long ago. A reader lets the shim go on.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// The most pipes that are held open: fewer programs start in the same moment.
const MOST: usize = 256;

/// Opens the pipes in the folders of `folder`, one a container, that have no reader. The readers are to be kept until dockerd is
/// ready. Nothing here blocks; a pipe that cannot be opened is left as it is.
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

/// Opens a pipe for reading, unless it has a reader: a shim that has it open for writing keeps one itself.
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
        // Without O_NONBLOCK this would wait, as a shim does.
        assert!(open(OpenOptions::new().write(true), &alone).is_err());
        let held = readers(folder.path());
        assert_eq!(held.len(), 1);
        open(OpenOptions::new().write(true), &alone).unwrap();
        drop(has_reader);
        assert_eq!(readers(&folder.path().join("none")).len(), 0);
    }
}
