//! Completions and man pages, from the definition of the command line itself.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::args::Line;
use crate::failure::{Failure, Result};
use crate::output;

/// Prints the completions of a shell.
///
/// # Errors
/// They cannot be written.
pub(crate) fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "dind", &mut text);
    output::print(&String::from_utf8_lossy(&text))
}

/// Writes a man page for each command.
///
/// # Errors
/// The folder is not there, or cannot be written.
pub(crate) fn pages(folder: &Path) -> Result<()> {
    let mut command = Line::command();
    command.build();
    let mut written = Vec::new();
    page(&command, folder, &mut written)?;
    for subcommand in command.get_subcommands() {
        page(subcommand, folder, &mut written)?;
    }
    output::print(&written.iter().map(|file| format!("{file}\n")).collect::<String>())
}

fn page(command: &Command, folder: &Path, written: &mut Vec<String>) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let file = folder.join(format!("{name}.1"));
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut text);
    rendered.and_then(|()| std::fs::write(&file, text)).map_err(|e| {
        Failure::new(
            format!("cannot write {}: {e}", file.display()),
            "name a folder that is there and can be written",
        )
    })?;
    written.push(file.display().to_string());
    Ok(())
}
