//! What runs under an init in the tests: it behaves well or badly, as its first argument says.

use std::fs;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["die", number] => number.parse().map_err(Into::into).and_then(die),
        ["hear"] => hear(),
        ["orphans", count] => count.parse().map_err(Into::into).and_then(orphans),
        ["describe"] => describe(),
        _ => Err(anyhow::anyhow!("child: what is {words:?}?")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("child: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Ends by this signal, by the kernel's number: the C library keeps some for itself.
fn die(number: i32) -> Result<()> {
    // No core files.
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is read for the whole call.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    let default = [0_usize; 4];
    // SAFETY: a zeroed kernel_sigaction is SIG_DFL with no flags and an empty mask; the kernel reads it and writes nothing.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            default.as_ptr(),
            std::ptr::null_mut::<u8>(),
            size_of::<u64>(),
        );
    }
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: kill(2) touches no memory.
    unsafe { libc::kill(pid, number) };
    bail!("signal {number} did not end it")
}

/// Says the number of each signal that comes; SIGTERM is the last.
fn hear() -> Result<()> {
    let all = u64::MAX;
    // SAFETY: the kernel reads the eight bytes of `all` and writes nothing.
    let blocked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const all,
            std::ptr::null_mut::<u64>(),
            8,
        )
    };
    ensure!(blocked == 0, "cannot block signals");
    say("ready");
    loop {
        // SAFETY: the kernel reads the eight bytes of `all`; no information and no time are asked for.
        let number = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const all,
                std::ptr::null_mut::<u8>(),
                std::ptr::null::<u8>(),
                8,
            )
        };
        say(&number.to_string());
        if number == i64::from(libc::SIGTERM) {
            return Ok(());
        }
    }
}

/// Leaves `count` processes to the init above, has all of them end at the same moment, and waits until none is left.
fn orphans(count: usize) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    let (go, going) = std::io::pipe()?;
    // SAFETY: there is one thread, so the child may do what it likes.
    let parent = unsafe { libc::fork() };
    if parent == 0 {
        drop(going);
        for _ in 0..count {
            // SAFETY: as above.
            let orphan = unsafe { libc::fork() };
            if orphan == 0 {
                drop(writer);
                let mut byte = [0_u8];
                // Ends when the last writer is gone.
                // SAFETY: `byte` is a place for one byte.
                unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&go), byte.as_mut_ptr().cast(), 1) };
                // SAFETY: ends this process.
                unsafe { libc::_exit(0) };
            }
            ensure!(orphan > 0, "cannot fork");
        }
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) };
    }
    ensure!(parent > 0, "cannot fork");
    let mut status = 0;
    // SAFETY: `status` is a place for an int.
    let waited = unsafe { libc::waitpid(parent, &raw mut status, 0) };
    ensure!(waited == parent && status == 0, "it could not fork them");
    drop((reader, writer, go));
    let init = nix::unistd::getppid().as_raw();
    ensure!(children(init)? > count, "they were not left to the init");
    drop(going);
    let deadline = Instant::now() + Duration::from_secs(50);
    while children(init)? > 1 {
        ensure!(Instant::now() < deadline, "{} are still there", children(init)?);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How many children a process has, those that have ended and were not reaped too.
fn children(of: i32) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).context("no list of children")?;
    Ok(text.split_whitespace().count())
}

/// Says what it has inherited: `NAME=VALUE`, a line each.
fn describe() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    for name in ["SigBlk", "SigIgn"] {
        let value =
            status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).context("no such line")?;
        // 32 to 34 are the C libraries' own.
        let value = u64::from_str_radix(value.trim(), 16)? & !(0b111 << 31);
        say(&format!("{name}={value:016x}"));
    }
    let mut open: Vec<u32> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| !target.starts_with("/proc")))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    open.sort_unstable();
    say(&format!("open={open:?}"));
    let (group, pid) = (nix::unistd::getpgrp(), nix::unistd::getpid());
    say(&format!("leads_its_group={}", group == pid));
    let foreground = nix::unistd::tcgetpgrp(std::io::stdin());
    say(&format!("foreground={}", foreground == Ok(group)));
    Ok(())
}
