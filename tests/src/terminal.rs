//! A program on a terminal, as a person would see it: keys go in, and the screen is read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};

use crate::wait::until;

/// How many seconds the screen may take to show what is waited for.
const PATIENCE: u64 = 30;

/// A program and its terminal of 24 lines and 80 columns. The program is killed at the end of the test, if it has not ended.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<Screen>>,
}

struct Screen(vt100::Parser);

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.screen().contents())
    }
}

impl Terminal {
    /// Starts a program as the leader of a session on a new terminal.
    ///
    /// # Panics
    /// When there is no terminal, or no such program.
    #[track_caller]
    pub fn start<S: AsRef<str>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let pair = openpty(&size(24, 80), None).expect("a terminal can be made");
        let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor can be had twice"));
        let mut command = Command::new(program);
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned())).env("TERM", "xterm");
        command.stdin(side(&pair.slave)).stdout(side(&pair.slave)).stderr(side(&pair.slave));
        // SAFETY: setsid(2) and ioctl(2), whose TIOCSCTTY takes a number, are async-signal-safe, and allocate nothing.
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one of them is in the other")]
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                let taken = libc::ioctl(0, libc::TIOCSCTTY, 0);
                if taken == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().expect("the program can be started");
        // The last copy of the program's side of the terminal must be the program's.
        drop((command, pair.slave));
        let screen = Arc::new(Mutex::new(Screen(vt100::Parser::new(24, 80, 1000))));
        let keys = File::from(pair.master);
        let mut shown = keys.try_clone().expect("a descriptor can be had twice");
        let on = Arc::clone(&screen);
        // It ends when the terminal hangs up.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = shown.read(&mut piece) {
                on.lock().unwrap_or_else(PoisonError::into_inner).0.process(&piece[..length]);
            }
        });
        Self { child, keys, screen }
    }

    /// Types these keys; `\x03` is Ctrl-C, `\x1a` Ctrl-Z, `\n` the return key.
    ///
    /// # Panics
    /// When the terminal has hung up.
    #[track_caller]
    pub fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// What is on the screen now, without the spaces at the ends of lines.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).0.screen().contents()
    }

    /// Waits until a line of the screen has this text in it.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        until(&format!("{text:?} on the screen"), PATIENCE, || self.screen().contains(text).then_some(()));
    }

    /// Types these keys again and again until the screen shows the text. While a shell hands its terminal over, what is typed may
    /// get lost between its mode of reading and the next program's.
    #[track_caller]
    pub fn types_until(&mut self, keys: &str, text: &str) {
        until(&format!("{text:?} on the screen"), PATIENCE, || {
            self.types(keys);
            self.screen().contains(text).then_some(())
        });
    }

    /// Makes the window larger or smaller.
    ///
    /// # Panics
    /// When the terminal does not take it.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = size(rows, columns);
        // SAFETY: the kernel reads `size` for the whole call.
        let done = unsafe { libc::ioctl(self.keys.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).0.screen_mut().set_size(rows, columns);
    }

    /// Waits for the program's end; its exit code.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let child = &mut self.child;
        let status = until("the program to end", 60, || child.try_wait().expect("it can be waited for"));
        status.code().unwrap_or_else(|| panic!("a signal ended the program: {status}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen\n{}\n---", self.screen());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
