//! Tar archives: how files get into containers, and directories to `docker build`.

use tar::{Builder, EntryType, Header};

/// A tar archive in the making. Everything in it belongs to root.
pub(crate) struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds a file; `path` may begin with a slash.
    pub(crate) fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        let path = path.trim_start_matches('/');
        self.0.append_data(&mut header, path, content).expect("a tar in memory takes every file");
        self
    }

    /// Adds a symbolic link.
    pub(crate) fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).expect("a tar in memory takes every link");
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("a tar in memory can be finished")
    }
}
